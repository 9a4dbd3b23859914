//! Soak: a steady load for long; memory stays flat but for what windows fill with, and no queue grows.

use std::time::{Duration, Instant};

use larum_tests::kafka::Kafka;

use crate::program::{Larum, Load};
use crate::scrape::Scrape;

/// Seconds and events a second: a minute in the ordinary run; half an hour in the long mode, or
/// `LARUM_SOAK_SECONDS` at `LARUM_SOAK_RATE`.
fn extent() -> (u64, u64) {
    match std::env::var_os("LARUM_LONG") {
        None => (60, 20_000),
        Some(_) => {
            let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
            (number("LARUM_SOAK_SECONDS").unwrap_or(30 * 60), number("LARUM_SOAK_RATE").unwrap_or(100_000))
        }
    }
}

/// Fetched records (64 MiB) and open Deltas of two workers (3 of 32 MiB each), in full.
const HELD_BYTES_MAX: f64 = 256.0 * 1024.0 * 1024.0;

/// Resident memory of a process, bytes.
fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

fn sum(scrape: &Scrape, name: &str) -> f64 {
    scrape.of(name).map(|(_, value)| value).sum()
}

/// Least upper bound of the buckets that hold a share of a histogram, seconds.
fn quantile_s(scrape: &Scrape, name: &str, share: f64) -> f64 {
    let bound = |labels: &[(String, String)]| labels.iter().find(|l| l.0 == "le").map(|l| l.1.parse().unwrap());
    let mut buckets: Vec<(f64, f64)> =
        scrape.of(&format!("{name}_bucket")).filter_map(|(labels, n)| Some((bound(labels)?, n))).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last().unwrap().1;
    buckets.iter().find(|bucket| bucket.1 >= share * all).unwrap().0
}

/// The middle one.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn memory_and_queues_stay_flat() {
    let (seconds, rate) = extent();
    let kafka = Kafka::start_with_heap(512).unwrap();
    let bounds = [("retention.bytes", "134217728"), ("segment.bytes", "33554432")];
    kafka.create_topic("auth", 4, &bounds).unwrap();
    kafka.create_topic("letters", 1, &bounds).unwrap();
    // As many series as by default: reading more of them would be most of the work.
    let config = tempfile::NamedTempFile::new().unwrap();
    let config_path = config.path().display().to_string();
    let more = ["--dead-letter-topic", "letters", "--config", &config_path];
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &more);
    larum.wait_for("the first scrape", 20, |scrape| scrape.tick().is_some());
    let (rate_text, for_text) = (rate.to_string(), format!("{seconds}s"));
    let args = ["--rate", &rate_text, "--for", &for_text, "--tenants", "1000", "--regions", "4"];
    let mut load = Load::start(&kafka.brokers(), "auth", &args);
    // After the first third: resident memory besides the counts, which grow while windows fill.
    let (mut settled, mut worst_lag) = (Vec::new(), 0.0_f64);
    let began = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let second = began.elapsed().as_secs();
        if second >= seconds {
            break;
        }
        let scrape = larum.scrape().expect("it answers");
        let (resident, counts) = (resident_bytes(larum.pid()), sum(&scrape, "larum_pipeline_counts_bytes"));
        let (lag, outbox) = (sum(&scrape, "larum_pipeline_lag_records"), sum(&scrape, "larum_pipeline_outbox_bytes"));
        worst_lag = worst_lag.max(lag);
        if (second / 5).is_multiple_of(6) {
            println!("{second} s: resident {:.0} MB, counts {:.1} MB, {lag} behind", resident / 1e6, counts / 1e6);
        }
        // What is on its way within a few seconds is no queue that grows.
        assert!(lag < 5.0 * rate as f64, "{lag} records behind after {second} s");
        assert!(outbox < 4e6, "{outbox} bytes of refused records wait after {second} s");
        if second < seconds / 3 {
            continue;
        }
        settled.push(resident - counts);
        // For a moment more may be held: records that were fetched, Deltas as large as they may be, and the counts once
        // more while a snapshot of them is written.
        let least = settled.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(
            resident < 1.15 * least + 2.0 * counts + HELD_BYTES_MAX,
            "resident memory is {resident} bytes after {second} s, with counts of {counts} and otherwise {least} at least"
        );
    }
    let (early, late) = settled.split_at(settled.len() / 2);
    let (early, late) = (median(early), median(late));
    assert!(late < 1.1 * early + 16e6, "resident memory besides the counts grew from {early} to {late} bytes");
    load.finish(Duration::from_secs(120));
    let ends = kafka.end_offsets("auth").unwrap();
    let scrape = larum.wait_visible(&ends, 60);
    let (resident, counts) = (resident_bytes(larum.pid()), sum(&scrape, "larum_pipeline_counts_bytes"));
    println!(
        "{seconds} s at {rate}/s, {} records: resident {:.0} MB; besides the counts {:.0} MB, {:.0} MB before; counts {:.0} MB; most records behind {worst_lag}; \
         commits 99 % within {} s; seen 99 % within {} s",
        ends.iter().sum::<i64>(),
        resident / 1e6,
        late / 1e6,
        early / 1e6,
        counts / 1e6,
        quantile_s(&scrape, "larum_pipeline_commit_seconds", 0.99),
        quantile_s(&scrape, "larum_pipeline_visible_seconds", 0.99),
    );
    assert_eq!(larum.terminate(), Some(0));
}
