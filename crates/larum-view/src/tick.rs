//! Ticks: what is read of them until the clock has passed them, how they are applied, one after the other, and what can be
//! seen of a source right after one.

use std::collections::BTreeMap;
use std::sync::Arc;

use larum_aggregate::change::keep_newest;
use larum_aggregate::run::{Weight, merge};
use larum_aggregate::time::{PANE_S, SECOND_NS, WINDOWS, Window, second_of};
use larum_aggregate::{
    Change, Group, Mark, NameId, PartitionId, Run, SequenceId, SequenceRow, SightingGroup, SourceId,
};
use larum_event::Op;
use serde::{Deserialize, Serialize};

use crate::audit::AuditQueue;
use crate::key::{KeyView, visit_keys};
use crate::measure::Measure;
use crate::panes::oldest_s;
use crate::recent::{Sign, Step};
use crate::sums::{Added, Looks, place_of};
use crate::view::{Names, SourceView, View, covered_span_s, is_known, name_of};

/// What is read of a tick that is not applied yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingTick {
    pub(crate) groups: Vec<Group>,
    pub(crate) sightings: Vec<SightingGroup>,
    pub(crate) sequences: BTreeMap<SequenceId, SequenceRow>,
    pub(crate) changes: Vec<Change>,
    pub(crate) marks: Vec<(PartitionId, Mark)>,
}

/// Looks at every tick.
pub trait TickWatcher {
    /// Who is looked at.
    fn looks(&self) -> Looks {
        Looks::default()
    }

    /// A tick was applied, and nothing after it.
    fn tick(&mut self, read: &TickRead<'_>);
}

/// Nobody looks.
pub struct Unwatched;

impl TickWatcher for Unwatched {
    fn tick(&mut self, _: &TickRead<'_>) {}
}

/// Each tick looks after one in so many keys: who was seen is forgotten within so many ticks.
const SWEEP_TICKS: u32 = 60;
/// After so many seconds without records all windows are empty: then only every ten minutes is looked at.
const QUIET_S: u32 = 7 * 3_600;
/// After so many nothing changes any more in what rules remember either: then ticks are passed over.
const SETTLED_S: u32 = 4 * 86_400;

impl View {
    /// Applies every tick that ends at or before the clock, in order.
    pub(crate) fn apply_ticks(&mut self, id: SourceId, watcher: &mut impl TickWatcher) {
        let Some(source) = self.sources.get(&id) else { return };
        let Some(clock_ns) = source.clock_ns().filter(|ns| *ns >= SECOND_NS) else { return };
        let target = second_of(clock_ns) - 1;
        if source.tick.is_some_and(|tick| target <= tick) {
            return;
        }
        let covered_from_ns = self.covered_from_ns(id);
        let left_out = self.served_of(source).any(|partition| source.leaves_out(partition.start.id));
        let Some(source) = self.sources.get_mut(&id) else { return };
        let later = source.pending.split_off(&(target + 1));
        let mut due = std::mem::replace(&mut source.pending, later);
        source.count_totals(&due);
        source.sums.looks = watcher.looks();
        let mut tick = source.begin(&due, target);
        let mut busy_s = tick;
        loop {
            let rest = due.split_off(&(tick + 1));
            if !due.is_empty() {
                busy_s = tick;
            }
            source.apply_tick(tick, std::mem::replace(&mut due, rest), &self.names, &mut self.partitions);
            watcher.tick(&TickRead { source, names: &self.names, tick, covered_from_ns, left_out });
            if tick == target {
                break;
            }
            let come = due.keys().next().copied().unwrap_or(target);
            let quiet_s = tick.saturating_sub(busy_s);
            let next = if quiet_s > SETTLED_S {
                come
            } else if quiet_s > QUIET_S {
                (tick / 600 + 1).saturating_mul(600).min(come)
            } else {
                tick + 1
            };
            tick = next.clamp(tick + 1, target);
        }
        source.sums.end();
        source.panes.compact(&source.oldest_s(target));
    }
}

impl SourceView {
    /// The first tick to be applied.
    fn begin(&mut self, due: &BTreeMap<u32, PendingTick>, target: u32) -> u32 {
        if let Some(tick) = self.tick {
            return tick + 1;
        }
        // Keys that were admitted before there was a tick start with the first.
        let began_s = due.keys().find(|tick| **tick > 0).copied().unwrap_or(target);
        self.keys.iter_mut().for_each(|key| key.started_s = began_s);
        began_s
    }

    /// First second of panes of each width that windows can still need at a tick.
    fn oldest_s(&self, tick: u32) -> [u32; 3] {
        oldest_s(tick.saturating_sub(self.def.delay_s))
    }

    /// Adds up totals, which nobody looks at between ticks of a commit.
    fn count_totals(&mut self, due: &BTreeMap<u32, PendingTick>) {
        let groups = || due.values().flat_map(|pending| &pending.groups);
        let totals = || groups().filter(|group| group.totals);
        let counts = joined(totals().map(|group| &group.counts));
        let ends_s = groups().filter_map(|group| group.pane).map(|pane| (pane + 1).saturating_mul(PANE_S));
        let touched_s = ends_s.chain(due.keys().copied()).max().unwrap_or(0);
        let warm_up = groups().filter(|group| !group.totals).map(|group| &group.counts);
        self.sums.places.fit(&self.keys);
        for run in std::iter::once(&counts).chain(warm_up) {
            visit_keys(
                &self.sums.places,
                &mut self.keys,
                run.keys(),
                |id| *id,
                |key, _| key.touched_s = key.touched_s.max(touched_s),
            );
        }
        let counts = Arc::new(counts);
        self.recent.push(Step::Totals(counts.clone()));
        self.totals.push(counts);
        let sums_ns = joined(totals().map(|group| &group.sums));
        let sums_ns = Arc::new(sums_ns);
        self.recent.push(Step::SumsNs(sums_ns.clone()));
        self.sums_ns.push(sums_ns);
    }

    fn apply_tick(
        &mut self,
        tick: u32,
        due: BTreeMap<u32, PendingTick>,
        names: &Names,
        partitions: &mut BTreeMap<PartitionId, crate::PartitionView>,
    ) {
        self.tick = Some(tick);
        let oldest = self.oldest_s(tick);
        let end_s = tick.saturating_sub(self.def.delay_s);
        self.sums.advance(end_s, &self.panes, &mut self.keys, &mut self.recent);
        for group in due.values().flat_map(|pending| &pending.groups) {
            if let Some(pane) = group.pane {
                let of_windows = self.sums.add(pane, &group.counts, &self.panes, &mut self.keys);
                if let Some(run) = self.panes.add(pane, &group.counts, &oldest) {
                    self.recent.push(Step::Windows(of_windows, Sign::Plus, run));
                }
            }
        }
        self.apply_sightings(&due, oldest[0] / PANE_S);
        self.count_audit(&due, tick, names);
        // Each tick has its share of the keys; ticks that were passed over wait for their turn.
        for key in self.keys.iter_mut().skip((tick % SWEEP_TICKS) as usize).step_by(SWEEP_TICKS as usize) {
            key.distinct.drop_before(oldest[0] / PANE_S);
        }
        if due.values().any(|pending| !pending.changes.is_empty()) {
            due.values().for_each(|pending| self.changes.extend_from_slice(&pending.changes));
            keep_newest(&mut self.changes);
        }
        for (part, mark) in due.into_values().flat_map(|pending| pending.marks) {
            if let Some(partition) = partitions.get_mut(&part) {
                partition.visible_next = mark.end;
                partition.tally.add(&mark.tally);
            }
        }
    }

    /// Notes accounts and sources of due ticks, in panes from `oldest` on.
    fn apply_sightings(&mut self, due: &BTreeMap<u32, PendingTick>, oldest: u32) {
        let groups = due.values().flat_map(|pending| &pending.sightings).filter(|group| group.pane >= oldest);
        let mut sets: Vec<_> = groups.flat_map(|group| group.sets().map(|set| (group.pane, set))).collect();
        sets.sort_by_key(|(_, (key, ..))| *key);
        let add = |key: &mut KeyView, (pane, (_, what, sketch))| key.distinct.add(pane, what, sketch);
        self.sums.places.fit(&self.keys);
        visit_keys(&self.sums.places, &mut self.keys, sets.into_iter(), |(_, (key, ..))| *key, add);
    }

    /// Counts the sequence numbers of due ticks, up to tick `target`.
    fn count_audit(&mut self, due: &BTreeMap<u32, PendingTick>, target: u32, names: &Names) {
        let SourceView { queues, def, .. } = self;
        let age = |queues: &mut BTreeMap<NameId, AuditQueue>, tick| {
            for (queue, state) in queues {
                let name = names.get(queue).map_or(NameId::OTHER_TEXT, |name| &name.text);
                state.age(tick, def.grace.of(name));
            }
        };
        for (tick, pending) in due.iter().filter(|(_, pending)| !pending.sequences.is_empty()) {
            // First what the ticks between have made of older gaps.
            age(queues, tick.saturating_sub(1));
            for row in pending.sequences.values() {
                queues.entry(row.id.queue).or_default().apply(row, *tick);
            }
        }
        age(queues, target);
    }
}

/// Adds up runs; a single one is only copied.
fn joined<'r, W: Weight + 'r>(mut runs: impl Iterator<Item = &'r Run<W>>) -> Run<W> {
    let Some(first) = runs.next() else { return Run::default() };
    match runs.next() {
        None => first.clone(),
        Some(second) => merge([first, second].into_iter().chain(runs), Some),
    }
}

/// A source right after a tick, as rules look at it.
#[derive(Clone, Copy)]
pub struct TickRead<'v> {
    /// The source.
    pub source: &'v SourceView,
    /// The tick.
    pub tick: u32,
    pub(crate) names: &'v Names,
    pub(crate) covered_from_ns: i64,
    pub(crate) left_out: bool,
}

impl<'v> TickRead<'v> {
    /// The label text of a name; empty for [`NameId::NONE`].
    pub fn name(&self, id: NameId) -> &'v str {
        name_of(self.names, id)
    }

    /// Whether a name has not been given up.
    pub fn knows(&self, id: NameId) -> bool {
        is_known(self.names, id)
    }

    /// The second whose pane ends the windows.
    pub fn end_s(&self) -> u32 {
        self.tick.saturating_sub(self.source.def.delay_s)
    }

    /// The keys of the source, by id.
    pub fn keys(&self) -> &'v [KeyView] {
        &self.source.keys
    }

    /// Places of keys whose windows this tick changed, by what came or left; some come twice. Those in which less happens
    /// than [`Looks::events_min`] are left out.
    pub fn touched(&self) -> &'v [u32] {
        &self.source.sums.touched
    }

    /// What this tick counted, pane by pane.
    pub fn added(&self) -> &'v [Added] {
        &self.source.sums.added
    }

    /// Events of a measure that a key counted in a window; 0 for what is not kept of keys.
    pub fn of_key(&self, key: &KeyView, measure: Measure, window: usize) -> u64 {
        key.sums.0.as_ref().map_or(0, |sums| sums.get(measure as usize, window))
    }

    /// Assignments of permissions by a service.
    pub fn of_service(&self, region: NameId, service: NameId, measure: Measure, window: usize) -> u64 {
        self.source.sums.service(region, service, measure, window)
    }

    /// Services that assigned permissions in a region.
    pub fn services_of(&self, region: NameId) -> impl Iterator<Item = NameId> + 'v {
        self.source.sums.services_of(region)
    }

    /// A quantile of the latencies of an op in a region over a window, and how many requests that is of; `None` without
    /// any, and for windows that keep no histograms.
    pub fn quantile(&self, region: NameId, op: Op, window: Window, q: f64) -> Option<(f64, u64)> {
        let buckets = self.source.sums.token_buckets(region, op, place_of(window)?);
        let [value] = buckets.get(0).quantiles_seconds([q])?;
        Some((value, buckets.get(0).total()))
    }

    /// Whether the clock does not wait for one of the partitions.
    pub fn misses_some(&self) -> bool {
        self.left_out
    }

    /// First second of a window, and whether it misses something: it reaches before the start or a loss, or a partition
    /// is left out.
    pub fn start_s(&self, window: Window) -> (u32, bool) {
        let start_s = window.start_s(self.end_s());
        let start_ns = i64::from(start_s) * SECOND_NS;
        let is_damaged = self.source.damaged_ns.is_some_and(|ns| start_ns <= ns);
        (start_s, start_ns < self.covered_from_ns || is_damaged || self.left_out)
    }

    /// What a rate over a window divides by, seconds: from its start, or from where the source is covered, to its end.
    pub fn span_s(&self, window: Window) -> f64 {
        covered_span_s(window, self.end_s(), self.covered_from_ns)
    }
}

impl View {
    /// Makes what is not stored but follows from what is: after a state was read back.
    pub fn recovered(&mut self) {
        for source in self.sources.values_mut() {
            if let Some(end_s) = source.window_end_s() {
                source.sums.recover(end_s, &source.panes, &mut source.keys);
                source.sums.end();
            }
        }
    }

    /// What a source's windows add up to of a key, told two ways: kept from tick to tick, and from the panes. For tests.
    pub fn told_twice(&self, id: SourceId) -> Vec<(u32, Vec<u64>, Vec<u64>)> {
        let Some(source) = self.sources.get(&id) else { return Vec::new() };
        let mut fresh = source.clone();
        fresh.keys.iter_mut().for_each(|key| key.sums = Default::default());
        let Some(end_s) = source.window_end_s() else { return Vec::new() };
        fresh.sums = Default::default();
        fresh.sums.recover(end_s, &source.panes, &mut fresh.keys);
        let sums = |key: &KeyView| {
            let of = |window: usize| {
                let of =
                    move |measure: &Measure| key.sums.0.as_ref().map_or(0, |sums| sums.get(*measure as usize, window));
                Measure::ALL.iter().filter(|measure| measure.is_of_tenants()).map(of)
            };
            (0..WINDOWS.len()).flat_map(of).collect()
        };
        source.keys.iter().zip(&fresh.keys).map(|(kept, fresh)| (kept.def.id.0, sums(kept), sums(fresh))).collect()
    }
}
