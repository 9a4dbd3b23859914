//! A real Prometheus scrapes it: rates and gauges agree with the truth, no reset across kill -9.

use std::collections::BTreeMap;
use std::time::Duration;

use larum_tests::kafka::{Header, Kafka, OwnedHeaders};
use larum_tests::process::{now_ms, wait_until};
use larum_tests::prometheus::{Prometheus, check_text_formats, promtool_check_config, promtool_check_metrics};

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

/// Text and OpenMetrics pass strict parsers and say the same; protobuf brings native histograms that are the state.
#[test]
fn every_format_says_the_same() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    let target = format!("127.0.0.1:{}", larum.port);
    let prometheus = Prometheus::start_with(&target, 500, "native-histograms,exemplar-storage").unwrap();
    prometheus.wait_for_target_up().unwrap();
    let mix = ["--rate", "1000", "--for", "15s", "--tenants", "10", "--late", "0.01"];
    let truth = Load::start(&kafka.brokers(), "auth", &mix).finish(Duration::from_secs(60));
    let ends = kafka.end_offsets("auth").unwrap();
    let last = larum.wait_visible(&ends, 60);
    println!("{}", check_text_formats(&target).unwrap().trim());
    let one = |query: &str| {
        let found = prometheus.query(query).unwrap();
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0].1
    };
    let scraped = |name: &str, le: &str| -> f64 {
        let wanted = |labels: &[(String, String)]| le.is_empty() || labels.contains(&("le".into(), le.into()));
        last.of(name).filter(|(labels, _)| wanted(labels)).map(|(_, value)| value).sum()
    };
    let count = scraped("larum_token_latency_seconds_count", "");
    let all = "sum(larum_token_latency_seconds)";
    let held = || (one(&format!("histogram_count({all})")) == count).then_some(());
    wait_until("Prometheus to hold the last state", Duration::from_secs(10), held).unwrap();
    assert!(
        (one(&format!("histogram_sum({all})")) / scraped("larum_token_latency_seconds_sum", "") - 1.0).abs() < 1e-9
    );
    // The share below each classic bound is exact: the bounds are bounds of the native layout.
    for le in ["0.015625", "0.03125", "0.125"] {
        let share = one(&format!("histogram_fraction(0, {le}, {all})"));
        let want = scraped("larum_token_latency_seconds_bucket", le) / count;
        assert!((share - want).abs() < 1e-9, "up to {le} s: {share}, {want}");
    }
    let quantile = one(&format!("histogram_quantile(0.5, {all})"));
    assert!((0.001..1.0).contains(&quantile), "{quantile}");
    assert_eq!(one("sum(larum_login_attempts_total)") as u64, truth.logins.values().sum::<u64>());
    assert_eq!(one("count(larum_build_info)"), 1.0);
    check_exemplars(&kafka, &prometheus);
    assert_eq!(larum.terminate(), Some(0));
}

/// The current Prometheus takes everything at once by protobuf; start times make what was counted before the first scrape
/// part of the increase, across kills.
#[test]
fn current_prometheus_takes_histograms_of_both_sorts_exemplars_and_start_times() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    let prometheus = Prometheus::start_upstream(&format!("127.0.0.1:{}", larum.port), 500).unwrap();
    prometheus.wait_for_target_up().unwrap();
    let mix = ["--rate", "1000", "--for", "25s", "--tenants", "10", "--late", "0.01"];
    let mut load = Load::start(&kafka.brokers(), "auth", &mix);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(6));
        larum.kill_9();
        larum.again();
    }
    let truth = load.finish(Duration::from_secs(60));
    let last = larum.wait_visible(&kafka.end_offsets("auth").unwrap(), 60);
    let one = |query: &str| {
        let found = prometheus.query(query).unwrap();
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0].1
    };
    let sum = |truth: &std::collections::BTreeMap<_, u64>| truth.values().sum::<u64>() as f64;
    let (logins, tokens) = (sum(&truth.logins), truth.tokens.values().sum::<u64>() as f64);
    let held = || (one("sum(larum_login_attempts_total)") == logins).then_some(());
    wait_until("Prometheus to hold the last state", Duration::from_secs(10), held).unwrap();
    for (family, want) in [("larum_login_attempts_total", logins), ("larum_token_requests_total", tokens)] {
        assert_eq!(one(&format!("sum(resets({family}[5m]))")), 0.0, "{family}");
        // From the zero at its start on, nothing is missing.
        assert_eq!(one(&format!("sum(max_over_time({family}[5m]) - min_over_time({family}[5m]))")), want, "{family}");
        let increase = one(&format!("sum(increase({family}[5m]))"));
        assert!((increase / want - 1.0).abs() < 0.05, "{family}: {increase}, {want}");
    }
    let count: f64 = last.of("larum_token_latency_seconds_count").map(|sample| sample.1).sum();
    assert_eq!(one("sum(larum_token_latency_seconds_count)"), count, "classic");
    assert_eq!(one("histogram_count(sum(larum_token_latency_seconds))"), count, "native");
    for le in ["0.015625", "0.125", "1.0"] {
        let below = one(&format!("sum(larum_token_latency_seconds_bucket{{le=\"{le}\"}})"));
        let share = one(&format!("histogram_fraction(0, {le}, sum(larum_token_latency_seconds))"));
        assert!((share - below / count).abs() < 1e-9, "up to {le} s: {share}, {below} of {count}");
    }
    for q in [0.5, 0.99] {
        let native = one(&format!("histogram_quantile({q}, sum(larum_token_latency_seconds))"));
        let classic = one(&format!("histogram_quantile({q}, sum by (le) (larum_token_latency_seconds_bucket))"));
        assert!((0.5..2.0).contains(&(native / classic)), "a classic bucket spans a doubling: {native}, {classic}");
    }
    check_exemplars(&kafka, &prometheus);
    assert_eq!(larum.terminate(), Some(0));
}

/// What Prometheus holds as exemplars are traces of records in the topic, with their latencies; one that only its record's
/// header names gets there too.
fn check_exemplars(kafka: &Kafka, prometheus: &Prometheus) {
    let traces: BTreeMap<String, f64> = (kafka.read_all("auth").unwrap().into_iter())
        .filter_map(|message| {
            let event: serde_json::Value = serde_json::from_slice(&message.value?).ok()?;
            Some((event["trace_id"].as_str()?.to_string(), event["latency_ms"].as_f64()? / 1000.0))
        })
        .collect();
    let mut held = 0;
    for family in ["larum_login_latency_seconds", "larum_token_latency_seconds", "larum_permission_latency_seconds"] {
        let bucket = format!("{family}_bucket");
        for (labels, seconds) in [family, &bucket].iter().flat_map(|name| prometheus.exemplars(name).unwrap()) {
            let latency = traces.get(&labels["trace_id"]).unwrap_or_else(|| panic!("whose trace is {labels:?}?"));
            assert!((seconds - latency).abs() < 1e-9, "{labels:?} took {latency} s, not {seconds}");
            held += 1;
        }
    }
    assert!(held > 20, "only {held} exemplars of {} traces", traces.len());
    let now_ms = now_ms();
    let event = format!(
        r#"{{"time":{now_ms},"kind":"login","tenant":"by-header","outcome":"success","latency_ms":2500,"actor":{{"id":"u1"}}}}"#
    );
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let value = format!("00-{trace}-{span}-01");
    let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(&value) });
    let producer = kafka.producer().unwrap();
    producer.produce_with("auth", Some(0), None, Some(event.as_bytes()), None, Some(headers)).unwrap();
    producer.flush().unwrap();
    let query = "{__name__=~\"larum_login_latency_seconds(_bucket)?\",tenant=\"by-header\"}";
    let found = || prometheus.exemplars(query).unwrap().pop();
    let (labels, seconds) = wait_until("the exemplar named by a header", Duration::from_secs(15), found).unwrap();
    assert_eq!((labels["trace_id"].as_str(), labels["span_id"].as_str(), seconds), (trace, span, 2.5));
    println!("{held} exemplars held by Prometheus");
}
