//! The families whose series belong to a key: logins, tokens, permissions, deliveries, changes; one pass writes them all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use larum_aggregate::time::{HISTOGRAM_WINDOW_S, SECOND_NS, WINDOWS, Window};
use larum_aggregate::{BucketSets, Buckets, Distinct, Exemplar, NameId, SourceId};
use larum_event::{Code, CodeParts, Histogram, Hop, Kind, Measured, Op, Outcome};

use crate::distinct::Counter;
use crate::exposure::{Allowance, Detail, Lines};
use crate::key::{KeyView, Logins};
use crate::reading::{Family, HistogramRead, Label, LabelSet, Reading, Sink, Value};
use crate::scan::Counted;
use crate::shown::{Part, Shown, Walker};
use crate::signals;
use crate::view::SourceView;

/// Quantiles that are exposed.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// Declares the families of keys, in the order in which they are exposed.
macro_rules! families {
    ($($field:ident: $signal:ident,)+) => {
        struct Families {
            $($field: Family,)+
        }

        impl Families {
            fn of(sink: &mut impl Sink) -> Self {
                Families { $($field: sink.family(&signals::$signal),)+ }
            }
        }
    };
}

families! {
    login_attempts: LOGIN_ATTEMPTS,
    login_attempts_rate: LOGIN_ATTEMPTS_RATE,
    login_failures_rate: LOGIN_FAILURES_RATE,
    login_failure_ratio: LOGIN_FAILURE_RATIO,
    login_denied_ratio: LOGIN_DENIED_RATIO,
    login_accounts: LOGIN_DISTINCT_ACCOUNTS,
    login_sources: LOGIN_DISTINCT_SOURCES,
    login_latency: LOGIN_LATENCY,
    token_requests: TOKEN_REQUESTS,
    token_latency: TOKEN_LATENCY,
    token_quantile: TOKEN_LATENCY_QUANTILE,
    permission_decisions: PERMISSION_DECISIONS,
    permission_latency: PERMISSION_LATENCY,
    escalation_hops: ESCALATION_HOPS,
    escalation_latency: ESCALATION_LATENCY,
    audit_records: AUDIT_RECORDS,
    audit_delay: AUDIT_DELAY,
    changes: CHANGE_EVENTS,
}

/// A window of a source that shows the present.
struct ShownWindow {
    window: Window,
    name: String,
    span_s: f64,
    end_s: u32,
}

/// How much was shown.
#[derive(Default)]
struct Tally {
    lines: u64,
    /// By [`Detail`].
    keys: [u64; Detail::ALL.len()],
}

/// Shows the samples of every key, a part of the keys in each sink, several parts at the same time.
pub fn visit<S: Sink + Send>(reading: &Reading<'_>, kept: &mut Shown, sinks: &mut [S]) {
    if sinks.is_empty() {
        return;
    }
    let windows: BTreeMap<SourceId, Vec<ShownWindow>> =
        reading.view.sources().map(|source| (source.def.id, windows(reading, source))).collect();
    // The past is shown as totals only, so its windows need not be added up.
    let asked = |source: &SourceView| match windows.get(&source.def.id) {
        Some(windows) if !windows.is_empty() => reading.windows,
        _ => &[],
    };
    let mut planned = reading.exposure.planned();
    let wanted = |key: &KeyView| planned.wanted(key.def.id);
    let mut showing = kept.begin(reading.view, asked, wanted);
    let parts = showing.parts(sinks.len());
    let allowances = reading.exposure.allowances(parts.iter().map(Part::keys));
    let jobs = Mutex::new(parts.into_iter().zip(allowances).zip(&mut *sinks));
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    // Each thread takes the next part as soon as it is done with one: parts that it has come in order.
    let work = || {
        let mut walker = Walker::default();
        let job = |((part, allowance), sink)| show(reading, &windows, &mut walker, part, allowance, sink);
        std::iter::from_fn(next).map(job).collect::<Vec<Tally>>()
    };
    let tallies = match reading.helpers {
        None => work(),
        Some(helpers) => {
            let mut others: Vec<Vec<Tally>> = Vec::new();
            others.resize_with(helpers.current_num_threads(), Vec::new);
            let own = helpers.in_place_scope(|scope| {
                others.iter_mut().for_each(|tallies| scope.spawn(|_| *tallies = work()));
                work()
            });
            own.into_iter().chain(others.into_iter().flatten()).collect()
        }
    };
    showing.end();
    let Some(sink) = sinks.first_mut() else { return };
    let mut keys = [0; Detail::ALL.len()];
    for tally in &tallies {
        keys.iter_mut().zip(tally.keys).for_each(|(keys, more)| *keys += more);
    }
    // Those that no part has.
    keys[Detail::Hidden as usize] += reading.view.keys().count() as u64 - keys.iter().sum::<u64>();
    sink.scope(&[], None);
    let family = sink.family(&signals::SERIES_LINES);
    sink.sample(family, &[], Value::Int(tallies.iter().map(|tally| tally.lines).sum::<u64>() as i64));
    let family = sink.family(&signals::SERIES_LINES_MAX);
    sink.sample(family, &[], Value::Int(reading.exposure.lines_max() as i64));
    let family = sink.family(&signals::KEYS_SHOWN);
    for (detail, keys) in Detail::ALL.iter().zip(keys) {
        sink.sample(family, &[("detail", detail.as_str())], Value::Int(keys as i64));
    }
}

/// Shows the samples of some keys.
fn show<'v>(
    reading: &Reading<'v>,
    windows: &BTreeMap<SourceId, Vec<ShownWindow>>,
    walker: &mut Walker<'v>,
    part: Part<'v, '_>,
    allowance: Allowance,
    sink: &mut impl Sink,
) -> Tally {
    let families = Families::of(sink);
    let (mut tally, mut exemplars, mut memory) = (Tally::default(), Vec::new(), Memory::default());
    let mut planned = reading.exposure.planned();
    walker.visit(part, |counted| {
        let name = |id| reading.view.name(id);
        let def = counted.key.def;
        let (source, region) = (("source", counted.source.def.name.as_str()), ("region", name(def.region)));
        let (tenant, component) = (("tenant", name(def.tenant)), name(def.component));
        let is_of_platform = def.component != NameId::NONE;
        let lines = Lines::of(counted, reading.windows);
        let detail = planned.detail(def.id, lines, tally.lines, allowance);
        tally.lines += lines.at(detail);
        tally.keys[detail as usize] += 1;
        if detail == Detail::Hidden {
            return;
        }
        let started_ns = Some(i64::from(counted.key.started_s) * SECOND_NS);
        exemplars.clear();
        if detail == Detail::Full && sink.has_exemplars() {
            exemplars.extend(reading.exemplars.of(def.source, def.id));
        }
        let mut writer =
            Writer { counted, families: &families, detail, exemplars: &exemplars, memory: &mut memory, sink };
        match is_of_platform {
            false => {
                writer.sink.scope(&[source, tenant, region], started_ns);
                writer.logins_and_tokens();
                let windows = windows.get(&def.source).filter(|_| detail >= Detail::Windows);
                let windows = windows.map_or(&[][..], Vec::as_slice);
                if let Some(first) = windows.first() {
                    writer.sink.window(i64::from(first.end_s) * SECOND_NS);
                    writer.tell_apart(windows, first.end_s);
                }
                windows.iter().enumerate().for_each(|(at, window)| writer.window(at, window));
            }
            true if def.tenant != NameId::NONE => {
                writer.sink.scope(&[source, tenant, region, ("service", component)], started_ns);
                writer.permissions();
                writer.escalations();
            }
            true => {
                writer.sink.scope(&[source, region], started_ns);
                writer.platform(component);
            }
        }
    });
    tally
}

/// The windows that are shown of a source: those of the present or none.
fn windows(reading: &Reading<'_>, source: &SourceView) -> Vec<ShownWindow> {
    let (view, topics) = (reading.view, &source.def.topics);
    let Some(end_s) = source.window_end_s() else { return Vec::new() };
    if topics.is_empty() || view.is_catching_up(source, reading.now_ns) {
        return Vec::new();
    }
    let shown = |window: &Window| {
        let span_s = view.span_s(source, *window).unwrap_or(1.0);
        ShownWindow { window: *window, name: window.name(), span_s, end_s }
    };
    reading.windows.iter().map(shown).collect()
}

/// Sorts of labels that keys have in common.
#[derive(Clone, Copy)]
enum Sort {
    Code,
    Latency,
    Window,
    Quantile,
    Permission,
    Escalation,
}

impl Sort {
    /// More than the second number of such labels.
    const fn width(self) -> usize {
        match self {
            Sort::Code | Sort::Latency | Sort::Window => 1,
            Sort::Quantile => QUANTILES.len() * WINDOWS.len(),
            Sort::Permission | Sort::Escalation => 8,
        }
    }
}

/// Labels that were named for another key already, by sort, and there by their numbers.
#[derive(Default)]
struct Known([Vec<Option<LabelSet>>; 6]);

impl Known {
    /// Those of a sort that have these numbers.
    #[inline]
    fn of(&mut self, sink: &mut impl Sink, sort: Sort, numbers: (u16, u16), labels: &[Label<'_>]) -> LabelSet {
        let (known, at) = (&mut self.0[sort as usize], usize::from(numbers.0) * sort.width() + usize::from(numbers.1));
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        *known[at].get_or_insert_with(|| sink.labels(labels))
    }
}

/// What is used for one key after the other.
#[derive(Default)]
struct Memory<'v> {
    /// Exemplars of a histogram.
    chosen: Vec<&'v Exemplar>,
    /// Latencies that were added up.
    permissions: BucketSets<(Op, Outcome)>,
    hops: BucketSets<Option<Hop>>,
    known: Known,
    counter: Counter,
    /// Distinct accounts and sources by window, as far as they are told apart.
    distinct: Vec<[u64; 2]>,
}

struct Writer<'w, 'v, S> {
    counted: &'w Counted<'w>,
    families: &'w Families,
    detail: Detail,
    /// Of the key.
    exemplars: &'w [&'v Exemplar],
    memory: &'w mut Memory<'v>,
    sink: &'w mut S,
}

impl<S: Sink> Writer<'_, '_, S> {
    fn count(&mut self, family: Family, labels: LabelSet, count: u64) {
        self.sink.sample_of(family, labels, Value::Int(count as i64));
    }

    fn labels(&mut self, sort: Sort, numbers: (u16, u16), labels: &[Label<'_>]) -> LabelSet {
        self.memory.known.of(self.sink, sort, numbers, labels)
    }

    /// `is_in_it`: what of the key's histograms it was added up from.
    fn latency(
        &mut self,
        family: Family,
        labels: LabelSet,
        (buckets, sum_ns): (Buckets<'_>, u128),
        is_in_it: impl Fn(Measured) -> bool,
    ) {
        if self.detail < Detail::Full {
            return;
        }
        self.memory.chosen.clear();
        self.memory
            .chosen
            .extend(self.exemplars.iter().copied().filter(|e| is_in_it(Histogram(e.histogram).measured())));
        let read = HistogramRead { buckets, sum_ns, exemplars: &self.memory.chosen };
        self.sink.histogram_of(family, labels, read);
    }

    fn logins_and_tokens(&mut self) {
        let counted = self.counted;
        for (code, count) in counted.counts.codes() {
            let CodeParts { kind, op, outcome, reason, .. } = code.parts();
            let (op, ended) = (("op", op.as_str()), [("outcome", outcome.as_str()), ("reason", reason.as_str())]);
            match kind {
                Kind::Login => {
                    let labels = self.labels(Sort::Code, (code.0, 0), &ended);
                    self.count(self.families.login_attempts, labels, count);
                }
                _ => {
                    let labels = self.labels(Sort::Code, (code.0, 0), &[op, ended[0], ended[1]]);
                    self.count(self.families.token_requests, labels, count);
                }
            }
        }
        for (id, buckets, sum_ns) in counted.counts.histograms().iter() {
            let totals = (buckets, sum_ns);
            let is_it = |measured| measured == id.measured();
            match id.measured() {
                Measured::Login(outcome) => {
                    let labels = self.labels(Sort::Latency, (id.0, 0), &[("outcome", outcome.as_str())]);
                    self.latency(self.families.login_latency, labels, totals, is_it);
                }
                Measured::Token(op) => {
                    let labels = self.labels(Sort::Latency, (id.0, 0), &[("op", op.as_str())]);
                    self.latency(self.families.token_latency, labels, totals, is_it);
                }
                Measured::Permission(..) | Measured::Delivery => {}
            }
        }
    }

    /// Counts accounts and sources of all windows at once.
    fn tell_apart(&mut self, windows: &[ShownWindow], end_s: u32) {
        let Memory { distinct, counter, .. } = &mut *self.memory;
        distinct.clear();
        distinct.extend(self.counted.key.distincts(windows.iter().map(|shown| shown.window), end_s, counter));
    }

    /// Gauges of a sliding window.
    fn window(&mut self, at: usize, ShownWindow { window, name, span_s, .. }: &ShownWindow) {
        let Some(sums) = self.counted.counts.windows().get(at) else { return };
        let label = ("window", name.as_str());
        let logins = self.counted.key.logins(*window);
        let has_logins = || self.counted.counts.codes().any(|(code, _)| code.parts().kind == Kind::Login);
        if logins.all > 0 || has_logins() {
            let distinct = self.memory.distinct.get(at).copied();
            let distinct = |what| distinct.map(|counts| counts[what as usize] as f64);
            let Logins { all, succeeded, failed, denied } = logins;
            let ratio = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
            let f = self.families;
            let values = [
                (f.login_attempts_rate, Some(all as f64 / span_s)),
                (f.login_failures_rate, Some(failed as f64 / span_s)),
                (f.login_failure_ratio, ratio(failed, succeeded + failed)),
                (f.login_denied_ratio, ratio(denied, succeeded + failed + denied)),
                (f.login_accounts, distinct(Distinct::Accounts)),
                (f.login_sources, distinct(Distinct::Sources)),
            ];
            let labels = self.labels(Sort::Window, (at as u16, 0), &[label]);
            for (family, value) in values {
                if let Some(value) = value {
                    self.sink.sample_of(family, labels, Value::Float(value));
                }
            }
        }
        if window.span_s <= HISTOGRAM_WINDOW_S {
            let family = self.families.token_quantile;
            for (id, buckets, _) in sums.histograms.iter() {
                let Measured::Token(op) = id.measured() else { continue };
                let Some(values) = buckets.quantiles_seconds(QUANTILES.map(|(q, _)| q)) else { continue };
                for (number, ((_, text), seconds)) in QUANTILES.iter().zip(values).enumerate() {
                    let numbers = (id.0, (at * QUANTILES.len() + number) as u16);
                    let labels = [("op", op.as_str()), label, ("quantile", *text)];
                    let labels = self.labels(Sort::Quantile, numbers, &labels);
                    // Times are read in ns, so nothing finer is told.
                    let ns = (seconds * SECOND_NS as f64 + 0.5) as u64;
                    self.sink.sample_of(family, labels, Value::TimeNs(ns));
                }
            }
        }
    }

    fn permissions(&mut self) {
        let by = |parts: CodeParts| (parts.kind == Kind::Permission).then_some((parts.op, parts.outcome));
        for ((op, outcome), count) in totals(self.counted, by) {
            let labels = [("op", op.as_str()), ("outcome", outcome.as_str())];
            let labels = self.labels(Sort::Permission, (op as u16, outcome as u16), &labels);
            self.count(self.families.permission_decisions, labels, count);
        }
        let by = |measured| match measured {
            Measured::Permission(op, outcome, _) => Some((op, outcome)),
            _ => None,
        };
        let mut sums = std::mem::take(&mut self.memory.permissions);
        add_latencies(self.counted, by, &mut sums);
        for ((op, outcome), buckets, sum_ns) in sums.iter() {
            let labels = [("op", op.as_str()), ("outcome", outcome.as_str())];
            let labels = self.labels(Sort::Permission, (op as u16, outcome as u16), &labels);
            self.latency(self.families.permission_latency, labels, (buckets, sum_ns), |m| by(m) == Some((op, outcome)));
        }
        self.memory.permissions = sums;
    }

    fn escalations(&mut self) {
        let text = |hop: Option<Hop>| ("hop", hop.map_or("unknown", Hop::as_str));
        let by = |parts: CodeParts| (parts.op == Op::Escalate).then_some((parts.hop, parts.outcome));
        for ((hop, outcome), count) in totals(self.counted, by) {
            let numbers = (hop.map_or(0, |hop| hop as u16 + 1), outcome as u16 + 1);
            let labels = self.labels(Sort::Escalation, numbers, &[text(hop), ("outcome", outcome.as_str())]);
            self.count(self.families.escalation_hops, labels, count);
        }
        let by = |measured| match measured {
            Measured::Permission(Op::Escalate, _, hop) => Some(hop),
            _ => None,
        };
        let mut sums = std::mem::take(&mut self.memory.hops);
        add_latencies(self.counted, by, &mut sums);
        for (hop, buckets, sum_ns) in sums.iter() {
            let labels = self.labels(Sort::Escalation, (hop.map_or(0, |hop| hop as u16 + 1), 0), &[text(hop)]);
            self.latency(self.families.escalation_latency, labels, (buckets, sum_ns), |m| by(m) == Some(hop));
        }
        self.memory.hops = sums;
    }

    /// Audit records and changes, which belong to no tenant.
    fn platform(&mut self, component: &str) {
        for (code, count) in self.counted.counts.codes() {
            let CodeParts { kind, op, .. } = code.parts();
            match kind {
                Kind::Audit => {
                    let labels = self.sink.labels(&[("queue", component)]);
                    self.count(self.families.audit_records, labels, count);
                }
                _ => {
                    let labels = self.sink.labels(&[("op", op.as_str()), ("service", component)]);
                    self.count(self.families.changes, labels, count);
                }
            }
        }
        let deliveries = self.counted.counts.histograms().iter().filter(|of| of.0.measured() == Measured::Delivery);
        for (_, buckets, sum_ns) in deliveries {
            let labels = self.sink.labels(&[("queue", component)]);
            self.latency(self.families.audit_delay, labels, (buckets, sum_ns), |_| false);
        }
    }
}

/// Totals of a key, added up by what `by` makes of their codes.
fn totals<K: Ord>(counted: &Counted<'_>, by: impl Fn(CodeParts) -> Option<K>) -> BTreeMap<K, u64> {
    let mut sums = BTreeMap::new();
    let parts = |code: Code| by(code.parts());
    for (key, count) in counted.counts.codes().filter_map(|(code, count)| Some((parts(code)?, count))) {
        *sums.entry(key).or_default() += count;
    }
    sums
}

/// Latencies of a key, added up by what `by` makes of what was measured.
fn add_latencies<K: Copy + Ord>(counted: &Counted<'_>, by: impl Fn(Measured) -> Option<K>, sums: &mut BucketSets<K>) {
    sums.clear();
    for (id, buckets, sum_ns) in counted.counts.histograms().iter() {
        if let Some(key) = by(id.measured()) {
            let place = sums.place(key);
            sums.merge(place, buckets);
            sums.add_sum(place, sum_ns);
        }
    }
}
