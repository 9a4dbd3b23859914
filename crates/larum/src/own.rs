//! Larum's own metrics, made from the signal list.

use larum_aggregate::NameKind;
use larum_export::otlp::Counts;
use larum_export::own;
use larum_fold::Registry as Names;
use larum_view::signals;
use prometheus::core::Collector as _;
use prometheus::{Gauge, GaugeVec, Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::clock::now_ns;
use crate::shared::Shared;
use std::sync::atomic::{AtomicU64, Ordering};

/// Handles of Larum's own metrics.
pub struct OwnMetrics {
    /// Where they are kept.
    pub registry: Registry,
    /// When the process began, Unix ns: its counters started then.
    pub started_ns: i64,
    /// Commits by result.
    pub commits: IntCounterVec,
    /// Time of commits.
    pub commit_seconds: Histogram,
    /// Time from append to visible.
    pub visible_seconds: Histogram,
    /// Records between durable and end, by partition.
    pub lag: IntGaugeVec,
    /// Size of the store.
    pub store_bytes: IntGauge,
    /// Commits fail.
    pub store_stalled: IntGauge,
    /// Refused records by what became of them.
    pub dead_letters: IntCounterVec,
    /// Records that watched groups have not committed.
    pub group_backlog: IntGaugeVec,
    /// Age of the oldest of them.
    pub group_lag: GaugeVec,
    /// How the groups fare.
    pub group_state: IntGaugeVec,
    /// Time of scrapes.
    pub scrape_seconds: Histogram,
    /// Memory that counts take.
    pub counts_bytes: Gauge,
    /// Memory that they may take.
    pub counts_bytes_max: Gauge,
    /// Memory is full: nobody new gets a slot.
    pub admission_closed: IntGauge,
    otlp_requests: IntCounterVec,
    otlp_rejected: IntCounterVec,
    alertmanager_requests: IntCounterVec,
    outbox_bytes: Gauge,
    names_held: IntGaugeVec,
    names_budget: IntGaugeVec,
    names_refused: IntCounterVec,
    client_errors: IntCounterVec,
}

impl OwnMetrics {
    /// All of them, at 0.
    ///
    /// # Errors
    /// A name is there twice, which a test would have shown.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        own::int_gauges(r, &signals::BUILD_INFO)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(OwnMetrics {
            started_ns: now_ns(),
            commits: own::counters(r, &signals::COMMITS)?,
            commit_seconds: own::histogram(r, &signals::COMMIT_SECONDS)?,
            visible_seconds: own::histogram(r, &signals::VISIBLE_SECONDS)?,
            lag: own::int_gauges(r, &signals::LAG)?,
            store_bytes: own::int_gauge(r, &signals::STORE_BYTES)?,
            store_stalled: own::int_gauge(r, &signals::STORE_STALLED)?,
            dead_letters: own::counters(r, &signals::DEAD_LETTERS)?,
            group_backlog: own::int_gauges(r, &signals::CONSUMER_BACKLOG)?,
            group_lag: own::gauges(r, &signals::CONSUMER_LAG)?,
            group_state: own::int_gauges(r, &signals::CONSUMER_STATE)?,
            scrape_seconds: own::histogram(r, &signals::SCRAPE_SECONDS)?,
            counts_bytes: own::gauge(r, &signals::COUNTS_BYTES)?,
            counts_bytes_max: own::gauge(r, &signals::COUNTS_BYTES_MAX)?,
            admission_closed: own::int_gauge(r, &signals::ADMISSION_CLOSED)?,
            otlp_requests: own::counters(r, &signals::OTLP_REQUESTS)?,
            otlp_rejected: own::counters(r, &signals::OTLP_REJECTED)?,
            alertmanager_requests: own::counters(r, &signals::ALERTMANAGER_REQUESTS)?,
            outbox_bytes: own::gauge(r, &signals::OUTBOX_BYTES)?,
            names_held: own::int_gauges(r, &signals::NAMES_HELD)?,
            names_budget: own::int_gauges(r, &signals::NAMES_BUDGET)?,
            names_refused: own::counters(r, &signals::NAMES_REFUSED)?,
            client_errors: own::counters(r, &signals::CLIENT_ERRORS)?,
            registry,
        })
    }

    /// Shows nothing more of a watched group in a partition.
    pub fn forget_group(&self, labels: &[&str]) {
        // Fails for what was never shown.
        let _ = self.group_backlog.remove_label_values(labels);
        let _ = self.group_lag.remove_label_values(labels);
        let _ = self.group_state.remove_label_values(labels);
    }

    /// Takes over what became of pushes.
    pub fn refresh_otlp(&self, counts: &Counts) {
        let results = [
            ("sent", &counts.sent),
            ("retried", &counts.retried),
            ("failed", &counts.failed),
            ("dropped", &counts.dropped),
        ];
        for (result, count) in results {
            raise(&self.otlp_requests, &[result], count.load(Ordering::Relaxed));
        }
        raise(&self.otlp_rejected, &[], counts.rejected.load(Ordering::Relaxed));
    }

    /// Takes over what became of requests to Alertmanagers.
    pub fn refresh_alerts(&self, counts: &larum_export::alertmanager::Counts) {
        let results = [
            ("sent", &counts.sent),
            ("retried", &counts.retried),
            ("refused", &counts.refused),
            ("replaced", &counts.replaced),
        ];
        for (result, count) in results {
            raise(&self.alertmanager_requests, &[result], count.load(Ordering::Relaxed));
        }
    }

    /// Pushes and alerts that were given up or lost since the start.
    pub fn pushes_failed(&self) -> u64 {
        let of = |result| self.otlp_requests.with_label_values(&[result]).get();
        of("failed") + of("dropped") + self.alertmanager_requests.with_label_values(&["refused"]).get()
    }

    /// Watched groups by partition: labels (source, group, topic, partition), state, lag in seconds.
    pub fn consumers(&self) -> Vec<([String; 4], i64, f64)> {
        let mut consumers = Vec::new();
        for family in self.group_state.collect() {
            for metric in family.get_metric() {
                let of =
                    |name: &str| metric.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value());
                let labels = ["source", "group", "topic", "partition"].map(|name| of(name).unwrap_or("").to_string());
                let lag_s = self.group_lag.with_label_values(&labels.each_ref().map(String::as_str)).get();
                consumers.push((labels, metric.get_gauge().get_value() as i64, lag_s));
            }
        }
        consumers
    }

    /// Takes over what other parts count in atomics of their own.
    pub fn refresh(&self, shared: &Shared, names: Option<&Names>) {
        let value = |atomic: &AtomicU64| atomic.load(Ordering::Relaxed);
        raise(&self.dead_letters, &["dropped"], value(&shared.dead_letters_dropped));
        raise(&self.client_errors, &["transport"], value(&shared.clients.transport));
        raise(&self.client_errors, &["authentication"], value(&shared.clients.authentication));
        raise(&self.client_errors, &["other"], value(&shared.clients.other));
        self.outbox_bytes.set(value(&shared.outbox_bytes) as f64);
        let Some(names) = names else { return };
        let of_kind = |kind: NameKind| (kind.as_str(), names.usage(kind), names.budget(kind));
        let usages = NameKind::ALL.into_iter().map(of_kind);
        for (kind, usage, budget) in usages.chain([("key", names.key_usage(), names.key_budget())]) {
            self.names_held.with_label_values(&[kind]).set(usage.held() as i64);
            self.names_budget.with_label_values(&[kind]).set(budget as i64);
            raise(&self.names_refused, &[kind], usage.refused());
        }
    }
}

/// Raises a counter to what another counts.
fn raise(counters: &IntCounterVec, labels: &[&str], to: u64) {
    let counter = counters.with_label_values(labels);
    counter.inc_by(to.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_metric_is_in_the_signal_list() {
        let own = OwnMetrics::new().unwrap();
        own.refresh(&Shared::default(), None);
        for family in own.registry.gather() {
            assert!(signals::SIGNALS.iter().any(|s| s.name == family.name()), "{}", family.name());
        }
    }
}
