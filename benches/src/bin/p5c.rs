//! P5c: writing a push of the state of P5 as OTLP, per series, over the OpenTelemetry SDK's collect + encode of as many
//! streams as it holds: 2,000 an instrument, counters and exponential histograms in the proportion of the state.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use larum_benches::{REPETITIONS, Saturated, median, saturated, time};
use larum_export::otlp::OtlpWriter;
use larum_export::writers;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, ManualReader, Pipeline as Metrics, SdkMeterProvider, Stream, Temporality,
};
use prost::Message as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Streams of an instrument of the SDK, one below its limit: the last is for the overflow.
const STREAMS: usize = 1_999;
/// Instruments of the SDK.
const INSTRUMENTS: usize = 10;
/// Values recorded in each stream.
const VALUES: usize = 30;

/// A reader that is asked after it was handed over.
#[derive(Clone, Debug)]
struct Asked(Arc<ManualReader>);

impl MetricReader for Asked {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Metrics>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// Points of number and of histogram form.
fn points(requests: &[impl AsRef<[u8]>]) -> anyhow::Result<(usize, usize)> {
    let (mut numbers, mut histograms) = (0, 0);
    for request in requests {
        let request = ExportMetricsServiceRequest::decode(request.as_ref())?;
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            match metric.data {
                Some(Data::Gauge(gauge)) => numbers += gauge.data_points.len(),
                Some(Data::Sum(sum)) => numbers += sum.data_points.len(),
                Some(Data::ExponentialHistogram(histogram)) => histograms += histogram.data_points.len(),
                Some(Data::Histogram(histogram)) => histograms += histogram.data_points.len(),
                _ => {}
            }
        }
    }
    Ok((numbers, histograms))
}

/// An SDK whose streams hold as much as it lets them; `share` of the instruments are histograms.
fn sdk(share: f64) -> (SdkMeterProvider, Asked) {
    let reader = Asked(Arc::new(ManualReader::builder().with_temporality(Temporality::Cumulative).build()));
    let exponential = |instrument: &Instrument| {
        let aggregation = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 3, record_min_max: false };
        let is_one = instrument.kind() == InstrumentKind::Histogram;
        is_one.then(|| Stream::builder().with_aggregation(aggregation).build().ok()).flatten()
    };
    let provider = SdkMeterProvider::builder().with_reader(reader.clone()).with_view(exponential).build();
    let meter = provider.meter("floor");
    let histograms = (share * INSTRUMENTS as f64).round() as usize;
    for number in 0..INSTRUMENTS {
        let (counter, histogram) = (
            meter.u64_counter(format!("counter{number}")).build(),
            meter.f64_histogram(format!("histogram{number}")).build(),
        );
        for stream in 0..STREAMS {
            let labels = [
                KeyValue::new("source", "auth"),
                KeyValue::new("tenant", format!("tenant-{stream:05}")),
                KeyValue::new("region", "eu-west-1"),
                KeyValue::new("outcome", "failure"),
            ];
            for value in 0..VALUES {
                match number < histograms {
                    true => histogram.record(0.01 * 1.15_f64.powi(value as i32), &labels),
                    false => counter.add(value as u64, &labels),
                }
            }
        }
    }
    (provider, reader)
}

fn main() -> anyhow::Result<()> {
    let mut state = saturated()?;
    let mut writers = writers(|| OtlpWriter::new("0", "bench"));
    let mut ours = |state: &mut Saturated| {
        writers.iter_mut().for_each(|writer| writer.begin(state.now_ns));
        state.visit(&mut writers);
        OtlpWriter::finish(&mut writers)
    };
    let (numbers, histograms) = points(&ours(&mut state))?;
    let (_provider, reader) = sdk(histograms as f64 / (numbers + histograms) as f64);
    let floor = || {
        let mut metrics = ResourceMetrics::default();
        reader.collect(&mut metrics).is_ok().then(|| ExportMetricsServiceRequest::from(&metrics).encode_to_vec())
    };
    let (of_sdk, of_sdk_histograms) = points(&[floor().unwrap_or_default()])?;
    println!(
        "Larum: {numbers} points and {histograms} histograms; SDK: {of_sdk} points and {of_sdk_histograms} histograms"
    );
    let (mut floors, mut figures) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        floors.push(time(|| black_box(floor())).0.as_secs_f64() / (of_sdk + of_sdk_histograms) as f64);
        state.go_on();
        figures.push(time(|| black_box(ours(&mut state))).0.as_secs_f64() / (numbers + histograms) as f64);
    }
    let ns = |figures: &[f64]| median(figures) * 1e9;
    println!("SDK {:.0} ns a series, Larum {:.0} ns a series (medians)", ns(&floors), ns(&figures));
    println!("P5c {:.4}", median(&figures) / median(&floors));
    Ok(())
}
