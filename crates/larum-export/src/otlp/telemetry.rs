//! Larum's own traces and log records, through OpenTelemetry's SDK over the same link as metrics.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hyper::body::Bytes;
use hyper::http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, LogExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tonic::metadata::MetadataMap;

use super::send::Client;

/// Most bytes of a collector's answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Time for what waits, at the end.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// One thing to be told as a log record, with times and trace of its own.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What sort of thing it is.
    pub event: &'static str,
    /// In plain words.
    pub text: String,
    /// When it happened, Unix ns.
    pub time_ns: i64,
    /// When Larum knew, Unix ns.
    pub observed_ns: i64,
    /// W3C ids of where it belongs.
    pub trace: Option<([u8; 16], [u8; 8])>,
    /// More about it.
    pub attributes: Vec<(&'static str, String)>,
}

/// Sends spans and log records in batches, from threads of its own.
pub struct Telemetry {
    spans: SdkTracerProvider,
    records: SdkLoggerProvider,
}

/// The link's HTTP client for the SDK, whose threads may wait for it.
#[derive(Debug)]
struct Waiting(ureq::Agent);

#[async_trait]
impl HttpClient for Waiting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let mut request = self.0.post(parts.uri.to_string());
        for (name, value) in &parts.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(&body[..])?;
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        let mut response = Response::builder().status(answer.status().as_u16()).body(Bytes::from(bytes))?;
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

impl Telemetry {
    /// Over the link of `client`, as this version and instance; `share` of the traces is sent. Call within a runtime.
    ///
    /// # Errors
    /// The SDK cannot be set up.
    pub fn new(client: &Client, version: &'static str, instance: &str, share: f64) -> Result<Telemetry, String> {
        let wrong = |error: opentelemetry_otlp::ExporterBuildError| error.to_string();
        let (spans, records) = match client {
            Client::Grpc { channel, headers, gzip } => {
                let mut metadata = MetadataMap::new();
                for (name, value) in headers {
                    metadata.insert(name.clone(), value.clone());
                }
                let mut spans =
                    SpanExporter::builder().with_tonic().with_channel(channel.clone()).with_metadata(metadata.clone());
                let mut records =
                    LogExporter::builder().with_tonic().with_channel(channel.clone()).with_metadata(metadata);
                if *gzip {
                    (spans, records) =
                        (spans.with_compression(Compression::Gzip), records.with_compression(Compression::Gzip));
                }
                (spans.build().map_err(wrong)?, records.build().map_err(wrong)?)
            }
            Client::Http { agent, url, headers, gzip } => {
                let headers: HashMap<String, String> = headers.iter().cloned().collect();
                let client = || Waiting(agent.clone());
                let mut spans = SpanExporter::builder().with_http().with_http_client(client());
                let mut records = LogExporter::builder().with_http().with_http_client(client());
                if *gzip {
                    (spans, records) =
                        (spans.with_compression(Compression::Gzip), records.with_compression(Compression::Gzip));
                }
                let spans = spans.with_headers(headers.clone()).with_endpoint(format!("{url}/v1/traces"));
                let records = records.with_headers(headers).with_endpoint(format!("{url}/v1/logs"));
                (spans.build().map_err(wrong)?, records.build().map_err(wrong)?)
            }
        };
        let about =
            [KeyValue::new("service.version", version), KeyValue::new("service.instance.id", instance.to_string())];
        let resource = Resource::builder_empty().with_service_name("larum").with_attributes(about).build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        Ok(Telemetry {
            spans: SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                .with_sampler(sampler)
                .with_resource(resource.clone())
                .build(),
            records: SdkLoggerProvider::builder().with_batch_exporter(records).with_resource(resource).build(),
        })
    }

    /// Makes spans.
    pub fn tracer(&self) -> SdkTracer {
        self.spans.tracer("larum")
    }

    /// Sends a log record, soon.
    pub fn tell(&self, told: Told) {
        let logger = self.records.logger("larum");
        let mut record = logger.create_log_record();
        let time = |ns: i64| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.max(0) as u64);
        record.set_event_name(told.event);
        record.set_timestamp(time(told.time_ns));
        record.set_observed_timestamp(time(told.observed_ns));
        record.set_severity_number(Severity::Info);
        record.set_severity_text("INFO");
        record.set_body(AnyValue::from(told.text));
        if let Some((trace_id, span_id)) = told.trace {
            record.set_trace_context(
                TraceId::from_bytes(trace_id),
                SpanId::from_bytes(span_id),
                Some(TraceFlags::SAMPLED),
            );
        }
        record.add_attributes(told.attributes);
        logger.emit(record);
    }

    /// Sends what waits, as far as there is time; may wait.
    pub fn finish(&self) {
        // A collector that is not there is no news at the end.
        let _ = self.records.shutdown_with_timeout(LAST_WITHIN);
        let _ = self.spans.shutdown_with_timeout(LAST_WITHIN);
    }
}
