//! Commits: the Deltas of all workers as one unit, first durable, then visible. No clock and no thread of its own, so
//! that the simulation can crash it anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use larum_aggregate::change::keep_newest;
use larum_aggregate::time::second_of;
use larum_aggregate::{
    Delta, KeyDef, NameDef, PartitionId, PartitionStart, SourceDef, SourceId, seal, seal_sequences, seal_sightings,
};
use larum_alert::Catalogue;
use larum_fold::{Counted, Cut, PartStatus, Registry, SourceClock};
use larum_store::{Store, StoreError};

use crate::durable::Durable;
use crate::logging::SPANS;

/// What one worker hands over for a commit.
#[derive(Debug, Default)]
pub struct WorkerCut {
    /// What it read.
    pub cut: Cut,
    /// How its partitions stand at this very cut.
    pub statuses: Vec<(SourceId, PartStatus)>,
}

/// What goes into one commit.
#[derive(Debug, Default)]
pub struct Round {
    /// Wall clock, Unix ns.
    pub now_ns: i64,
    /// From every worker.
    pub cuts: Vec<WorkerCut>,
    /// Sources that appear or change.
    pub new_sources: Vec<SourceDef>,
    /// Partitions that appear.
    pub new_partitions: Vec<PartitionStart>,
    /// Dead letters that the broker acknowledged.
    pub delivered: Vec<(PartitionId, i64)>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// There was nothing that anybody could see or need.
    Nothing,
    /// It is durable and visible.
    Visible {
        /// Its number.
        seq: u64,
        /// Its size, bytes.
        bytes: usize,
    },
}

/// Owns the store and the writing side of the durable state.
pub struct Keeper {
    store: Store,
    identity: Vec<u8>,
    durable: Arc<RwLock<Durable>>,
    catalogue: Arc<Catalogue>,
    clocks: BTreeMap<SourceId, SourceClock>,
    registry: Arc<Registry>,
    /// Cut off the workers but not durable, because the disk refused.
    pending: Option<(Delta, Vec<u8>)>,
    /// Commits were refused since the clocks were last moved.
    was_stalled: bool,
    /// Memory for the workers' next cuts.
    spare: Vec<Vec<Counted>>,
    /// Memory for what several workers counted together; empty between rounds.
    merged: Vec<Counted>,
    /// Memory of the last commit's bytes: fresh pages for every commit would cost more than writing them.
    buffer: Vec<u8>,
    /// Slots that were announced to be freed at the next commit.
    retiring: Option<(Vec<KeyDef>, Vec<NameDef>)>,
}

impl Keeper {
    /// Goes on from what was recovered from `store`; `identity` goes into its first commit.
    pub fn new(
        store: Store,
        identity: Vec<u8>,
        durable: Arc<RwLock<Durable>>,
        registry: Arc<Registry>,
        catalogue: Arc<Catalogue>,
        now_ns: i64,
    ) -> Self {
        let clocks = {
            let durable = durable.read().unwrap_or_else(PoisonError::into_inner);
            let clock = |s: &larum_view::SourceView| SourceClock::new(s.def.id, now_ns, s.clock.as_ref());
            durable.view.sources().map(|s| (s.def.id, clock(s))).collect()
        };
        Keeper {
            store,
            identity,
            durable,
            catalogue,
            clocks,
            registry,
            pending: None,
            was_stalled: false,
            spare: Vec::new(),
            merged: Vec::new(),
            buffer: Vec::new(),
            retiring: None,
        }
    }

    /// The clock of a source, Unix ns event time.
    pub fn clock(&self, source: SourceId) -> Option<&SourceClock> {
        self.clocks.get(&source)
    }

    /// True while a commit waits for the disk; [`Keeper::retry`] before the next round.
    pub fn is_stalled(&self) -> bool {
        self.pending.is_some()
    }

    /// Memory of an earlier round, for a worker's next cut.
    pub fn take_spare(&mut self) -> Vec<Counted> {
        self.spare.pop().unwrap_or_default()
    }

    /// Looks for slots to free. True when there are some: then every worker must forget its look-ups with its next cut.
    pub fn announce_idle(&mut self) -> bool {
        let (keys, names) = self.durable.read().unwrap_or_else(PoisonError::into_inner).view.idle();
        if keys.is_empty() && names.is_empty() {
            return false;
        }
        self.registry.announce(&keys, &names);
        self.retiring = Some((keys, names));
        true
    }

    /// Makes a round durable and visible.
    ///
    /// # Errors
    /// The store refuses. If that is temporary the round is kept: call [`Keeper::retry`], and cut nothing meanwhile.
    pub fn commit(&mut self, round: Round) -> Result<Committed, StoreError> {
        debug_assert!(self.pending.is_none(), "a stalled commit comes first");
        let shown_before = self.shown_clocks();
        let delta = self.delta(round);
        if delta.is_empty() && self.shown_clocks() == shown_before {
            return Ok(Committed::Nothing);
        }
        let bytes = delta.encode_in(std::mem::take(&mut self.buffer));
        self.pending = Some((delta, bytes));
        self.retry()
    }

    /// Tries the stalled commit again.
    ///
    /// # Errors
    /// As [`Keeper::commit`].
    pub fn retry(&mut self) -> Result<Committed, StoreError> {
        let Some((_, bytes)) = &self.pending else { return Ok(Committed::Nothing) };
        let span = tracing::info_span!(target: SPANS, "append", bytes = bytes.len()).entered();
        let appended = self.store.append(bytes, &self.identity);
        drop(span);
        self.was_stalled |= appended.is_err();
        let seq = appended?;
        // Durable from here on, so it may be seen.
        let Some((delta, buffer)) = self.pending.take() else { return Ok(Committed::Nothing) };
        let bytes = buffer.len();
        self.buffer = buffer;
        {
            let _span = tracing::info_span!(target: SPANS, "tick", seq).entered();
            self.durable.write().unwrap_or_else(PoisonError::into_inner).apply(delta, &self.catalogue);
        }
        if self.store.wants_snapshot() {
            let snapshot = self.durable.read().unwrap_or_else(PoisonError::into_inner).encode();
            self.store.begin_snapshot(snapshot);
        }
        Ok(Committed::Visible { seq, bytes })
    }

    /// What anybody can see of the clocks: their second, and who is left out.
    fn shown_clocks(&self) -> Vec<(Option<u32>, Vec<PartitionId>)> {
        self.clocks.values().map(|c| (c.clock_ns().map(second_of), c.cut().left_out)).collect()
    }

    /// One Delta of all that the round holds.
    fn delta(&mut self, round: Round) -> Delta {
        for def in &round.new_sources {
            self.clocks.entry(def.id).or_insert_with(|| SourceClock::new(def.id, round.now_ns, None));
        }
        let mut delta = Delta {
            new_sources: round.new_sources,
            new_partitions: round.new_partitions,
            delivered: round.delivered,
            ..Delta::default()
        };
        let is_alone = round.cuts.len() == 1;
        let mut counted: Vec<Counted> = std::mem::take(&mut self.merged);
        let mut statuses: BTreeMap<SourceId, Vec<PartStatus>> = BTreeMap::new();
        if !is_alone {
            let sources = round.cuts.iter().map(|of_worker| of_worker.cut.counted.len()).max().unwrap_or(0);
            counted.resize_with(counted.len().max(sources), Counted::default);
            for (source, all) in counted.iter_mut().enumerate() {
                all.make_room_for(round.cuts.iter().filter_map(|of_worker| of_worker.cut.counted.get(source)));
            }
        }
        for WorkerCut { cut, statuses: of_worker } in round.cuts {
            for (source, status) in of_worker {
                statuses.entry(source).or_default().push(status);
            }
            if is_alone {
                counted = cut.counted;
            } else {
                // Into memory of the keeper's own: a worker's would grow to that of all, and wander among them.
                counted.iter_mut().zip(&cut.counted).for_each(|(all, of_worker)| all.extend(of_worker));
                self.spare.push(cut.counted);
            }
            delta.parts.extend(cut.parts);
            delta.names.extend(cut.names);
            delta.keys.extend(cut.keys);
            delta.dead_letters.extend(cut.dead_letters);
        }
        delta.parts.sort_by_key(|p| p.id);
        for (source, of_source) in counted.iter_mut().enumerate() {
            let source = SourceId(source as u16);
            delta.groups.extend(seal(source, &mut of_source.entries));
            delta.sightings.extend(seal_sightings(source, &mut of_source.sightings));
            delta.sequences.extend(seal_sequences(source, &mut of_source.numbers));
            keep_newest(&mut of_source.changes);
            delta.changes.append(&mut of_source.changes);
            delta.exemplars.extend(of_source.exemplars.take());
            delta.samples.extend(of_source.samples.take());
        }
        match is_alone {
            true => self.spare.push(counted),
            false => self.merged = counted,
        }
        self.advance(round.now_ns, &statuses, &mut delta);
        self.retire(&mut delta);
        delta
    }

    /// Moves the clocks to where the cuts stand.
    fn advance(&mut self, now_ns: i64, statuses: &BTreeMap<SourceId, Vec<PartStatus>>, delta: &mut Delta) {
        let read: BTreeSet<PartitionId> = delta.parts.iter().filter(|p| p.next > p.from).map(|p| p.id).collect();
        let was_stalled = std::mem::take(&mut self.was_stalled);
        for (source, clock) in &mut self.clocks {
            if was_stalled {
                // Nothing was asked for while the disk refused, so nobody is to blame for standing still.
                clock.excuse(now_ns);
            }
            if let Some(statuses) = statuses.get(source) {
                clock.advance(now_ns, statuses.iter().any(|s| read.contains(&s.id)), statuses);
            }
            delta.sources.push(clock.cut());
        }
    }

    /// Frees the announced slots that this commit does not use.
    fn retire(&mut self, delta: &mut Delta) {
        let Some((keys, names)) = self.retiring.take() else { return };
        let used: BTreeSet<_> = delta.groups.iter().flat_map(|g| g.counts.keys()).collect();
        delta.retired_keys = self.registry.retire_keys(&keys, |key| used.contains(&key));
        // A name stays while a key that was not freed after all shows it, or the Delta relies on it.
        let freed: BTreeSet<_> = delta.retired_keys.iter().collect();
        let kept = keys.iter().filter(|k| !freed.contains(&k.id)).flat_map(KeyDef::names);
        let numbered = delta.sequences.iter().flat_map(|g| g.rows.iter().flat_map(|r| [r.id.queue, r.id.producer]));
        let relied = delta.keys.iter().flat_map(KeyDef::names).chain(delta.names.iter().map(|n| n.id)).chain(numbered);
        let needed: BTreeSet<_> = kept.chain(relied).collect();
        let names: Vec<NameDef> = names.into_iter().filter(|n| !needed.contains(&n.id)).collect();
        delta.retired_names = self.registry.retire_names(&names);
    }

    /// Size and place of what waits for the disk, for messages.
    pub fn stalled_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }
}
