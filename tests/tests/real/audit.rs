//! An audit queue that stands, goes on and has lost some, while Larum is killed again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::recount::Body;

use crate::oracle::Oracle;
use crate::program::{Larum, Load};
use crate::scrape::Scrape;

const QUEUE: [(&str, &str); 1] = [("queue", "compliance")];

fn value(scrape: &Scrape, name: &str) -> f64 {
    scrape.value(name, &QUEUE).unwrap_or(0.0)
}

/// Numbers that were put in and those that came out, as the log tells.
fn numbers(oracle: &Oracle, op: &str) -> BTreeSet<(String, u64)> {
    let records = oracle.partitions.iter().flat_map(|p| &p.records);
    let events = records.filter_map(|rec| if let Body::Event(event) = &rec.body { Some(event) } else { None });
    let of_op = events.filter(|event| event.kind == "audit" && event.op == op);
    of_op.filter_map(|event| Some((event.producer.clone()?, event.seq?))).collect()
}

#[test]
fn a_stall_shows_and_what_is_lost_is_missing_across_kill_9() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("audited", 3, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("larum.yaml");
    let text = format!(
        "kafka: {{brokers: '{}'}}\nsources: [{{name: auth, topics: [audited], audit: {{grace: 10s}}}}]\n\
         start_at: earliest\nworkers: 2\nlimits: {{series: 10000000, memory: 64GiB}}\n",
        kafka.brokers()
    );
    std::fs::write(&config, text).unwrap();
    let mut larum = Larum::configured(&config, &[]);
    let flags = ["--rate", "3000", "--for", "40s", "--scenario", "audit-stall@5s+15s"];
    let mut load = Load::start(&kafka.brokers(), "audited", &flags);

    let (mut gaps, mut backlog, mut lag_s, mut kills) = (0.0, 0.0_f64, 0.0_f64, 0);
    for turn in 0..30 {
        std::thread::sleep(Duration::from_secs(1));
        if let Some(scrape) = larum.scrape() {
            let now = value(&scrape, "larum_audit_gaps_total");
            // A scrape before the source is known shows no queue.
            if scrape.value("larum_audit_gaps_total", &QUEUE).is_some() {
                assert!(now >= gaps, "gaps went back from {gaps} to {now}");
                gaps = now;
            }
            backlog = backlog.max(value(&scrape, "larum_audit_backlog_records"));
            lag_s = lag_s.max(value(&scrape, "larum_audit_lag_seconds"));
        }
        if turn % 6 == 3 {
            larum.kill_9();
            larum.again();
            kills += 1;
        }
    }
    load.finish(Duration::from_secs(60));
    assert!(backlog > 400.0 && lag_s > 8.0, "the stall showed a backlog of {backlog} and a lag of {lag_s} s");
    larum.wait_visible(&kafka.end_offsets("audited").unwrap(), 60);
    let oracle = Oracle::of(&kafka, "audited");
    let (put_in, came_out) = (numbers(&oracle, "enqueue"), numbers(&oracle, "deliver"));
    let lost = put_in.difference(&came_out).count() as f64;
    assert!(lost > 10.0, "{lost} of {}", put_in.len());
    let missing = |s: &Scrape| value(s, "larum_audit_missing_records");
    let scrape = larum.wait_for(&format!("{lost} missing records"), 60, |s| missing(s) == lost);
    let recovered = value(&scrape, "larum_audit_recovered_total");
    assert_eq!(value(&scrape, "larum_audit_gaps_total"), lost + recovered);
    assert_eq!(value(&scrape, "larum_audit_backlog_records"), 0.0);
    oracle.check_totals(&scrape);
    println!("{kills} kills; backlog up to {backlog}, lag up to {lag_s} s, {lost} of {} lost", put_in.len());
    assert_eq!(larum.terminate(), Some(0));
}
