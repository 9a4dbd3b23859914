//! How much of each key a scrape shows, so that it never holds more sample lines than it may.
//!
//! What happens most is shown in full. Where that is too much the rest is shown without histograms, then without windows,
//! and at the very end not at all: a scrape that is too large would be lost as a whole. What was counted stays exact, and
//! how many keys are shown how is a signal of its own.

use larum_aggregate::histogram::CLASSIC_POWERS;
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, Window};
use larum_aggregate::{KeyId, NameId};
use larum_event::{Kind, Measured};

use crate::counts::Wanted;
use crate::scan::Counted;
use crate::slots::place_from;
use crate::view::View;

/// Sample lines of a histogram in text: its buckets, `+Inf`, sum and count.
pub const HISTOGRAM_LINES: u64 = (*CLASSIC_POWERS.end() - *CLASSIC_POWERS.start() + 1) as u64 + 3;
/// Gauges of logins in a window, without the distinct ones.
const LOGIN_GAUGES: u64 = 4;
/// Quantiles of a token op in a window.
const QUANTILES: u64 = 3;
/// Of the lines, so many are planned; the rest is for what comes until the next plan.
const PLANNED: (u64, u64) = (95, 100);

/// A plan is outgrown once there are more new keys than one in so many.
const OUTGROWN: usize = 50;

fn planned_lines(lines_max: u64) -> u64 {
    lines_max.saturating_mul(PLANNED.0) / PLANNED.1
}

/// How much of a key is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    Hidden,
    /// Counters.
    Counters,
    /// Counters and windows.
    Windows,
    /// Histograms as well; also of a key that is not planned yet, if there is room.
    #[default]
    Full,
}

impl Detail {
    /// Every detail, least first.
    pub const ALL: [Detail; 4] = [Detail::Hidden, Detail::Counters, Detail::Windows, Detail::Full];

    /// Its name in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Detail::Hidden => "hidden",
            Detail::Counters => "counters",
            Detail::Windows => "windows",
            Detail::Full => "full",
        }
    }
}

/// A plan: the detail of every key, and the lines it takes.
#[derive(Clone, Debug, Default)]
pub struct Exposure {
    /// By key.
    details: Vec<(KeyId, Detail, u64)>,
    lines_max: u64,
    /// More than half of the lines are free.
    is_roomy: bool,
}

/// Looks into a plan, mostly for one key after the other: then each stands near the one before.
pub(crate) struct Planned<'e> {
    exposure: &'e Exposure,
    at: usize,
}

/// Lines that some of the keys may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// With their windows and histograms.
    full: u64,
    /// With counters of keys that came or grew since the plan.
    with_counters: u64,
}

/// Sample lines of a key at each detail, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines([u64; 4]);

impl Lines {
    /// Of what a key counted, with these windows.
    pub fn of(counted: &Counted<'_>, windows: &[Window]) -> Lines {
        let def = counted.key.def;
        let (codes, histograms) = (counted.counts.codes(), counted.counts.histogram_ids());
        let (mut all, mut ops) = (0, 0);
        for id in histograms {
            all += 1;
            ops += u64::from(matches!(id.measured(), Measured::Token(_)));
        }
        let (mut counters, mut has_logins) = (0, false);
        for (code, _) in codes {
            counters += 1;
            has_logins |= code.parts().kind == Kind::Login;
        }
        if def.component != NameId::NONE {
            // Escalations are counted by their hop as well.
            return Lines([0, 2 * counters, 2 * counters, 2 * counters + 2 * all * HISTOGRAM_LINES]);
        }
        let of_window = |window: &Window| {
            let distinct = if *window <= DISTINCT_WINDOW { 2 } else { 0 };
            let logins = if has_logins { LOGIN_GAUGES + distinct } else { 0 };
            logins + if window.span_s <= HISTOGRAM_WINDOW_S { QUANTILES * ops } else { 0 }
        };
        let with_windows = counters + windows.iter().map(of_window).sum::<u64>();
        Lines([0, counters, with_windows, with_windows + all * HISTOGRAM_LINES])
    }

    /// Lines at a detail.
    pub fn at(self, detail: Detail) -> u64 {
        self.0[detail as usize]
    }
}

impl Exposure {
    /// Plans for a view, so that all keys together have `lines_max` sample lines at most. Keys that `before` showed in more
    /// detail need less to keep it, so that series do not come and go.
    pub fn plan(view: &View, windows: &[Window], lines_max: u64, before: &Exposure) -> Exposure {
        struct Ranked {
            rank: (bool, u64),
            id: KeyId,
            lines: Lines,
            detail: Detail,
        }
        let mut keys: Vec<Ranked> = Vec::new();
        let mut before = before.planned();
        view.scan_some(
            &[],
            |_| Wanted::Counters,
            |counted| {
                let def = counted.key.def;
                // What is of no tenant in particular is little, and everybody's.
                let is_common = def.tenant == NameId::NONE || def.tenant == NameId::OTHER;
                let events: u64 = counted.counts.codes().map(|code| code.1).sum();
                let held = before.of(def.id).map_or(Detail::Hidden, |held| held.0) as u64;
                let rank = (is_common, events.saturating_mul(4 + held));
                keys.push(Ranked { rank, id: def.id, lines: Lines::of(counted, windows), detail: Detail::Hidden });
            },
        );
        keys.sort_by_key(|key| (std::cmp::Reverse(key.rank), key.id));
        let planned = planned_lines(lines_max);
        let mut used = 0;
        for detail in &Detail::ALL[1..] {
            for key in &mut keys {
                let more = key.lines.at(*detail) - key.lines.at(key.detail);
                if used + more <= planned {
                    used += more;
                    key.detail = *detail;
                }
            }
        }
        keys.sort_unstable_by_key(|key| key.id);
        let details = keys.into_iter().map(|key| (key.id, key.detail, key.lines.at(key.detail))).collect();
        Exposure { details, lines_max, is_roomy: used < lines_max / 2 }
    }

    /// Looks into it from the first key on.
    pub(crate) fn planned(&self) -> Planned<'_> {
        Planned { exposure: self, at: 0 }
    }

    /// Splits the lines there are among parts of the keys: each may take what is planned of it, and its share of what is
    /// left, by how many of its keys came after the plan.
    pub(crate) fn allowances<K: Iterator<Item = KeyId>>(&self, parts: impl Iterator<Item = K>) -> Vec<Allowance> {
        let mut planned = self.planned();
        let mut of = |(lines, new): (u64, u64), id| match planned.of(id) {
            Some((_, planned)) => (lines + planned, new),
            None => (lines, new + 1),
        };
        // One more each, for keys that grew.
        let parts: Vec<(u64, u64)> = parts.map(|keys| keys.fold((0, 1), &mut of)).collect();
        let (lines, new) = parts.iter().fold((0, 0), |sums, part| (sums.0 + part.0, sums.1 + part.1));
        let allowance = |(own_lines, own_new): &(u64, u64)| {
            let share = |of: u64| own_lines + of.saturating_sub(lines).saturating_mul(*own_new) / new.max(1);
            Allowance { full: share(planned_lines(self.lines_max)), with_counters: share(self.lines_max) }
        };
        parts.iter().map(allowance).collect()
    }

    /// Share of the planned keys that are not shown at all.
    pub fn hidden_share(&self) -> f64 {
        let hidden = self.details.iter().filter(|planned| planned.1 == Detail::Hidden).count();
        hidden as f64 / self.details.len().max(1) as f64
    }

    /// Whether a view has many keys that were not there when this was planned.
    pub fn is_outgrown(&self, view: &View) -> bool {
        let (planned, keys) = (self.details.len(), view.keys().count());
        keys > planned + planned / OUTGROWN
    }

    /// Most lines of all keys together.
    pub fn lines_max(&self) -> u64 {
        self.lines_max
    }
}

impl Planned<'_> {
    /// What is planned of a key: its detail, and the lines that takes.
    fn of(&mut self, id: KeyId) -> Option<(Detail, u64)> {
        let details = &self.exposure.details;
        if self.at > 0 && details.get(self.at - 1).is_none_or(|before| before.0 >= id) {
            // Those of another source.
            self.at = 0;
        }
        self.at = place_from(details, self.at, |planned| planned.0 < id);
        details.get(self.at).filter(|planned| planned.0 == id).map(|planned| (planned.1, planned.2))
    }

    /// The most that a key is shown of.
    fn most(&mut self, id: KeyId) -> Detail {
        // New keys may have all only where there is plenty: they come in any order, and take nothing from planned ones.
        match self.of(id) {
            Some((detail, _)) => detail,
            None if self.exposure.is_roomy => Detail::default(),
            None => Detail::Counters,
        }
    }

    /// What has to be known of a key to show it.
    pub(crate) fn wanted(&mut self, id: KeyId) -> Wanted {
        match self.most(id) {
            Detail::Hidden => Wanted::Nothing,
            Detail::Counters => Wanted::Counters,
            Detail::Windows => Wanted::Windows,
            Detail::Full => Wanted::All,
        }
    }

    /// The detail at which a key is shown after others of its part took `used` lines: as planned, or less if that does not
    /// fit.
    pub(crate) fn detail(&mut self, id: KeyId, lines: Lines, used: u64, allowance: Allowance) -> Detail {
        let planned = self.most(id);
        // Keys that came or grew since the plan show their counters out of what others leave free.
        let most = |detail| if detail > Detail::Counters { allowance.full } else { allowance.with_counters };
        let fits = |detail: &&Detail| **detail <= planned && used + lines.at(**detail) <= most(**detail);
        Detail::ALL.iter().rev().find(fits).copied().unwrap_or(Detail::Hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::{Delta, Entry, Graces, KeyDef, NameDef, NameKind, SourceCut, SourceDef, SourceId, seal};

    /// A view of keys that had so many logins each, the last of them of `__other__`.
    fn view(logins: &[u32]) -> View {
        let mut view = View::default();
        let source = SourceId(0);
        let def =
            SourceDef { id: source, name: "s".into(), delay_s: 0, topics: vec!["t".into()], grace: Graces::default() };
        let ids = 0..logins.len() as u32;
        let tenant = |id: u32| if id + 1 == logins.len() as u32 { NameId::OTHER } else { NameId(id + 1) };
        let key =
            |id| KeyDef { id: KeyId(id), source, tenant: tenant(id), region: NameId(1_000), component: NameId::NONE };
        let name = |id| NameDef { id: tenant(id), kind: NameKind::Tenant, text: format!("t{id}") };
        let entry = |(id, n): (usize, &u32)| Entry::new(10, Some(1), true, KeyId(id as u32), 0, *n).measured(9, 5);
        let mut entries: Vec<Entry> = logins.iter().enumerate().map(entry).collect();
        view.apply(Delta {
            new_sources: vec![def],
            names: ids.clone().map(name).collect(),
            keys: ids.map(key).collect(),
            groups: seal(source, &mut entries),
            sources: vec![SourceCut {
                id: source,
                clock_ns: Some(20_000_000_000),
                paced_ns: 0,
                arrived_ns: 0,
                left_out: Vec::new(),
            }],
            ..Delta::default()
        });
        view
    }

    fn details(view: &View, plan: &Exposure) -> Vec<Detail> {
        let (mut details, mut used) = (Vec::new(), 0);
        let allowance = plan.allowances(std::iter::once(view.keys().map(|key| key.def.id)))[0];
        let mut planned = plan.planned();
        view.scan(&[], |counted| {
            let lines = Lines::of(counted, &[]);
            details.push(planned.detail(counted.key.def.id, lines, used, allowance));
            used += lines.at(*details.last().unwrap());
        });
        assert!(used <= plan.lines_max());
        details
    }

    /// A key of these has one counter and, in full, a histogram more.
    #[test]
    fn what_happens_most_is_shown_in_full_and_nothing_beyond_the_budget() {
        let view = view(&[5, 50, 10, 1]);
        let plan = |lines_max, before: &Exposure| Exposure::plan(&view, &[], lines_max, before);
        let none = Exposure::default();
        let full = [Detail::Full; 4];
        assert_eq!(details(&view, &plan(100, &none)), full);
        let (rest, hidden) = (Detail::Windows, Detail::Hidden);
        assert_eq!(details(&view, &plan(60, &none)), [rest, Detail::Full, rest, Detail::Full]);
        assert_eq!(details(&view, &plan(3, &none)), [hidden, rest, hidden, rest], "95 % of 3 are 2");
        // What is unplanned takes what is left, and never more.
        let unplanned = Exposure { lines_max: 50, is_roomy: true, ..Exposure::default() };
        assert!(unplanned.is_outgrown(&view) && !plan(50, &none).is_outgrown(&view));
        assert_eq!(details(&view, &unplanned), [Detail::Full, Detail::Full, rest, rest]);
    }

    #[test]
    fn a_key_that_was_shown_keeps_its_detail_against_one_that_is_a_little_ahead() {
        let before = Exposure::plan(&view(&[10, 9, 1]), &[], 60, &Exposure::default());
        let later = view(&[10, 11, 1]);
        let full = |plan: &Exposure| details(&later, plan).iter().map(|d| *d == Detail::Full).collect::<Vec<_>>();
        assert_eq!(full(&Exposure::plan(&later, &[], 60, &Exposure::default())), [false, true, true]);
        assert_eq!(full(&Exposure::plan(&later, &[], 60, &before)), [true, false, true]);
    }
}
