//! Samples as OTLP metrics: cumulative sums and exponential histograms with their own start times, gauges.
//!
//! Written by hand as [`crate::ProtoWriter`] is, and for the same reason; a test reads everything back through the message
//! types of `opentelemetry-proto`.

use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::FixedState;
use hyper::body::Bytes;
use larum_aggregate::histogram::ONE_SECOND_OFFSET;
use larum_aggregate::{Buckets, Exemplar};
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, LabelSet, Signal, Sink, Value};

use super::gone::gone;
use crate::page::Places;
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
    families: Places<FamilyPoints>,
    /// Labels that every sample begins with, in the forms of [`FORMS`].
    scope: [Attributes; 2],
    /// Labels that were named, in the same forms.
    labels: Vec<[Attributes; 2]>,
    started_ns: u64,
    /// When what is written is true, Unix ns.
    now_ns: u64,
    /// When the windows that are written ended.
    window_ns: Option<u64>,
    /// What a point has besides its attributes.
    tail: Vec<u8>,
    inner: Vec<u8>,
    series: Series,
    /// What all writers of the push before wrote, one after the other.
    before: Vec<Series>,
    resource: Vec<u8>,
}

/// The fields that attributes are written as: in a number's and in an exponential histogram's point.
const FORMS: [u64; 2] = [NUMBER_ATTRIBUTES, EXPONENTIAL_ATTRIBUTES];

#[derive(Debug)]
struct FamilyPoints {
    signal: Signal,
    name_hash: u64,
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
    /// What their attributes are written as: of every scope and of all labels once.
    texts: Vec<u8>,
}

/// Attributes, by where they stand in [`Series::texts`].
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    hash: u64,
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, Debug)]
struct OneSeries {
    /// Of name and attributes.
    hash: u64,
    name: &'static str,
    /// The field that its attributes are written as.
    field: u64,
    scope: Attributes,
    labels: Attributes,
    /// Pushes that told of its end.
    ended: u8,
}

fn hash(of: impl Hash) -> u64 {
    FixedState::with_seed(0).hash_one(of)
}

impl Series {
    fn clear(&mut self) {
        self.all.clear();
        self.texts.clear();
    }

    /// Keeps attributes.
    fn keep(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Attributes {
        let from = self.texts.len();
        write(&mut self.texts);
        Attributes { hash: hash(&self.texts[from..]), from, to: self.texts.len() }
    }

    fn text(&self, attributes: Attributes) -> &[u8] {
        &self.texts[attributes.from..attributes.to]
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

fn write_exemplars(out: &mut Vec<u8>, field: u64, exemplars: &[&Exemplar]) {
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

    /// What was written with all of them since [`OtlpWriter::begin`], as bodies of export requests that no collector finds
    /// too large. They named the same families, the first all of them.
    pub fn finish(writers: &mut [OtlpWriter]) -> Vec<Bytes> {
        OtlpWriter::end_series(writers);
        let Some(first) = writers.first() else { return Vec::new() };
        let (mut requests, mut metrics) = (Vec::new(), Metrics::default());
        for (at, family_of_first) in first.families.used().iter().enumerate() {
            let of_it = writers.iter().filter_map(|writer| writer.families.get(at));
            let is_exponential = of_it.clone().any(|family| family.is_exponential);
            let mut parts: Vec<&[u8]> = Vec::new();
            for family in of_it {
                let (mut from, mut point) = (0, 0);
                while point < family.ends.len() {
                    // As many points as fit into what is left, but one at least.
                    let used = metrics.len() + parts.iter().map(|part| part.len()).sum::<usize>();
                    let room = REQUEST_BYTES_MAX.saturating_sub(used);
                    let fit = family.ends[point..].partition_point(|end| end - from <= room);
                    let next = point + if used == 0 { fit.max(1) } else { fit };
                    if next > point {
                        let to = family.ends[next - 1];
                        parts.push(&family.points[from..to]);
                        (from, point) = (to, next);
                    }
                    if point < family.ends.len() {
                        family.write(&mut metrics, &parts, is_exponential);
                        parts.clear();
                        requests.push(first.request(&metrics));
                        metrics.clear();
                    }
                }
            }
            family_of_first.write(&mut metrics, &parts, is_exponential);
        }
        if metrics.len() > 0 {
            requests.push(first.request(&metrics));
        }
        writers.iter_mut().for_each(Sink::start_over);
        requests
    }

    /// The body of an export request around its metrics.
    fn request(&self, metrics: &Metrics<'_>) -> Bytes {
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
        metrics.write(&mut request);
        field_bytes(&mut request, 3, SCHEMA_URL.as_bytes());
        field_bytes(&mut request, 3, SCHEMA_URL.as_bytes());
        request.into()
    }

    /// Tells of each series of the pushes before that this one does not hold that it has no value any more.
    fn end_series(writers: &mut [OtlpWriter]) {
        let Some(first) = writers.first_mut() else { return };
        let before = std::mem::take(&mut first.before);
        let all = before.iter().flat_map(|part| part.all.iter().map(move |series| (part, series)));
        let now = writers.iter().flat_map(|writer| &writer.series.all);
        let gone = gone(all, now.map(|series| series.hash), |(_, series)| series.hash);
        let Some(first) = writers.first_mut() else { return };
        gone.into_iter().for_each(|(part, series)| first.end_one(part, series));
        let mut spare = before.into_iter();
        let written = writers.iter_mut().map(|writer| {
            let mut spare = spare.next().unwrap_or_default();
            spare.clear();
            std::mem::replace(&mut writer.series, spare)
        });
        let written = written.collect();
        if let Some(first) = writers.first_mut() {
            first.before = written;
        }
    }

    /// Tells of the end of a series that was part of a push before.
    fn end_one(&mut self, part: &Series, series: &OneSeries) {
        let is_it = |family: &FamilyPoints| family.signal.name == series.name;
        let Some(at) = self.families.used().iter().position(is_it) else { return };
        let Some(family) = self.families.get_mut(at) else { return };
        // Nothing else of it may be left to say so.
        family.is_exponential |= series.field == EXPONENTIAL_ATTRIBUTES;
        self.tail.clear();
        times(&mut self.tail, 0, self.now_ns);
        // The field of flags is another in each sort of point.
        field_varint(&mut self.tail, if series.field == NUMBER_ATTRIBUTES { 8 } else { 10 }, NO_RECORDED_VALUE);
        let (scope, labels) = (part.text(series.scope), part.text(series.labels));
        family.add(scope, labels, &self.tail);
        if series.ended + 1 < ENDS_TOLD {
            let [scope, labels] = [scope, labels].map(|text| self.series.keep(|out| out.extend_from_slice(text)));
            let name = family.signal.name;
            self.series.all.push(OneSeries { name, scope, labels, ended: series.ended + 1, ..*series });
        }
    }

    /// Adds a point with what is in `self.tail`; notes its series.
    fn add(&mut self, family: Family, field: u64, scope: Attributes, labels: Attributes) {
        let Some(family) = self.families.get_mut(family.0) else { return };
        let (name, hash) = (family.signal.name, hash((family.name_hash, scope.hash, labels.hash)));
        self.series.all.push(OneSeries { hash, name, field, scope, labels, ended: 0 });
        family.add(self.series.text(scope), self.series.text(labels), &self.tail);
    }

    /// The same with labels that were named.
    fn add_of(&mut self, family: Family, form: usize, labels: LabelSet) {
        let Some(labels) = self.labels.get(labels.0) else { return };
        self.add(family, FORMS[form], self.scope[form], labels[form]);
    }
}

/// The metrics of a request: points are copied from where they were written right to where they are sent from.
#[derive(Default)]
struct Metrics<'w> {
    /// What stands around points.
    around: Vec<u8>,
    /// Points, each with how much of `around` stands before them.
    points: Vec<(usize, &'w [u8])>,
    points_len: usize,
}

impl<'w> Metrics<'w> {
    fn len(&self) -> usize {
        self.around.len() + self.points_len
    }

    fn add(&mut self, points: &'w [u8]) {
        self.points.push((self.around.len(), points));
        self.points_len += points.len();
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut from = 0;
        for (to, points) in &self.points {
            out.extend_from_slice(&self.around[from..*to]);
            out.extend_from_slice(points);
            from = *to;
        }
        out.extend_from_slice(&self.around[from..]);
    }

    fn clear(&mut self) {
        self.around.clear();
        self.points.clear();
        self.points_len = 0;
    }
}

/// Start, unless it is unknown, and time of a point.
fn times(out: &mut Vec<u8>, started_ns: u64, time_ns: u64) {
    if started_ns > 0 {
        field_fixed(out, 2, started_ns);
    }
    field_fixed(out, 3, time_ns);
}

impl FamilyPoints {
    /// Adds a point.
    fn add(&mut self, scope: &[u8], labels: &[u8], tail: &[u8]) {
        field_head(&mut self.points, 1, scope.len() + labels.len() + tail.len());
        for part in [scope, labels, tail] {
            self.points.extend_from_slice(part);
        }
        self.ends.push(self.points.len());
    }

    /// Adds the family with some points, if there are any, to the metrics of a scope.
    fn write<'w>(&self, metrics: &mut Metrics<'w>, points: &[&'w [u8]], is_exponential: bool) {
        if points.is_empty() {
            return;
        }
        let mut head = Vec::new();
        let (name, unit) = self.signal.otlp();
        field_bytes(&mut head, 1, name.as_bytes());
        field_bytes(&mut head, 2, self.signal.help.as_bytes());
        field_bytes(&mut head, 3, unit.as_bytes());
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
                if is_exponential { 10 } else { 9 }
            }
        };
        let data_len = points.iter().map(|part| part.len()).sum::<usize>() + tail.len();
        let metric_len = head.len() + 1 + varint_len(data_len as u64) + data_len;
        field_head(&mut metrics.around, 2, metric_len);
        metrics.around.extend_from_slice(&head);
        field_head(&mut metrics.around, field, data_len);
        points.iter().for_each(|part| metrics.add(part));
        metrics.around.extend_from_slice(&tail);
    }
}

impl Sink for OtlpWriter {
    fn start_over(&mut self) {
        self.families.clear();
        self.labels.clear();
        // It stands in what is cleared next.
        self.scope = Default::default();
        self.series.clear();
    }

    fn family(&mut self, signal: &Signal) -> Family {
        let name_hash = hash(signal.name);
        let new =
            || FamilyPoints { signal: *signal, name_hash, is_exponential: false, points: Vec::new(), ends: Vec::new() };
        let (place, family) = self.families.next(|_| true, new);
        (family.signal, family.name_hash, family.is_exponential) = (*signal, name_hash, false);
        family.points.clear();
        family.ends.clear();
        Family(place)
    }

    fn scope(&mut self, labels: &[Label<'_>], started_ns: Option<i64>) {
        self.scope = FORMS.map(|field| self.series.keep(|out| write_attributes(out, field, labels)));
        self.started_ns = started_ns.unwrap_or(0).max(0) as u64;
        self.window_ns = None;
    }

    fn window(&mut self, end_ns: i64) {
        self.window_ns = Some(end_ns.max(0) as u64);
    }

    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        self.labels.push(FORMS.map(|field| self.series.keep(|out| write_attributes(out, field, labels))));
        LabelSet(self.labels.len() - 1)
    }

    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        let is_counter = self.families.get(family.0).is_some_and(|f| f.signal.kind == SignalType::Counter);
        let (started_ns, time_ns) = match is_counter {
            true => (self.started_ns, self.now_ns),
            false => (0, self.window_ns.unwrap_or(self.now_ns)),
        };
        self.tail.clear();
        times(&mut self.tail, started_ns, time_ns);
        match value {
            Value::Int(value) => field_fixed(&mut self.tail, 6, value as u64),
            Value::Float(_) | Value::TimeNs(_) => field_double(&mut self.tail, 4, value.shown()),
        }
        self.add_of(family, 0, labels);
    }

    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        if let Some(family) = self.families.get_mut(family.0) {
            family.is_exponential = true;
        }
        self.tail.clear();
        times(&mut self.tail, self.started_ns, self.now_ns);
        field_fixed(&mut self.tail, 4, histogram.buckets.total());
        field_double(&mut self.tail, 5, histogram.sum_ns as f64 / 1e9);
        field_varint(&mut self.tail, 6, zigzag(SCALE));
        field_fixed(&mut self.tail, 7, histogram.buckets.zero());
        self.positive(histogram.buckets);
        write_exemplars(&mut self.tail, 11, histogram.exemplars);
        self.add_of(family, 1, labels);
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        let labels = self.series.keep(|out| write_attributes(out, CLASSIC_ATTRIBUTES, labels));
        self.tail.clear();
        times(&mut self.tail, self.started_ns, self.now_ns);
        field_fixed(&mut self.tail, 4, histogram.count);
        field_double(&mut self.tail, 5, histogram.sum);
        field_head(&mut self.tail, 6, (histogram.buckets.len() + 1) * 8);
        let mut before = 0;
        for below in histogram.buckets.iter().map(|b| b.1).chain([histogram.count]) {
            self.tail.extend_from_slice(&(below - before).to_le_bytes());
            before = below;
        }
        field_head(&mut self.tail, 7, histogram.buckets.len() * 8);
        histogram.buckets.iter().for_each(|(bound, _)| self.tail.extend_from_slice(&bound.to_le_bytes()));
        // No scope of such a histogram has labels: it is of the process.
        self.add(family, CLASSIC_ATTRIBUTES, Attributes::default(), labels);
    }
}

impl OtlpWriter {
    /// Counts of all buckets from the first to the last that is used.
    fn positive(&mut self, buckets: Buckets<'_>) {
        let (first, counts) = buckets.neighbours();
        if counts.is_empty() {
            return;
        }
        self.inner.clear();
        counts.iter().for_each(|count| varint(&mut self.inner, *count));
        let offset = zigzag(i64::from(first) - i64::from(ONE_SECOND_OFFSET));
        let len = 1 + varint_len(offset) + 1 + varint_len(self.inner.len() as u64) + self.inner.len();
        field_head(&mut self.tail, 8, len);
        field_varint(&mut self.tail, 1, offset);
        field_bytes(&mut self.tail, 2, &self.inner);
    }
}
