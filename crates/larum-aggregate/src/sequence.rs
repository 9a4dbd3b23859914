//! Audit sequence numbers: what the fold notes of each, and how that becomes the sorted ranges of a Delta.

use serde::{Deserialize, Serialize};

use crate::delta::{NameId, SourceId};

/// Whose numbers: each (queue, producer, epoch) counts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SequenceId {
    /// The audit queue.
    pub queue: NameId,
    /// Who puts records into it.
    pub producer: NameId,
    /// As the producer says.
    pub epoch: u64,
}

/// One sequence number that came, or a record without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The tick of its record.
    pub tick: u32,
    /// Whose it is.
    pub id: SequenceId,
    /// The number; `None` where a delivered record has none.
    pub seq: Option<u64>,
    /// When it was put into the queue, as far as known: not later than this, Unix ns.
    pub enqueued_ns: i64,
    /// It came out of the queue; else it was put in.
    pub delivered: bool,
    /// It came out before it was put in, if both clocks are believed.
    pub skewed: bool,
}

/// Consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqRange {
    /// The first.
    pub first: u64,
    /// The last, included.
    pub last: u64,
    /// When the first was put into the queue, Unix ns.
    pub first_ns: i64,
}

/// A number, and a time by which it was in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqMark {
    /// The number.
    pub seq: u64,
    /// Unix ns.
    pub ns: i64,
}

/// What a tick held of one sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRow {
    /// Whose.
    pub id: SequenceId,
    /// Numbers that came out, sorted, apart from each other.
    pub delivered: Vec<SeqRange>,
    /// The lowest and the highest number that was put in.
    pub enqueued: Option<(SeqMark, SeqMark)>,
    /// Numbers that came out once more.
    pub repeated: u64,
    /// Records that came out before they were put in.
    pub skewed: u64,
    /// Records that came out without a number.
    pub unnumbered: u64,
}

/// What a tick held of a source's audit queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceGroup {
    /// The source.
    pub source: SourceId,
    /// The tick.
    pub tick: u32,
    /// By [`SequenceId`], each once.
    pub rows: Vec<SequenceRow>,
}

impl SequenceRow {
    /// Nothing of this sequence.
    pub fn new(id: SequenceId) -> SequenceRow {
        SequenceRow { id, delivered: Vec::new(), enqueued: None, repeated: 0, skewed: 0, unnumbered: 0 }
    }

    /// Takes in another row of the same sequence and tick, in whatever order they come.
    pub fn merge(&mut self, other: &SequenceRow) {
        self.repeated += other.repeated;
        self.skewed += other.skewed;
        self.unnumbered += other.unnumbered;
        self.put_in(other.enqueued);
        self.delivered.extend_from_slice(&other.delivered);
        self.tidy();
    }

    /// Sorts the ranges and joins those that touch; what lies in two of them came twice.
    fn tidy(&mut self) {
        self.delivered.sort_unstable_by_key(|range| (range.first, range.first_ns, range.last));
        let mut joined: Vec<SeqRange> = Vec::new();
        for range in self.delivered.drain(..) {
            match joined.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    if range.first <= last.last {
                        self.repeated += range.last.min(last.last) - range.first + 1;
                    }
                    last.last = last.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        self.delivered = joined;
    }

    /// Widens what was put in; of equal numbers the earlier time counts.
    fn put_in(&mut self, more: Option<(SeqMark, SeqMark)>) {
        let Some((first, last)) = more else { return };
        let (lowest, highest) = self.enqueued.unwrap_or((first, last));
        let lower = |mark: &SeqMark| (mark.seq, mark.ns);
        let higher = |mark: &SeqMark| (mark.seq, std::cmp::Reverse(mark.ns));
        let lowest = if lower(&first) < lower(&lowest) { first } else { lowest };
        self.enqueued = Some((lowest, if higher(&last) > higher(&highest) { last } else { highest }));
    }

    fn note(&mut self, numbered: &Numbered) {
        self.skewed += u64::from(numbered.skewed);
        match numbered.seq {
            None => self.unnumbered += 1,
            Some(seq) if numbered.delivered => {
                self.delivered.push(SeqRange { first: seq, last: seq, first_ns: numbered.enqueued_ns });
            }
            Some(seq) => {
                let mark = SeqMark { seq, ns: numbered.enqueued_ns };
                self.put_in(Some((mark, mark)));
            }
        }
    }
}

/// Sorts and joins the numbers of a source, from however many workers: the same numbers give the same groups. `numbers`
/// are left empty.
pub fn seal_sequences(source: SourceId, numbers: &mut Vec<Numbered>) -> Vec<SequenceGroup> {
    numbers.sort_unstable_by_key(|n| (n.tick, n.id));
    let mut groups = Vec::new();
    for same_tick in numbers.chunk_by(|a, b| a.tick == b.tick) {
        let mut rows = Vec::new();
        for same in same_tick.chunk_by(|a, b| a.id == b.id) {
            let mut row = SequenceRow::new(same[0].id);
            same.iter().for_each(|numbered| row.note(numbered));
            row.tidy();
            rows.push(row);
        }
        groups.push(SequenceGroup { source, tick: same_tick[0].tick, rows });
    }
    numbers.clear();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SequenceId = SequenceId { queue: NameId(1), producer: NameId(2), epoch: 0 };

    fn delivered(seq: u64) -> Numbered {
        Numbered { tick: 5, id: ID, seq: Some(seq), enqueued_ns: seq as i64 * 10, delivered: true, skewed: false }
    }

    #[test]
    fn numbers_join_into_ranges_and_repeats_are_counted() {
        let mut numbers: Vec<Numbered> = [4, 2, 3, 3, 9, 2].map(delivered).to_vec();
        numbers.push(Numbered { delivered: false, ..delivered(12) });
        let groups = seal_sequences(SourceId(0), &mut numbers);
        let row = &groups[0].rows[0];
        let ranges = [SeqRange { first: 2, last: 4, first_ns: 20 }, SeqRange { first: 9, last: 9, first_ns: 90 }];
        assert_eq!((row.delivered.as_slice(), row.repeated), (ranges.as_slice(), 2));
        let mark = SeqMark { seq: 12, ns: 120 };
        assert_eq!(row.enqueued, Some((mark, mark)));
    }

    /// However the numbers of a tick are spread over commits, their union is the same.
    #[test]
    fn merging_parts_equals_sealing_the_whole() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut number = || Numbered { delivered: rng.bool(), ..delivered(rng.u64(..25)) };
            let numbers: Vec<Numbered> = (0..30).map(|_| number()).collect();
            let whole = seal_sequences(SourceId(0), &mut numbers.clone());
            let mut row = SequenceRow::new(ID);
            for part in numbers.chunks(rng.usize(1..9)) {
                row.merge(&seal_sequences(SourceId(0), &mut part.to_vec())[0].rows[0]);
            }
            assert_eq!(row, whole[0].rows[0], "seed {seed}");
        }
    }
}
