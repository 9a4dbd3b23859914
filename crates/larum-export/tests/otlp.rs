//! Pushes read back through OpenTelemetry's own message types; what becomes of them at collectors that are slow, full or
//! gone.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larum_aggregate::histogram::{BUCKETS, Bucket, ONE_SECOND_OFFSET, ZERO_BUCKET};
use larum_aggregate::{BucketSets, Exemplar, KeyId, SourceId};
use larum_export::otlp::{Answer, Body, Link, OtlpWriter, Protocol, Queue};
use larum_view::signals::{self, SIGNALS, SignalType};
use larum_view::{ClassicRead, HistogramRead, Sink, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric, number_data_point};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const NOW_NS: i64 = 1_773_480_000_000_000_000;

fn writer() -> OtlpWriter {
    let mut writer = OtlpWriter::new("1.2.3", "host:1");
    writer.begin(NOW_NS);
    writer
}

fn requests(bodies: &[Body]) -> Vec<ExportMetricsServiceRequest> {
    bodies.iter().map(|body| ExportMetricsServiceRequest::decode(body.clone()).unwrap()).collect()
}

fn metrics(bodies: &[Body]) -> Vec<Metric> {
    let all = requests(bodies).into_iter().flat_map(|r| r.resource_metrics).flat_map(|r| r.scope_metrics);
    all.flat_map(|scope| scope.metrics).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => (pair.key.clone(), text),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(text).collect()
}

fn numbers(metric: &Metric) -> &[NumberDataPoint] {
    match metric.data.as_ref().unwrap() {
        metric::Data::Gauge(gauge) => &gauge.data_points,
        metric::Data::Sum(sum) => {
            assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
            &sum.data_points
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sums_gauges_and_their_times() {
    let mut writer = writer();
    let (counter, gauge) = (writer.family(&signals::LOGIN_ATTEMPTS), writer.family(&signals::LOGIN_FAILURE_RATIO));
    writer.scope(&[("source", "s"), ("tenant", "a\"\nb")], Some(5_000_000_000));
    writer.sample(counter, &[("outcome", "failure")], Value::Int(7));
    writer.window(NOW_NS - 2_000_000_000);
    writer.sample(gauge, &[("window", "5m")], Value::Float(0.25));
    writer.sample(gauge, &[("window", "1h")], Value::TimeNs(250_000_000));
    let bodies = OtlpWriter::finish(slice::from_mut(&mut writer));
    let request = &requests(&bodies)[0].resource_metrics[0];
    let resource = texts(&request.resource.as_ref().unwrap().attributes);
    assert_eq!((resource["service.name"].as_str(), resource["service.instance.id"].as_str()), ("larum", "host:1"));
    assert_eq!(request.scope_metrics[0].scope.as_ref().unwrap().name, "larum");
    let metrics = metrics(&bodies);
    assert_eq!((metrics[0].name.as_str(), metrics[0].unit.as_str()), ("larum.login.attempts", "{event}"));
    let point = &numbers(&metrics[0])[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5_000_000_000, NOW_NS as u64));
    assert_eq!(point.value, Some(number_data_point::Value::AsInt(7)));
    let want = [("source", "s"), ("tenant", "a\"\nb"), ("outcome", "failure")];
    assert_eq!(texts(&point.attributes), want.map(|(k, v)| (k.to_string(), v.to_string())).into());
    assert_eq!((metrics[1].name.as_str(), metrics[1].unit.as_str()), ("larum.login.failure", "1"));
    let point = &numbers(&metrics[1])[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (0, NOW_NS as u64 - 2_000_000_000));
    let in_seconds = &numbers(&metrics[1])[1];
    for point in [point, in_seconds] {
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(0.25)));
    }
}

#[test]
fn exponential_histograms_are_the_state() {
    let exemplar = Exemplar {
        source: SourceId(0),
        tick: 1,
        key: KeyId(0),
        histogram: 0,
        hash: 0,
        trace_id: [7; 16],
        span_id: Some([8; 8]),
        latency_ns: 250_000_000,
        time_ns: NOW_NS,
    };
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let state: BTreeMap<Bucket, u64> = (0..rng.usize(..30))
            .map(|_| (rng.u16(..BUCKETS as u16), 1 + (rng.u64(..1 << 40) >> rng.u8(..39))))
            .collect();
        let state: Vec<(Bucket, u64)> = state.into_iter().collect();
        let sets: BucketSets<()> = state.iter().copied().collect();
        let mut writer = writer();
        let family = writer.family(&signals::TOKEN_LATENCY);
        writer.scope(&[("source", "s")], Some(9));
        let exemplars = &[&exemplar][..];
        writer.histogram(
            family,
            &[("op", "issue")],
            HistogramRead { buckets: sets.get(0), sum_ns: 1_500_000_000, exemplars },
        );
        let metrics = metrics(&OtlpWriter::finish(slice::from_mut(&mut writer)));
        let Some(metric::Data::ExponentialHistogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert_eq!((metrics[0].name.as_str(), histogram.aggregation_temporality), ("larum.token.latency", 2));
        let point = &histogram.data_points[0];
        assert_eq!((point.scale, point.sum, point.start_time_unix_nano), (3, Some(1.5), 9));
        assert_eq!(point.count, state.iter().map(|b| b.1).sum::<u64>());
        assert_eq!(texts(&point.attributes).len(), 2);
        let positive = point.positive.clone().unwrap_or_default();
        let number = |at: usize| (positive.offset + at as i32 + ONE_SECOND_OFFSET) as Bucket;
        let counted =
            positive.bucket_counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(at, n)| (number(at), *n));
        let zeros = (point.zero_count > 0).then_some((ZERO_BUCKET, point.zero_count));
        assert_eq!(zeros.into_iter().chain(counted).collect::<Vec<_>>(), state, "seed {seed}");
        let told = &point.exemplars[0];
        assert_eq!((told.trace_id.as_slice(), told.span_id.as_slice()), (&[7; 16][..], &[8; 8][..]));
        assert_eq!(told.time_unix_nano, NOW_NS as u64);
    }
}

#[test]
fn a_series_that_ends_says_so_in_a_few_pushes() {
    let sets: BucketSets<()> = [(9, 1)].into_iter().collect();
    let mut writer = writer();
    let mut push = |tenants: &[&str]| {
        writer.begin(NOW_NS);
        let (gauge, latency) = (writer.family(&signals::LOGIN_FAILURE_RATIO), writer.family(&signals::LOGIN_LATENCY));
        for tenant in tenants {
            writer.scope(&[("tenant", tenant)], Some(1));
            writer.sample(gauge, &[], Value::Float(0.5));
            writer.histogram(latency, &[], HistogramRead { buckets: sets.get(0), sum_ns: 1, exemplars: &[] });
        }
        let mut said = Vec::new();
        for metric in metrics(&OtlpWriter::finish(slice::from_mut(&mut writer))) {
            let points: Vec<(&[KeyValue], u32)> = match metric.data.as_ref().unwrap() {
                metric::Data::Gauge(g) => g.data_points.iter().map(|p| (&p.attributes[..], p.flags)).collect(),
                metric::Data::ExponentialHistogram(h) => {
                    h.data_points.iter().map(|p| (&p.attributes[..], p.flags)).collect()
                }
                other => panic!("{other:?}"),
            };
            said.extend(points.into_iter().map(|(labels, flags)| (texts(labels)["tenant"].clone(), flags)));
        }
        said.sort();
        said.into_iter().map(|(tenant, flags)| format!("{tenant}{flags}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(push(&["a", "b"]), "a0 a0 b0 b0");
    for _ in 0..5 {
        assert_eq!(push(&["b"]), "a1 a1 b0 b0");
    }
    assert_eq!(push(&["b"]), "b0 b0");
    assert_eq!(push(&[]), "b1 b1");
    assert_eq!(push(&["b"]), "b0 b0", "it is back");
    for _ in 0..5 {
        assert_eq!(push(&[]), "b1 b1");
    }
    assert_eq!(push(&[]), "");
}

#[test]
fn every_signal_fits_and_no_request_is_too_large() {
    let mut writer = writer();
    let mut want = 0;
    for signal in SIGNALS {
        let family = writer.family(signal);
        for n in 0..1500 {
            let tenant = format!("tenant-{n}");
            let labels = [("tenant", tenant.as_str())];
            writer.scope(if signal.labels.is_empty() { &[] } else { &labels }, Some(1));
            match signal.kind {
                SignalType::Histogram if signal.labels.is_empty() => {
                    writer.scope(&[], None);
                    writer.classic(family, &[], ClassicRead { buckets: &[(0.5, 2), (1.0, 5)], sum: 3.5, count: 9 });
                }
                SignalType::Histogram => {
                    let sets: BucketSets<()> = [(9, 1), (90, 4)].into_iter().collect();
                    let read = HistogramRead { buckets: sets.get(0), sum_ns: 1, exemplars: &[] };
                    writer.histogram(family, &[], read);
                }
                _ => writer.sample(family, &[], Value::Int(1)),
            }
            want += 1;
        }
    }
    let bodies = OtlpWriter::finish(slice::from_mut(&mut writer));
    assert!(bodies.len() > 2 && bodies.iter().all(|body| body.len() < 3 << 20));
    let mut got = 0;
    for metric in metrics(&bodies) {
        got += match metric.data.unwrap() {
            metric::Data::Gauge(gauge) => gauge.data_points.len(),
            metric::Data::Sum(sum) => sum.data_points.len(),
            metric::Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
            metric::Data::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[2, 3, 4][..], &[0.5, 1.0][..]));
                histogram.data_points.len()
            }
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(got, want);
}

/// A collector that answers as told, in turn, and keeps what it was sent.
async fn collector(answers: Vec<Vec<u8>>) -> (String, tokio::task::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut bodies = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = loop {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                request.extend_from_slice(&chunk[..n]);
                let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&request[..at]).to_lowercase();
                assert!(head.starts_with("post /v1/metrics ") && head.contains("x-scope: blue"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if request.len() >= at + 4 + length.parse::<usize>().unwrap() {
                    break request[at + 4..].to_vec();
                }
            };
            bodies.push(body);
            stream.write_all(&answer).await.unwrap();
        }
        bodies
    });
    (endpoint, serving)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn link(endpoint: String, dir: &std::path::Path) -> Link {
    let headers = dir.join("headers");
    std::fs::write(&headers, "# of the tenant\n\nX-Scope: blue\n").unwrap();
    Link { endpoint, protocol: Protocol::Http, headers_file: Some(headers), ..Link::default() }
}

#[tokio::test]
async fn a_push_is_sent_again_unchanged_and_partial_success_is_counted() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "old".into() }),
    };
    let answers = vec![
        answer("503 Service Unavailable", "retry-after: 1\r\n", b""),
        answer("429 Too Many Requests", "", b""),
        answer("200 OK", "", &partial.encode_to_vec()),
        answer("400 Bad Request", "", b"never"),
    ];
    let (endpoint, serving) = collector(answers).await;
    let dir = tempfile::tempdir().unwrap();
    let (client, queue) = (link(endpoint, dir.path()).client().unwrap(), Arc::new(Queue::default()));
    queue.push(vec![Body::from_static(b"one"), Body::from_static(b"two")]);
    let began = tokio::time::Instant::now();
    let delivering = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.deliver(&client).await })
    };
    let bodies = serving.await.unwrap();
    assert_eq!(bodies, [&b"one"[..], b"one", b"one", b"two"]);
    assert!(began.elapsed() >= Duration::from_secs(1), "it was asked to wait a second");
    while queue.counts.failed.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let c = &queue.counts;
    assert_eq!([&c.sent, &c.retried, &c.failed, &c.dropped, &c.rejected].map(count), [1, 2, 1, 0, 3]);
    delivering.abort();
}

#[tokio::test]
async fn without_a_collector_the_queue_stays_short() {
    let queue = Queue::default();
    for n in 0..100_u8 {
        queue.push(vec![Body::from(vec![n]); 2]);
    }
    assert_eq!(queue.counts.dropped.load(Ordering::Relaxed), 2 * 96, "only the last four wait");
    let dir = tempfile::tempdir().unwrap();
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let nobody = Link { protocol, ..link("http://127.0.0.1:1".into(), dir.path()) };
        let answer = nobody.client().unwrap().send(Body::from_static(b"x")).await;
        assert!(matches!(answer, Answer::Again { after: None, .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn what_a_link_names_is_checked_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("headers");
    std::fs::write(&secret, "authorization Bearer canary\n").unwrap();
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let link = |headers_file, ca| Link {
            endpoint: "https://localhost:1".into(),
            protocol,
            headers_file,
            ca,
            ..Link::default()
        };
        let why = link(Some(secret.clone()), None).client().err().unwrap();
        assert!(why.contains("line 1 is not of the form") && !why.contains("canary"), "{why}");
        let why = link(None, Some(dir.path().join("none.pem"))).client().err().unwrap();
        assert!(why.contains("none.pem"), "{why}");
    }
}

/// What several writers wrote is one push; a series that moves from one to another goes on, and one that is gone ends.
#[test]
fn several_writers_make_one_push() {
    let mut writers = [(); 2].map(|()| writer());
    let mut push = |tenants: [&[&str]; 2]| {
        for (writer, tenants) in writers.iter_mut().zip(tenants) {
            writer.begin(NOW_NS);
            let gauge = writer.family(&signals::LOGIN_FAILURE_RATIO);
            for tenant in tenants {
                writer.scope(&[("tenant", tenant)], Some(1));
                writer.sample(gauge, &[], Value::Float(0.5));
            }
        }
        let metrics = metrics(&OtlpWriter::finish(&mut writers));
        let [metric] = &metrics[..] else { panic!("{metrics:?}") };
        let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
        let point = |point: &NumberDataPoint| (texts(&point.attributes).into_values().collect::<String>(), point.flags);
        gauge.data_points.iter().map(point).collect::<Vec<_>>()
    };
    let said =
        |points: &[(&str, u32)]| points.iter().map(|(tenant, flags)| (tenant.to_string(), *flags)).collect::<Vec<_>>();
    assert_eq!(push([&["a", "b"], &["c"]]), said(&[("a", 0), ("b", 0), ("c", 0)]));
    assert_eq!(push([&["a"], &["b", "c"]]), said(&[("a", 0), ("b", 0), ("c", 0)]));
    // The first tells of those that are gone.
    assert_eq!(push([&["a"], &["c", "d"]]), said(&[("a", 0), ("b", 1), ("c", 0), ("d", 0)]));
    assert_eq!(push([&[], &["d"]]), said(&[("a", 1), ("b", 1), ("c", 1), ("d", 0)]));
}

/// What was written and never finished, say because the push panicked, is no part of the next.
#[test]
fn what_was_never_finished_is_forgotten() {
    let mut writer = writer();
    let write = |writer: &mut OtlpWriter, tenant: &str| {
        writer.begin(NOW_NS);
        let gauge = writer.family(&signals::LOGIN_FAILURE_RATIO);
        writer.scope(&[("tenant", tenant)], Some(1));
        writer.sample(gauge, &[], Value::Float(0.5));
    };
    let tenants = |writer: &mut OtlpWriter| {
        let metrics = metrics(&OtlpWriter::finish(slice::from_mut(writer)));
        numbers(&metrics[0]).iter().map(|point| (texts(&point.attributes)["tenant"].clone(), point.flags)).collect()
    };
    write(&mut writer, "a");
    let said: Vec<(String, u32)> = tenants(&mut writer);
    assert_eq!(said, [("a".to_string(), 0)]);
    write(&mut writer, &"lost".repeat(20));
    writer.start_over();
    // Without a scope of its own nothing of the one before is left.
    let family = writer.family(&signals::TICK);
    writer.sample(family, &[("tenant", "b")], Value::Int(1));
    let said: Vec<(String, u32)> = tenants(&mut writer);
    assert_eq!(said, [("b".to_string(), 0)], "and a family that is not named cannot tell of the end of a");
}
