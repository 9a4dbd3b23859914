//! Larum's own metrics: made from the signal list, kept in a `prometheus` registry, written into the same text.

use larum_view::Signal;
use prometheus::{
    Encoder, Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
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

/// Everything in the registry as text format 0.0.4, behind what `text` holds already.
pub fn write(registry: &Registry, text: &mut Vec<u8>) {
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), text) {
        tracing::error!(%error, "own metrics cannot be written");
    }
}
