//! The signal list: every series that Larum exports, declared once.

/// Sort of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalType {
    /// Only rises, or restarts at 0 with a new start time.
    Counter,
    /// A value of the moment.
    Gauge,
    /// Latencies or ages in the one bucket layout.
    Histogram,
}

/// How far a signal can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Equals a recount of the offsets that the scrape states.
    Exact,
    /// Within the stated error of a recount.
    Bounded(&'static str),
    /// About Larum itself, from the running process.
    Operational,
}

/// One signal. Every series also has the label `source`, except those of the process as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Metric name.
    pub name: &'static str,
    /// Its sort.
    pub kind: SignalType,
    /// Its unit.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// How far it can be trusted.
    pub precision: Precision,
}

impl Signal {
    /// Its unit, if the name of its family (without `_total`) ends with it: only then may an exposition state it.
    pub fn unit_in_name(&self) -> Option<&'static str> {
        let family = self.name.strip_suffix("_total").unwrap_or(self.name);
        family.strip_suffix(self.unit).is_some_and(|rest| rest.ends_with('_')).then_some(self.unit)
    }
}

impl Signal {
    /// Name and unit as OpenTelemetry has them: the namespace by dots, without what unit and kind say anyway. A backend that
    /// makes Prometheus names of them comes back to this signal's.
    pub fn otlp(&self) -> (String, String) {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let (name, unit) = match self.unit_in_name() {
            Some("seconds") => (name.strip_suffix("_seconds").unwrap_or(name), "s".to_string()),
            Some("bytes") => (name.strip_suffix("_bytes").unwrap_or(name), "By".to_string()),
            Some("ratio") => (name.strip_suffix("_ratio").unwrap_or(name), "1".to_string()),
            _ => match name.strip_suffix("_per_second") {
                Some(rate) => (rate, "{event}/s".to_string()),
                None => (name, format!("{{{}}}", self.unit.trim_end_matches('s'))),
            },
        };
        (name.replacen('_', ".", 2), unit)
    }
}

/// Declares the signals, a constant for each, and the list of all.
macro_rules! signals {
    ($($id:ident: $kind:ident $unit:literal $precision:expr, $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Signal = Signal {
                name: $name,
                kind: SignalType::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                precision: $precision,
            };
        )+

        /// All signals, in the order in which they are exposed.
        pub const SIGNALS: &[Signal] = &[$($id),+];
    };
}

use Precision::{Bounded, Exact, Operational};

signals! {
    LOGIN_ATTEMPTS: Counter "events" Exact, "larum_login_attempts_total" ["source", "tenant", "region", "outcome", "reason"]
        "Logins, by how they ended and why.";
    LOGIN_ATTEMPTS_RATE: Gauge "events/s" Exact, "larum_login_attempts_per_second" ["source", "tenant", "region", "window"]
        "Logins per second over a sliding window of event time.";
    LOGIN_FAILURES_RATE: Gauge "events/s" Exact, "larum_login_failures_per_second" ["source", "tenant", "region", "window"]
        "Failed logins per second over a sliding window of event time.";
    LOGIN_FAILURE_RATIO: Gauge "ratio" Exact, "larum_login_failure_ratio" ["source", "tenant", "region", "window"]
        "Failed logins over successful and failed ones; absent without any.";
    LOGIN_DENIED_RATIO: Gauge "ratio" Exact, "larum_login_denied_ratio" ["source", "tenant", "region", "window"]
        "Denied logins over successful, failed and denied ones; absent without any.";
    LOGIN_DISTINCT_ACCOUNTS: Gauge "accounts" Bounded("exact while no 10 s of a key hold more than 64; beyond, a standard error of 6.5 % of the value"),
        "larum_login_distinct_accounts" ["source", "tenant", "region", "window"]
        "Different actor.id of logins over a sliding window of event time, up to 5m.";
    LOGIN_DISTINCT_SOURCES: Gauge "addresses" Bounded("exact while no 10 s of a key hold more than 64; beyond, a standard error of 6.5 % of the value"),
        "larum_login_distinct_sources" ["source", "tenant", "region", "window"]
        "Different source.ip of logins over a sliding window of event time, up to 5m.";
    LOGIN_LATENCY: Histogram "seconds" Exact, "larum_login_latency_seconds" ["source", "tenant", "region", "outcome"]
        "Service time of logins.";
    TOKEN_REQUESTS: Counter "events" Exact, "larum_token_requests_total" ["source", "tenant", "region", "op", "outcome", "reason"]
        "Token requests, by what was asked, how they ended and why.";
    TOKEN_LATENCY: Histogram "seconds" Exact, "larum_token_latency_seconds" ["source", "tenant", "region", "op"]
        "Service time of token requests.";
    TOKEN_LATENCY_QUANTILE: Gauge "seconds" Bounded("4.4 % of the value: half a bucket of the layout"),
        "larum_token_latency_quantile_seconds" ["source", "tenant", "region", "op", "window", "quantile"]
        "Quantiles of the service time of token requests over a sliding window of event time; absent without any.";
    PERMISSION_DECISIONS: Counter "events" Exact, "larum_permission_decisions_total" ["source", "tenant", "region", "service", "op", "outcome"]
        "Permissions assigned, removed, checked and escalated, by how that ended.";
    PERMISSION_LATENCY: Histogram "seconds" Exact, "larum_permission_latency_seconds" ["source", "tenant", "region", "service", "op", "outcome"]
        "Service time of decisions on permissions.";
    ESCALATION_HOPS: Counter "events" Exact, "larum_permission_escalation_hops_total" ["source", "tenant", "region", "service", "hop", "outcome"]
        "Escalations by their place in the chain: gateway, evaluator, enforcer, unknown.";
    ESCALATION_LATENCY: Histogram "seconds" Exact, "larum_permission_escalation_latency_seconds" ["source", "tenant", "region", "service", "hop"]
        "Service time of escalations by their place in the chain.";
    AUDIT_RECORDS: Counter "records" Exact, "larum_audit_records_total" ["source", "queue", "region"]
        "Audit records that came out of their queue.";
    AUDIT_DELAY: Histogram "seconds" Exact, "larum_audit_delivery_delay_seconds" ["source", "queue", "region"]
        "Time from an audit record being put into its queue to its coming out.";
    AUDIT_BACKLOG: Gauge "records" Exact, "larum_audit_backlog_records" ["source", "queue"]
        "Records known to be in the queue: up to the highest number put in, from the lowest that did not come out in sequence; missing ones are passed over.";
    AUDIT_LAG: Gauge "seconds" Bounded("up to 1 s too low, and beyond 512 s up to 1 % of it"), "larum_audit_lag_seconds" ["source", "queue"]
        "The source's clock minus the time at which the oldest record of the backlog was put in; 0 without one.";
    AUDIT_MISSING: Gauge "records" Exact, "larum_audit_missing_records" ["source", "queue"]
        "Records whose numbers were passed over for longer than the queue's grace.";
    AUDIT_GAPS: Counter "records" Exact, "larum_audit_gaps_total" ["source", "queue"]
        "Records that became missing.";
    AUDIT_RECOVERED: Counter "records" Exact, "larum_audit_recovered_total" ["source", "queue"]
        "Missing records that came out after all.";
    AUDIT_IRREGULAR: Counter "events" Exact, "larum_audit_irregular_total" ["source", "queue", "kind"]
        "What is odd about sequence numbers: repeated, jump (by more than 1,000,000), epoch (a producer began anew), skewed (out before in), untracked (no number, or more producers than there are slots for).";
    CHANGE_EVENTS: Counter "events" Exact, "larum_change_events_total" ["source", "op", "service", "region"]
        "Changes of the platform, by what was done.";
    CONSUMER_BACKLOG: Gauge "records" Operational, "larum_consumer_backlog_records" ["source", "group", "topic", "partition"]
        "Records that a watched consumer group has not committed; source is empty for topics that Larum does not read.";
    CONSUMER_LAG: Gauge "seconds" Operational, "larum_consumer_lag_seconds" ["source", "group", "topic", "partition"]
        "Age of the oldest record that a watched consumer group has not committed, by its timestamp; 0 without one.";
    CONSUMER_STATE: Gauge "state" Operational, "larum_consumer_state" ["source", "group", "topic", "partition"]
        "How a watched consumer group fares: 0 OK (lag below its floor, or falling), 1 WARN (commits, but the lag does not fall), 2 STALL (has members, but commits nothing new), 3 STOP (the same without members), 4 REWIND (went back).";
    REGION_EVENTS_RATE: Gauge "events/s" Exact, "larum_region_events_per_second" ["source", "region", "measure", "window"]
        "Events per second by what rules look at, all tenants of a region together, over a sliding window of event time up to 3d.";
    OBJECTIVE_BURN: Gauge "rate" Exact, "larum_objective_burn_rate" ["source", "objective", "tenant", "region", "window"]
        "How many times as fast as it lasts for 30 days the error budget of an objective burns over a sliding window; tenant is empty for all of a region.";
    ALERT_STATE: Gauge "state" Exact, "larum_alert_state" ["alert", "severity", "scope", "source", "tenant", "region", "queue", "group", "topic", "partition"]
        "Alerts that are not inactive: 1 pending, 2 firing, 3 held back because the region's alert fires in place of many; the first 1,000, firing ones first.";
    ALERTS: Gauge "alerts" Exact, "larum_alerts" ["alert", "severity", "state"]
        "How many of an alert are pending, firing or held back.";
    ALERT_HELD_BACK: Counter "alerts" Exact, "larum_alert_held_back_total" ["alert"]
        "Times that an alert of a tenant was held back because the region's alert fires, or found no room.";
    CATALOGUE_ALERTS: Gauge "alerts" Operational, "larum_catalogue_alerts" ["has"]
        "Alerts in the catalogue by what they have: any (all of them), owner, dashboard, runbook, scenario (a test makes it fire, come near and end).";
    NEXT_OFFSET: Gauge "offset" Exact, "larum_pipeline_next_offset" ["source", "topic", "partition"]
        "Offset up to which the state being scraped has counted.";
    FIRST_OFFSET: Gauge "offset" Exact, "larum_pipeline_first_offset" ["source", "topic", "partition"]
        "Offset from which totals count.";
    TICK: Gauge "seconds" Exact, "larum_pipeline_tick_seconds" ["source"]
        "The tick being scraped, Unix time; windows end with the pane that holds it.";
    RECORDS: Counter "records" Exact, "larum_pipeline_records_total" ["source", "topic", "partition", "result"]
        "Offsets passed, by what was found there.";
    EVENTS: Counter "events" Exact, "larum_pipeline_events_total" ["source", "topic", "partition", "timing"]
        "Decoded events, not weighed by their count, by how their time stood to their partition.";
    REJECTED: Counter "records" Exact, "larum_pipeline_rejected_total" ["source", "reason"]
        "Refused records, by the first reason that applied.";
    WINDOW_INCOMPLETE: Gauge "bool" Exact, "larum_pipeline_window_incomplete" ["source", "window"]
        "1 while the window reaches before the start or a loss, or a partition is left out.";
    LEFT_OUT: Gauge "bool" Exact, "larum_pipeline_left_out" ["source", "topic", "partition"]
        "1 while the source's clock does not wait for the partition, which is behind and does not move.";
    CATCHING_UP: Gauge "bool" Operational, "larum_pipeline_catching_up" ["source"]
        "1 while what is visible is not the present; the source's windowed gauges are then left out.";
    CLOCK_AGE: Gauge "seconds" Operational, "larum_pipeline_clock_age_seconds" ["source"]
        "Wall clock minus the source's clock.";
    WATERMARK_AGE: Gauge "seconds" Operational, "larum_pipeline_watermark_age_seconds" ["source", "topic", "partition"]
        "Wall clock minus the highest event time seen.";
    VIOLATIONS: Counter "violations" Operational, "larum_pipeline_invariant_violations_total" ["invariant"]
        "Broken invariants; anything but 0 is a defect of Larum.";
    LAG: Gauge "records" Operational, "larum_pipeline_lag_records" ["source", "topic", "partition"]
        "Records between the durable offset and the end that the broker last reported.";
    NAMES_HELD: Gauge "names" Operational, "larum_pipeline_names_held" ["kind"]
        "Slots in use: tenant, region, service, queue and producer names, and keys.";
    NAMES_BUDGET: Gauge "names" Operational, "larum_pipeline_names_budget" ["kind"]
        "Slots there are: tenant, region, service, queue and producer names, and keys.";
    NAMES_REFUSED: Counter "events" Operational, "larum_pipeline_names_refused_total" ["kind"]
        "Times that a slot was refused, and the event counted under __other__.";
    BUILD_INFO: Gauge "info" Operational, "larum_build_info" ["version"]
        "Always 1; which Larum this is.";
    SERIES_LINES: Gauge "lines" Operational, "larum_pipeline_series_lines" []
        "Sample lines of keys in this scrape, or a little more.";
    SERIES_LINES_MAX: Gauge "lines" Operational, "larum_pipeline_series_lines_max" []
        "Most of them: limits.series.";
    KEYS_SHOWN: Gauge "keys" Operational, "larum_pipeline_keys_shown" ["detail"]
        "Keys by how much of them is shown: full, windows (no histograms), counters, hidden (nothing; counted all the same).";
    COUNTS_BYTES: Gauge "bytes" Operational, "larum_pipeline_counts_bytes" []
        "Memory that names, keys and what they counted take.";
    COUNTS_BYTES_MAX: Gauge "bytes" Operational, "larum_pipeline_counts_bytes_max" []
        "Memory that they may take: what the rest of the process leaves of limits.memory.";
    ADMISSION_CLOSED: Gauge "bool" Operational, "larum_pipeline_admission_closed" []
        "1 while that memory is full and no new name gets a slot; what is new counts under __other__.";
    COMMITS: Counter "commits" Operational, "larum_pipeline_commits_total" ["result"]
        "Commits to the store, by result.";
    COMMIT_SECONDS: Histogram "seconds" Operational, "larum_pipeline_commit_seconds" []
        "Time from asking the workers for their Deltas until the commit is durable.";
    VISIBLE_SECONDS: Histogram "seconds" Operational, "larum_pipeline_visible_seconds" []
        "Time from the append of the newest record of a commit until that commit is visible.";
    STORE_BYTES: Gauge "bytes" Operational, "larum_pipeline_store_bytes" []
        "Size of the store on disk.";
    STORE_STALLED: Gauge "bool" Operational, "larum_pipeline_store_stalled" []
        "1 while commits fail; ingestion pauses and the last committed state stays served.";
    DEAD_LETTERS: Counter "records" Operational, "larum_pipeline_dead_letters_total" ["result"]
        "Refused records on their way to the dead-letter topic: delivered, failed attempts, dropped.";
    OUTBOX_BYTES: Gauge "bytes" Operational, "larum_pipeline_outbox_bytes" []
        "Bytes of refused records that the dead-letter topic has not acknowledged yet.";
    CLIENT_ERRORS: Counter "errors" Operational, "larum_pipeline_client_errors_total" ["kind"]
        "Errors that the Kafka client reported.";
    OTLP_REQUESTS: Counter "requests" Operational, "larum_pipeline_otlp_requests_total" ["result"]
        "Pushes of metrics to the OTLP collector, by request: sent, retried, failed (given up), dropped (the queue was full).";
    OTLP_REJECTED: Counter "points" Operational, "larum_pipeline_otlp_rejected_points_total" []
        "Points of pushes that the OTLP collector took without them.";
    ALERTMANAGER_REQUESTS: Counter "requests" Operational, "larum_alertmanager_requests_total" ["result"]
        "Requests to Alertmanagers: sent, retried, refused (4xx), replaced (by a newer one before they were taken).";
    SCRAPE_SECONDS: Histogram "seconds" Operational, "larum_pipeline_scrape_seconds" []
        "Time to write one scrape.";
}

/// The page of all signals, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Signals\n\nMade from the list in `crates/larum-view/src/signals.rs` by `cargo test`; do not edit.\n\n\
         exact: equals a recount of the offsets that the scrape states. bounded: within the stated error. \
         operational: about Larum itself.\n\n| signal | type | unit | labels | over OTLP | trust | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    for s in SIGNALS {
        let trust = match s.precision {
            Exact => "exact".to_string(),
            Bounded(error) => format!("bounded: {error}"),
            Operational => "operational".to_string(),
        };
        let kind = format!("{:?}", s.kind).to_lowercase();
        let labels = s.labels.join(", ");
        let (name, unit) = s.otlp();
        let otlp = format!("`{name}` in `{unit}`");
        page += &format!("| `{}` | {kind} | {} | {labels} | {otlp} | {trust} | {} |\n", s.name, s.unit, s.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = std::collections::HashSet::new();
        for signal in SIGNALS {
            assert!(seen.insert(signal.name), "{} twice", signal.name);
            assert!(signal.name.starts_with("larum_"), "{}", signal.name);
            assert_eq!(signal.kind == SignalType::Counter, signal.name.ends_with("_total"), "{}", signal.name);
            assert!(signal.help.ends_with('.'), "{}", signal.name);
        }
    }

    #[test]
    fn names_for_opentelemetry_are_unique_and_lead_back() {
        let mut seen = std::collections::HashSet::new();
        for signal in SIGNALS {
            let (name, unit) = signal.otlp();
            // As Prometheus' receiver makes names: dots to underscores, then the unit, then what the kind adds.
            let of_unit = match unit.as_str() {
                "s" => "_seconds",
                "By" => "_bytes",
                "1" => "_ratio",
                "{event}/s" => "_per_second",
                _ => "",
            };
            let of_kind = if signal.kind == SignalType::Counter { "_total" } else { "" };
            assert_eq!(name.replace('.', "_") + of_unit + of_kind, signal.name);
            assert!(seen.insert((name, unit)), "{} twice", signal.name);
        }
    }

    /// `config/signals.md` is this list; `LARUM_BLESS=1` writes it anew.
    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/signals.md");
        if std::env::var_os("LARUM_BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page(), "run with LARUM_BLESS=1");
    }
}
