//! Samples as `io.prometheus.client.MetricFamily` messages, each behind its length: classic and native buckets together,
//! with start times.
//!
//! Written by hand, because samples come as borrowed labels and go out as bytes: a message tree in between would cost more
//! than the samples. A test reads everything back through the message types.

use larum_aggregate::histogram::CLASSIC_BOUNDS;
use larum_aggregate::{Buckets, Exemplar};
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, LabelSet, Signal, Sink, Value};

use crate::page::{Buffer, Page, Places, Spare};
use crate::wire::{field_bytes, field_double, field_head, field_varint, varint, varint_len, zigzag};

/// Base-2 exponential buckets, eight per doubling.
const SCHEMA: i64 = 3;
/// A bucket's number minus this is its index among native buckets, whose index 0 ends at one second.
const NATIVE_OFFSET: i64 = 240;

/// Writes samples, a buffer for each family. It can be used again and again, which saves fresh memory for every scrape.
#[derive(Debug, Default)]
pub struct ProtoWriter {
    /// Families that were named.
    families: Places<FamilyProto>,
    spare: Spare,
    /// Labels that every sample begins with, as fields of a metric.
    scope: Vec<u8>,
    /// Labels that were named, in the same form.
    labels: Places<Vec<u8>>,
    /// The start time, as a message; empty if it is not known.
    started: Vec<u8>,
    /// The metric being written, and its value.
    metric: Vec<u8>,
    value: Vec<u8>,
    /// A message within the value.
    inner: Vec<u8>,
}

#[derive(Debug)]
struct FamilyProto {
    signal: Signal,
    /// Fields `metric`.
    metrics: Buffer,
}

fn write_labels(out: &mut Vec<u8>, labels: &[Label<'_>]) {
    for (name, text) in labels {
        let len = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
        let size = len(name) + len(text);
        field_head(out, 1, size);
        field_bytes(out, 1, name.as_bytes());
        field_bytes(out, 2, text.as_bytes());
    }
}

/// Unix ns as the fields of a `Timestamp`.
fn write_timestamp(out: &mut Vec<u8>, ns: i64) {
    field_varint(out, 1, ns.div_euclid(1_000_000_000) as u64);
    field_varint(out, 2, ns.rem_euclid(1_000_000_000) as u64);
}

/// An exemplar as field `field`: ids as labels, the value in seconds, and when.
fn write_exemplar(out: &mut Vec<u8>, field: u64, exemplar: &Exemplar) {
    let Exemplar { trace_id, span_id, latency_ns, time_ns, .. } = exemplar;
    let mut message = Vec::with_capacity(128);
    let trace_id = format!("{:032x}", u128::from_be_bytes(*trace_id));
    write_labels(&mut message, &[("trace_id", &trace_id)]);
    if let Some(span_id) = span_id {
        write_labels(&mut message, &[("span_id", &format!("{:016x}", u64::from_be_bytes(*span_id)))]);
    }
    field_double(&mut message, 2, *latency_ns as f64 / 1e9);
    let mut timestamp = Vec::with_capacity(16);
    write_timestamp(&mut timestamp, *time_ns);
    field_bytes(&mut message, 3, &timestamp);
    field_bytes(out, field, &message);
}

impl ProtoWriter {
    /// What was written with all of them since the last call, family by family; those without samples are left out. They
    /// named the same families, the first all of them.
    pub fn finish(writers: &mut [ProtoWriter]) -> Page {
        let (mut page, mut head) = (Page::default(), Vec::new());
        let named: Vec<Signal> = writers
            .first()
            .map_or_else(Vec::new, |first| first.families.used().iter().map(|family| family.signal).collect());
        for (at, signal) in named.into_iter().enumerate() {
            let written = writers.iter().filter_map(|writer| writer.families.get(at));
            let len: usize = written.map(|family| family.metrics.len()).sum();
            if len == 0 {
                continue;
            }
            let kind = match signal.kind {
                SignalType::Counter => 0,
                SignalType::Gauge => 1,
                SignalType::Histogram => 4,
            };
            head.clear();
            field_bytes(&mut head, 1, signal.name.as_bytes());
            field_bytes(&mut head, 2, signal.help.as_bytes());
            field_varint(&mut head, 3, kind);
            // Prometheus refuses a whole scrape for a unit that does not end the name.
            if let Some(unit) = signal.unit_in_name() {
                field_bytes(&mut head, 5, unit.as_bytes());
            }
            let mut out = Vec::with_capacity(head.len() + 8);
            varint(&mut out, (head.len() + len) as u64);
            out.extend_from_slice(&head);
            page.push(out);
            for writer in &mut *writers {
                if let Some(family) = writer.families.get_mut(at) {
                    page.push(writer.spare.lend(at, std::mem::take(&mut family.metrics)));
                }
            }
        }
        writers.iter_mut().for_each(Sink::start_over);
        page
    }

    /// Adds a metric whose value is in `self.value`, as field `field` of it.
    fn metric(&mut self, family: Family, labels: LabelSet, field: u64) {
        let ProtoWriter { families, scope, labels: known, metric, value, .. } = self;
        let (Some(family), Some(labels)) = (families.get_mut(family.0), known.get(labels.0)) else { return };
        let value_len = 1 + varint_len(value.len() as u64) + value.len();
        metric.clear();
        field_head(metric, 4, scope.len() + labels.len() + value_len);
        metric.extend_from_slice(scope);
        metric.extend_from_slice(labels);
        field_head(metric, field, value.len());
        family.metrics.put(metric);
        family.metrics.put(value);
    }

    fn bucket(&mut self, bound: f64, below: u64, exemplar: Option<&Exemplar>) {
        let Some(exemplar) = exemplar else {
            field_head(&mut self.value, 3, 1 + varint_len(below) + 9);
            field_varint(&mut self.value, 1, below);
            field_double(&mut self.value, 2, bound);
            return;
        };
        self.inner.clear();
        field_varint(&mut self.inner, 1, below);
        field_double(&mut self.inner, 2, bound);
        write_exemplar(&mut self.inner, 3, exemplar);
        field_bytes(&mut self.value, 3, &self.inner);
    }

    /// Native buckets, the exact image of the layout.
    fn native(&mut self, buckets: Buckets<'_>) {
        field_varint(&mut self.value, 5, zigzag(SCHEMA));
        field_double(&mut self.value, 6, 0.0);
        field_varint(&mut self.value, 7, buckets.zero());
        let (first, counts) = buckets.neighbours();
        // Runs of neighbouring buckets, each by its distance from the one before.
        self.inner.clear();
        let (mut before, mut offset, mut length, mut gap) = (0, i64::from(first) - NATIVE_OFFSET, 0, 0);
        for count in counts {
            if *count == 0 {
                gap += 1;
                continue;
            }
            if gap > 0 {
                span(&mut self.value, offset, length);
                (offset, length, gap) = (gap, 0, 0);
            }
            varint(&mut self.inner, zigzag(*count as i64 - before));
            (before, length) = (*count as i64, length + 1);
        }
        // An empty one if there is nothing: without a span it would not be known as a native histogram.
        span(&mut self.value, if length > 0 { offset } else { 0 }, length);
        if !self.inner.is_empty() {
            field_bytes(&mut self.value, 13, &self.inner);
        }
    }

    fn start_time(&mut self, field: u64) {
        if !self.started.is_empty() {
            field_bytes(&mut self.value, field, &self.started);
        }
    }
}

/// A run of native buckets: how far from the end of the one before, and how many.
fn span(value: &mut Vec<u8>, offset: i64, length: u64) {
    field_head(value, 12, 2 + varint_len(zigzag(offset)) + varint_len(length));
    field_varint(value, 1, zigzag(offset));
    field_varint(value, 2, length);
}

impl Sink for ProtoWriter {
    fn start_over(&mut self) {
        self.families.clear();
        self.labels.clear();
    }

    fn family(&mut self, signal: &Signal) -> Family {
        let new = || FamilyProto { signal: *signal, metrics: Buffer::default() };
        let (place, family) = self.families.next(|before| before.signal == *signal, new);
        match family.metrics.is_spent() {
            true => family.metrics = self.spare.buffer(place),
            false => family.metrics.clear(),
        }
        Family(place)
    }

    fn scope(&mut self, labels: &[Label<'_>], started_ns: Option<i64>) {
        self.scope.clear();
        write_labels(&mut self.scope, labels);
        self.started.clear();
        if let Some(ns) = started_ns.filter(|ns| *ns > 0) {
            write_timestamp(&mut self.started, ns);
        }
    }

    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        let (place, fields) = self.labels.next(|_| true, Vec::new);
        fields.clear();
        write_labels(fields, labels);
        LabelSet(place)
    }

    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        let Some(FamilyProto { signal, .. }) = self.families.get(family.0) else { return };
        let is_counter = signal.kind == SignalType::Counter;
        self.value.clear();
        field_double(&mut self.value, 1, value.shown());
        if is_counter {
            self.start_time(3);
        }
        self.metric(family, labels, if is_counter { 3 } else { 2 });
    }

    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        let count = histogram.buckets.total();
        self.value.clear();
        field_varint(&mut self.value, 1, count);
        field_double(&mut self.value, 2, histogram.sum_ns as f64 / 1e9);
        let exemplars = histogram.newest_exemplars();
        for ((below, bound), exemplar) in histogram.buckets.classic().zip(&*CLASSIC_BOUNDS).zip(exemplars) {
            self.bucket(*bound, below, exemplar);
        }
        // What only infinity counts: its bucket is written where there is something to tell of it.
        let beyond = exemplars[CLASSIC_BOUNDS.len()];
        if beyond.is_some() {
            self.bucket(f64::INFINITY, count, beyond);
        }
        self.native(histogram.buckets);
        self.start_time(15);
        histogram.exemplars.iter().for_each(|exemplar| write_exemplar(&mut self.value, 16, exemplar));
        self.metric(family, labels, 7);
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        self.value.clear();
        field_varint(&mut self.value, 1, histogram.count);
        field_double(&mut self.value, 2, histogram.sum);
        histogram.buckets.iter().for_each(|(bound, below)| self.bucket(*bound, *below, None));
        self.start_time(15);
        let labels = self.labels(labels);
        self.metric(family, labels, 7);
    }
}
