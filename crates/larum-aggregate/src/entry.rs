//! What the fold writes for each event, and how that becomes the sorted, added-up runs of a Delta.

use crate::delta::{Group, KeyId, SourceId};
use crate::histogram::{Bucket, NOT_MEASURED};
use crate::run::{Cell, RunWriter, Slot};

/// One counted event, 32 bytes: where it counts, packed so that one comparison sorts it, and what it adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// tick 32 | pane 31 | totals 1 | key 32 | slot 32, highest first.
    place: u128,
    latency_ns: u64,
    count: u32,
}

/// Stands for "in no pane": the event is older than any window can hold.
const NO_PANE: u32 = (1 << 31) - 1;

impl Entry {
    /// An event in `pane` (none: too old for any window), counted in totals unless it is read for warm-up only.
    #[inline]
    pub fn new(tick: u32, pane: Option<u32>, totals: bool, key: KeyId, code: u16, count: u32) -> Entry {
        let pane = pane.unwrap_or(NO_PANE).min(NO_PANE);
        let place = u128::from(tick) << 96
            | u128::from(pane) << 65
            | u128::from(totals) << 64
            | u128::from(key.0) << 32
            | u128::from(Slot::of(code, NOT_MEASURED).0);
        Entry { place, latency_ns: 0, count }
    }

    /// The same with a latency.
    #[inline]
    pub fn measured(mut self, latency_ns: u64, bucket: Bucket) -> Entry {
        let slot = Slot::of(Slot(self.place as u32).code(), bucket);
        self.place = self.place & !0xffff_ffff | u128::from(slot.0);
        self.latency_ns = latency_ns;
        self
    }

    /// Key and slot.
    #[inline]
    fn cell(&self) -> Cell {
        Cell::new(KeyId((self.place >> 32) as u32), Slot(self.place as u32))
    }

    /// Tick, pane and totals together.
    #[inline]
    fn group(&self) -> u64 {
        (self.place >> 64) as u64
    }
}

/// Sorts and adds up the `entries` of a source, in whatever order they came from however many workers.
///
/// Groups come out by (tick, pane, totals), each with its counts by (key, slot) and, where it counts in totals, its sums
/// of latencies by (key, code): the same events give the same groups, bit for bit. `entries` are left empty, their
/// memory to be used again.
pub fn seal(source: SourceId, entries: &mut Vec<Entry>) -> Vec<Group> {
    entries.sort_unstable_by_key(|e| e.place);
    let mut groups = Vec::new();
    for same_group in entries.chunk_by(|a, b| a.group() == b.group()) {
        let group = same_group[0].group();
        let (pane, totals) = ((group >> 1) as u32 & NO_PANE, group & 1 == 1);
        let mut counts = RunWriter::with_room(same_group.len());
        let mut sums = RunWriter::with_room(if totals { same_group.len() } else { 0 });
        for same_place in same_group.chunk_by(|a, b| a.place == b.place) {
            let cell = same_place[0].cell();
            counts.push(cell, same_place.iter().map(|entry| u64::from(entry.count)).sum());
            if totals && cell.slot().bucket().is_some() {
                let of_code = Cell::new(cell.key(), cell.slot().without_bucket());
                let sum_ns = |entry: &Entry| u128::from(entry.latency_ns) * u128::from(entry.count);
                sums.push(of_code, same_place.iter().map(sum_ns).sum());
            }
        }
        groups.push(Group {
            source,
            tick: (group >> 32) as u32,
            pane: (pane != NO_PANE).then_some(pane),
            totals,
            counts: counts.finish(),
            sums: sums.finish(),
        });
    }
    entries.clear();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        let entry = Entry::new(u32::MAX, Some(410_244_480), true, KeyId(u32::MAX), 7, 3).measured(5, 2);
        let mut entries = vec![entry, entry, Entry::new(1, None, false, KeyId(0), 0, 1).measured(9, 1)];
        let groups = seal(SourceId(0), &mut entries);
        assert_eq!((groups[0].tick, groups[0].pane, groups[0].totals), (1, None, false));
        assert!(groups[0].sums.is_empty(), "what is read for warm-up is in no total");
        let group = &groups[1];
        assert_eq!((group.tick, group.pane, group.totals), (u32::MAX, Some(410_244_480), true));
        let slot = Slot::of(7, 2);
        assert!(group.counts.cells().eq([(Cell::new(KeyId(u32::MAX), slot), 6)]));
        assert!(group.sums.cells().eq([(Cell::new(KeyId(u32::MAX), slot.without_bucket()), 30)]));
    }

    #[test]
    fn order_of_entries_does_not_matter() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut entries: Vec<Entry> = (0..1000)
            .map(|_| {
                let pane = rng.bool().then(|| rng.u32(..3));
                let entry =
                    Entry::new(rng.u32(..3), pane, rng.bool(), KeyId(rng.u32(..3)), rng.u16(..2), rng.u32(1..9));
                if rng.bool() { entry.measured(rng.u64(..9), rng.u16(..3)) } else { entry }
            })
            .collect();
        let first = seal(SourceId(0), &mut entries.clone());
        rng.shuffle(&mut entries);
        assert_eq!(first, seal(SourceId(0), &mut entries));
    }
}
