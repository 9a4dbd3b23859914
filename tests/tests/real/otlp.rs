//! Pushes to a real OpenTelemetry Collector: what it writes equals the truth, by gRPC and HTTP, in the clear and over TLS;
//! a collector that is gone for a while costs nothing but its own numbers.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use larum_tests::collector::Collector;
use larum_tests::kafka::Kafka;
use larum_tests::process::wait_until;
use larum_tests::secured::{authority, certificate};
use serde_json::Value;

use crate::program::{Larum, Load};
use crate::scrape::Scrape;

/// The last value of every point by metric and attributes, over all that was received; those without a value are gone.
fn latest(bodies: &[Value]) -> BTreeMap<(String, BTreeMap<String, String>), Value> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut latest = BTreeMap::new();
    for resource in bodies.iter().flat_map(|body| list(body, "resourceMetrics")) {
        for metric in list(&resource, "scopeMetrics").iter().flat_map(|scope| list(scope, "metrics")) {
            let kind =
                ["gauge", "sum", "exponentialHistogram", "histogram"].iter().find(|kind| !metric[**kind].is_null());
            for point in list(&metric[*kind.unwrap()], "dataPoints") {
                let text = |pair: &Value, key: &str| pair[key].as_str().unwrap().to_string();
                let attributes = list(&point, "attributes");
                let labels = attributes.iter().map(|pair| (text(pair, "key"), text(&pair["value"], "stringValue")));
                let place = (metric["name"].as_str().unwrap().to_string(), labels.collect());
                match point["flags"].as_u64() {
                    Some(1) => drop(latest.remove(&place)),
                    _ => drop(latest.insert(place, point)),
                }
            }
        }
    }
    latest
}

/// Numbers of 64 bits are texts in OTLP's JSON.
fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

/// Compares what the collector holds with a scrape of the same state: every count of logins and tokens.
fn holds(bodies: &[Value], scrape: &Scrape) -> Result<usize, String> {
    let latest = latest(bodies);
    let mut compared = 0;
    for (family, name) in
        [("larum_login_attempts_total", "larum.login.attempts"), ("larum_token_requests_total", "larum.token.requests")]
    {
        for (labels, value) in scrape.of(family) {
            let place = (name.to_string(), labels.iter().cloned().collect());
            let point = latest.get(&place).ok_or_else(|| format!("{place:?} is missing"))?;
            if number(&point["asInt"]) != value {
                return Err(format!("{place:?} is {}, not {value}", point["asInt"]));
            }
            if number(&point["startTimeUnixNano"]) <= 0.0 {
                return Err(format!("{place:?} has no start"));
            }
            compared += 1;
        }
    }
    for (labels, value) in scrape.of("larum_token_latency_seconds_count") {
        let place = ("larum.token.latency".to_string(), labels.iter().cloned().collect());
        let point = latest.get(&place).ok_or_else(|| format!("{place:?} is missing"))?;
        let buckets = point["positive"]["bucketCounts"].as_array().cloned().unwrap_or_default();
        let zeros = if point["zeroCount"].is_null() { 0.0 } else { number(&point["zeroCount"]) };
        let sum = zeros + buckets.iter().map(number).sum::<f64>();
        if (number(&point["count"]), sum, point["scale"].as_i64()) != (value, value, Some(3)) {
            return Err(format!("{place:?}: {point}"));
        }
        compared += 1;
    }
    Ok(compared)
}

fn config(dir: &std::path::Path, kafka: &Kafka, topic: &str, otlp: &str) -> std::path::PathBuf {
    let path = dir.join(format!("{topic}.yaml"));
    let text = format!(
        "kafka: {{brokers: '{}'}}\nsources: [{{name: auth, topics: [{topic}]}}]\nstart_at: earliest\n\
         limits: {{series: 10000000, memory: 16GiB}}\notlp: {{interval: 1s, {otlp}}}\n",
        kafka.brokers()
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_collector_holds_the_truth_by_every_way() {
    let kafka = Kafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path(), "ca").unwrap();
    certificate(dir.path(), "larum").unwrap();
    fs::rename(dir.path().join("larum.pem"), dir.path().join("larum.crt")).unwrap();
    let (clear, secured) = (Collector::start(None).unwrap(), Collector::start(Some(dir.path())).unwrap());
    let tls = format!("tls: {{ca: {0}/ca.pem, certificate: {0}/larum.crt, key: {0}/larum.key}}", dir.path().display());
    let mut seen = [0, 0];
    for (topic, at, otlp) in [
        ("grpc", 0, format!("endpoint: 'http://127.0.0.1:{}'", clear.grpc)),
        ("http", 0, format!("endpoint: 'http://127.0.0.1:{}', protocol: http", clear.http)),
        ("grpc-tls", 1, format!("endpoint: 'https://127.0.0.1:{}', compression: none, {tls}", secured.grpc)),
        ("http-tls", 1, format!("endpoint: 'https://127.0.0.1:{}', protocol: http, {tls}", secured.http)),
    ] {
        kafka.create_topic(topic, 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
        let mut larum = Larum::configured(&config(dir.path(), &kafka, topic, &otlp), &[]);
        let mut load = Load::start(&kafka.brokers(), topic, &["--rate", "1000", "--for", "5s", "--tenants", "8"]);
        load.finish(Duration::from_secs(60));
        let scrape = larum.wait_visible(&kafka.end_offsets(topic).unwrap(), 60);
        let collector = if at == 0 { &clear } else { &secured };
        let arrived = || holds(&collector.bodies("metrics")[seen[at]..], &scrape).ok();
        let compared =
            wait_until("the collector to hold the truth", Duration::from_secs(15), arrived).unwrap_or_else(|error| {
                panic!(
                    "{topic}: {error:#}: {:?}\n{}",
                    holds(&collector.bodies("metrics")[seen[at]..], &scrape),
                    larum.log()
                )
            });
        println!("{topic}: {compared} series equal");
        assert!(compared > 100, "{compared}");
        assert_eq!(larum.terminate(), Some(0));
        // The next way is judged by what comes from now on.
        std::thread::sleep(Duration::from_secs(1));
        seen[at] = collector.bodies("metrics").len();
    }
}

#[test]
fn a_collector_that_is_gone_for_a_while_costs_nothing() {
    let kafka = Kafka::start().unwrap();
    let (dir, mut collector) = (tempfile::tempdir().unwrap(), Collector::start(None).unwrap());
    kafka.create_topic("gone", 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let otlp = format!("endpoint: 'http://127.0.0.1:{}'", collector.grpc);
    let mut larum = Larum::configured(&config(dir.path(), &kafka, "gone", &otlp), &[]);
    larum.wait_for("the first push", 30, |s| s.of("larum_pipeline_otlp_requests_total").any(|s| s.1 > 0.0));
    collector.stop().unwrap();
    let mut load = Load::start(&kafka.brokers(), "gone", &["--rate", "2000", "--for", "10s", "--tenants", "8"]);
    load.finish(Duration::from_secs(60));
    let scrape = larum.wait_visible(&kafka.end_offsets("gone").unwrap(), 30);
    let count = |scrape: &Scrape, result: &str| -> f64 {
        let label = ("result".to_string(), result.to_string());
        scrape.of("larum_pipeline_otlp_requests_total").filter(|s| s.0.contains(&label)).map(|s| s.1).sum()
    };
    assert!(count(&scrape, "failed") + count(&scrape, "dropped") > 0.0, "{}", larum.log());
    collector.again().unwrap();
    let arrived = || holds(&collector.bodies("metrics"), &scrape).ok();
    let compared = wait_until("the truth after the pause", Duration::from_secs(30), arrived).unwrap();
    println!("{compared} series equal after the pause");
    assert!(larum.log().contains("does not take pushes"));
    assert_eq!(larum.terminate(), Some(0));
}
