//! Permissions, audit records and changes as samples: the families whose keys have a component.

use std::collections::BTreeMap;

use larum_event::{CodeParts, Hop, Kind, Measured, Op};

use crate::key::HistogramTotals;
use crate::reading::{HistogramRead, Shown, Sink, Value};
use crate::signals;

/// The label of a place in an escalation chain.
fn hop_text(hop: Option<Hop>) -> &'static str {
    hop.map_or("unknown", Hop::as_str)
}

/// Shows decisions on permissions, and escalations by hop.
pub fn permissions(keys: &[Shown<'_>], sink: &mut impl Sink) {
    sink.family(&signals::PERMISSION_DECISIONS);
    for shown in keys {
        let by = |parts: CodeParts| (parts.kind == Kind::Permission).then_some((parts.op, parts.outcome));
        for ((op, outcome), count) in totals(shown, by) {
            let [a, b, c] = shown.labels;
            let labels =
                [a, b, c, shown.component_label("service"), ("op", op.as_str()), ("outcome", outcome.as_str())];
            sink.sample(&labels, Value::Int(count as i64));
        }
    }
    sink.family(&signals::PERMISSION_LATENCY);
    for shown in keys {
        let by = |measured| match measured {
            Measured::Permission(op, outcome, _) => Some((op, outcome)),
            _ => None,
        };
        for ((op, outcome), totals) in latencies(shown, by) {
            let [a, b, c] = shown.labels;
            let labels =
                [a, b, c, shown.component_label("service"), ("op", op.as_str()), ("outcome", outcome.as_str())];
            sink.histogram(&labels, HistogramRead { buckets: &totals.buckets, sum_ns: totals.sum_ns });
        }
    }
    escalations(keys, sink);
}

/// Shows audit records and their delays.
pub fn deliveries(keys: &[Shown<'_>], sink: &mut impl Sink) {
    sink.family(&signals::AUDIT_RECORDS);
    for shown in keys {
        for (_, count) in totals(shown, |parts| (parts.kind == Kind::Audit).then_some(())) {
            let [source, _, region] = shown.labels;
            sink.sample(&[source, shown.component_label("queue"), region], Value::Int(count as i64));
        }
    }
    sink.family(&signals::AUDIT_DELAY);
    for shown in keys {
        for (_, totals) in latencies(shown, |measured| (measured == Measured::Delivery).then_some(())) {
            let [source, _, region] = shown.labels;
            let read = HistogramRead { buckets: &totals.buckets, sum_ns: totals.sum_ns };
            sink.histogram(&[source, shown.component_label("queue"), region], read);
        }
    }
}

/// Shows changes of the platform.
pub fn changes(keys: &[Shown<'_>], sink: &mut impl Sink) {
    sink.family(&signals::CHANGE_EVENTS);
    for shown in keys {
        for (op, count) in totals(shown, |parts| (parts.kind == Kind::Change).then_some(parts.op)) {
            let [source, _, region] = shown.labels;
            let labels = [source, ("op", op.as_str()), shown.component_label("service"), region];
            sink.sample(&labels, Value::Int(count as i64));
        }
    }
}

fn escalations(keys: &[Shown<'_>], sink: &mut impl Sink) {
    sink.family(&signals::ESCALATION_HOPS);
    for shown in keys {
        for ((hop, outcome), count) in totals(shown, |p| (p.op == Op::Escalate).then_some((p.hop, p.outcome))) {
            let [a, b, c] = shown.labels;
            let labels =
                [a, b, c, shown.component_label("service"), ("hop", hop_text(hop)), ("outcome", outcome.as_str())];
            sink.sample(&labels, Value::Int(count as i64));
        }
    }
    sink.family(&signals::ESCALATION_LATENCY);
    for shown in keys {
        let by = |measured| match measured {
            Measured::Permission(Op::Escalate, _, hop) => Some(hop),
            _ => None,
        };
        for (hop, totals) in latencies(shown, by) {
            let [a, b, c] = shown.labels;
            let labels = [a, b, c, shown.component_label("service"), ("hop", hop_text(hop))];
            sink.histogram(&labels, HistogramRead { buckets: &totals.buckets, sum_ns: totals.sum_ns });
        }
    }
}

/// Totals of a key, added up by what `by` makes of their codes.
fn totals<K: Ord>(shown: &Shown<'_>, by: impl Fn(CodeParts) -> Option<K>) -> BTreeMap<K, u64> {
    let mut sums = BTreeMap::new();
    for (code, count) in shown.key.codes() {
        if let Some(key) = by(code.parts()) {
            *sums.entry(key).or_default() += count;
        }
    }
    sums
}

/// Latencies of a key, added up by what `by` makes of what was measured.
fn latencies<K: Ord>(shown: &Shown<'_>, by: impl Fn(Measured) -> Option<K>) -> BTreeMap<K, HistogramTotals> {
    let mut sums: BTreeMap<K, HistogramTotals> = BTreeMap::new();
    for (id, totals) in shown.key.histograms(|measured| by(measured).is_some()) {
        if let Some(key) = by(id.measured()) {
            sums.entry(key).or_default().add(&totals);
        }
    }
    sums
}
