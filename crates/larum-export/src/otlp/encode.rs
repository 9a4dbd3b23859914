//! Samples as OTLP metrics: cumulative sums and exponential histograms with their own start times, gauges.
//!
//! Written by hand as [`crate::ProtoWriter`] is, and for the same reason; a test reads everything back through the message
//! types of `opentelemetry-proto`.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hyper::body::Bytes;
use larum_aggregate::Exemplar;
use larum_aggregate::histogram::{Bucket, ONE_SECOND_OFFSET, ZERO_BUCKET};
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, LabelSet, Signal, Sink, Value};

use crate::wire::{field_bytes, field_double, field_fixed, field_head, field_varint, varint, varint_len, zigzag};

/// Most bytes of points in a request: collectors take 4 MiB unless told otherwise.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Base-2 exponential buckets, eight per doubling.
const SCALE: i64 = 3;
/// Sums and histograms count from their start on.
const CUMULATIVE: u64 = 2;
/// A point's flag for "there is no value any more".
const NO_RECORDED_VALUE: u64 = 1;
/// Pushes that tell of the end of a series: any but one may be lost, as the queue holds one less.
const ENDS_TOLD: u8 = super::WAITING_MAX as u8 + 1;
/// Version of the semantic conventions that resource and scope keep to.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Field of attributes in the points of gauges and sums, of exponential histograms, and of those with bounds of their own.
const NUMBER_ATTRIBUTES: u64 = 7;
const EXPONENTIAL_ATTRIBUTES: u64 = 1;
const CLASSIC_ATTRIBUTES: u64 = 9;

/// Writes samples, a buffer for each family. It is used for one push after the other, and knows which series the last
/// one held: a series that has ended is told of in a few more.
#[derive(Debug, Default)]
pub struct OtlpWriter {
    families: Vec<FamilyPoints>,
    named: usize,
    /// Labels that every sample begins with, as attributes of a number's and of an exponential histogram's point.
    scope: [Vec<u8>; 2],
    /// Labels that were named, in the same two forms.
    labels: Vec<[Vec<u8>; 2]>,
    started_ns: u64,
    /// When what is written is true, Unix ns.
    now_ns: u64,
    /// When the windows that are written ended.
    window_ns: Option<u64>,
    point: Vec<u8>,
    inner: Vec<u8>,
    series: Series,
    before: Series,
    resource: Vec<u8>,
}

#[derive(Debug)]
struct FamilyPoints {
    signal: Signal,
    is_exponential: bool,
    /// Points, each as field 1 of what holds them.
    points: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// The series of a push.
#[derive(Debug, Default)]
struct Series {
    all: Vec<OneSeries>,
    attributes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct OneSeries {
    /// Of name and attributes.
    hash: u64,
    name: &'static str,
    /// The field that its attributes are written as.
    field: u64,
    /// Where they stand.
    from: usize,
    to: usize,
    /// Pushes that told of its end.
    ended: u8,
}

impl Series {
    fn clear(&mut self) {
        self.all.clear();
        self.attributes.clear();
    }

    fn add(&mut self, name: &'static str, field: u64, attributes: &[u8], ended: u8) {
        let hash = FixedState::with_seed(0).hash_one((name, attributes));
        let from = self.attributes.len();
        self.attributes.extend_from_slice(attributes);
        self.all.push(OneSeries { hash, name, field, from, to: self.attributes.len(), ended });
    }
}

fn write_attributes(out: &mut Vec<u8>, field: u64, labels: &[Label<'_>]) {
    for (name, text) in labels {
        let value_len = 1 + varint_len(text.len() as u64) + text.len();
        let pair_len = 1 + varint_len(name.len() as u64) + name.len() + 1 + varint_len(value_len as u64) + value_len;
        field_head(out, field, pair_len);
        field_bytes(out, 1, name.as_bytes());
        field_head(out, 2, value_len);
        field_bytes(out, 1, text.as_bytes());
    }
}

fn write_exemplars(out: &mut Vec<u8>, field: u64, exemplars: &[Exemplar]) {
    for Exemplar { trace_id, span_id, latency_ns, time_ns, .. } in exemplars {
        let mut message = Vec::with_capacity(64);
        field_fixed(&mut message, 2, *time_ns as u64);
        field_double(&mut message, 3, *latency_ns as f64 / 1e9);
        if let Some(span_id) = span_id {
            field_bytes(&mut message, 4, span_id);
        }
        field_bytes(&mut message, 5, trace_id);
        field_bytes(out, field, &message);
    }
}

impl OtlpWriter {
    /// A writer whose pushes come from this instance; `instance` tells it from others.
    pub fn new(version: &str, instance: &str) -> Self {
        let mut resource = Vec::new();
        let about = [("service.name", "larum"), ("service.version", version), ("service.instance.id", instance)];
        write_attributes(&mut resource, 1, &about);
        OtlpWriter { resource, ..OtlpWriter::default() }
    }

    /// What follows is true at `now_ns`, Unix ns.
    pub fn begin(&mut self, now_ns: i64) {
        self.now_ns = now_ns.max(0) as u64;
    }

    /// What was written since [`OtlpWriter::begin`], as bodies of export requests that no collector finds too large.
    pub fn finish(&mut self) -> Vec<Bytes> {
        self.end_series();
        let mut requests = Vec::new();
        let (mut metrics, mut head) = (Vec::new(), Vec::new());
        for family in &self.families[..self.named] {
            let (mut from, mut point) = (0, 0);
            while point < family.ends.len() {
                // As many points as fit into what is left, but one at least.
                let room = REQUEST_BYTES_MAX.saturating_sub(metrics.len());
                let fit = family.ends[point..].partition_point(|end| end - from <= room);
                let next = point + if metrics.is_empty() { fit.max(1) } else { fit };
                if next > point {
                    let to = family.ends[next - 1];
                    family.write(&mut metrics, &mut head, &family.points[from..to]);
                    (from, point) = (to, next);
                }
                if point < family.ends.len() {
                    requests.push(self.request(&metrics));
                    metrics.clear();
                }
            }
        }
        if !metrics.is_empty() {
            requests.push(self.request(&metrics));
        }
        self.named = 0;
        self.labels.clear();
        requests
    }

    /// The body of an export request around its metrics.
    fn request(&self, metrics: &[u8]) -> Bytes {
        let size = |len: usize| 1 + varint_len(len as u64) + len;
        let scope = b"larum";
        let (scope_len, url_len) = (size(size(scope.len())), size(SCHEMA_URL.len()));
        let of_scope_len = scope_len + metrics.len() + url_len;
        let of_resource_len = size(self.resource.len()) + size(of_scope_len) + url_len;
        let mut request = Vec::with_capacity(size(of_resource_len));
        field_head(&mut request, 1, of_resource_len);
        field_bytes(&mut request, 1, &self.resource);
        field_head(&mut request, 2, of_scope_len);
        field_head(&mut request, 1, size(scope.len()));
        field_bytes(&mut request, 1, scope);
        request.extend_from_slice(metrics);
        field_bytes(&mut request, 3, SCHEMA_URL.as_bytes());
        field_bytes(&mut request, 3, SCHEMA_URL.as_bytes());
        request.into()
    }

    /// Tells of each series of the pushes before that this one does not hold that it has no value any more.
    fn end_series(&mut self) {
        let before = std::mem::take(&mut self.before);
        // Most come in the same order as before: only behind the first that differs they are looked for.
        let same = before.all.iter().zip(&self.series.all).take_while(|(before, now)| before.hash == now.hash).count();
        let rest = if same == before.all.len() { &[][..] } else { &self.series.all[..] };
        let now: HashSet<u64, FixedState> = rest.iter().map(|series| series.hash).collect();
        for series in before.all[same..].iter().filter(|series| !now.contains(&series.hash)) {
            let named = self.families[..self.named].iter_mut();
            let Some((at, family)) = named.enumerate().find(|(_, family)| family.signal.name == series.name) else {
                continue;
            };
            // Nothing else of it may be left to say so.
            family.is_exponential |= series.field == EXPONENTIAL_ATTRIBUTES;
            self.point.clear();
            self.point.extend_from_slice(&before.attributes[series.from..series.to]);
            self.times(0, self.now_ns);
            // The field of flags is another in each sort of point.
            field_varint(&mut self.point, if series.field == NUMBER_ATTRIBUTES { 8 } else { 10 }, NO_RECORDED_VALUE);
            self.add(Family(at));
            if series.ended + 1 < ENDS_TOLD {
                let attributes = &before.attributes[series.from..series.to];
                self.series.add(series.name, series.field, attributes, series.ended + 1);
            }
        }
        self.before = std::mem::replace(&mut self.series, before);
        self.series.clear();
    }

    /// Start, unless it is unknown, and time of the point.
    fn times(&mut self, started_ns: u64, time_ns: u64) {
        if started_ns > 0 {
            field_fixed(&mut self.point, 2, started_ns);
        }
        field_fixed(&mut self.point, 3, time_ns);
    }

    /// Adds the point to its family.
    fn add(&mut self, family: Family) {
        let Some(family) = self.families.get_mut(family.0) else { return };
        field_bytes(&mut family.points, 1, &self.point);
        family.ends.push(family.points.len());
    }

    /// Begins a point with its attributes; notes its series.
    fn point(&mut self, family: Family, field: u64, labels: LabelSet) {
        let form = usize::from(field == EXPONENTIAL_ATTRIBUTES);
        let Some(labels) = self.labels.get(labels.0) else { return };
        self.point.clear();
        self.point.extend_from_slice(&self.scope[form]);
        self.point.extend_from_slice(&labels[form]);
        if let Some(family) = self.families.get(family.0) {
            self.series.add(family.signal.name, field, &self.point, 0);
        }
    }
}

impl FamilyPoints {
    /// Adds the family with some of its points to the metrics of a scope.
    fn write(&self, metrics: &mut Vec<u8>, head: &mut Vec<u8>, points: &[u8]) {
        head.clear();
        let (name, unit) = self.signal.otlp();
        field_bytes(head, 1, name.as_bytes());
        field_bytes(head, 2, self.signal.help.as_bytes());
        field_bytes(head, 3, unit.as_bytes());
        let mut tail = Vec::with_capacity(4);
        let field = match self.signal.kind {
            SignalType::Gauge => 5,
            SignalType::Counter => {
                field_varint(&mut tail, 2, CUMULATIVE);
                field_varint(&mut tail, 3, 1);
                7
            }
            SignalType::Histogram => {
                field_varint(&mut tail, 2, CUMULATIVE);
                if self.is_exponential { 10 } else { 9 }
            }
        };
        let data_len = points.len() + tail.len();
        let metric_len = head.len() + 1 + varint_len(data_len as u64) + data_len;
        field_head(metrics, 2, metric_len);
        metrics.extend_from_slice(head);
        field_head(metrics, field, data_len);
        metrics.extend_from_slice(points);
        metrics.extend_from_slice(&tail);
    }
}

impl Sink for OtlpWriter {
    fn family(&mut self, signal: &Signal) -> Family {
        match self.families.get_mut(self.named) {
            Some(family) => {
                (family.signal, family.is_exponential) = (*signal, false);
                family.points.clear();
                family.ends.clear();
            }
            None => self.families.push(FamilyPoints {
                signal: *signal,
                is_exponential: false,
                points: Vec::new(),
                ends: Vec::new(),
            }),
        }
        self.named += 1;
        Family(self.named - 1)
    }

    fn scope(&mut self, labels: &[Label<'_>], started_ns: Option<i64>) {
        for (scope, field) in self.scope.iter_mut().zip([NUMBER_ATTRIBUTES, EXPONENTIAL_ATTRIBUTES]) {
            scope.clear();
            write_attributes(scope, field, labels);
        }
        self.started_ns = started_ns.unwrap_or(0).max(0) as u64;
        self.window_ns = None;
    }

    fn window(&mut self, end_ns: i64) {
        self.window_ns = Some(end_ns.max(0) as u64);
    }

    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        let form = |field| {
            let mut attributes = Vec::new();
            write_attributes(&mut attributes, field, labels);
            attributes
        };
        self.labels.push([NUMBER_ATTRIBUTES, EXPONENTIAL_ATTRIBUTES].map(form));
        LabelSet(self.labels.len() - 1)
    }

    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        self.point(family, NUMBER_ATTRIBUTES, labels);
        let is_counter = self.families.get(family.0).is_some_and(|f| f.signal.kind == SignalType::Counter);
        match is_counter {
            true => self.times(self.started_ns, self.now_ns),
            false => self.times(0, self.window_ns.unwrap_or(self.now_ns)),
        }
        match value {
            Value::Int(value) => field_fixed(&mut self.point, 6, value as u64),
            Value::Float(value) => field_double(&mut self.point, 4, value),
        }
        self.add(family);
    }

    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        if let Some(family) = self.families.get_mut(family.0) {
            family.is_exponential = true;
        }
        self.point(family, EXPONENTIAL_ATTRIBUTES, labels);
        self.times(self.started_ns, self.now_ns);
        let count: u64 = histogram.buckets.iter().map(|b| b.1).sum();
        let zeros: u64 = histogram.buckets.iter().filter(|b| b.0 == ZERO_BUCKET).map(|b| b.1).sum();
        field_fixed(&mut self.point, 4, count);
        field_double(&mut self.point, 5, histogram.sum_ns as f64 / 1e9);
        field_varint(&mut self.point, 6, zigzag(SCALE));
        field_fixed(&mut self.point, 7, zeros);
        self.positive(histogram.buckets);
        write_exemplars(&mut self.point, 11, histogram.exemplars);
        self.add(family);
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        // No scope of a classic histogram has labels: it is of the process.
        self.scope[0].clear();
        let mut attributes = Vec::new();
        write_attributes(&mut attributes, CLASSIC_ATTRIBUTES, labels);
        self.labels.push([attributes, Vec::new()]);
        self.point(family, CLASSIC_ATTRIBUTES, LabelSet(self.labels.len() - 1));
        self.times(self.started_ns, self.now_ns);
        field_fixed(&mut self.point, 4, histogram.count);
        field_double(&mut self.point, 5, histogram.sum);
        field_head(&mut self.point, 6, (histogram.buckets.len() + 1) * 8);
        let mut before = 0;
        for below in histogram.buckets.iter().map(|b| b.1).chain([histogram.count]) {
            self.point.extend_from_slice(&(below - before).to_le_bytes());
            before = below;
        }
        field_head(&mut self.point, 7, histogram.buckets.len() * 8);
        histogram.buckets.iter().for_each(|(bound, _)| self.point.extend_from_slice(&bound.to_le_bytes()));
        self.add(family);
    }
}

impl OtlpWriter {
    /// Counts of all buckets from the first to the last that is used.
    fn positive(&mut self, buckets: &[(Bucket, u64)]) {
        let used = || buckets.iter().filter(|b| b.0 != ZERO_BUCKET && b.1 > 0);
        let Some((first, _)) = used().next() else { return };
        self.inner.clear();
        let mut next = *first;
        for (bucket, count) in used() {
            self.inner.resize(self.inner.len() + usize::from(bucket - next), 0);
            varint(&mut self.inner, *count);
            next = bucket + 1;
        }
        let offset = zigzag(i64::from(*first) - i64::from(ONE_SECOND_OFFSET));
        let len = 1 + varint_len(offset) + 1 + varint_len(self.inner.len() as u64) + self.inner.len();
        field_head(&mut self.point, 8, len);
        field_varint(&mut self.point, 1, offset);
        field_bytes(&mut self.point, 2, &self.inner);
    }
}
