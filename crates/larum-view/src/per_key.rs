//! The families whose series belong to a key: logins, tokens, permissions, deliveries, changes; one pass writes them all.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use larum_aggregate::histogram::quantiles_seconds;
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, SECOND_NS, Window};
use larum_aggregate::{Distinct, Exemplar, NameId, SourceId};
use larum_event::{Code, CodeParts, Histogram, Hop, Kind, Measured, Op, Outcome};

use crate::counts::{HistogramTotals, Wanted, WindowSums};
use crate::exposure::{Detail, Lines};
use crate::key::KeyView;
use crate::reading::{Family, HistogramRead, Label, LabelSet, Reading, Sink, Value};
use crate::scan::Counted;
use crate::shown::Shown;
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

/// Shows the samples of every key.
pub fn visit(reading: &Reading<'_>, kept: &mut Shown, sink: &mut impl Sink) {
    let families = Families::of(sink);
    let shown: BTreeMap<SourceId, Vec<ShownWindow>> =
        reading.view.sources().map(|source| (source.def.id, windows(reading, source))).collect();
    let (mut lines_used, mut keys_shown) = (0, [0_u64; Detail::ALL.len()]);
    // The past is shown as totals only, so its windows need not be added up.
    let asked = if shown.values().any(|windows| !windows.is_empty()) { reading.windows } else { &[] };
    let wanted = |key: &KeyView| reading.exposure.wanted(key.def.id);
    keys_shown[Detail::Hidden as usize] =
        reading.view.keys().filter(|key| wanted(key) == Wanted::Nothing).count() as u64;
    let (mut exemplars, mut chosen, mut known) = (Vec::new(), Vec::new(), Known::default());
    kept.visit(reading.view, asked, wanted, |counted| {
        let name = |id| reading.view.name(id);
        let def = counted.key.def;
        let (source, region) = (("source", counted.source.def.name.as_str()), ("region", name(def.region)));
        let (tenant, component) = (("tenant", name(def.tenant)), name(def.component));
        let is_of_platform = def.component != NameId::NONE;
        let lines = Lines::of(counted, reading.windows);
        let detail = reading.exposure.detail(def.id, lines, lines_used);
        lines_used += lines.at(detail);
        keys_shown[detail as usize] += 1;
        if detail == Detail::Hidden {
            return;
        }
        let started_ns = Some(i64::from(counted.key.started_s) * SECOND_NS);
        exemplars.clear();
        if detail == Detail::Full {
            exemplars.extend(reading.exemplars.of(def.source, def.id));
        }
        let mut writer = Writer {
            counted,
            families: &families,
            detail,
            exemplars: &exemplars,
            chosen: &mut chosen,
            known: &mut known,
            sink,
        };
        match is_of_platform {
            false => {
                writer.sink.scope(&[source, tenant, region], started_ns);
                writer.logins_and_tokens();
                let windows = shown.get(&def.source).filter(|_| detail >= Detail::Windows);
                let windows = windows.map_or(&[][..], Vec::as_slice);
                if let Some(first) = windows.first() {
                    writer.sink.window(i64::from(first.end_s) * SECOND_NS);
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
    sink.scope(&[], None);
    let family = sink.family(&signals::SERIES_LINES);
    sink.sample(family, &[], Value::Int(lines_used as i64));
    let family = sink.family(&signals::SERIES_LINES_MAX);
    sink.sample(family, &[], Value::Int(reading.exposure.lines_max() as i64));
    let family = sink.family(&signals::KEYS_SHOWN);
    for (detail, keys) in Detail::ALL.iter().zip(keys_shown) {
        sink.sample(family, &[("detail", detail.as_str())], Value::Int(keys as i64));
    }
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

/// Labels that were named for another key already.
#[derive(Default)]
struct Known(HashMap<(u32, u32), LabelSet, FixedState>);

impl Known {
    /// Those of a sort that have these numbers.
    #[inline]
    fn of(&mut self, sink: &mut impl Sink, sort: Sort, numbers: (u16, u16), labels: &[Label<'_>]) -> LabelSet {
        let at = (sort as u32, u32::from(numbers.0) << 16 | u32::from(numbers.1));
        *self.0.entry(at).or_insert_with(|| sink.labels(labels))
    }
}

struct Writer<'w, 'v, S> {
    counted: &'w Counted<'v>,
    families: &'w Families,
    detail: Detail,
    /// Of the key.
    exemplars: &'w [Exemplar],
    /// Memory for those of a histogram.
    chosen: &'w mut Vec<Exemplar>,
    known: &'w mut Known,
    sink: &'w mut S,
}

impl<S: Sink> Writer<'_, '_, S> {
    fn count(&mut self, family: Family, labels: LabelSet, count: u64) {
        self.sink.sample_of(family, labels, Value::Int(count as i64));
    }

    fn labels(&mut self, sort: Sort, numbers: (u16, u16), labels: &[Label<'_>]) -> LabelSet {
        self.known.of(self.sink, sort, numbers, labels)
    }

    /// `is_in_it`: what of the key's histograms `totals` were added up from.
    fn latency(
        &mut self,
        family: Family,
        labels: LabelSet,
        totals: &HistogramTotals,
        is_in_it: impl Fn(Measured) -> bool,
    ) {
        if self.detail < Detail::Full {
            return;
        }
        self.chosen.clear();
        self.chosen.extend(self.exemplars.iter().filter(|e| is_in_it(Histogram(e.histogram).measured())));
        let read = HistogramRead { buckets: &totals.buckets, sum_ns: totals.sum_ns, exemplars: self.chosen };
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
        for (id, totals) in counted.counts.histograms() {
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

    /// Gauges of a sliding window.
    fn window(&mut self, at: usize, ShownWindow { window, name, span_s, end_s }: &ShownWindow) {
        let Some(sums) = self.counted.counts.windows().get(at) else { return };
        let label = ("window", name.as_str());
        let logins = LoginSums::of(sums);
        let has_logins = || self.counted.counts.codes().any(|(code, _)| code.parts().kind == Kind::Login);
        if logins.total() > 0 || has_logins() {
            let (succeeded, failed) = (Outcome::Success, Outcome::Failure);
            let distinct =
                |what| (*window <= DISTINCT_WINDOW).then(|| self.counted.key.distinct(what, *window, *end_s) as f64);
            let failures = logins.by_outcome[failed as usize];
            let f = self.families;
            let values = [
                (f.login_attempts_rate, Some(logins.total() as f64 / span_s)),
                (f.login_failures_rate, Some(failures as f64 / span_s)),
                (f.login_failure_ratio, logins.ratio(failed, &[succeeded, failed])),
                (f.login_denied_ratio, logins.ratio(Outcome::Denied, &[succeeded, failed, Outcome::Denied])),
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
            for (id, buckets) in &sums.histograms {
                let Measured::Token(op) = id.measured() else { continue };
                let Some(values) = quantiles_seconds(buckets, QUANTILES.map(|(q, _)| q)) else { continue };
                for (number, ((_, text), value)) in QUANTILES.iter().zip(values).enumerate() {
                    let numbers = (id.0, (at * QUANTILES.len() + number) as u16);
                    let labels = [("op", op.as_str()), label, ("quantile", *text)];
                    let labels = self.labels(Sort::Quantile, numbers, &labels);
                    self.sink.sample_of(family, labels, Value::Float(value));
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
        for ((op, outcome), totals) in latencies(self.counted, by) {
            let labels = [("op", op.as_str()), ("outcome", outcome.as_str())];
            let labels = self.labels(Sort::Permission, (op as u16, outcome as u16), &labels);
            self.latency(self.families.permission_latency, labels, &totals, |m| by(m) == Some((op, outcome)));
        }
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
        for (hop, totals) in latencies(self.counted, by) {
            let labels = self.labels(Sort::Escalation, (hop.map_or(0, |hop| hop as u16 + 1), 0), &[text(hop)]);
            self.latency(self.families.escalation_latency, labels, &totals, |m| by(m) == Some(hop));
        }
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
        for (_, totals) in self.counted.counts.histograms().iter().filter(|of| of.0.measured() == Measured::Delivery) {
            let labels = self.sink.labels(&[("queue", component)]);
            self.latency(self.families.audit_delay, labels, totals, |_| false);
        }
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
fn latencies<K: Ord>(counted: &Counted<'_>, by: impl Fn(Measured) -> Option<K>) -> BTreeMap<K, HistogramTotals> {
    let mut sums: BTreeMap<K, HistogramTotals> = BTreeMap::new();
    for (id, totals) in counted.counts.histograms() {
        if let Some(key) = by(id.measured()) {
            sums.entry(key).or_default().add(totals);
        }
    }
    sums
}
