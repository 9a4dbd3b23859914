//! What the fold writes for each event, and how that becomes the sorted, added-up rows of a Delta.

use crate::delta::{Group, KeyId, Row, SourceId};
use crate::histogram::{Bucket, NOT_MEASURED};

/// One counted event, 32 bytes: where it counts, packed so that one comparison sorts it, and what it adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// tick 32 | pane 31 | totals 1 | key 32 | code 16 | bucket 16, highest first.
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
            | u128::from(code) << 16
            | u128::from(NOT_MEASURED);
        Entry { place, latency_ns: 0, count }
    }

    /// The same with a latency.
    #[inline]
    pub fn measured(mut self, latency_ns: u64, bucket: Bucket) -> Entry {
        self.place = self.place & !0xffff | u128::from(bucket);
        self.latency_ns = latency_ns;
        self
    }

    fn row(&self) -> Row {
        Row {
            key: KeyId((self.place >> 32) as u32),
            code: (self.place >> 16) as u16,
            bucket: self.place as u16,
            count: u64::from(self.count),
            sum_ns: u128::from(self.latency_ns) * u128::from(self.count),
        }
    }

    /// Tick, pane and totals together.
    fn group(&self) -> u64 {
        (self.place >> 64) as u64
    }
}

/// Sorts and adds up the `entries` of a source, in whatever order they came from however many workers.
///
/// Groups come out by (tick, pane, totals), rows within by (key, code, bucket), each place once: the same events give the
/// same rows, bit for bit. `entries` are left empty, their memory to be used again.
pub fn seal(source: SourceId, entries: &mut Vec<Entry>) -> Vec<Group> {
    entries.sort_unstable_by_key(|e| e.place);
    let mut groups = Vec::new();
    for same_group in entries.chunk_by(|a, b| a.group() == b.group()) {
        let mut rows: Vec<Row> = Vec::with_capacity(same_group.len());
        for same_place in same_group.chunk_by(|a, b| a.place == b.place) {
            let mut row = same_place[0].row();
            for entry in &same_place[1..] {
                let more = entry.row();
                row.count += more.count;
                row.sum_ns += more.sum_ns;
            }
            rows.push(row);
        }
        let group = same_group[0].group();
        let pane = (group >> 1) as u32 & NO_PANE;
        groups.push(Group {
            source,
            tick: (group >> 32) as u32,
            pane: (pane != NO_PANE).then_some(pane),
            totals: group & 1 == 1,
            rows,
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
        let groups = seal(SourceId(0), &mut vec![entry, entry, Entry::new(1, None, false, KeyId(0), 0, 1)]);
        assert_eq!((groups[0].tick, groups[0].pane, groups[0].totals), (1, None, false));
        assert_eq!(groups[0].rows[0].bucket, NOT_MEASURED);
        let group = &groups[1];
        assert_eq!((group.tick, group.pane, group.totals), (u32::MAX, Some(410_244_480), true));
        assert_eq!(group.rows, [Row { key: KeyId(u32::MAX), code: 7, bucket: 2, count: 6, sum_ns: 30 }]);
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
