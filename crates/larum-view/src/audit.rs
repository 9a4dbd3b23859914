//! Audit queues: which numbers of which producer came out, which are missing, and since when.
//!
//! A producer's numbers count up by one. One that did not come while a higher one did is a gap; a gap older than the
//! queue's grace is missing, until its records come after all. Everything goes tick by tick, so the same log gives the
//! same counts however it was committed.

use std::collections::{BTreeMap, VecDeque};

use larum_aggregate::time::{LONGEST_WINDOW_S, SECOND_NS};
use larum_aggregate::{NameId, SeqMark, SeqRange, SequenceRow};
use serde::{Deserialize, Serialize};

/// A jump by more is a new epoch.
pub const JUMP_MAX: u64 = 1_000_000;
/// Gaps that are kept of a sequence; beyond, the oldest stays missing for good.
const GAPS_MAX: usize = 256;
/// Enqueue times that are kept of a sequence; beyond, every second one is dropped.
const MARKS_MAX: usize = 512;
/// Sequences that are kept of a producer; beyond, what the oldest lacks stays missing for good.
const SEQUENCES_MAX: usize = 8;

/// Numbers that did not come while higher ones did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    first: u64,
    last: u64,
    /// The tick at which a higher one had come.
    noticed_s: u32,
    /// When they were in the queue at the latest, Unix ns.
    enqueued_ns: i64,
    /// Older than the grace.
    missing: bool,
}

impl Gap {
    fn len(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The numbers of a producer's epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sequence {
    epoch: u64,
    /// Numbers below were before Larum looked.
    base: u64,
    /// Above the highest that came out.
    next: u64,
    /// Above the highest that is known to have been put in.
    known: u64,
    /// By number, apart from each other.
    gaps: VecDeque<Gap>,
    /// Numbers from the oldest open one on, with a time by which each was in the queue; both rise.
    marks: VecDeque<SeqMark>,
}

/// What a queue has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCounts {
    /// Records that became missing.
    pub gaps: u64,
    /// Missing ones that came after all.
    pub recovered: u64,
    /// Records that came more than once.
    pub repeated: u64,
    /// Jumps of more than 1,000,000 numbers.
    pub jumps: u64,
    /// Epochs of known producers that began.
    pub epochs: u64,
    /// Delivered records without a number, or of producers without a slot.
    pub untracked: u64,
    /// Records that came out before they were put in.
    pub skewed: u64,
    /// Missing ones whose numbers are not kept any more.
    forgotten: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    /// By epoch, then as they began.
    sequences: Vec<Sequence>,
    touched_s: u32,
}

/// One audit queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQueue {
    /// What it has counted.
    pub counts: AuditCounts,
    producers: BTreeMap<NameId, Producer>,
}

/// What a queue lacks at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditState {
    /// Known to be enqueued, minus delivered in sequence; missing ones are passed over.
    pub backlog: u64,
    /// When the oldest of them was put in, Unix ns, at the latest.
    pub oldest_ns: Option<i64>,
    /// Missing records.
    pub missing: u64,
}

impl AuditQueue {
    /// Takes in what tick `tick` held of a sequence of this queue.
    pub fn apply(&mut self, row: &SequenceRow, tick: u32) {
        self.counts.repeated += row.repeated;
        self.counts.skewed += row.skewed;
        self.counts.untracked += row.unnumbered;
        if row.delivered.is_empty() && row.enqueued.is_none() {
            return;
        }
        let producer = self.producers.entry(row.id.producer).or_default();
        producer.touched_s = producer.touched_s.max(tick);
        // The lowest number tells where a sequence begins.
        let lowest = row.delivered.first().map_or(u64::MAX, |range| range.first);
        if let Some((first, _)) = row.enqueued.filter(|(first, _)| first.seq < lowest) {
            producer.enqueue(row.id.epoch, first, &mut self.counts);
        }
        for range in &row.delivered {
            let at = producer.sequence(row.id.epoch, range.first, true, &mut self.counts);
            producer.sequences[at].deliver(*range, tick, &mut self.counts);
            for older in &mut producer.sequences[..at] {
                older.end(tick);
            }
        }
        if let Some((_, last)) = row.enqueued {
            producer.enqueue(row.id.epoch, last, &mut self.counts);
        }
        producer.bound(&mut self.counts);
    }

    /// Gaps older than `grace_s` at tick `tick` are missing.
    pub fn age(&mut self, tick: u32, grace_s: u32) {
        let sequences = self.producers.values_mut().flat_map(|producer| &mut producer.sequences);
        for gap in sequences.flat_map(|sequence| &mut sequence.gaps) {
            if !gap.missing && gap.noticed_s.saturating_add(grace_s) <= tick {
                gap.missing = true;
                self.counts.gaps += gap.len();
            }
        }
        // A producer that was silent for so long and owes nothing is forgotten, and its name with it.
        let horizon_s = tick.saturating_sub(LONGEST_WINDOW_S);
        self.producers.retain(|_, p| p.touched_s > horizon_s || p.sequences.iter().any(Sequence::owes));
    }

    /// What it lacks now.
    pub fn state(&self) -> AuditState {
        let mut state = AuditState { missing: self.counts.forgotten, ..AuditState::default() };
        for sequence in self.producers.values().flat_map(|producer| &producer.sequences) {
            let frontier = sequence.frontier();
            state.backlog += sequence.known - frontier;
            state.missing += sequence.gaps.iter().filter(|gap| gap.missing).map(Gap::len).sum::<u64>();
            state.oldest_ns = [state.oldest_ns, sequence.oldest_ns()].into_iter().flatten().min();
        }
        state
    }

    /// Names of its producers.
    pub fn producers(&self) -> impl Iterator<Item = NameId> {
        self.producers.keys().copied()
    }
}

/// Seconds from being put in to the end of tick `tick`.
pub fn age_s(enqueued_ns: i64, tick: u32) -> f64 {
    let now_ns = (i64::from(tick) + 1) * SECOND_NS;
    (now_ns.saturating_sub(enqueued_ns)).max(0) as f64 / SECOND_NS as f64
}

impl Producer {
    /// The place of the sequence that a number belongs to, which begins if there is none.
    fn sequence(&mut self, epoch: u64, seq: u64, delivered: bool, counts: &mut AuditCounts) -> usize {
        let holds = |s: &Sequence| s.epoch == epoch && s.holds(seq);
        if let Some(at) = self.sequences.iter().rposition(holds) {
            return at;
        }
        let jumped = self.sequences.iter().any(|s| s.epoch == epoch);
        counts.jumps += u64::from(jumped);
        counts.epochs += u64::from(!jumped && !self.sequences.is_empty());
        let is_newest = self.sequences.last().is_some_and(|s| s.epoch < epoch);
        let base = match (jumped, is_newest) {
            // It began while Larum looked, or the number itself says that it is the first.
            (false, true) if seq <= JUMP_MAX => seq.min(1),
            _ if seq <= 1 || delivered || jumped => seq,
            // The word of a producer that was not met before: what it put in last may have come out long ago.
            _ => seq.saturating_add(1),
        };
        let at = self.sequences.partition_point(|s| s.epoch <= epoch);
        let (gaps, marks) = (VecDeque::new(), VecDeque::new());
        self.sequences.insert(at, Sequence { epoch, base, next: base, known: base, gaps, marks });
        at
    }

    /// A number was put in.
    fn enqueue(&mut self, epoch: u64, mark: SeqMark, counts: &mut AuditCounts) {
        let at = self.sequence(epoch, mark.seq, false, counts);
        self.sequences[at].enqueue(mark);
    }

    /// Keeps the sequences and their parts within their bounds.
    fn bound(&mut self, counts: &mut AuditCounts) {
        for sequence in &mut self.sequences {
            while sequence.gaps.len() > GAPS_MAX {
                sequence.gaps.pop_front().iter().for_each(|gap| counts.forget(gap));
            }
            if sequence.marks.len() > MARKS_MAX {
                let mut keep = false;
                sequence.marks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        while self.sequences.len() > SEQUENCES_MAX {
            let mut oldest = self.sequences.remove(0);
            oldest.end(0);
            oldest.gaps.iter().for_each(|gap| counts.forget(gap));
        }
    }
}

impl AuditCounts {
    /// A gap is missing from now on, and for good.
    fn forget(&mut self, gap: &Gap) {
        self.gaps += if gap.missing { 0 } else { gap.len() };
        self.forgotten += gap.len();
    }
}

impl Sequence {
    fn holds(&self, seq: u64) -> bool {
        (self.base.saturating_sub(JUMP_MAX)..=(self.known.max(1) - 1).saturating_add(JUMP_MAX)).contains(&seq)
    }

    /// A range came out.
    fn deliver(&mut self, range: SeqRange, tick: u32, counts: &mut AuditCounts) {
        self.fill(range, counts);
        if range.last < self.next {
            return;
        }
        if range.first > self.next {
            let enqueued_ns = self.in_by(self.next).map_or(range.first_ns, |ns| ns.min(range.first_ns));
            self.gaps.push_back(Gap {
                first: self.next,
                last: range.first - 1,
                noticed_s: tick,
                enqueued_ns,
                missing: false,
            });
        }
        self.next = range.last.saturating_add(1);
        self.known = self.known.max(self.next);
        self.trim();
    }

    /// The part of a range that lies below what came before: it fills gaps, or came once more.
    fn fill(&mut self, range: SeqRange, counts: &mut AuditCounts) {
        let (first, last) = (range.first.max(self.base), range.last.min(self.next.saturating_sub(1)));
        if first > last || self.next == 0 {
            return;
        }
        let mut filled = 0;
        let mut left = VecDeque::with_capacity(self.gaps.len() + 1);
        for gap in self.gaps.drain(..) {
            let (from, to) = (gap.first.max(first), gap.last.min(last));
            if from > to {
                left.push_back(gap);
                continue;
            }
            let len = to - from + 1;
            filled += len;
            counts.recovered += if gap.missing { len } else { 0 };
            if gap.first < from {
                left.push_back(Gap { last: from - 1, ..gap });
            }
            if to < gap.last {
                left.push_back(Gap { first: to + 1, ..gap });
            }
        }
        self.gaps = left;
        counts.repeated += last - first + 1 - filled;
    }

    /// A number was put in.
    fn enqueue(&mut self, mark: SeqMark) {
        self.known = self.known.max(mark.seq.saturating_add(1));
        if mark.seq >= self.frontier() && self.marks.back().is_none_or(|last| last.seq < mark.seq) {
            let ns = self.marks.back().map_or(mark.ns, |last| mark.ns.max(last.ns));
            self.marks.push_back(SeqMark { ns, ..mark });
        }
    }

    /// A later sequence of the producer has begun to come out: what this one still lacks is a gap.
    fn end(&mut self, tick: u32) {
        if self.next < self.known {
            let enqueued_ns = self.in_by(self.next).unwrap_or(i64::from(tick) * SECOND_NS);
            let (first, last) = (self.next, self.known - 1);
            self.gaps.push_back(Gap { first, last, noticed_s: tick, enqueued_ns, missing: false });
            self.next = self.known;
            self.trim();
        }
    }

    /// The lowest number that may still come out in time.
    fn frontier(&self) -> u64 {
        self.gaps.iter().find(|gap| !gap.missing).map_or(self.next, |gap| gap.first)
    }

    /// A time by which a number was in the queue, Unix ns.
    fn in_by(&self, seq: u64) -> Option<i64> {
        self.marks.iter().find(|mark| mark.seq >= seq).map(|mark| mark.ns)
    }

    /// When the lowest number that may still come was in the queue, Unix ns.
    fn oldest_ns(&self) -> Option<i64> {
        match self.gaps.iter().find(|gap| !gap.missing) {
            Some(gap) => Some(gap.enqueued_ns),
            None if self.next < self.known => self.in_by(self.next),
            None => None,
        }
    }

    fn owes(&self) -> bool {
        self.next < self.known || !self.gaps.is_empty()
    }

    /// Drops times of numbers that came out.
    fn trim(&mut self) {
        while self.marks.front().is_some_and(|mark| mark.seq < self.next) {
            self.marks.pop_front();
        }
    }
}
