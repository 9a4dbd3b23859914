//! The states of all alerts, moved on by every tick. They are a function of the committed Deltas and the catalogue: a
//! restart neither resolves nor fires anything.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use larum_aggregate::time::{PANE_S, Window};
use larum_aggregate::{NameId, SourceId};
use larum_view::view::covered_span_s;
use larum_view::{KeyView, Looks, TickRead, TickWatcher};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Alert, Catalogue, Per};
use crate::history::{History, SPANS_S};
use crate::judge::{Backlogs, Found, Ground, Place, Subject, note_backlogs};
use crate::lifecycle::{Became, Instance, Life, Number, Texts, Times};

/// Most transitions that are kept; the oldest go.
pub const TRANSITIONS_MAX: usize = 1_024;

/// Something began to fire, or is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Counts up by one.
    pub number: u64,
    /// Of this alert.
    pub alert: String,
    /// What became of it.
    pub became: Became,
    /// When, Unix seconds, event time.
    pub at_s: u32,
    /// The instance as it was.
    pub instance: Instance,
}

/// What was counted and judged of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfSource {
    /// By tenant ([`NameId::NONE`]: all of the region) and region.
    pub histories: BTreeMap<(NameId, NameId), History>,
    /// What audit queues held.
    pub backlogs: Backlogs,
    /// By name of the alert.
    pub alerts: BTreeMap<String, Life<Place>>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerts {
    sources: BTreeMap<SourceId, OfSource>,
    /// The newest transitions, oldest first.
    pub transitions: VecDeque<Transition>,
    next_number: u64,
}

impl Alerts {
    /// Moves on with the view; hand it to [`larum_view::View::apply_watched`].
    pub fn watcher<'a>(&'a mut self, catalogue: &'a Arc<Catalogue>) -> Watcher<'a> {
        Watcher { alerts: self, catalogue, looks: catalogue.looks() }
    }

    /// The sources by id.
    pub fn sources(&self) -> impl Iterator<Item = (&SourceId, &OfSource)> {
        self.sources.iter()
    }

    /// The number that the next transition gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Forgets alerts that are not in the catalogue any more.
    pub fn keep(&mut self, catalogue: &Catalogue) {
        let is_there = |name: &str| catalogue.alert(name).is_some_and(|alert| !alert.per.is_of_runtime());
        self.sources.values_mut().for_each(|source| source.alerts.retain(|name, _| is_there(name)));
    }
}

/// Moves alerts on, tick by tick.
pub struct Watcher<'a> {
    alerts: &'a mut Alerts,
    catalogue: &'a Arc<Catalogue>,
    looks: Looks,
}

impl TickWatcher for Watcher<'_> {
    fn looks(&self) -> Looks {
        self.looks
    }

    fn tick(&mut self, read: &TickRead<'_>) {
        let Alerts { sources, transitions, next_number } = &mut *self.alerts;
        let source = sources.entry(read.source.def.id).or_default();
        source.count(read, self.catalogue);
        let is_border = read.tick.is_multiple_of(PANE_S);
        if is_border {
            note_backlogs(&mut source.backlogs, read);
        }
        source.judge(read, (self.catalogue, self.looks), is_border, &mut |alert, instance, became| {
            let (number, instance) = (*next_number, instance.clone());
            *next_number += 1;
            transitions.push_back(Transition { number, alert: alert.name.clone(), became, at_s: read.tick, instance });
            transitions.drain(..transitions.len().saturating_sub(TRANSITIONS_MAX));
        });
    }
}

/// What is told of an alert.
type TellOf<'t> = &'t mut dyn FnMut(&Alert, &Instance, Became);

impl OfSource {
    /// Adds what the tick counted to the histories.
    fn count(&mut self, read: &TickRead<'_>, catalogue: &Catalogue) {
        let end_s = read.end_s();
        // A name that was given up may come back under another id.
        self.histories.retain(|(tenant, region), _| read.knows(*tenant) && read.knows(*region));
        self.histories.values_mut().for_each(|history| history.advance(end_s));
        for added in read.added() {
            if added.tenant == NameId::NONE || catalogue.has_history(read.name(added.tenant)) {
                let history = self.histories.entry((added.tenant, added.region)).or_default();
                history.add(added.pane_s, &added.counts, end_s);
            }
        }
        if read.tick.is_multiple_of(600) {
            self.histories.retain(|_, history| !history.is_empty());
        }
    }

    fn judge(
        &mut self,
        read: &TickRead<'_>,
        (catalogue, looks): (&Catalogue, Looks),
        is_border: bool,
        tell: TellOf<'_>,
    ) {
        let OfSource { histories, backlogs, alerts } = self;
        let ground = Ground { read, histories, backlogs, catalogue };
        let of_ticks = || catalogue.alerts.iter().filter(|alert| !alert.per.is_of_runtime());
        let candidates = candidates(read, alerts, looks.events_min);
        for alert in of_ticks().filter(|alert| alert.per == Per::Tenant) {
            let events_min = alert.events_min(&catalogue.objectives);
            let known = alerts.get(&alert.name).is_some_and(|life| !life.is_empty());
            // Who is known is looked at, however little happens there now.
            let wanted = |key: &&KeyView| {
                (known || key.events() >= events_min)
                    && alert.tenants.as_ref().is_none_or(|tenants| tenants.contains(read.name(key.def.tenant)))
            };
            for key in candidates.iter().filter_map(|at| read.keys().get(*at as usize)).filter(wanted) {
                let limit = limit(alert, || read.name(key.def.tenant));
                judge_one(&ground, alert, Subject::Tenant(key), Place::of(key), limit, alerts);
            }
        }
        // Between pane borders these change by what comes only.
        let is_quiet = !is_border && read.added().is_empty();
        for alert in of_ticks().filter(|alert| alert.per != Per::Tenant) {
            if is_quiet && alerts.get(&alert.name).is_none_or(Life::is_empty) {
                continue;
            }
            match alert.per {
                Per::Region => ground.regions().for_each(|region| {
                    judge_one(&ground, alert, Subject::Region(region), Place::region(region), None, alerts);
                }),
                Per::Queue => read.source.queues.keys().for_each(|queue| {
                    judge_one(&ground, alert, Subject::Queue(*queue), Place::queue(*queue), None, alerts);
                }),
                _ => judge_one(&ground, alert, Subject::Source, Place::SOURCE, None, alerts),
            }
        }
        for alert in of_ticks() {
            let Some(life) = alerts.get_mut(&alert.name) else { continue };
            let times = Times { for_s: alert.for_s, keep_s: alert.keep_firing_for_s };
            let mut of_alert = |instance: &Instance, became| tell(alert, instance, became);
            // While a partition is missing nothing is known to be over.
            if read.misses_some() {
                life.keep(read.tick);
            }
            life.settle(read.tick, times, alert.per == Per::Tenant, &mut of_alert);
        }
        alerts.retain(|_, life| !life.is_empty() || life.held_back > 0);
    }
}

/// Another limit for a tenant.
fn limit<'t>(alert: &Alert, tenant: impl Fn() -> &'t str) -> Option<f64> {
    if alert.overrides.is_empty() {
        return None;
    }
    alert.overrides.iter().find(|other| other.tenant == tenant()).map(|other| other.above)
}

/// Between these all keys are looked at, seconds.
const ALL_EVERY_S: u32 = 60;

/// Places of keys that have to be looked at: whose windows changed, or that some alert knows; once a minute all in which
/// enough happens. Where nothing came and nothing left, only what rates divide by has changed.
fn candidates(read: &TickRead<'_>, alerts: &BTreeMap<String, Life<Place>>, events_min: u64) -> Vec<u32> {
    let known: BTreeSet<Place> =
        alerts.values().flat_map(|life| life.instances.keys()).filter(|p| p.tenant != NameId::NONE).copied().collect();
    // There are many keys: first a quick look.
    let tenants: HashSet<NameId, FixedState> = known.iter().map(|place| place.tenant).collect();
    let is_known = |key: &KeyView| {
        let is_of_tenant = key.def.component == NameId::NONE && tenants.contains(&key.def.tenant);
        is_of_tenant && known.contains(&Place::of(key))
    };
    let keys = read.keys().iter().enumerate();
    if read.tick.is_multiple_of(ALL_EVERY_S) {
        let is_wanted = |key: &KeyView| key.events() >= events_min.max(1) || is_known(key);
        return keys.filter(|(_, key)| is_wanted(key)).map(|(at, _)| at as u32).collect();
    }
    let mut places: Vec<u32> = read.touched().to_vec();
    if !known.is_empty() {
        places.extend(keys.filter(|(_, key)| is_known(key)).map(|(at, _)| at as u32));
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn judge_one(
    ground: &Ground<'_>,
    alert: &Alert,
    subject: Subject<'_>,
    place: Place,
    limit: Option<f64>,
    alerts: &mut BTreeMap<String, Life<Place>>,
) {
    let Some(found) = ground.all(&alert.when, subject, limit) else { return };
    if alert.unless.iter().any(|condition| ground.holds(condition, subject, None).is_some()) {
        return;
    }
    let read = ground.read;
    let texts = || Texts {
        source: read.source.def.name.clone(),
        tenant: read.name(place.tenant).to_string(),
        region: read.name(place.region).to_string(),
        queue: read.name(place.queue).to_string(),
        ..Texts::default()
    };
    let names = (read.name(place.tenant), read.name(place.region), read.name(place.queue));
    if alert.mutes.iter().any(|mute| mute.mutes(names, read.tick)) {
        return;
    }
    if !alerts.contains_key(&alert.name) {
        alerts.insert(alert.name.clone(), Life::default());
    }
    let Some(life) = alerts.get_mut(&alert.name) else { return };
    life.holds(place, read.tick, found, texts);
}

/// How fast the budget of each objective burns, as it is shown.
pub struct Burns<'a> {
    /// The source.
    pub of_source: &'a OfSource,
    /// The objectives.
    pub catalogue: &'a Catalogue,
    /// Where its windows end.
    pub end_s: u32,
    /// From when on the source is covered, Unix ns.
    pub covered_from_ns: i64,
}

impl Burns<'_> {
    /// Shows every rate: tenant, region, objective, span, value.
    pub fn visit(&self, mut show: impl FnMut(NameId, NameId, &str, u32, f64)) {
        for ((tenant, region), history) in &self.of_source.histories {
            for objective in &self.catalogue.objectives {
                for span_s in SPANS_S.into_iter().filter(|span_s| *span_s >= 300) {
                    if history.sum(objective.all, span_s, self.end_s) > 0 {
                        let rate = history.burn_rate(objective, span_s, self.end_s, self.span_s(span_s));
                        show(*tenant, *region, &objective.name, span_s, rate);
                    }
                }
            }
        }
    }

    /// What rates over a span divide by, seconds.
    pub fn span_s(&self, span_s: u32) -> f64 {
        covered_span_s(Window { span_s }, self.end_s, self.covered_from_ns)
    }
}

/// What the runtime judges on the wall clock: alerts about Larum itself and the groups it watches.
#[derive(Default)]
pub struct RuntimeAlerts {
    /// By name of the alert.
    pub alerts: BTreeMap<String, Life<Texts>>,
}

impl RuntimeAlerts {
    /// Judges an alert; `found` says for which subjects it holds, and with what.
    pub fn judge(
        &mut self,
        alert: &Alert,
        now_s: u32,
        found: impl IntoIterator<Item = (Found, Texts)>,
        tell: &mut dyn FnMut(&Instance, Became),
    ) {
        let life = self.alerts.entry(alert.name.clone()).or_default();
        for (found, texts) in found {
            life.holds(texts.clone(), now_s, found, || texts);
        }
        life.settle(now_s, Times { for_s: alert.for_s, keep_s: alert.keep_firing_for_s }, false, tell);
    }
}

/// A value as people read it.
pub fn shown(value: Number, unit: crate::judge::Unit) -> String {
    use crate::judge::Unit;
    let value = value.get();
    match unit {
        Unit::Share => format!("{:.1} %", value * 100.0),
        Unit::PerSecond => format!("{value:.2}/s"),
        Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1_000.0),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Count => format!("{value:.0}"),
        Unit::Times => format!("{value:.1} times"),
    }
}
