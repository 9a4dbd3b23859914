//! The state that all committed Deltas add up to, tick by tick.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::FixedState;
use larum_aggregate::change::{CHANGES_MAX, keep_newest};
use larum_aggregate::time::{LONGEST_WINDOW_S, SECOND_NS, Window};
use larum_aggregate::{
    Cell, Change, Cover, Delta, Group, KeyDef, KeyId, NameDef, NameId, PartCut, PartitionId, PartitionStart,
    SequenceRow, SourceCut, SourceDef, SourceId, Tally,
};
use serde::{Deserialize, Serialize};

use crate::audit::AuditQueue;
use crate::key::KeyView;
use crate::ledger::Ledger;
use crate::panes::Panes;
use crate::recent::Recent;
use crate::slots::place_from_end;
use crate::sums::SourceSums;
use crate::tick::{PendingTick, TickWatcher, Unwatched};

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// As configured when it was last started.
    pub def: SourceDef,
    /// Its clock at the last commit.
    pub clock: Option<SourceCut>,
    /// The last applied tick.
    pub tick: Option<u32>,
    /// Something of it was lost when its clock stood here, Unix ns.
    pub damaged_ns: Option<i64>,
    /// Its audit queues.
    pub queues: BTreeMap<NameId, AuditQueue>,
    /// Its live keys, by id.
    pub(crate) keys: Vec<KeyView>,
    /// Events since their key began, by key and slot.
    pub(crate) totals: Ledger<u64>,
    /// Sums of their latencies by key and code, ns.
    pub(crate) sums_ns: Ledger<u128>,
    pub(crate) panes: Panes,
    /// The newest changes of the platform that it told of, sorted; bounded.
    pub changes: Vec<Change>,
    pub(crate) pending: BTreeMap<u32, PendingTick>,
    /// What its windows add up to.
    #[serde(skip)]
    pub(crate) sums: SourceSums,
    /// What changed since it was read last.
    #[serde(skip)]
    pub(crate) recent: Recent,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionView {
    /// As fixed before its first poll.
    pub start: PartitionStart,
    /// First offset that is not durable.
    pub next: i64,
    /// Its watermark, Unix ns.
    pub watermark_ns: Option<i64>,
    /// See [`PartCut::first_append_ns`].
    pub first_append_ns: Option<i64>,
    /// See [`PartCut::current_ns`].
    pub current_ns: Option<i64>,
    /// Offset where the last applied tick ends.
    pub visible_next: i64,
    /// Counts up to there, from the origin on.
    pub tally: Tally,
}

/// All that is durable of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub(crate) sources: BTreeMap<SourceId, SourceView>,
    pub(crate) partitions: BTreeMap<PartitionId, PartitionView>,
    pub(crate) names: Names,
    /// Ids from here on were never used: name, key.
    next_ids: (u32, u32),
    /// Ranges that did not join on to the one before: always 0, counted in production.
    pub tiling_violations: u64,
}

/// Names by their ids.
pub(crate) type Names = HashMap<NameId, NameDef, FixedState>;

/// The label text of a name; empty for one that a key does not have.
pub(crate) fn name_of(names: &Names, id: NameId) -> &str {
    match names.get(&id) {
        Some(name) => &name.text,
        None if id == NameId::NONE => "",
        None => NameId::OTHER_TEXT,
    }
}

/// Whether a name has not been given up.
pub(crate) fn is_known(names: &Names, id: NameId) -> bool {
    id == NameId::NONE || id == NameId::OTHER || names.contains_key(&id)
}

/// What a rate over a window divides by, seconds: from its start, or from where the source is covered, to its end.
pub fn covered_span_s(window: Window, end_s: u32, covered_from_ns: i64) -> f64 {
    let end_ns = (i64::from(end_s) + 1) * SECOND_NS;
    let start_ns = (i64::from(window.start_s(end_s)) * SECOND_NS).max(covered_from_ns);
    end_ns.saturating_sub(start_ns).max(SECOND_NS) as f64 / SECOND_NS as f64
}

impl View {
    /// Takes in a committed Delta, and applies the ticks that its clocks have passed.
    pub fn apply(&mut self, delta: Delta) {
        self.apply_watched(delta, &mut Unwatched);
    }

    /// The same; shows each tick once it is applied.
    pub fn apply_watched(&mut self, delta: Delta, watcher: &mut impl TickWatcher) {
        for def in delta.new_sources {
            let known = self.sources.entry(def.id).or_insert_with(|| SourceView::new(def.clone()));
            known.def = def;
        }
        for start in delta.new_partitions {
            self.partitions.entry(start.id).or_insert_with(|| PartitionView::new(start));
        }
        for name in delta.names {
            self.next_ids.0 = self.next_ids.0.max(name.id.0 + 1);
            self.names.entry(name.id).or_insert(name);
        }
        self.admit(delta.keys);
        for part in delta.parts {
            self.read(part);
        }
        for group in delta.groups {
            if let Some(source) = self.sources.get_mut(&group.source) {
                source.pending_at(group.tick).groups.push(group);
            }
        }
        for group in delta.sightings {
            if let Some(source) = self.sources.get_mut(&group.source) {
                source.pending_at(group.tick).sightings.push(group);
            }
        }
        for change in delta.changes {
            if let Some(source) = self.sources.get_mut(&change.source) {
                let changes = &mut source.pending_at(change.tick).changes;
                changes.push(change);
                if changes.len() >= 4 * CHANGES_MAX {
                    keep_newest(changes);
                }
            }
        }
        for group in delta.sequences {
            let Some(source) = self.sources.get_mut(&group.source) else { continue };
            let sequences = &mut source.pending_at(group.tick).sequences;
            for row in group.rows {
                sequences.entry(row.id).or_insert_with(|| SequenceRow::new(row.id)).merge(&row);
            }
        }
        for clock in delta.sources {
            let id = clock.id;
            if let Some(source) = self.sources.get_mut(&id) {
                source.clock = Some(clock);
            }
            self.apply_ticks(id, watcher);
        }
        self.retire(&delta.retired_keys, &delta.retired_names);
    }

    fn admit(&mut self, mut defs: Vec<KeyDef>) {
        // Two workers may tell of the same.
        defs.sort_by_key(|def| (def.source, def.id));
        defs.dedup_by_key(|def| (def.source, def.id));
        for of_source in defs.chunk_by(|a, b| a.source == b.source) {
            let Some(newest) = of_source.last() else { continue };
            self.next_ids.1 = self.next_ids.1.max(newest.id.0 + 1);
            if let Some(source) = self.sources.get_mut(&newest.source) {
                source.admit(of_source);
            }
        }
    }

    /// The label text of a name; empty for one that a key does not have.
    pub fn name(&self, id: NameId) -> &str {
        name_of(&self.names, id)
    }

    /// Whether a name has not been given up.
    pub fn knows(&self, id: NameId) -> bool {
        is_known(&self.names, id)
    }

    fn read(&mut self, part: PartCut) {
        let Some(partition) = self.partitions.get_mut(&part.id) else { return };
        if part.from != partition.next {
            debug_assert_eq!(part.from, partition.next, "ranges of {:?} must tile", part.id);
            self.tiling_violations += 1;
        }
        partition.next = part.next;
        partition.watermark_ns = part.watermark_ns;
        partition.first_append_ns = part.first_append_ns;
        partition.current_ns = part.current_ns;
        let Some(source) = self.sources.get_mut(&partition.start.source) else { return };
        if part.damaged {
            source.damaged_ns = source.clock_ns().max(part.watermark_ns).or(source.damaged_ns);
        }
        for mark in part.marks {
            source.pending_at(mark.tick).marks.push((part.id, mark));
        }
    }

    fn retire(&mut self, keys: &[KeyId], names: &[NameId]) {
        if keys.is_empty() && names.is_empty() {
            return;
        }
        let gone: BTreeSet<KeyId> = keys.iter().copied().collect();
        for source in self.sources.values_mut().filter(|_| !gone.is_empty()) {
            let before = source.keys.len();
            source.keys.retain(|key| !gone.contains(&key.def.id));
            if source.keys.len() < before {
                source.sums.moved();
                let stays = |cell: Cell| (!gone.contains(&cell.key())).then_some(cell);
                source.totals.rewrite(stays);
                source.sums_ns.rewrite(stays);
            }
        }
        for name in names {
            self.names.remove(name);
        }
    }

    /// Keys that no window holds any more, and the names that would then be used by no key.
    pub fn idle(&self) -> (Vec<KeyDef>, Vec<NameDef>) {
        let pending = self.sources.values().flat_map(|s| s.pending.values()).flat_map(|p| &p.groups);
        let awaited: BTreeSet<KeyId> = pending.flat_map(|g| g.counts.keys()).collect();
        let is_idle = |key: &KeyView| {
            let Some(source) = self.sources.get(&key.def.source) else { return false };
            let Some(tick) = source.tick else { return false };
            // The longest window, its rounding, and the feed's delay.
            let horizon_s = LONGEST_WINDOW_S + 2 * 600 + source.def.delay_s;
            key.def.is_budgeted()
                && key.distinct.is_empty()
                && key.touched_s.saturating_add(horizon_s) < tick
                && !awaited.contains(&key.def.id)
        };
        let (idle, live): (Vec<_>, Vec<_>) = self.keys().partition(|key| is_idle(key));
        let queues = self.sources.values().flat_map(SourceView::audit_names);
        let used: BTreeSet<NameId> = live.iter().flat_map(|k| k.def.names()).chain(queues).collect();
        let free = self.names.values().filter(|n| !used.contains(&n.id) && n.id != NameId::OTHER);
        let mut idle: Vec<KeyDef> = idle.iter().map(|k| k.def).collect();
        idle.sort_by_key(|key| key.id);
        let mut names: Vec<NameDef> = if idle.is_empty() { Vec::new() } else { free.cloned().collect() };
        names.sort_by_key(|name| name.id);
        (idle, names)
    }

    /// Bytes of memory that what was counted takes, but for the few that do not grow with names, keys and events.
    pub fn size_bytes(&self) -> usize {
        let names = self.names.capacity() * (size_of::<(NameId, NameDef)>() + 1);
        let texts: usize = self.names.values().map(|name| name.text.capacity()).sum();
        names + texts + self.sources.values().map(SourceView::size_bytes).sum::<usize>()
    }

    /// A copy with sources and partitions only, without what was counted: small, for planning.
    pub fn outline(&self) -> View {
        let mut sources = BTreeMap::new();
        for (id, source) in &self.sources {
            let SourceView { def, clock, tick, damaged_ns, .. } = source;
            let (tick, damaged_ns) = (*tick, *damaged_ns);
            let outline = SourceView { clock: clock.clone(), tick, damaged_ns, ..SourceView::new(def.clone()) };
            sources.insert(*id, outline);
        }
        View { sources, partitions: self.partitions.clone(), ..View::default() }
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &SourceView> {
        self.sources.values()
    }

    /// A partition.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionView> {
        self.partitions.get(&id)
    }

    /// A source.
    pub fn source(&self, id: SourceId) -> Option<&SourceView> {
        self.sources.get(&id)
    }

    /// The partitions, by id.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionView> {
        self.partitions.values()
    }

    /// The live keys, by source and id.
    pub fn keys(&self) -> impl Iterator<Item = &KeyView> {
        self.sources.values().flat_map(|source| &source.keys)
    }

    /// When the counters of a source started that belong to no key, wall clock, Unix ns.
    pub fn began_ns(&self, id: SourceId) -> Option<i64> {
        self.partitions_of(id).map(|partition| partition.start.began_ns).min()
    }

    /// Live names.
    pub fn names(&self) -> impl Iterator<Item = &NameDef> {
        self.names.values()
    }

    /// First ids of a name and of a key that were never used.
    pub fn next_ids(&self) -> (u32, u32) {
        self.next_ids
    }

    /// Partitions of a source.
    pub fn partitions_of(&self, id: SourceId) -> impl Iterator<Item = &PartitionView> {
        self.partitions.values().filter(move |p| p.start.source == id)
    }

    /// From when on every partition of the source is known to be complete, Unix ns; the earliest time if always.
    pub fn covered_from_ns(&self, id: SourceId) -> i64 {
        let (mut from_ns, mut births_ns) = (i64::MIN, Vec::new());
        let mut all_born = true;
        for partition in self.partitions_of(id) {
            match (partition.start.cover, partition.first_append_ns) {
                (Cover::Since(ns), _) | (Cover::FirstRecord, Some(ns)) => {
                    from_ns = from_ns.max(ns);
                    all_born = false;
                }
                (Cover::Birth, Some(ns)) => births_ns.push(ns),
                _ => {}
            }
        }
        if all_born { births_ns.into_iter().min().unwrap_or(from_ns) } else { from_ns }
    }

    /// Whether a window of the source at its tick misses something: it reaches before the start or a loss, or a
    /// partition is left out.
    pub fn is_incomplete(&self, source: &SourceView, window: Window) -> bool {
        let Some(end_s) = source.window_end_s() else { return true };
        let start_ns = i64::from(window.start_s(end_s)) * SECOND_NS;
        let left_out = self.served_of(source).any(|partition| source.leaves_out(partition.start.id));
        start_ns < self.covered_from_ns(source.def.id) || source.damaged_ns.is_some_and(|ns| start_ns <= ns) || left_out
    }

    /// What a rate over the window divides by, seconds: from its start, or from where the source is covered, to its end.
    pub fn span_s(&self, source: &SourceView, window: Window) -> Option<f64> {
        Some(covered_span_s(window, source.window_end_s()?, self.covered_from_ns(source.def.id)))
    }

    /// Whether the source is catching up at `now_ns` (wall clock): some partition that is waited for was neither live
    /// nor read up to a fresh record within the last minute.
    pub fn is_catching_up(&self, source: &SourceView, now_ns: i64) -> bool {
        // With everybody left out nobody shows the present: then all are judged.
        let nobody_waited_for = self.served_of(source).all(|p| source.leaves_out(p.start.id));
        self.served_of(source)
            .filter(|p| nobody_waited_for || !source.leaves_out(p.start.id))
            .any(|p| p.current_ns.is_none_or(|ns| now_ns.saturating_sub(ns) > 60 * SECOND_NS))
    }

    /// Partitions of the topics that the source is read from now.
    pub fn served_of<'v>(&'v self, source: &'v SourceView) -> impl Iterator<Item = &'v PartitionView> {
        self.partitions_of(source.def.id).filter(|p| source.def.topics.contains(&p.start.topic))
    }
}

impl SourceView {
    fn new(def: SourceDef) -> Self {
        SourceView {
            def,
            clock: None,
            tick: None,
            damaged_ns: None,
            queues: BTreeMap::new(),
            keys: Vec::new(),
            totals: Ledger::default(),
            sums_ns: Ledger::default(),
            panes: Panes::default(),
            changes: Vec::new(),
            pending: BTreeMap::new(),
            sums: SourceSums::default(),
            recent: Recent::default(),
        }
    }

    /// Takes in keys, sorted by id, each once. Most ids are the highest; the others are put in their places all at once.
    fn admit(&mut self, defs: &[KeyDef]) {
        let (newest, began_s) = (self.keys.last().map(|key| key.def.id), self.tick.unwrap_or(0));
        let (older, newer) = defs.split_at(defs.partition_point(|def| Some(def.id) <= newest));
        let is_missing = |def: &&KeyDef| {
            let at = place_from_end(&self.keys, |key| key.def.id < def.id);
            self.keys.get(at).is_none_or(|key| key.def.id != def.id)
        };
        let missing: Vec<KeyView> = older.iter().filter(is_missing).map(|def| KeyView::new(*def, began_s)).collect();
        for def in newer {
            self.sums.admitted(self.keys.len(), def.id);
            self.keys.push(KeyView::new(*def, began_s));
        }
        if !missing.is_empty() {
            self.keys.extend(missing);
            self.keys.sort_by_key(|key| key.def.id);
            self.sums.moved();
        }
    }

    /// Names of queues and producers that it knows, or will.
    fn audit_names(&self) -> impl Iterator<Item = NameId> {
        let known = self.queues.iter().flat_map(|(queue, state)| state.producers().chain([*queue]));
        let awaited = self.pending.values().flat_map(|p| p.sequences.keys());
        known.chain(awaited.flat_map(|id| [id.queue, id.producer]))
    }

    fn size_bytes(&self) -> usize {
        let keys = self.keys.capacity() * size_of::<KeyView>();
        let per_key = |key: &KeyView| key.distinct.size_bytes() + key.sums.size_bytes();
        let per_key: usize = self.keys.iter().map(per_key).sum();
        let pending = self.pending.values().flat_map(|pending| &pending.groups);
        let pending: usize = pending.map(|g| g.counts.size_bytes() + g.sums.size_bytes() + size_of::<Group>()).sum();
        keys + per_key
            + pending
            + self.totals.size_bytes()
            + self.sums_ns.size_bytes()
            + self.panes.size_bytes()
            + self.sums.size_bytes()
    }

    /// Its clock, Unix ns.
    pub fn clock_ns(&self) -> Option<i64> {
        self.clock.as_ref().and_then(|c| c.clock_ns)
    }

    /// Whether its clock does not wait for the partition.
    pub fn leaves_out(&self, id: PartitionId) -> bool {
        self.clock.as_ref().is_some_and(|clock| clock.left_out.contains(&id))
    }

    /// The second whose pane ends its windows.
    pub fn window_end_s(&self) -> Option<u32> {
        self.tick.map(|tick| tick.saturating_sub(self.def.delay_s))
    }

    /// What waits for a tick; what comes for one already applied joins the next.
    fn pending_at(&mut self, tick: u32) -> &mut PendingTick {
        let open = self.tick.map_or(0, |applied| applied + 1);
        self.pending.entry(tick.max(open)).or_default()
    }
}

impl PartitionView {
    fn new(start: PartitionStart) -> Self {
        PartitionView {
            next: start.start,
            visible_next: start.start,
            start,
            watermark_ns: None,
            first_append_ns: None,
            current_ns: None,
            tally: Tally::default(),
        }
    }

    /// Whether everything from the origin to the visible offset is accounted for.
    pub fn is_conserved(&self) -> bool {
        let advanced = (self.visible_next - self.start.origin).max(0) as u64;
        self.tally.offsets() == advanced
    }
}
