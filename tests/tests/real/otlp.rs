//! Pushes to a real OpenTelemetry Collector: what it writes equals the truth, by gRPC and HTTP, in the clear and over TLS;
//! a collector that is gone for a while costs nothing but its own numbers.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use larum_tests::collector::Collector;
use larum_tests::kafka::Kafka;
use larum_tests::process::{now_ms, wait_until};
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
         limits: {{series: 10000000, memory: 64GiB}}\notlp: {{interval: 1s, trace_share: 1, instance: larum-{topic}, {otlp}}}\n",
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
        let producer = kafka.producer().unwrap();
        producer.produce(topic, Some(0), None, Some(change("dep-1").as_bytes()), None).unwrap();
        producer.flush().unwrap();
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
        let of_it = |signal: &str| {
            collector.bodies(signal).iter().any(|body| body.to_string().contains(&format!("larum-{topic}")))
        };
        for signal in ["logs", "traces"] {
            let arrived = || of_it(signal).then_some(());
            wait_until(&format!("{signal} by {topic}"), Duration::from_secs(15), arrived).unwrap();
        }
        assert!(compared > 100, "{compared}");
        assert_eq!(larum.terminate(), Some(0));
        // The next way is judged by what comes from now on.
        std::thread::sleep(Duration::from_secs(1));
        seen[at] = collector.bodies("metrics").len();
    }
}

/// A deploy just now, with a trace.
fn change(id: &str) -> String {
    format!(
        r#"{{"kind":"change","op":"deploy","time":{},"service":"token-issuer","region":"eu-west-1","trace_id":"{TRACE}",
        "span_id":"{SPAN}","change":{{"id":"{id}","subject":"token-issuer","from":"1.8.2","to":"1.9.0",
        "by":"canary-ci","approved_by":"canary-j.doe"}}}}"#,
        now_ms()
    )
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// What people are and hold is in no byte that leaves: scrapes in every format, pushes, log records, traces, lines.
#[test]
fn accounts_addresses_and_tokens_appear_nowhere() {
    let kafka = Kafka::start().unwrap();
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start(None).unwrap());
    kafka.create_topic("canary", 1, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let otlp = format!("endpoint: 'http://127.0.0.1:{}'", collector.grpc);
    let mut larum = Larum::configured(&config(dir.path(), &kafka, "canary", &otlp), &[]);
    let producer = kafka.producer().unwrap();
    let produce = |value: &str| producer.produce("canary", Some(0), None, Some(value.as_bytes()), None).unwrap();
    for n in 0..50 {
        for (kind, more) in [
            ("login", ""),
            ("token", r#","op":"refresh""#),
            (
                "permission",
                r#","op":"escalate","permission":{"subject":"canary-subject","role":"canary-role","resource":"canary-resource"}"#,
            ),
        ] {
            produce(&format!(
                r#"{{"time":{},"kind":"{kind}","tenant":"canary-{n}@example.com","outcome":"failure","latency_ms":900,
                "id":"canary-id","client":"canary-client","actor":{{"id":"canary-account"}},"trace_id":"{TRACE}",
                "source":{{"ip":"canary-address","ua":"canary-agent"}}{more}}}"#,
                now_ms()
            ));
        }
    }
    produce("canary-token {");
    produce(r#"{"kind":"login","canary-key":"eyJ-canary"#);
    produce(&change("dep-canary@example.com").replace("token-issuer", "canary@example.com"));
    produce(&change("dep-7"));
    producer.flush().unwrap();
    let scrape = larum.wait_visible(&kafka.end_offsets("canary").unwrap(), 60);
    assert!(scrape.of("larum_login_attempts_total").any(|sample| sample.1 > 0.0));
    let told = || {
        let logs = collector.bodies("logs");
        let all: String = logs.iter().map(Value::to_string).collect();
        (all.contains("dep-7") && !collector.bodies("traces").is_empty()).then_some(all)
    };
    let logs = wait_until("the change as a log record", Duration::from_secs(20), told).unwrap();
    for part in ["deploy of token-issuer in eu-west-1: 1.8.2 -> 1.9.0", TRACE, SPAN, "canary/0@", "(not shown)"] {
        // The topic is named so; what is not shown is what the producers wrote.
        assert!(logs.contains(part), "{part}: {logs}");
    }
    std::thread::sleep(Duration::from_secs(2));
    let mut bytes = vec![("lines", larum.log().into_bytes()), ("log records", logs.into_bytes())];
    for signal in ["metrics", "traces"] {
        bytes.push((signal, collector.bodies(signal).iter().map(Value::to_string).collect::<String>().into_bytes()));
    }
    for accept in [
        "text/plain",
        "application/openmetrics-text;version=1.0.0",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ] {
        bytes.push((accept, larum.raw_page("/metrics", accept)));
    }
    for (what, bytes) in bytes {
        let text = String::from_utf8_lossy(&bytes)
            .replace("canary/0@", "")
            .replace("\"canary\"", "")
            .replace("larum-canary", "");
        assert!(bytes.len() > 100, "{what} is empty");
        for canary in ["canary-", "@example", "eyJ"] {
            let at = text.find(canary).map(|at| text[at.saturating_sub(80)..].chars().take(200).collect::<String>());
            assert_eq!(at, None, "{what} shows {canary}");
        }
    }
    assert_eq!(larum.terminate(), Some(0));
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
