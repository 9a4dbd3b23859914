//! The recount of a real topic: every record read back, judged by the serde model, and compared with scrapes.

use std::collections::{BTreeMap, BTreeSet};

use larum_tests::kafka::{Kafka, Message};
use larum_tests::recount::{Body, Ev, Judged, Partition, Rec, S, Sets, Totals, labels};

use crate::model;
use crate::scrape::{Scrape, label};

/// All records of a topic, judged.
pub struct Oracle {
    pub partitions: Vec<Partition>,
    judged: Vec<Vec<(i64, Judged)>>,
}

fn body(message: &Message) -> Body {
    let Some(value) = &message.value else { return Body::Tombstone };
    match model::decode(value) {
        Err(reason) => Body::Bad(reason.to_string()),
        Ok(event) => {
            let text = |at: usize| event.texts[at].1.clone();
            let find = |name| event.texts.iter().find(|t| t.0 == name).and_then(|t| t.1.clone());
            let number = |name| event.numbers.iter().find(|n| n.0 == name).and_then(|n| n.1);
            Body::Event(Box::new(Ev {
                time_ns: event.time_ns,
                kind: event.kind.clone(),
                op: event.op.clone(),
                tenant: text(1).unwrap_or_default(),
                region: text(2),
                service: text(3),
                hop: find("hop"),
                actor: text(7),
                ip: find("ip"),
                outcome: event.outcome.clone().unwrap_or_default(),
                reason: event.reason.clone(),
                latency_ns: event.latency_ns,
                trace: None,
                count: event.count,
                queue: find("queue").unwrap_or_default(),
                producer: find("producer"),
                epoch: number("epoch").unwrap_or(0),
                seq: number("seq"),
                enqueued_ns: event.enqueued_ns,
            }))
        }
    }
}

impl Oracle {
    /// Reads the topic back; totals and panes begin at `first` of each partition.
    pub fn of(kafka: &Kafka, topic: &str) -> Oracle {
        let messages = kafka.read_all(topic).unwrap();
        let count = messages.iter().map(|m| m.partition + 1).max().unwrap_or(0) as usize;
        let mut partitions = vec![Partition::default(); count];
        for message in messages {
            let partition = &mut partitions[message.partition as usize];
            while partition.end() < message.offset {
                partition.records.push(Rec { append_ns: 0, body: Body::Absent, bytes: Vec::new() });
            }
            let (body, bytes) = (body(&message), message.value.clone().unwrap_or_default());
            partition.records.push(Rec { append_ns: message.timestamp_ms * 1_000_000, body, bytes });
        }
        Oracle::new(partitions)
    }

    fn new(partitions: Vec<Partition>) -> Oracle {
        let judged = partitions.iter().map(Partition::judge).collect();
        Oracle { partitions, judged }
    }

    /// With totals from `origins` on, and panes from `starts` on.
    pub fn beginning_at(mut self, origins: &[i64], starts: &[i64]) -> Oracle {
        for (partition, (origin, start)) in self.partitions.iter_mut().zip(origins.iter().zip(starts)) {
            (partition.origin, partition.start) = (*origin, *start);
        }
        Oracle::new(self.partitions)
    }

    /// Compares the exact totals of a scrape with the recount of exactly its offsets.
    pub fn check_totals(&self, scrape: &Scrape) {
        let mut want = Totals::new();
        let mut latencies = (0, 0);
        for (at, partition) in self.partitions.iter().enumerate() {
            let Some(next) = scrape.next_offset(at as i32) else { continue };
            assert!(next <= partition.end(), "scrape is ahead of the log");
            partition.add_totals(next, &mut want);
            let sums = partition.latencies(next);
            latencies = (latencies.0 + sums.0, latencies.1 + sums.1);
            self.check_records(scrape, at, next);
        }
        let mut got = Totals::new();
        for name in ["larum_login_attempts_total", "larum_token_requests_total"] {
            for (l, value) in scrape.of(name) {
                let op = if name.contains("login") { "login" } else { label(l, "op") };
                let texts = [label(l, "tenant"), label(l, "region"), op, label(l, "outcome"), label(l, "reason")];
                got.insert(texts.map(String::from).to_vec(), value as u64);
            }
        }
        for (l, value) in scrape.of("larum_permission_decisions_total").filter(|(l, _)| label(l, "op") != "escalate") {
            let op = format!("permission {} {} ", label(l, "service"), label(l, "op"));
            let texts = [label(l, "tenant"), label(l, "region"), &op, label(l, "outcome"), ""];
            got.insert(texts.map(String::from).to_vec(), value as u64);
        }
        for (l, value) in scrape.of("larum_change_events_total") {
            let op = format!("change {} {}", label(l, "service"), label(l, "op"));
            got.insert(["", label(l, "region"), &op, "", ""].map(String::from).to_vec(), value as u64);
        }
        for (l, value) in scrape.of("larum_audit_records_total") {
            let op = format!("audit {}", label(l, "queue"));
            got.insert(["", label(l, "region"), &op, "", ""].map(String::from).to_vec(), value as u64);
        }
        assert_same(&got, &want);
        let sum = |suffix: &str| {
            let names = [
                "larum_login_latency_seconds",
                "larum_token_latency_seconds",
                "larum_permission_latency_seconds",
                "larum_audit_delivery_delay_seconds",
            ];
            names.iter().flat_map(|n| scrape.of(&format!("{n}{suffix}")).map(|s| s.1).collect::<Vec<_>>()).sum::<f64>()
        };
        assert_eq!(sum("_count") as u64, latencies.0, "latency counts");
        let want_sum = latencies.1 as f64 / 1e9;
        assert!((sum("_sum") - want_sum).abs() <= want_sum * 1e-9 + 1e-9, "{} {want_sum}", sum("_sum"));
    }

    fn check_records(&self, scrape: &Scrape, at: usize, next: i64) {
        let (partition, number) = (&self.partitions[at], at.to_string());
        let records = |result| {
            let labels = [("partition", number.as_str()), ("result", result)];
            scrape.value("larum_pipeline_records_total", &labels).unwrap_or_default() as u64
        };
        let got = ["decoded", "rejected", "skipped", "absent"].map(records);
        assert_eq!(got, partition.records(next), "records of partition {at} up to {next}");
        let advanced = (next - partition.origin).max(0) as u64;
        assert_eq!(got.iter().sum::<u64>() + records("lost"), advanced, "conservation of partition {at}");
        let events = |timing| {
            let labels = [("partition", number.as_str()), ("timing", timing)];
            scrape.value("larum_pipeline_events_total", &labels).unwrap_or_default() as u64
        };
        let got = ["on_time", "late", "skewed"].map(events);
        assert_eq!(got, partition.timings(&self.judged[at], next), "timings of partition {at} up to {next}");
    }

    /// Compares the windowed login gauges of a scrape; gives how many were compared. `covered_ns`: from when on the
    /// source is covered.
    pub fn check_windows(&self, scrape: &Scrape, covered_ns: i64) -> usize {
        let Some(tick) = scrape.tick() else { return 0 };
        let mut compared = 0;
        for (name, span_s, step_s) in [("5m", 300, 10), ("1h", 3600, 60)] {
            let start_s = (tick + 1 - span_s) / step_s * step_s;
            let mut counts = Totals::new();
            for (at, partition) in self.partitions.iter().enumerate() {
                let Some(next) = scrape.next_offset(at as i32) else { continue };
                partition.add_window(&self.judged[at], next, start_s, tick, &mut counts);
            }
            let mut logins: BTreeMap<(String, String), [f64; 3]> = BTreeMap::new();
            for (texts, count) in counts.into_iter().filter(|(texts, _)| texts[2] == "login") {
                let sums = logins.entry((texts[0].clone(), texts[1].clone())).or_default();
                sums[0] += count as f64;
                sums[1] += if texts[3] == "failure" { count as f64 } else { 0.0 };
                sums[2] += if texts[3] == "success" { count as f64 } else { 0.0 };
            }
            self.check_distinct(scrape, name, start_s, tick);
            let divisor = ((tick + 1) * S - covered_ns.max(start_s * S)).max(S) as f64 / S as f64;
            for (l, value) in scrape.of("larum_login_failures_per_second").filter(|(l, _)| label(l, "window") == name) {
                let key = (label(l, "tenant").to_string(), label(l, "region").to_string());
                let sums = logins.get(&key).copied().unwrap_or_default();
                assert_near(value, sums[1] / divisor, &format!("failures {name} {key:?} at tick {tick}"));
                let of_key = [("tenant", key.0.as_str()), ("region", &key.1), ("window", name)];
                let attempts = scrape.value("larum_login_attempts_per_second", &of_key).unwrap();
                assert_near(attempts, sums[0] / divisor, &format!("attempts {name} {key:?} at tick {tick}"));
                let ratio = scrape.value("larum_login_failure_ratio", &of_key);
                assert_eq!(ratio.is_some(), sums[1] + sums[2] > 0.0, "ratio {name} {key:?}");
                assert_near(
                    ratio.unwrap_or(0.0),
                    sums[1] / (sums[1] + sums[2]).max(1.0),
                    &format!("ratio {name} {key:?}"),
                );
                compared += 1;
            }
        }
        compared
    }

    /// Compares distinct accounts and sources of a scrape; only short windows have them.
    fn check_distinct(&self, scrape: &Scrape, window: &str, start_s: i64, tick: i64) {
        let mut sets = Sets::new();
        for (at, partition) in self.partitions.iter().enumerate() {
            let Some(next) = scrape.next_offset(at as i32) else { continue };
            partition.add_distinct(&self.judged[at], next, start_s, tick, &mut sets);
        }
        for (name, what) in [("larum_login_distinct_accounts", "accounts"), ("larum_login_distinct_sources", "sources")]
        {
            let of_window = scrape.of(name).filter(|(l, _)| label(l, "window") == window);
            let mut shown = 0;
            for (l, value) in of_window {
                let labels = [label(l, "tenant"), label(l, "region"), what].map(String::from);
                let want = sets.get(&labels).map_or(0, BTreeSet::len);
                let error_max = if want <= 64 { 0.0 } else { want as f64 / 4.0 };
                assert!((value - want as f64).abs() <= error_max, "{name} {labels:?} in {window}: {value} for {want}");
                shown += 1;
            }
            let wanted = if window == "5m" { sets.keys().filter(|labels| labels[2] == what).count() } else { 0 };
            assert!(shown >= wanted && (shown > 0) == (wanted > 0), "{shown} {name} in {window}, wanted {wanted}");
        }
    }

    /// Append time of the first record of all, Unix ns.
    pub fn first_append_ns(&self) -> i64 {
        let firsts = self.partitions.iter().filter_map(|p| p.records.get(p.start as usize));
        firsts.map(|r| r.append_ns).min().unwrap_or(i64::MIN)
    }

    /// Every refused record is in the dead-letter topic at least once, with its bytes; nothing else is.
    pub fn check_dead_letters(&self, letters: &[Message]) -> usize {
        let mut found = BTreeSet::new();
        for letter in letters {
            let header = |name: &str| {
                let value = letter.headers.iter().find(|h| h.0 == name).map(|h| h.1.clone());
                String::from_utf8(value.unwrap_or_else(|| panic!("no header {name}"))).unwrap()
            };
            let at: usize = header("larum.source.partition").parse().unwrap();
            let offset: i64 = header("larum.source.offset").parse().unwrap();
            let rec = self.partitions[at].at(offset);
            let Body::Bad(reason) = &rec.body else { panic!("{at}@{offset} was good") };
            assert_eq!(*reason, header("larum.reason"), "{at}@{offset}");
            assert_eq!(letter.value.as_deref().unwrap_or_default(), rec.bytes, "{at}@{offset} keeps its bytes");
            found.insert((at, offset));
        }
        for (at, partition) in self.partitions.iter().enumerate() {
            for offset in partition.origin..partition.end() {
                let bad = matches!(partition.at(offset).body, Body::Bad(_));
                assert_eq!(bad, found.contains(&(at, offset)), "dead letter of {at}@{offset}");
            }
        }
        found.len()
    }

    /// Totals of the whole topic by the labels that the load generator's truth uses.
    pub fn series(&self) -> Totals {
        let mut totals = Totals::new();
        for rec in self.partitions.iter().flat_map(|p| &p.records) {
            if let Body::Event(event) = &rec.body
                && let Some(labels) = labels(event)
            {
                *totals.entry(labels).or_default() += event.count;
            }
        }
        totals
    }
}

/// The truth file in the oracle's shape.
pub fn truth_series(truth: &larum_load::Truth) -> Totals {
    let mut totals = Totals::new();
    for (name, labels, count) in truth.series() {
        let get = |wanted: &str| labels.iter().find(|l| l.0 == wanted).map_or("", |l| l.1);
        let op = match name {
            "larum_login_attempts_total" => "login".to_string(),
            "larum_token_requests_total" => get("op").to_string(),
            "larum_permission_decisions_total" => format!("permission {} {} ", get("service"), get("op")),
            "larum_audit_records_total" => format!("audit {}", get("queue")),
            _ => format!("change {} {}", get("service"), get("op")),
        };
        let texts = [get("tenant"), get("region"), &op, get("outcome"), get("reason")];
        *totals.entry(texts.map(String::from).to_vec()).or_default() += count;
    }
    totals
}

/// No counter of `later` is below what `earlier` showed.
pub fn never_down(earlier: &Scrape, later: &Scrape) {
    for (name, series) in &earlier.samples {
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        let kind = later.types.get(name).or(later.types.get(family)).map_or("", |k| k);
        // What is about the process itself begins anew with it.
        let of_process = name.starts_with("larum_pipeline") && !name.contains("records") && !name.contains("events");
        if !matches!(kind, "counter" | "histogram") || of_process {
            continue;
        }
        for (labels, before) in series {
            let now = later.samples.get(name).and_then(|s| s.get(labels));
            assert!(now.is_some_and(|now| now >= before), "{name}{labels:?} went from {before} to {now:?}");
        }
    }
}

fn assert_near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= want.abs() * 1e-9 + 1e-12, "{what}: got {got}, want {want}");
}

/// Compares totals; names the first differences only.
pub fn assert_same(got: &Totals, want: &Totals) {
    let differences: Vec<String> = want
        .keys()
        .chain(got.keys())
        .filter(|key| got.get(*key) != want.get(*key))
        .map(|key| format!("{key:?}: got {:?}, want {:?}", got.get(key), want.get(key)))
        .take(5)
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
}
