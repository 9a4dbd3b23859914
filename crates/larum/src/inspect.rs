//! `larum inspect`: one record of a topic, what is understood of it, and where it counts. Alerts name such records.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use larum_aggregate::time::{PANE_S, SECOND_NS, pane_of};
use larum_event::{AuthEvent, Code, Decoder, Kind, traceparent};
use larum_fold::{SourcePolicy, shown_name};
use larum_kafka::one::{OneRecord, record};

use crate::annotate::rfc3339;
use crate::config::Config;

/// Time for the broker to answer.
const WITHIN: Duration = Duration::from_secs(15);

/// A place as alerts name it: `topic/partition@offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    topic: String,
    partition: i32,
    offset: i64,
}

impl RecordPlace {
    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl std::str::FromStr for RecordPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (topic, rest) = text.rsplit_once('/')?;
            let (partition, offset) = rest.split_once('@')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (!topic.is_empty()).then(|| RecordPlace { topic: topic.to_string(), partition, offset })
        };
        parts().ok_or_else(|| format!("takes topic/partition@offset, as in auth-events/0@4711, not {text}"))
    }
}

/// Reads the record and prints what there is to say about it.
///
/// # Errors
/// No broker answers, or there is no such record.
pub fn run(config: &Config, place: &RecordPlace) -> anyhow::Result<()> {
    let RecordPlace { topic, partition, offset } = place;
    let found = record(&config.kafka, topic, *partition, *offset, WITHIN)?;
    let found = found.with_context(|| {
        format!("there is no record at {topic}/{partition}@{offset}: it is older than the log, not written yet, or was compacted")
    })?;
    let source = config.sources.iter().find(|source| source.topics.contains(topic));
    if source.is_none() {
        eprintln!("no source of this configuration reads {topic}; defaults apply");
    }
    let policy = source.map(|source| source.policy.clone()).unwrap_or_default();
    print!("{}", describe(place, &found, &policy, config));
    Ok(())
}

fn describe(place: &RecordPlace, found: &OneRecord, policy: &SourcePolicy, config: &Config) -> String {
    let RecordPlace { topic, partition, offset } = place;
    let mut text = format!("{topic}/{partition}@{offset}\n");
    let append_ns = found.timestamp_ms.map(|ms| ms.saturating_mul(1_000_000));
    if let Some(ns) = append_ns {
        let whose = if found.is_append_time { "the broker's" } else { "the producer's" };
        let _ = writeln!(text, "timestamp:  {} ({whose} clock)", time(ns));
    }
    if let Some(key) = &found.key {
        let _ = writeln!(text, "key:        {}", String::from_utf8_lossy(key).escape_debug());
    }
    for (name, value) in &found.headers {
        let _ =
            writeln!(text, "header:     {}: {}", name.escape_debug(), String::from_utf8_lossy(value).escape_debug());
    }
    let Some(value) = &found.value else { return text + "a tombstone: counted as skipped\n" };
    let _ = writeln!(text, "value:      {} bytes", value.len());
    let shown = match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(value).escape_debug().to_string(),
    };
    // A terminal obeys more than letters.
    let is_plain = |c: char| {
        c == '\n'
            || !(c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    let shown: String =
        shown.chars().map(|c| if is_plain(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect();
    let _ = writeln!(text, "{shown}");
    let mut events = String::new();
    let mut decoder = Decoder::new(config.limits);
    let trace = found.headers.iter().find(|(name, _)| name == "traceparent").map(|(_, value)| value.as_slice());
    let decoded = decoder.decode_each(value, policy.records, |event| {
        events += &understood(event, append_ns.unwrap_or(event.time_ns()), policy, trace);
    });
    match decoded {
        Ok(count) => text + &format!("\nunderstood as {count} event(s):\n{events}"),
        Err(reject) => {
            text + &format!("\nrefused as {}: counted so, and its bytes go to the dead letters\n", reject.as_str())
        }
    }
}

fn time(ns: i64) -> String {
    let text = rfc3339(ns.div_euclid(SECOND_NS));
    format!("{}.{:03}Z", &text[..19], ns.rem_euclid(SECOND_NS) / 1_000_000)
}

fn understood(event: &AuthEvent<'_>, append_ns: i64, policy: &SourcePolicy, header: Option<&[u8]>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    let kind = event.kind();
    line("kind:", format!("{}, op {}", kind.as_str(), event.op().as_str()));
    if let Some(outcome) = event.outcome() {
        line("outcome:", format!("{}, reason {}", outcome.as_str(), event.reason().as_str()));
    }
    let ahead_ns = event.time_ns().saturating_sub(append_ns);
    let apart = format!("{:.3} s", ahead_ns.unsigned_abs() as f64 / SECOND_NS as f64);
    let relation = if ahead_ns > 0 { "after" } else { "before" };
    line("time:", format!("{}, {apart} {relation} its append", time(event.time_ns())));
    if let Some(ns) = event.latency_ns() {
        line("latency:", format!("{:.3} ms", ns as f64 / 1e6));
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let trace = event.trace_id().or_else(|| header.and_then(traceparent).map(|(trace, _)| trace));
    if let Some(trace) = trace {
        line("trace:", hex(&trace));
    }
    let is_skewed = ahead_ns > policy.skew_ns;
    let pane = pane_of(if is_skewed { append_ns } else { event.time_ns() });
    let begin = i64::from(pane) * i64::from(PANE_S);
    let span = format!("{} to {}", rfc3339(begin), &rfc3339(begin + i64::from(PANE_S))[11..]);
    let why = if is_skewed { ", that of its append: its clock is too far ahead, and it counts as skewed" } else { "" };
    line("pane:", format!("{span}{why}"));
    let name = |raw: &str| match shown_name(raw, (0, 0)) {
        shown if shown.starts_with('~') => "~ and a keyed hash, because its name is not plain".to_string(),
        shown => shown.into_owned(),
    };
    let region = event.region().or(policy.region.as_deref()).map_or("unknown".to_string(), name);
    let tenant = match kind {
        Kind::Audit | Kind::Change => String::new(),
        _ => format!("tenant {}, ", name(event.tenant())),
    };
    let family = match kind {
        Kind::Login => "larum_login_attempts_total",
        Kind::Token => "larum_token_requests_total",
        Kind::Permission => "larum_permission_decisions_total",
        Kind::Audit => "larum_audit_records_total",
        Kind::Change => "larum_change_events_total",
    };
    match Code::of(event) {
        Some(_) => line("counts in:", format!("{tenant}region {region}: {family}, {} time(s)", event.count())),
        None => line("counts in:", "no series: a word that something was put into an audit queue".to_string()),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn described(value: Option<&[u8]>) -> String {
        let overrides = Overrides { brokers: Some("b:1".into()), topics: vec!["auth".into()], ..Overrides::default() };
        let config = Config::resolve("", &overrides).unwrap();
        let found = OneRecord {
            timestamp_ms: Some(1_773_480_002_000),
            is_append_time: true,
            value: value.map(<[u8]>::to_vec),
            ..OneRecord::default()
        };
        describe(&"auth/0@7".parse().unwrap(), &found, &SourcePolicy::default(), &config)
    }

    #[test]
    fn a_record_is_shown_with_what_is_made_of_it() {
        let event = br#"{"kind":"login","time":1773480000123,"tenant":"acme","region":"eu","outcome":"failure","reason":"locked","latency_ms":1.5}"#;
        let text = described(Some(event));
        for part in [
            "auth/0@7",
            "\"reason\": \"locked\"",
            "login, op other",
            "failure, reason locked",
            "1.877 s before its append",
            "1.500 ms",
            "2026-03-14T09:20:00Z to 09:20:10Z",
            "tenant acme, region eu: larum_login_attempts_total, 1 time(s)",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let ahead =
            described(Some(&event.to_vec().iter().map(|b| if *b == b'3' { b'9' } else { *b }).collect::<Vec<_>>()));
        assert!(ahead.contains("counts as skewed"), "{ahead}");
    }

    #[test]
    fn what_is_refused_says_why() {
        assert!(described(Some(b"{")).contains("refused as not_json"));
        assert!(described(None).contains("tombstone"));
    }

    #[test]
    fn places_are_read_as_alerts_name_them() {
        let place: RecordPlace = "auth-events/3@99".parse().unwrap();
        assert_eq!((place.topic.as_str(), place.partition, place.offset), ("auth-events", 3, 99));
        for bad in ["", "auth", "auth/3", "auth@3", "/1@2", "auth/x@1"] {
            assert!(bad.parse::<RecordPlace>().is_err(), "{bad}");
        }
    }
}
