//! A real Prometheus scrapes it: rates and gauges agree with the truth, no reset across kill -9.

use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::prometheus::{Prometheus, promtool_check_config, promtool_check_metrics};

use crate::oracle::Oracle;
use crate::program::{Larum, Load};

#[test]
fn prometheus_agrees_with_the_truth_across_kill_9() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    let prometheus = Prometheus::start(&format!("127.0.0.1:{}", larum.port), 500).unwrap();
    prometheus.wait_for_target_up().unwrap();
    let mix = ["--rate", "1000", "--for", "40s", "--tenants", "10", "--late", "0.01"];
    let mut load = Load::start(&kafka.brokers(), "auth", &mix);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(9));
        larum.kill_9();
        larum.again();
    }
    let truth = load.finish(Duration::from_secs(60));
    let ends = kafka.end_offsets("auth").unwrap();
    let last = larum.wait_visible(&ends, 60);
    std::thread::sleep(Duration::from_secs(2));
    let one = |query: &str| {
        let found = prometheus.query(query).unwrap();
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0].1
    };
    for family in ["larum_login_attempts_total", "larum_token_requests_total", "larum_token_latency_seconds_count"] {
        assert_eq!(one(&format!("sum(resets({family}[5m]))")), 0.0, "{family}");
    }
    let want: u64 = truth.logins.values().sum();
    assert_eq!(one("sum(larum_login_attempts_total)") as u64, want);
    // increase() does not see what was counted before the first scrape of each of many rare series: within 10 %.
    let increase = one("sum(increase(larum_token_requests_total[5m]))");
    let tokens: u64 = truth.tokens.values().sum();
    assert!((increase / tokens as f64 - 1.0).abs() < 0.1, "{increase} {tokens}");
    // The gauge that Prometheus holds is the one that was scraped.
    let scraped: f64 = last
        .of("larum_login_failures_per_second")
        .filter(|s| s.0.contains(&("window".into(), "1h".into())))
        .map(|s| s.1)
        .sum();
    let held = one("sum(larum_login_failures_per_second{window=\"1h\"})");
    assert!((held / scraped - 1.0).abs() < 0.2, "{held} {scraped}");
    Oracle::of(&kafka, "auth").check_totals(&last);
    let verdict = promtool_check_metrics(&larum.page("/metrics").unwrap()).unwrap();
    assert_eq!(verdict.trim(), "", "promtool has nothing to say");
    println!("no resets; sum of logins {want}; increase of tokens {increase:.0} of {tokens}");
}

#[test]
fn the_shipped_prometheus_configuration_is_valid() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/prometheus.yml");
    promtool_check_config(&path).unwrap();
}
