//! Every format read back by a reader of its own: the same samples come out, and no label value gets out of its quotes.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::slice;

use larum_aggregate::histogram::{BUCKETS, Bucket, bucket_of, upper_seconds};
use larum_aggregate::{BucketSets, Exemplar, KeyId, SourceId};
use larum_export::{Flavour, ProtoWriter, TextWriter};
use larum_view::signals::{self, SIGNALS};
use larum_view::{ClassicRead, HistogramRead, Label, Signal, Sink, Value};
use prost::Message;

/// The parts of `io/prometheus/client/metrics.proto` (Prometheus 3) that Larum writes, proto3.
mod model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LabelPair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Gauge {
        #[prost(double, tag = "1")]
        pub value: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Counter {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(message, optional, tag = "3")]
        pub start_timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bucket {
        #[prost(uint64, tag = "1")]
        pub cumulative_count: u64,
        #[prost(double, tag = "2")]
        pub upper_bound: f64,
        #[prost(message, optional, tag = "3")]
        pub exemplar: Option<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(message, optional, tag = "3")]
        pub timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(uint64, tag = "1")]
        pub sample_count: u64,
        #[prost(double, tag = "2")]
        pub sample_sum: f64,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, tag = "5")]
        pub schema: i32,
        #[prost(double, tag = "6")]
        pub zero_threshold: f64,
        #[prost(uint64, tag = "7")]
        pub zero_count: u64,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "13")]
        pub positive_delta: Vec<i64>,
        #[prost(message, optional, tag = "15")]
        pub start_timestamp: Option<Timestamp>,
        #[prost(message, repeated, tag = "16")]
        pub exemplars: Vec<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Gauge>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricFamily {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub help: String,
        #[prost(int32, tag = "3")]
        pub r#type: i32,
        #[prost(message, repeated, tag = "4")]
        pub metric: Vec<Metric>,
        #[prost(string, tag = "5")]
        pub unit: String,
    }
}

fn families(mut bytes: &[u8]) -> Vec<model::MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(model::MetricFamily::decode_length_delimited(&mut bytes).unwrap());
    }
    families
}

/// (bucket, count) of a native histogram.
fn native(histogram: &model::Histogram) -> Vec<(Bucket, u64)> {
    let mut buckets = Vec::new();
    if histogram.zero_count > 0 {
        buckets.push((0, histogram.zero_count));
    }
    let (mut index, mut count, mut deltas) = (0_i64, 0_i64, histogram.positive_delta.iter());
    for span in &histogram.positive_span {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            // Index 0 ends at one second.
            let bound = (index as f64 / 8.0).exp2();
            let bucket = (0..BUCKETS as Bucket).find(|b| (upper_seconds(*b) / bound - 1.0).abs() < 1e-9).unwrap();
            buckets.push((bucket, count as u64));
            index += 1;
        }
    }
    assert!(deltas.next().is_none());
    buckets
}

/// What a text label means, by the rules of the format.
fn unescaped(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next().unwrap() {
                'n' => '\n',
                other => other,
            }),
            c => out.push(c),
        }
    }
    out
}

/// Name, labels and value of a text line.
fn line(text: &str) -> (String, BTreeMap<String, String>, String) {
    let (name, mut rest) = text.split_at(text.find(['{', ' ']).unwrap());
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, after) = rest.trim_start_matches(',').split_once("=\"").unwrap();
            let mut end = 0;
            let bytes = after.as_bytes();
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            assert!(labels.insert(name.to_string(), unescaped(&after[..end])).is_none());
            rest = &after[end + 1..];
        }
        rest = &rest[1..];
    }
    (name.to_string(), labels, rest.strip_prefix(' ').unwrap().to_string())
}

fn hostile(rng: &mut fastrand::Rng) -> String {
    let parts = ["\"", "\\", "\n", "} 1\n", ",le=\"+Inf\"", "é", "\u{2028}", "a", " ", "\\n", "# EOF", "{", "\u{0}"];
    (0..rng.usize(..6)).map(|_| parts[rng.usize(..parts.len())]).collect()
}

fn as_map(labels: &[Label<'_>]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn text_of(writer: &mut TextWriter) -> String {
    String::from_utf8(TextWriter::finish(slice::from_mut(writer)).to_vec()).unwrap()
}

fn bytes_of(writer: &mut ProtoWriter) -> Vec<u8> {
    ProtoWriter::finish(slice::from_mut(writer)).to_vec()
}

#[test]
fn hostile_labels_round_trip_and_inject_nothing() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (tenant, region) = (hostile(&mut rng), hostile(&mut rng));
        let scope = [("source", "s"), ("tenant", tenant.as_str())];
        let own = [("region", region.as_str())];
        let want = as_map(&[scope[0], scope[1], own[0]]);
        for flavour in [Flavour::Prometheus, Flavour::OpenMetrics] {
            let mut writer = TextWriter::new(flavour);
            let family = writer.family(&signals::LOGIN_ATTEMPTS);
            writer.scope(&scope, None);
            writer.sample(family, &own, Value::Int(7));
            let text = text_of(&mut writer);
            let samples: Vec<&str> = text.split('\n').filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
            assert_eq!(samples.len(), 1, "seed {seed}: {text:?}");
            assert_eq!(
                line(samples[0]),
                ("larum_login_attempts_total".to_string(), want.clone(), "7".to_string()),
                "seed {seed}"
            );
        }
        let mut writer = ProtoWriter::default();
        let family = writer.family(&signals::LOGIN_ATTEMPTS);
        writer.scope(&scope, Some(3_000_000_004));
        writer.sample(family, &own, Value::Int(7));
        let got = families(&bytes_of(&mut writer));
        let [metric] = got[0].metric.as_slice() else { panic!("{got:?}") };
        let labels = metric.label.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
        assert_eq!((labels, got.len()), (want, 1), "seed {seed}");
        let started = model::Timestamp { seconds: 3, nanos: 4 };
        assert_eq!(metric.counter, Some(model::Counter { value: 7.0, start_timestamp: Some(started) }));
    }
}

#[test]
fn native_buckets_are_the_state_and_classic_ones_follow_from_it() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let state: BTreeMap<Bucket, u64> = (0..rng.usize(..40))
            .map(|_| {
                let near = 200 + rng.u16(..20);
                let bits = rng.u32(1..40);
                (if rng.bool() { near } else { rng.u16(..BUCKETS as u16) }, rng.u64(1..1 << bits))
            })
            .collect();
        let state: Vec<(Bucket, u64)> = state.into_iter().collect();
        let total: u64 = state.iter().map(|b| b.1).sum();
        let sets: BucketSets<()> = state.iter().copied().collect();
        let read = HistogramRead { buckets: sets.get(0), sum_ns: 2_500_000_000, exemplars: &[] };
        let mut writer = ProtoWriter::default();
        let family = writer.family(&signals::TOKEN_LATENCY);
        writer.histogram(family, &[("op", "issue")], read);
        let bytes = bytes_of(&mut writer);
        let got = families(&bytes);
        assert_eq!((got[0].r#type, got[0].unit.as_str()), (4, "seconds"));
        let histogram = got[0].metric[0].histogram.clone().unwrap();
        assert_eq!((histogram.sample_count, histogram.sample_sum, histogram.schema), (total, 2.5, 3));
        assert_eq!(native(&histogram), state, "seed {seed}");
        assert!(!histogram.positive_span.is_empty(), "an empty one is a native histogram too");
        for bucket in &histogram.bucket {
            let below = |b: &&(Bucket, u64)| upper_seconds(b.0) <= bucket.upper_bound * (1.0 + 1e-9);
            let want: u64 = state.iter().filter(below).map(|b| b.1).sum();
            assert_eq!(bucket.cumulative_count, want, "seed {seed}: up to {} s", bucket.upper_bound);
        }
        // The text says the same.
        let mut writer = TextWriter::new(Flavour::OpenMetrics);
        let family = writer.family(&signals::TOKEN_LATENCY);
        writer.histogram(family, &[("op", "issue")], read);
        let text = text_of(&mut writer);
        let lines = text.lines().filter(|l| l.contains("_bucket")).map(line);
        let text: Vec<(f64, u64)> =
            lines.map(|(_, labels, n)| (labels["le"].parse().unwrap(), n.parse().unwrap())).collect();
        let mut want: Vec<(f64, u64)> = histogram.bucket.iter().map(|b| (b.upper_bound, b.cumulative_count)).collect();
        want.push((f64::INFINITY, total));
        assert_eq!(text, want, "seed {seed}");
    }
}

#[test]
fn exemplars_stand_at_the_bucket_that_counts_them() {
    let exemplar = |tick, latency_ns, span_id| Exemplar {
        source: SourceId(0),
        tick,
        key: KeyId(0),
        histogram: 0,
        hash: 0,
        trace_id: [tick as u8; 16],
        span_id,
        latency_ns,
        time_ns: 1_773_480_000_123_000_000,
    };
    let latencies = [700_000_000, 600_000_000, 300_000_000_000];
    let exemplars: Vec<Exemplar> =
        (1..).zip(latencies).map(|(tick, ns)| exemplar(tick, ns, (tick > 1).then_some([0xab; 8]))).collect();
    let sets: BucketSets<()> = latencies.map(|ns| (bucket_of(ns), 1)).into_iter().collect();
    let exemplars: Vec<&Exemplar> = exemplars.iter().collect();
    let read = HistogramRead { buckets: sets.get(0), sum_ns: 1, exemplars: &exemplars };

    let mut writer = TextWriter::new(Flavour::OpenMetrics);
    let family = writer.family(&signals::TOKEN_LATENCY);
    writer.histogram(family, &[("op", "issue")], read);
    let text = text_of(&mut writer);
    let told: Vec<&str> = text.lines().filter(|line| line.contains(" # ")).collect();
    let ids = |n: u8| format!("trace_id=\"{}\",span_id=\"abababababababab\"", format!("{n:02x}").repeat(16));
    let name = "larum_token_latency_seconds_bucket{op=\"issue\"";
    assert_eq!(
        told,
        [
            format!("{name},le=\"1.0\"}} 2 # {{{}}} 0.6 1773480000.123", ids(2)),
            format!("{name},le=\"+Inf\"}} 3 # {{{}}} 300 1773480000.123", ids(3)),
        ],
        "the newest of a bucket"
    );

    let mut writer = TextWriter::new(Flavour::Prometheus);
    let family = writer.family(&signals::TOKEN_LATENCY);
    writer.histogram(family, &[("op", "issue")], read);
    assert!(!text_of(&mut writer).contains(" # {"), "that format has none");

    let mut writer = ProtoWriter::default();
    let family = writer.family(&signals::TOKEN_LATENCY);
    writer.histogram(family, &[("op", "issue")], read);
    let histogram = families(&bytes_of(&mut writer))[0].metric[0].histogram.clone().unwrap();
    let values: Vec<f64> = histogram.exemplars.iter().map(|exemplar| exemplar.value).collect();
    assert_eq!(values, [0.7, 0.6, 300.0], "native buckets are finer");
    assert_eq!(histogram.exemplars[0].label.len(), 1, "without a span id");
    let at = |exemplar: &model::Exemplar| exemplar.timestamp.clone().unwrap();
    assert_eq!(at(&histogram.exemplars[1]), model::Timestamp { seconds: 1_773_480_000, nanos: 123_000_000 });
    let of_buckets: Vec<(f64, f64)> =
        histogram.bucket.iter().filter_map(|b| Some((b.upper_bound, b.exemplar.as_ref()?.value))).collect();
    assert_eq!(of_buckets, [(1.0, 0.6), (f64::INFINITY, 300.0)]);
}

#[test]
fn own_metrics_come_out_in_every_format() {
    let registry = prometheus::Registry::new();
    larum_export::own::counters(&registry, &signals::COMMITS).unwrap().with_label_values(&["done"]).inc_by(5);
    larum_export::own::histogram(&registry, &signals::COMMIT_SECONDS).unwrap().observe(0.5);
    larum_export::own::gauge(&registry, &signals::OUTBOX_BYTES).unwrap().set(0.25);
    let mut writer = ProtoWriter::default();
    larum_export::own::visit(&registry, 9_000_000_000, &mut writer);
    let got: BTreeMap<String, model::MetricFamily> =
        families(&bytes_of(&mut writer)).into_iter().map(|family| (family.name.clone(), family)).collect();
    let first = |name: &str| got[name].metric[0].clone();
    let started = Some(model::Timestamp { seconds: 9, nanos: 0 });
    let counter = model::Counter { value: 5.0, start_timestamp: started.clone() };
    assert_eq!(first("larum_pipeline_commits_total").counter, Some(counter));
    assert_eq!(first("larum_pipeline_outbox_bytes").gauge, Some(model::Gauge { value: 0.25 }));
    let histogram = first("larum_pipeline_commit_seconds").histogram.unwrap();
    assert_eq!((histogram.sample_count, histogram.sample_sum, histogram.start_timestamp), (1, 0.5, started));
    assert!(histogram.positive_span.is_empty(), "bounds of its own make no native histogram");
    let mut writer = TextWriter::new(Flavour::Prometheus);
    larum_export::own::visit(&registry, 9_000_000_000, &mut writer);
    let text = text_of(&mut writer);
    assert!(text.contains("larum_pipeline_commits_total{result=\"done\"} 5\n"), "{text}");
    assert!(text.contains("larum_pipeline_commit_seconds_bucket{le=\"0.512\"} 1\n"), "{text}");
}

#[test]
fn times_are_shown_in_seconds() {
    let (mut proto, mut text) = (ProtoWriter::default(), TextWriter::new(Flavour::Prometheus));
    let (family, time) = (proto.family(&signals::TOKEN_LATENCY_QUANTILE), Value::TimeNs(12_345_678));
    proto.sample(family, &[], time);
    let gauge = families(&bytes_of(&mut proto))[0].metric[0].gauge.clone().unwrap();
    assert_eq!(gauge.value, 0.012345678);
    let family = text.family(&signals::TOKEN_LATENCY_QUANTILE);
    text.sample(family, &[], time);
    let text = text_of(&mut text);
    assert!(text.ends_with(" 0.012345678\n"), "{text}");
}

#[test]
fn every_signal_has_a_family() {
    let mut writer = ProtoWriter::default();
    for signal in SIGNALS {
        let family = writer.family(signal);
        writer.classic(family, &[], ClassicRead { buckets: &[], sum: 0.0, count: 0 });
    }
    let families = families(&bytes_of(&mut writer));
    assert_eq!(families.len(), SIGNALS.len());
    // Prometheus 3 refuses a whole scrape otherwise.
    for family in families.iter().filter(|family| !family.unit.is_empty()) {
        let name = family.name.strip_suffix("_total").unwrap_or(&family.name);
        assert!(name.ends_with(&format!("_{}", family.unit)), "{}: {}", family.name, family.unit);
    }
}

/// What several writers wrote is one page: each family once, with what each of them wrote of it.
#[test]
fn several_writers_make_one_page() {
    fn write<S: Sink>(writers: &mut [S; 3]) {
        for (at, writer) in writers.iter_mut().enumerate().take(2) {
            let family = writer.family(&signals::LOGIN_ATTEMPTS);
            let only_first = writer.family(&signals::TOKEN_REQUESTS);
            let only_second = writer.family(&signals::CHANGE_EVENTS);
            writer.scope(&[("source", "s")], None);
            let of_it = if at == 0 { only_first } else { only_second };
            for family in [family, of_it] {
                writer.sample(family, &[("tenant", ["a", "b"][at])], Value::Int(at as i64 + 1));
            }
        }
        let last = writers[0].family(&signals::TICK);
        writers[0].sample(last, &[], Value::Int(3));
    }
    let mut writers = [(); 3].map(|()| TextWriter::new(Flavour::OpenMetrics));
    for _ in 0..2 {
        write(&mut writers);
        let page = String::from_utf8(TextWriter::finish(&mut writers).to_vec()).unwrap();
        let lines: Vec<&str> = page.lines().filter(|l| !l.starts_with("# HELP") && !l.starts_with("# UNIT")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE larum_login_attempts counter",
                "larum_login_attempts_total{source=\"s\",tenant=\"a\"} 1",
                "larum_login_attempts_total{source=\"s\",tenant=\"b\"} 2",
                "# TYPE larum_token_requests counter",
                "larum_token_requests_total{source=\"s\",tenant=\"a\"} 1",
                "# TYPE larum_change_events counter",
                "larum_change_events_total{source=\"s\",tenant=\"b\"} 2",
                "# TYPE larum_pipeline_tick_seconds gauge",
                "larum_pipeline_tick_seconds{source=\"s\"} 3",
                "# EOF",
            ]
        );
    }
    let mut writers = [(); 3].map(|()| ProtoWriter::default());
    write(&mut writers);
    let got = families(&ProtoWriter::finish(&mut writers).to_vec());
    let metrics: Vec<(&str, usize)> = got.iter().map(|family| (family.name.as_str(), family.metric.len())).collect();
    let name = |signal: &Signal| signal.name;
    let [attempts, requests, changes, tick] =
        [signals::LOGIN_ATTEMPTS, signals::TOKEN_REQUESTS, signals::CHANGE_EVENTS, signals::TICK].map(|s| name(&s));
    assert_eq!(metrics, [(attempts, 2), (requests, 1), (changes, 1), (tick, 1)]);
}

/// What was written and never finished, say because the scrape panicked, is no part of the next.
#[test]
fn what_was_never_finished_is_forgotten() {
    fn write<S: Sink>(writer: &mut S, signal: &Signal) {
        let family = writer.family(signal);
        writer.scope(&[("source", "s")], None);
        writer.sample(family, &[], Value::Int(1));
    }
    let (mut text, mut proto) = (TextWriter::new(Flavour::Prometheus), ProtoWriter::default());
    write(&mut text, &signals::LOGIN_ATTEMPTS);
    write(&mut proto, &signals::LOGIN_ATTEMPTS);
    text.start_over();
    proto.start_over();
    write(&mut text, &signals::TICK);
    write(&mut proto, &signals::TICK);
    let text = text_of(&mut text);
    assert!(text.contains("larum_pipeline_tick_seconds") && !text.contains("larum_login"), "{text}");
    let names: Vec<String> = families(&bytes_of(&mut proto)).into_iter().map(|family| family.name).collect();
    assert_eq!(names, ["larum_pipeline_tick_seconds"]);
}
