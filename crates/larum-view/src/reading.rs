//! One cut of the view as samples: the one place that says which value stands behind which signal.

use std::collections::BTreeMap;

use larum_aggregate::histogram::{Bucket, quantile_seconds};
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, SECOND_NS, Window};
use larum_aggregate::{Distinct, NameId};
use larum_event::{CodeParts, Histogram, Kind, Measured, Outcome, Reject};

use crate::audit::{self, AuditQueue};
use crate::key::{KeyView, WindowSums};
use crate::platform;
use crate::signals::{self, Signal};
use crate::view::{SourceView, View};

/// A label's name and text.
pub type Label<'a> = (&'static str, &'a str);

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
}

/// A histogram's state.
#[derive(Clone, Copy, Debug)]
pub struct HistogramRead<'a> {
    /// (bucket, count), by bucket.
    pub buckets: &'a [(Bucket, u64)],
    /// Sum of the values, ns.
    pub sum_ns: u128,
}

/// Takes the samples of a reading, family by family.
pub trait Sink {
    /// The samples that follow are of this signal.
    fn family(&mut self, signal: &Signal);
    /// A counter's or gauge's sample.
    fn sample(&mut self, labels: &[Label<'_>], value: Value);
    /// A histogram's sample.
    fn histogram(&mut self, labels: &[Label<'_>], histogram: HistogramRead<'_>);
}

/// Quantiles that are exposed.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// A view as it is shown at a moment.
pub struct Reading<'v> {
    /// The state.
    pub view: &'v View,
    /// Wall clock, Unix ns.
    pub now_ns: i64,
    /// Windows that are exposed as gauges.
    pub windows: &'v [Window],
}

/// A key with the texts of its labels.
pub(crate) struct Shown<'v> {
    pub(crate) key: &'v KeyView,
    /// Source, tenant, region.
    pub(crate) labels: [Label<'v>; 3],
    /// Its service or queue, if it has one.
    pub(crate) component: Option<&'v str>,
}

impl<'v> Shown<'v> {
    pub(crate) fn component_label(&self, name: &'static str) -> Label<'v> {
        (name, self.component.unwrap_or_default())
    }
}

/// Logins of a window by how they ended.
#[derive(Default)]
struct LoginSums {
    by_outcome: [u64; 4],
}

impl LoginSums {
    fn of(sums: &WindowSums) -> Self {
        let mut logins = LoginSums::default();
        for (code, count) in &sums.codes {
            let CodeParts { kind, outcome, .. } = code.parts();
            if kind == Kind::Login {
                logins.by_outcome[outcome as usize] += count;
            }
        }
        logins
    }

    fn total(&self) -> u64 {
        self.by_outcome.iter().sum()
    }

    /// `part` over the sum of `whole`, unless that is 0.
    fn ratio(&self, part: Outcome, whole: &[Outcome]) -> Option<f64> {
        let sum: u64 = whole.iter().map(|o| self.by_outcome[*o as usize]).sum();
        (sum > 0).then(|| self.by_outcome[part as usize] as f64 / sum as f64)
    }
}

impl<'v> Reading<'v> {
    /// Shows every sample that comes from committed Deltas.
    pub fn visit(&self, sink: &mut impl Sink) {
        let keys: Vec<Shown<'v>> = self.view.keys().filter_map(|key| self.shown(key)).collect();
        // Logins and tokens know no component; the other families' keys have one.
        let (of_platform, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|shown| shown.component.is_some());
        self.totals(&keys, sink);
        self.windowed(&keys, sink);
        platform::permissions(&of_platform, sink);
        platform::deliveries(&of_platform, sink);
        self.audit(sink);
        platform::changes(&of_platform, sink);
        self.pipeline(sink);
    }

    fn shown(&self, key: &'v KeyView) -> Option<Shown<'v>> {
        let source = self.view.source(key.def.source)?;
        let labels = [
            ("source", source.def.name.as_str()),
            ("tenant", self.view.name(key.def.tenant)),
            ("region", self.view.name(key.def.region)),
        ];
        let component = (key.def.component != NameId::NONE).then(|| self.view.name(key.def.component));
        Some(Shown { key, labels, component })
    }

    fn totals(&self, keys: &[Shown<'v>], sink: &mut impl Sink) {
        for (signal, wanted) in [(signals::LOGIN_ATTEMPTS, Kind::Login), (signals::TOKEN_REQUESTS, Kind::Token)] {
            sink.family(&signal);
            for Shown { key, labels: [a, b, c], .. } in keys {
                for (code, count) in key.codes() {
                    let CodeParts { kind, op, outcome, reason, .. } = code.parts();
                    let (outcome, reason) = (("outcome", outcome.as_str()), ("reason", reason.as_str()));
                    let value = Value::Int(count as i64);
                    match kind {
                        _ if kind != wanted => {}
                        Kind::Login => sink.sample(&[*a, *b, *c, outcome, reason], value),
                        _ => sink.sample(&[*a, *b, *c, ("op", op.as_str()), outcome, reason], value),
                    }
                }
            }
        }
        let label = |measured| match measured {
            Measured::Login(outcome) => Some((signals::LOGIN_LATENCY, ("outcome", outcome.as_str()))),
            Measured::Token(op) => Some((signals::TOKEN_LATENCY, ("op", op.as_str()))),
            Measured::Permission(..) | Measured::Delivery => None,
        };
        for signal in [signals::LOGIN_LATENCY, signals::TOKEN_LATENCY] {
            sink.family(&signal);
            for Shown { key, labels: [a, b, c], .. } in keys {
                for (id, totals) in key.histograms(|measured| label(measured).is_some_and(|(of, _)| of == signal)) {
                    let Some((_, label)) = label(id.measured()) else { continue };
                    let read = HistogramRead { buckets: &totals.buckets, sum_ns: totals.sum_ns };
                    sink.histogram(&[*a, *b, *c, label], read);
                }
            }
        }
    }

    /// Windowed gauges of the sources that show the present.
    fn windowed(&self, keys: &[Shown<'v>], sink: &mut impl Sink) {
        let mut samples: [Vec<(usize, String, f64)>; 6] = Default::default();
        let mut quantiles: Vec<(usize, String, Histogram, &str, f64)> = Vec::new();
        for (at, shown) in keys.iter().enumerate() {
            let Some(source) = self.view.source(shown.key.def.source) else { continue };
            let Some(end_s) = source.window_end_s() else { continue };
            if source.def.topics.is_empty() || self.view.is_catching_up(source, self.now_ns) {
                continue;
            }
            let has_logins = shown.key.codes().any(|(code, _)| code.parts().kind == Kind::Login);
            for window in self.windows {
                let sums = shown.key.window(*window, end_s);
                let logins = LoginSums::of(&sums);
                let span_s = self.view.span_s(source, *window).unwrap_or(1.0);
                if has_logins || logins.total() > 0 {
                    let failures = logins.by_outcome[Outcome::Failure as usize];
                    let (succeeded, failed) = (Outcome::Success, Outcome::Failure);
                    let distinct = |what| {
                        let count = || shown.key.distinct(what, *window, end_s) as f64;
                        (*window <= DISTINCT_WINDOW).then(count)
                    };
                    let values = [
                        Some(logins.total() as f64 / span_s),
                        Some(failures as f64 / span_s),
                        logins.ratio(failed, &[succeeded, failed]),
                        logins.ratio(Outcome::Denied, &[succeeded, failed, Outcome::Denied]),
                        distinct(Distinct::Accounts),
                        distinct(Distinct::Sources),
                    ];
                    for (list, value) in samples.iter_mut().zip(values) {
                        list.extend(value.map(|v| (at, window.name(), v)));
                    }
                }
                if window.span_s <= HISTOGRAM_WINDOW_S {
                    quantiles_of(&sums, |id, q, v| quantiles.push((at, window.name(), id, q, v)));
                }
            }
        }
        let signals = [
            signals::LOGIN_ATTEMPTS_RATE,
            signals::LOGIN_FAILURES_RATE,
            signals::LOGIN_FAILURE_RATIO,
            signals::LOGIN_DENIED_RATIO,
            signals::LOGIN_DISTINCT_ACCOUNTS,
            signals::LOGIN_DISTINCT_SOURCES,
        ];
        for (signal, list) in signals.iter().zip(samples) {
            sink.family(signal);
            for (at, window, value) in list {
                let [a, b, c] = keys[at].labels;
                sink.sample(&[a, b, c, ("window", &window)], Value::Float(value));
            }
        }
        sink.family(&signals::TOKEN_LATENCY_QUANTILE);
        for (at, window, id, quantile, value) in quantiles {
            let [a, b, c] = keys[at].labels;
            let Measured::Token(op) = id.measured() else { continue };
            let labels = [a, b, c, ("op", op.as_str()), ("window", &window), ("quantile", quantile)];
            sink.sample(&labels, Value::Float(value));
        }
    }

    /// What audit queues lack.
    fn audit(&self, sink: &mut impl Sink) {
        // Like windows, what stands in a queue is of the present or left out.
        let present = |s: &SourceView| !s.def.topics.is_empty() && !self.view.is_catching_up(s, self.now_ns);
        let whole = |n: u64| Some(Value::Int(n as i64));
        self.per_queue(sink, &signals::AUDIT_BACKLOG, |source, queue| {
            present(source).then(|| Value::Int(queue.state().backlog as i64))
        });
        self.per_queue(sink, &signals::AUDIT_LAG, |source, queue| {
            let tick = source.tick.filter(|_| present(source))?;
            Some(Value::Float(queue.state().oldest_ns.map_or(0.0, |ns| audit::age_s(ns, tick))))
        });
        self.per_queue(sink, &signals::AUDIT_MISSING, |_, queue| whole(queue.state().missing));
        self.per_queue(sink, &signals::AUDIT_GAPS, |_, queue| whole(queue.counts.gaps));
        self.per_queue(sink, &signals::AUDIT_RECOVERED, |_, queue| whole(queue.counts.recovered));
        sink.family(&signals::AUDIT_IRREGULAR);
        for source in self.view.sources() {
            for (name, AuditQueue { counts, .. }) in &source.queues {
                let [a, b] = [("source", source.def.name.as_str()), ("queue", self.view.name(*name))];
                let kinds = [
                    ("repeated", counts.repeated),
                    ("jump", counts.jumps),
                    ("epoch", counts.epochs),
                    ("skewed", counts.skewed),
                    ("untracked", counts.untracked),
                ];
                for (kind, count) in kinds {
                    sink.sample(&[a, b, ("kind", kind)], Value::Int(count as i64));
                }
            }
        }
    }

    fn per_queue(
        &self,
        sink: &mut impl Sink,
        signal: &Signal,
        value: impl Fn(&SourceView, &AuditQueue) -> Option<Value>,
    ) {
        sink.family(signal);
        for source in self.view.sources() {
            for (name, queue) in &source.queues {
                if let Some(value) = value(source, queue) {
                    sink.sample(&[("source", &source.def.name), ("queue", self.view.name(*name))], value);
                }
            }
        }
    }

    fn pipeline(&self, sink: &mut impl Sink) {
        self.partition_gauge(sink, &signals::NEXT_OFFSET, |p| Some(Value::Int(p.visible_next)));
        self.partition_gauge(sink, &signals::FIRST_OFFSET, |p| Some(Value::Int(p.start.origin)));
        self.per_source(sink, &signals::TICK, |s| s.tick.map(|t| Value::Int(i64::from(t))));
        sink.family(&signals::RECORDS);
        self.per_partition(|labels, p| {
            let t = &p.tally;
            let counts = [
                ("decoded", t.decoded),
                ("rejected", t.rejected_total()),
                ("skipped", t.skipped),
                ("absent", t.absent),
                ("lost", t.lost),
            ];
            for (result, count) in counts {
                let [a, b, c] = labels;
                sink.sample(&[a, b, c, ("result", result)], Value::Int(count as i64));
            }
        });
        sink.family(&signals::EVENTS);
        self.per_partition(|[a, b, c], p| {
            let t = &p.tally;
            let counts = [("on_time", t.on_time), ("late", t.late), ("skewed", t.skewed), ("duplicate", t.duplicate)];
            for (timing, count) in counts {
                sink.sample(&[a, b, c, ("timing", timing)], Value::Int(count as i64));
            }
        });
        self.rejected(sink);
        sink.family(&signals::WINDOW_INCOMPLETE);
        for source in self.view.sources().filter(|s| s.tick.is_some()) {
            for window in self.windows {
                let incomplete = i64::from(self.view.is_incomplete(source, *window));
                let labels = [("source", source.def.name.as_str()), ("window", &window.name())];
                sink.sample(&labels, Value::Int(incomplete));
            }
        }
        self.partition_gauge(sink, &signals::LEFT_OUT, |p| {
            let source = self.view.source(p.start.source).filter(|s| s.def.topics.contains(&p.start.topic))?;
            Some(Value::Int(i64::from(source.leaves_out(p.start.id))))
        });
        self.per_source(sink, &signals::CATCHING_UP, |s| {
            Some(Value::Int(i64::from(self.view.is_catching_up(s, self.now_ns))))
        });
        let age = |ns: i64| Value::Float((self.now_ns - ns) as f64 / SECOND_NS as f64);
        self.per_source(sink, &signals::CLOCK_AGE, |s| s.clock_ns().map(age));
        self.partition_gauge(sink, &signals::WATERMARK_AGE, |p| p.watermark_ns.map(age));
        sink.family(&signals::VIOLATIONS);
        let unconserved = self.view.partitions().filter(|p| !p.is_conserved()).count() as i64;
        sink.sample(&[("invariant", "ranges_tile")], Value::Int(self.view.tiling_violations as i64));
        sink.sample(&[("invariant", "conservation")], Value::Int(unconserved));
    }

    /// Refused records of each source, with a 0 for every reason that did not occur.
    fn rejected(&self, sink: &mut impl Sink) {
        sink.family(&signals::REJECTED);
        for source in self.view.sources() {
            let mut by_reason: BTreeMap<usize, u64> = (0..Reject::ALL.len()).map(|reason| (reason, 0)).collect();
            for partition in self.view.partitions_of(source.def.id) {
                for (reason, count) in &partition.tally.rejected {
                    *by_reason.entry(usize::from(*reason)).or_default() += count;
                }
            }
            for (reason, count) in by_reason {
                let reason = Reject::ALL.get(reason).map_or("other", |r| r.as_str());
                sink.sample(&[("source", &source.def.name), ("reason", reason)], Value::Int(count as i64));
            }
        }
    }

    fn per_source(&self, sink: &mut impl Sink, signal: &Signal, value: impl Fn(&SourceView) -> Option<Value>) {
        sink.family(signal);
        for source in self.view.sources() {
            if let Some(value) = value(source) {
                sink.sample(&[("source", &source.def.name)], value);
            }
        }
    }

    fn partition_gauge(
        &self,
        sink: &mut impl Sink,
        signal: &Signal,
        value: impl Fn(&crate::PartitionView) -> Option<Value>,
    ) {
        sink.family(signal);
        self.per_partition(|labels, partition| {
            if let Some(value) = value(partition) {
                sink.sample(&labels, value);
            }
        });
    }

    fn per_partition(&self, mut visit: impl FnMut([Label<'_>; 3], &crate::PartitionView)) {
        for partition in self.view.partitions() {
            let Some(source) = self.view.source(partition.start.source) else { continue };
            let number = partition.start.partition.to_string();
            let labels =
                [("source", source.def.name.as_str()), ("topic", &partition.start.topic), ("partition", &number)];
            visit(labels, partition);
        }
    }
}

/// Shows the quantiles of every token histogram of a window.
fn quantiles_of(sums: &WindowSums, mut visit: impl FnMut(Histogram, &'static str, f64)) {
    for same in sums.buckets.chunk_by(|a, b| a.0.0 == b.0.0) {
        let id = same[0].0.0;
        if !matches!(id.measured(), Measured::Token(_)) {
            continue;
        }
        let buckets: Vec<(Bucket, u64)> = same.iter().map(|((_, bucket), count)| (*bucket, *count)).collect();
        for (q, text) in QUANTILES {
            if let Some(value) = quantile_seconds(&buckets, q) {
                visit(id, text, value);
            }
        }
    }
}
