//! Whether a condition holds at a tick, and with which value.

use std::collections::BTreeMap;

use larum_aggregate::NameId;
use larum_aggregate::time::{SECOND_NS, WINDOWS, Window};
use larum_event::{Code, Op};
use larum_view::{Counter, KeyView, Measure, TickRead};
use serde::{Deserialize, Serialize};

use crate::catalogue::{At, AuditWhat, BurnPair, Catalogue, Condition};
use crate::history::{History, SpanS};

/// What something is judged for, by names; those that do not apply are [`NameId::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Tenant.
    pub tenant: NameId,
    /// Region.
    pub region: NameId,
    /// Audit queue.
    pub queue: NameId,
}

impl Place {
    /// A source as a whole.
    pub const SOURCE: Place = Place { tenant: NameId::NONE, region: NameId::NONE, queue: NameId::NONE };

    /// A region.
    pub const fn region(region: NameId) -> Place {
        Place { region, ..Place::SOURCE }
    }

    /// An audit queue.
    pub const fn queue(queue: NameId) -> Place {
        Place { queue, ..Place::SOURCE }
    }

    /// A key's tenant and region.
    pub const fn of(key: &KeyView) -> Place {
        Place { tenant: key.def.tenant, region: key.def.region, queue: NameId::NONE }
    }
}

/// Something that conditions are judged for.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// A tenant in a region.
    Tenant(&'a KeyView),
    /// A region.
    Region(NameId),
    /// A service in a region.
    Service(NameId, NameId),
    /// An audit queue.
    Queue(NameId),
    /// The source.
    Source,
}

/// What a value is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// A share, 0 to 1.
    Share,
    /// Events a second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Things.
    Count,
    /// So many times.
    Times,
}

/// That a condition holds, with what it saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The value.
    pub value: f64,
    /// What it usually is, where that was looked at.
    pub usual: Option<f64>,
    /// Of what.
    pub unit: Unit,
}

/// Backlogs that audit queues had at pane borders: (second, records), newest last.
pub type Backlogs = BTreeMap<NameId, Vec<(u32, u64)>>;

/// A growing queue is compared with itself so long ago, seconds.
const GROWTH_S: u32 = 300;

/// Notes the backlogs of a tick at a pane border.
pub(crate) fn note_backlogs(backlogs: &mut Backlogs, read: &TickRead<'_>) {
    backlogs.retain(|queue, _| read.source.queues.contains_key(queue));
    for (queue, state) in &read.source.queues {
        let samples = backlogs.entry(*queue).or_default();
        samples.push((read.tick, state.state().backlog));
        samples.retain(|(at_s, _)| at_s + GROWTH_S + 10 > read.tick);
    }
}

/// What conditions are judged by.
pub struct Ground<'a> {
    /// The source at the tick.
    pub read: &'a TickRead<'a>,
    /// What regions, and tenants with objectives of their own, counted: by tenant ([`NameId::NONE`]: all) and region.
    pub histories: &'a BTreeMap<(NameId, NameId), History>,
    /// What audit queues held.
    pub backlogs: &'a Backlogs,
    /// For objectives.
    pub catalogue: &'a Catalogue,
}

/// How the region of a change is shown that says none.
pub const EVERYWHERE: &str = "unknown";

/// Looks like [`Option::filter`]: `found`, if `limit` is exceeded.
fn above(value: f64, limit: f64, usual: Option<f64>, unit: Unit) -> Option<Found> {
    (value > limit).then_some(Found { value, usual, unit })
}

impl Ground<'_> {
    /// Whether a condition holds for a subject; `limit` is another one for this subject.
    pub fn holds(&self, condition: &Condition, subject: Subject<'_>, limit: Option<f64>) -> Option<Found> {
        match condition {
            Condition::All(conditions) => self.all(conditions, subject, limit),
            Condition::Any(conditions) => conditions.iter().find_map(|one| self.holds(one, subject, limit)),
            Condition::Rate { of, window_s, above: most, at } => {
                let rate = self.rate(self.at(subject, *at)?, of, *window_s);
                above(rate, limit.unwrap_or(*most), None, Unit::PerSecond)
            }
            Condition::Ratio { of, to, window_s, above: most, floor, usual, at } => {
                let subject = self.at(subject, *at)?;
                let ratio = self.ratio(subject, *of, to, *window_s, *floor)?;
                let found = above(ratio, limit.unwrap_or(*most), None, Unit::Share)?;
                let Some((usual_s, factor)) = usual else { return Some(found) };
                self.complete(*usual_s)?;
                let usual = self.ratio(subject, *of, to, *usual_s, 0.0).unwrap_or(0.0);
                (ratio > usual * factor).then_some(Found { usual: Some(usual), ..found })
            }
            Condition::Rise { of, window_s, usual_s, factor, floor, at } => {
                let subject = self.at(subject, *at)?;
                let rate = self.rate(subject, of, *window_s);
                let count: u64 = of.iter().map(|measure| self.count(subject, *measure, *window_s)).sum();
                if (count as f64) < limit.unwrap_or(*floor) * f64::from(*window_s) {
                    return None;
                }
                self.complete(*usual_s)?;
                let usual = self.rate(subject, of, *usual_s);
                above(rate, usual * factor, Some(usual), Unit::PerSecond)
            }
            Condition::Silent { of, window_s, usual_s, floor, at } => {
                let subject = self.at(subject, *at)?;
                self.complete(*usual_s)?;
                if of.iter().any(|measure| self.count(subject, *measure, *window_s) > 0) {
                    return None;
                }
                let usual = self.rate(subject, of, *usual_s);
                (usual > limit.unwrap_or(*floor)).then_some(Found {
                    value: 0.0,
                    usual: Some(usual),
                    unit: Unit::PerSecond,
                })
            }
            Condition::Different { what, window, above: most } => {
                let Subject::Tenant(key) = subject else { return None };
                let counts = key.distinct(*window, self.read.end_s(), &mut Counter::default())?;
                above(counts[*what as usize] as f64, limit.unwrap_or(*most), None, Unit::Count)
            }
            Condition::Burn { objective, pairs } => {
                pairs.iter().find_map(|pair| self.burns(subject, *objective, *pair))
            }
            Condition::Quantile { op, quantile, window, above: most, floor, usual } => {
                let Subject::Region(region) = self.at(subject, At::Region)? else { return None };
                self.quantile(region, *op, *quantile, (*window, *most, *floor), *usual)
            }
            Condition::Audit { what, above: most } => self.audit(subject, *what, limit.unwrap_or(*most)),
            Condition::Changed { within_s } => self.changed(subject, *within_s),
            Condition::Regions { at_least, of } => {
                self.count_holding(*at_least, self.regions().map(Subject::Region), of)
            }
            Condition::Services { at_least, of } => {
                let Subject::Region(region) = subject else { return None };
                let services = self.read.services_of(region).map(|service| Subject::Service(region, service));
                self.count_holding(*at_least, services, of)
            }
            Condition::Always => Some(Found { value: 1.0, usual: None, unit: Unit::Count }),
            // Judged by the runtime.
            Condition::Health { .. } | Condition::Consumer { .. } => None,
        }
    }

    /// Whether all hold; the first of them that has a value says what was found.
    pub fn all(&self, conditions: &[Condition], subject: Subject<'_>, limit: Option<f64>) -> Option<Found> {
        let mut first = None;
        for (at, condition) in conditions.iter().enumerate() {
            let found = self.holds(condition, subject, limit.filter(|_| at == 0))?;
            first.get_or_insert(found);
        }
        first
    }

    /// Regions that something was counted in.
    pub fn regions(&self) -> impl Iterator<Item = NameId> {
        self.histories.keys().filter(|(tenant, _)| *tenant == NameId::NONE).map(|(_, region)| *region)
    }

    fn at<'s>(&self, subject: Subject<'s>, at: At) -> Option<Subject<'s>> {
        match (at, subject) {
            (At::Own, subject) => Some(subject),
            (At::Region, Subject::Tenant(key)) => Some(Subject::Region(key.def.region)),
            (At::Region, Subject::Region(region) | Subject::Service(region, _)) => Some(Subject::Region(region)),
            (At::Region, Subject::Queue(_) | Subject::Source) => None,
        }
    }

    /// `None` while a span misses something: what is usual is not known then.
    fn complete(&self, span_s: SpanS) -> Option<()> {
        (!self.read.start_s(Window { span_s }).1).then_some(())
    }

    /// Events of a measure over a span.
    pub fn count(&self, subject: Subject<'_>, measure: Measure, span_s: SpanS) -> u64 {
        let end_s = self.read.end_s();
        let window = || WINDOWS.iter().position(|window| window.span_s == span_s);
        let of_history = |tenant, region| {
            self.histories.get(&(tenant, region)).map_or(0, |history| history.sum(measure, span_s, end_s))
        };
        match subject {
            Subject::Tenant(key) => match window().filter(|_| measure.is_of_tenants()) {
                Some(window) => self.read.of_key(key, measure, window),
                None => of_history(key.def.tenant, key.def.region),
            },
            Subject::Region(region) => of_history(NameId::NONE, region),
            Subject::Service(region, service) => {
                window().map_or(0, |window| self.read.of_service(region, service, measure, window))
            }
            Subject::Source => self.regions().map(|region| of_history(NameId::NONE, region)).sum(),
            Subject::Queue(_) => 0,
        }
    }

    /// Events a second.
    pub fn rate(&self, subject: Subject<'_>, of: &[Measure], span_s: SpanS) -> f64 {
        let count: u64 = of.iter().map(|measure| self.count(subject, *measure, span_s)).sum();
        if count == 0 { 0.0 } else { count as f64 / self.read.span_s(Window { span_s }) }
    }

    fn ratio(&self, subject: Subject<'_>, of: Measure, to: &[Measure], span_s: SpanS, floor: f64) -> Option<f64> {
        let whole: u64 = to.iter().map(|measure| self.count(subject, *measure, span_s)).sum();
        // Of the whole span, also where not all of it is covered: shortly after the start there are few.
        if whole == 0 || (whole as f64) < floor * f64::from(span_s) {
            return None;
        }
        Some(self.count(subject, of, span_s) as f64 / whole as f64)
    }

    /// How many times as fast as it lasts for thirty days the budget of an objective burns over a span. What Larum did not
    /// see counts as good.
    pub fn burn_rate(&self, subject: Subject<'_>, objective: usize, span_s: SpanS) -> f64 {
        let place = match subject {
            Subject::Tenant(key) => (key.def.tenant, key.def.region),
            Subject::Region(region) => (NameId::NONE, region),
            Subject::Service(..) | Subject::Queue(_) | Subject::Source => return 0.0,
        };
        let (history, of) = (self.histories.get(&place), self.catalogue.objectives.get(objective));
        let Some((history, of)) = history.zip(of) else { return 0.0 };
        history.burn_rate(of, span_s, self.read.end_s(), self.read.span_s(Window { span_s }))
    }

    fn burns(&self, subject: Subject<'_>, objective: usize, pair: BurnPair) -> Option<Found> {
        let of = self.catalogue.objectives.get(objective)?;
        let all = of.all;
        if let Subject::Tenant(key) = subject
            && !of.tenants.contains(self.read.name(key.def.tenant))
        {
            return None;
        }
        if (self.count(subject, all, pair.short_s) as f64) < pair.floor * f64::from(pair.short_s) {
            return None;
        }
        let short = self.burn_rate(subject, objective, pair.short_s);
        let long = if short > pair.factor { self.burn_rate(subject, objective, pair.long_s) } else { 0.0 };
        above(long, pair.factor, None, Unit::Times)
    }

    fn quantile(
        &self,
        region: NameId,
        op: Op,
        q: f64,
        (window, most, floor): (Window, f64, f64),
        usual: Option<(Window, f64)>,
    ) -> Option<Found> {
        let (value, requests) = self.read.quantile(region, op, window, q)?;
        if (requests as f64) < floor * f64::from(window.span_s) {
            return None;
        }
        let found = above(value, most, None, Unit::Seconds)?;
        let Some((usual_window, factor)) = usual else { return Some(found) };
        self.complete(usual_window.span_s)?;
        let (usual, _) = self.read.quantile(region, op, usual_window, q)?;
        (value > usual * factor).then_some(Found { usual: Some(usual), ..found })
    }

    fn audit(&self, subject: Subject<'_>, what: AuditWhat, most: f64) -> Option<Found> {
        let Subject::Queue(queue) = subject else { return None };
        let state = self.read.source.queues.get(&queue)?.state();
        match what {
            AuditWhat::Backlog => above(state.backlog as f64, most, None, Unit::Count),
            AuditWhat::Missing => above(state.missing as f64, most, None, Unit::Count),
            AuditWhat::Lag => {
                let clock_ns = (i64::from(self.read.tick) + 1) * SECOND_NS;
                let lag_ns = state.oldest_ns.map_or(0, |oldest_ns| (clock_ns - oldest_ns).max(0));
                above(lag_ns as f64 / SECOND_NS as f64, most, None, Unit::Seconds)
            }
            AuditWhat::Growth => {
                let samples = self.backlogs.get(&queue)?;
                let long_ago = |(at_s, _): &&(u32, u64)| at_s + GROWTH_S <= self.read.tick;
                let before = samples.iter().rev().find(long_ago)?.1;
                above(state.backlog as f64 - before as f64, most, None, Unit::Count)
            }
        }
    }

    fn changed(&self, subject: Subject<'_>, within_s: u32) -> Option<Found> {
        let Subject::Region(region) = self.at(subject, At::Region)? else { return None };
        let name = self.read.name(region);
        let since_ns = (i64::from(self.read.tick) - i64::from(within_s)) * SECOND_NS;
        let is_it = |change: &&larum_aggregate::Change| {
            let moves = !matches!(Code(change.code).parts().op, Op::Drift | Op::Confirm);
            moves && (change.region == name || change.region == EVERYWHERE)
        };
        let newest =
            self.read.source.changes.iter().rev().take_while(|change| change.place.at_ns >= since_ns).find(is_it)?;
        let age_s = (i64::from(self.read.tick) - newest.place.at_ns / SECOND_NS).max(0);
        Some(Found { value: age_s as f64, usual: None, unit: Unit::Seconds })
    }

    fn count_holding<'s>(
        &self,
        at_least: usize,
        subjects: impl Iterator<Item = Subject<'s>>,
        of: &Condition,
    ) -> Option<Found> {
        let holding = subjects.filter(|subject| self.holds(of, *subject, None).is_some()).count();
        (holding >= at_least).then_some(Found { value: holding as f64, usual: None, unit: Unit::Count })
    }
}
