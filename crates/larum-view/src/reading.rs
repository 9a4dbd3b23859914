//! One cut of the view as samples: the one place that says which value stands behind which signal.

use std::collections::BTreeMap;

use larum_aggregate::histogram::{CLASSIC_POWERS, classic_of};
use larum_aggregate::time::{SECOND_NS, Window};
use larum_aggregate::{Buckets, Exemplar};
use larum_event::Reject;
/// Threads that wait for something to do: one that is started for every scrape comes later than one that waits.
pub use rayon::ThreadPool as Helpers;

use crate::audit::{self, AuditQueue};
use crate::exemplars::Exemplars;
use crate::exposure::Exposure;
use crate::per_key;
use crate::shown::Shown;
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
    /// A time, ns; shown in seconds.
    TimeNs(u64),
}

impl Value {
    /// The number that is shown.
    pub fn shown(self) -> f64 {
        match self {
            Value::Int(value) => value as f64,
            Value::Float(value) => value,
            Value::TimeNs(ns) => ns as f64 / SECOND_NS as f64,
        }
    }
}

/// A histogram's state.
#[derive(Clone, Copy, Debug)]
pub struct HistogramRead<'a> {
    /// Counts by bucket.
    pub buckets: Buckets<'a>,
    /// Sum of the values, ns.
    pub sum_ns: u128,
    /// Traces of single values, several of a bucket at times; none for who does not write them.
    pub exemplars: &'a [&'a Exemplar],
}

/// Classic buckets, infinity included.
const CLASSIC_BUCKETS: usize = (*CLASSIC_POWERS.end() - *CLASSIC_POWERS.start()) as usize + 2;

impl<'a> HistogramRead<'a> {
    /// The newest exemplar of each classic bucket, infinity included.
    pub fn newest_exemplars(&self) -> [Option<&'a Exemplar>; CLASSIC_BUCKETS] {
        let mut newest: [Option<&Exemplar>; CLASSIC_BUCKETS] = [None; CLASSIC_BUCKETS];
        for exemplar in self.exemplars {
            let held = &mut newest[classic_of(exemplar.latency_ns)];
            if held.is_none_or(|held| (held.tick, held.hash) <= (exemplar.tick, exemplar.hash)) {
                *held = Some(exemplar);
            }
        }
        newest
    }
}

/// A histogram with bounds of its own.
#[derive(Clone, Copy, Debug)]
pub struct ClassicRead<'a> {
    /// (upper bound, how many up to there), rising; without infinity.
    pub buckets: &'a [(f64, u64)],
    /// Sum of the values.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// A family of a [`Sink`], by its place among those that were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family(pub usize);

/// Labels of a [`Sink`], by their place among those that were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSet(pub usize);

/// Takes the samples of a reading. Those of different families come mixed, so that one pass over the state is enough.
pub trait Sink {
    /// Forgets what was written and never finished.
    fn start_over(&mut self) {}
    /// Names a family; families come out in this order.
    fn family(&mut self, signal: &Signal) -> Family;
    /// The samples that follow begin with these labels; their counters and histograms started at `started_ns`, Unix ns,
    /// where that is known.
    fn scope(&mut self, labels: &[Label<'_>], started_ns: Option<i64>);
    /// The gauges that follow, up to the next scope, are of windows that end in this tick, Unix ns.
    fn window(&mut self, _tick_ns: i64) {}
    /// Whether it writes exemplars.
    fn has_exemplars(&self) -> bool {
        true
    }
    /// Names labels that samples of this reading have: what is written of them is made once.
    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet;
    /// A counter's or gauge's sample.
    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value);
    /// A histogram's sample, in the one layout.
    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>);
    /// A counter's or gauge's sample, the only one with these labels.
    fn sample(&mut self, family: Family, labels: &[Label<'_>], value: Value) {
        let labels = self.labels(labels);
        self.sample_of(family, labels, value);
    }
    /// A histogram's sample, the only one with these labels.
    fn histogram(&mut self, family: Family, labels: &[Label<'_>], histogram: HistogramRead<'_>) {
        let labels = self.labels(labels);
        self.histogram_of(family, labels, histogram);
    }
    /// A sample of a histogram with bounds of its own.
    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>);
}

/// A view as it is shown at a moment.
pub struct Reading<'v> {
    /// The state.
    pub view: &'v View,
    /// Traces of single requests.
    pub exemplars: &'v Exemplars,
    /// Wall clock, Unix ns.
    pub now_ns: i64,
    /// Windows that are exposed as gauges.
    pub windows: &'v [Window],
    /// How much of each key is shown.
    pub exposure: &'v Exposure,
    /// Who shows keys at the same time; nobody else shows them where there are none.
    pub helpers: Option<&'v Helpers>,
}

impl Reading<'_> {
    /// Shows every sample that comes from committed Deltas; `shown` is what the readings before left for it. Of keys each
    /// sink is shown a part, if there are enough of them; the first is shown all the rest.
    pub fn visit<S: Sink + Send>(&self, shown: &mut Shown, sinks: &mut [S]) {
        sinks.iter_mut().for_each(Sink::start_over);
        per_key::visit(self, shown, sinks);
        let Some(sink) = sinks.first_mut() else { return };
        self.audit(sink);
        self.pipeline(sink);
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
        let family = sink.family(&signals::AUDIT_IRREGULAR);
        for source in self.view.sources() {
            for (name, AuditQueue { counts, .. }) in &source.queues {
                let labels = [("source", source.def.name.as_str()), ("queue", self.view.name(*name))];
                sink.scope(&labels, self.view.began_ns(source.def.id));
                let kinds = [
                    ("repeated", counts.repeated),
                    ("jump", counts.jumps),
                    ("epoch", counts.epochs),
                    ("skewed", counts.skewed),
                    ("untracked", counts.untracked),
                ];
                for (kind, count) in kinds {
                    sink.sample(family, &[("kind", kind)], Value::Int(count as i64));
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
        let family = sink.family(signal);
        for source in self.view.sources() {
            for (name, queue) in &source.queues {
                if let Some(value) = value(source, queue) {
                    let labels = [("source", source.def.name.as_str()), ("queue", self.view.name(*name))];
                    sink.scope(&labels, self.view.began_ns(source.def.id));
                    sink.sample(family, &[], value);
                }
            }
        }
    }

    fn pipeline(&self, sink: &mut impl Sink) {
        self.partition_gauge(sink, &signals::NEXT_OFFSET, |p| Some(Value::Int(p.visible_next)));
        self.partition_gauge(sink, &signals::FIRST_OFFSET, |p| Some(Value::Int(p.start.origin)));
        self.per_source(sink, &signals::TICK, |s| s.tick.map(|t| Value::Int(i64::from(t))));
        let family = sink.family(&signals::RECORDS);
        self.per_partition(|labels, p| {
            sink.scope(&labels, Some(p.start.began_ns));
            let t = &p.tally;
            let counts = [
                ("decoded", t.decoded),
                ("rejected", t.rejected_total()),
                ("skipped", t.skipped),
                ("absent", t.absent),
                ("lost", t.lost),
            ];
            for (result, count) in counts {
                sink.sample(family, &[("result", result)], Value::Int(count as i64));
            }
        });
        let family = sink.family(&signals::EVENTS);
        self.per_partition(|labels, p| {
            sink.scope(&labels, Some(p.start.began_ns));
            let t = &p.tally;
            let counts = [("on_time", t.on_time), ("late", t.late), ("skewed", t.skewed), ("duplicate", t.duplicate)];
            for (timing, count) in counts {
                sink.sample(family, &[("timing", timing)], Value::Int(count as i64));
            }
        });
        self.rejected(sink);
        let family = sink.family(&signals::WINDOW_INCOMPLETE);
        for source in self.view.sources().filter(|s| s.tick.is_some()) {
            for window in self.windows {
                let incomplete = i64::from(self.view.is_incomplete(source, *window));
                sink.scope(&[("source", &source.def.name), ("window", &window.name())], None);
                sink.sample(family, &[], Value::Int(incomplete));
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
        let family = sink.family(&signals::VIOLATIONS);
        sink.scope(&[], None);
        let unconserved = self.view.partitions().filter(|p| !p.is_conserved()).count() as i64;
        sink.sample(family, &[("invariant", "ranges_tile")], Value::Int(self.view.tiling_violations as i64));
        sink.sample(family, &[("invariant", "conservation")], Value::Int(unconserved));
    }

    /// Refused records of each source, with a 0 for every reason that did not occur.
    fn rejected(&self, sink: &mut impl Sink) {
        let family = sink.family(&signals::REJECTED);
        for source in self.view.sources() {
            let mut by_reason: BTreeMap<usize, u64> = (0..Reject::ALL.len()).map(|reason| (reason, 0)).collect();
            for partition in self.view.partitions_of(source.def.id) {
                for (reason, count) in &partition.tally.rejected {
                    *by_reason.entry(usize::from(*reason)).or_default() += count;
                }
            }
            sink.scope(&[("source", &source.def.name)], self.view.began_ns(source.def.id));
            for (reason, count) in by_reason {
                let reason = Reject::ALL.get(reason).map_or("other", |r| r.as_str());
                sink.sample(family, &[("reason", reason)], Value::Int(count as i64));
            }
        }
    }

    fn per_source(&self, sink: &mut impl Sink, signal: &Signal, value: impl Fn(&SourceView) -> Option<Value>) {
        let family = sink.family(signal);
        for source in self.view.sources() {
            if let Some(value) = value(source) {
                sink.scope(&[("source", &source.def.name)], None);
                sink.sample(family, &[], value);
            }
        }
    }

    fn partition_gauge(
        &self,
        sink: &mut impl Sink,
        signal: &Signal,
        value: impl Fn(&crate::PartitionView) -> Option<Value>,
    ) {
        let family = sink.family(signal);
        self.per_partition(|labels, partition| {
            if let Some(value) = value(partition) {
                sink.scope(&labels, None);
                sink.sample(family, &[], value);
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
