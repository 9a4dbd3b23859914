//! Larum's own metrics: made from the signal list, kept in a `prometheus` registry, shown to the same sink.

use larum_view::signals::{SIGNALS, SignalType};
use larum_view::{ClassicRead, Label, Signal, Sink, Value};
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

fn opts(signal: &Signal) -> Opts {
    Opts::new(signal.name, signal.help)
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: C) -> Result<C, Error> {
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

/// A counter with the signal's labels.
///
/// # Errors
/// The name is taken.
pub fn counters(registry: &Registry, signal: &Signal) -> Result<IntCounterVec, Error> {
    register(registry, IntCounterVec::new(opts(signal), signal.labels)?)
}

/// A whole-number gauge with the signal's labels.
///
/// # Errors
/// The name is taken.
pub fn int_gauges(registry: &Registry, signal: &Signal) -> Result<IntGaugeVec, Error> {
    register(registry, IntGaugeVec::new(opts(signal), signal.labels)?)
}

/// A gauge with the signal's labels.
///
/// # Errors
/// The name is taken.
pub fn gauges(registry: &Registry, signal: &Signal) -> Result<GaugeVec, Error> {
    register(registry, GaugeVec::new(opts(signal), signal.labels)?)
}

/// A gauge without labels.
///
/// # Errors
/// The name is taken.
pub fn gauge(registry: &Registry, signal: &Signal) -> Result<Gauge, Error> {
    register(registry, Gauge::with_opts(opts(signal))?)
}

/// A whole-number gauge without labels.
///
/// # Errors
/// The name is taken.
pub fn int_gauge(registry: &Registry, signal: &Signal) -> Result<IntGauge, Error> {
    register(registry, IntGauge::with_opts(opts(signal))?)
}

/// A histogram of seconds without labels, 1 ms to 65 s.
///
/// # Errors
/// The name is taken.
pub fn histogram(registry: &Registry, signal: &Signal) -> Result<Histogram, Error> {
    let buckets = exponential_buckets(0.001, 2.0, 17)?;
    register(registry, Histogram::with_opts(HistogramOpts::new(signal.name, signal.help).buckets(buckets))?)
}

/// Shows everything in the registry; counters started at `started_ns`, Unix ns, with the process.
pub fn visit(registry: &Registry, started_ns: i64, sink: &mut impl Sink) {
    sink.scope(&[], Some(started_ns));
    for family in registry.gather() {
        let Some(signal) = SIGNALS.iter().find(|signal| signal.name == family.name()) else {
            debug_assert!(false, "{} is not in the signal list", family.name());
            continue;
        };
        let place = sink.family(signal);
        for metric in family.get_metric() {
            let text = |name: &&'static str| {
                let pair = metric.get_label().iter().find(|pair| pair.name() == *name);
                (*name, pair.map_or("", |pair| pair.value()))
            };
            let labels: Vec<Label<'_>> = signal.labels.iter().map(text).collect();
            match signal.kind {
                SignalType::Counter => sink.sample(place, &labels, number(metric.get_counter().get_value())),
                SignalType::Gauge => sink.sample(place, &labels, number(metric.get_gauge().get_value())),
                SignalType::Histogram => {
                    let histogram = metric.get_histogram();
                    let buckets: Vec<(f64, u64)> =
                        histogram.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
                    let (sum, count) = (histogram.get_sample_sum(), histogram.get_sample_count());
                    sink.classic(place, &labels, ClassicRead { buckets: &buckets, sum, count });
                }
            }
        }
    }
}

/// Whole numbers as such: they are written without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::Int(value as i64) } else { Value::Float(value) }
}
