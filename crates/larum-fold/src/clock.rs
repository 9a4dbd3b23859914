//! The clock of a source: how far event time has come, decided once per commit from its partitions.

use std::collections::BTreeMap;

use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{PartitionId, SourceCut, SourceId};

/// With all partitions live, the clock is paced by the wall clock once nothing arrived for so long, ns.
pub const SILENCE_NS: i64 = SECOND_NS;
/// A partition behind whose watermark does not rise for so long is left out, ns.
pub const LEFT_OUT_AFTER_NS: i64 = 15 * SECOND_NS;
/// A partition whose watermark runs further ahead of the clock is held, ns.
pub const AHEAD_MAX_NS: i64 = 60 * SECOND_NS;

/// Where a partition stands at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// The partition.
    pub id: PartitionId,
    /// Its watermark, Unix ns.
    pub watermark_ns: Option<i64>,
    /// It has been read past an end that the broker reported within the last 2 s, and is not held.
    pub live: bool,
    /// Larum asks for no records of it.
    pub held: bool,
}

/// What the clock remembers of a partition.
#[derive(Clone, Copy, Debug)]
struct Progress {
    watermark_ns: Option<i64>,
    /// Wall clock of the last rise, or of the last time that none could be expected.
    risen_ns: i64,
    left_out: bool,
}

/// The clock of one source.
#[derive(Clone, Debug)]
pub struct SourceClock {
    id: SourceId,
    clock_ns: Option<i64>,
    paced_ns: i64,
    arrived_ns: i64,
    partitions: BTreeMap<PartitionId, Progress>,
}

impl SourceClock {
    /// A clock that begins at `now_ns` (wall clock), or goes on from a commit.
    pub fn new(id: SourceId, now_ns: i64, committed: Option<&SourceCut>) -> Self {
        let mut clock = SourceClock {
            id,
            clock_ns: None,
            paced_ns: now_ns,
            arrived_ns: now_ns - SILENCE_NS,
            partitions: BTreeMap::new(),
        };
        if let Some(cut) = committed {
            clock.clock_ns = cut.clock_ns;
            clock.paced_ns = cut.paced_ns;
            clock.arrived_ns = cut.arrived_ns;
            let left_out = Progress { watermark_ns: None, risen_ns: now_ns, left_out: true };
            clock.partitions = cut.left_out.iter().map(|id| (*id, left_out)).collect();
        }
        clock
    }

    /// Event time that the source has come to.
    pub fn clock_ns(&self) -> Option<i64> {
        self.clock_ns
    }

    /// What a commit records.
    pub fn cut(&self) -> SourceCut {
        SourceCut {
            id: self.id,
            clock_ns: self.clock_ns,
            paced_ns: self.paced_ns,
            arrived_ns: self.arrived_ns,
            left_out: self.partitions.iter().filter(|(_, p)| p.left_out).map(|(id, _)| *id).collect(),
        }
    }

    /// Moves on to `now_ns` (wall clock) with the partitions as they stand; `arrived`: records were read since the last
    /// call. Never goes back.
    pub fn advance(&mut self, now_ns: i64, arrived: bool, statuses: &[PartStatus]) {
        if arrived {
            self.arrived_ns = now_ns;
        }
        self.watch(now_ns, statuses);
        let waited_for: Vec<&PartStatus> = statuses.iter().filter(|s| !self.is_left_out(s.id)).collect();
        if waited_for.is_empty() {
            return;
        }
        let behind: Vec<&&PartStatus> = waited_for.iter().filter(|s| !s.live).collect();
        if self.clock_ns.is_none() && behind.iter().any(|s| s.watermark_ns.is_none()) {
            return;
        }
        let target_ns = if !behind.is_empty() {
            // One without an event yet cannot be waited for by time; the clock stands for it.
            behind.iter().map(|s| s.watermark_ns).min().flatten()
        } else {
            self.with_all_live(now_ns, &waited_for)
        };
        self.clock_ns = self.clock_ns.max(target_ns);
    }

    /// The highest watermark; in silence, onward at the pace of the wall clock.
    fn with_all_live(&mut self, now_ns: i64, waited_for: &[&PartStatus]) -> Option<i64> {
        let highest_ns = waited_for.iter().filter_map(|s| s.watermark_ns).max();
        let Some(clock_ns) = self.clock_ns.max(highest_ns) else {
            self.paced_ns = now_ns;
            return Some(now_ns);
        };
        let silent_from_ns = self.arrived_ns + SILENCE_NS;
        if now_ns < silent_from_ns {
            return Some(clock_ns);
        }
        let passed_ns = now_ns - self.paced_ns.max(silent_from_ns);
        self.paced_ns = now_ns;
        Some(clock_ns + passed_ns.max(0))
    }

    /// Decides who is left out, and who returns.
    fn watch(&mut self, now_ns: i64, statuses: &[PartStatus]) {
        for status in statuses {
            let fresh = Progress { watermark_ns: status.watermark_ns, risen_ns: now_ns, left_out: false };
            let progress = self.partitions.entry(status.id).or_insert(fresh);
            let rose = status.watermark_ns > progress.watermark_ns;
            if rose || status.live || status.held {
                progress.risen_ns = now_ns;
            }
            progress.watermark_ns = status.watermark_ns;
            let level = rose && self.clock_ns.is_some() && status.watermark_ns >= self.clock_ns;
            let stuck = now_ns - progress.risen_ns >= LEFT_OUT_AFTER_NS;
            progress.left_out = !status.live && !level && (progress.left_out || stuck);
        }
    }

    /// Nothing was asked for until `now_ns`: the time in which partitions did not move begins anew.
    pub fn excuse(&mut self, now_ns: i64) {
        self.partitions.values_mut().for_each(|p| p.risen_ns = now_ns);
    }

    /// True while the clock does not wait for the partition.
    pub fn is_left_out(&self, id: PartitionId) -> bool {
        self.partitions.get(&id).is_some_and(|p| p.left_out)
    }
}

/// Whether a partition must be held: its watermark runs too far ahead of the clock, or, before the clock begins, of the
/// lowest watermark known.
pub fn runs_ahead(watermark_ns: Option<i64>, clock_ns: Option<i64>, lowest_ns: Option<i64>) -> bool {
    match (watermark_ns, clock_ns.or(lowest_ns)) {
        (Some(watermark), Some(reference)) => watermark > reference.saturating_add(AHEAD_MAX_NS),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = SECOND_NS;
    /// Event times in these tests are far below wall-clock times, so that a mix-up shows.
    const WALL: i64 = 1_000_000 * S;

    fn status(id: u32, watermark_s: Option<i64>, live: bool) -> PartStatus {
        PartStatus { id: PartitionId(id), watermark_ns: watermark_s.map(|s| s * S), live, held: false }
    }

    fn clock() -> SourceClock {
        SourceClock::new(SourceId(0), WALL, None)
    }

    #[test]
    fn waits_for_the_lowest_of_those_behind() {
        let mut c = clock();
        c.advance(WALL, true, &[status(0, Some(100), false), status(1, None, false)]);
        assert_eq!(c.clock_ns(), None);
        c.advance(WALL, true, &[status(0, Some(100), false), status(1, Some(90), false)]);
        assert_eq!(c.clock_ns(), Some(90 * S));
        c.advance(WALL, true, &[status(0, Some(120), false), status(1, Some(95), true)]);
        assert_eq!(c.clock_ns(), Some(120 * S));
        c.advance(WALL, true, &[status(0, Some(120), true), status(1, Some(80), false)]);
        assert_eq!(c.clock_ns(), Some(120 * S), "never goes back");
        c.advance(WALL, true, &[status(0, Some(121), true), status(1, Some(95), true)]);
        assert_eq!(c.clock_ns(), Some(121 * S), "all live: the highest");
    }

    #[test]
    fn an_empty_source_follows_the_wall_clock() {
        let mut c = clock();
        c.advance(WALL, false, &[status(0, None, true)]);
        assert_eq!(c.clock_ns(), Some(WALL));
        c.advance(WALL + 7 * S, false, &[status(0, None, true)]);
        assert_eq!(c.clock_ns(), Some(WALL + 7 * S));
    }

    #[test]
    fn silence_is_paced_down_time_included() {
        let mut c = clock();
        c.advance(WALL, true, &[status(0, Some(100), true)]);
        c.advance(WALL + S / 2, false, &[status(0, Some(100), true)]);
        assert_eq!(c.clock_ns(), Some(100 * S));
        c.advance(WALL + 4 * S, false, &[status(0, Some(100), true)]);
        assert_eq!(c.clock_ns(), Some(103 * S));
        let cut = c.cut();
        let mut c = SourceClock::new(SourceId(0), WALL + 60 * S, Some(&cut));
        c.advance(WALL + 60 * S, false, &[status(0, Some(100), false)]);
        assert_eq!(c.clock_ns(), Some(103 * S), "behind until the broker answered");
        c.advance(WALL + 61 * S, false, &[status(0, Some(100), true)]);
        assert_eq!(c.clock_ns(), Some(160 * S));
        c.advance(WALL + 62 * S, true, &[status(0, Some(150), true)]);
        assert_eq!(c.clock_ns(), Some(160 * S));
        c.advance(WALL + 64 * S, false, &[status(0, Some(150), true)]);
        assert_eq!(c.clock_ns(), Some(161 * S), "from where it stands, a second after the last record");
    }

    #[test]
    fn one_that_does_not_move_is_left_out_and_returns() {
        let mut c = clock();
        let stuck = status(1, Some(50), false);
        c.advance(WALL, true, &[status(0, Some(100), false), stuck]);
        assert_eq!(c.clock_ns(), Some(50 * S));
        c.advance(WALL + 15 * S, true, &[status(0, Some(110), false), stuck]);
        assert!(c.is_left_out(PartitionId(1)));
        assert_eq!(c.clock_ns(), Some(110 * S));
        c.advance(WALL + 16 * S, true, &[status(0, Some(111), false), status(1, Some(60), false)]);
        assert!(c.is_left_out(PartitionId(1)), "rising is not enough");
        let mut again = SourceClock::new(SourceId(0), WALL + 17 * S, Some(&c.cut()));
        again.advance(WALL + 17 * S, true, &[status(0, Some(112), false), status(1, Some(70), false)]);
        assert_eq!(again.clock_ns(), Some(112 * S), "a restart does not wait for it anew");
        again.advance(WALL + 18 * S, true, &[status(0, Some(113), false), status(1, Some(112), false)]);
        assert!(!again.is_left_out(PartitionId(1)), "level with the clock");
        assert_eq!(again.clock_ns(), Some(112 * S));
    }

    #[test]
    fn held_time_does_not_count_against_a_partition() {
        let mut c = clock();
        let held = PartStatus { held: true, ..status(1, Some(50), false) };
        c.advance(WALL, true, &[status(0, Some(100), true), held]);
        c.advance(WALL + 20 * S, true, &[status(0, Some(100), true), held]);
        assert!(!c.is_left_out(PartitionId(1)));
        c.advance(WALL + 34 * S, true, &[status(0, Some(100), true), status(1, Some(50), false)]);
        assert!(!c.is_left_out(PartitionId(1)));
        c.advance(WALL + 35 * S, true, &[status(0, Some(100), true), status(1, Some(50), false)]);
        assert!(c.is_left_out(PartitionId(1)));
    }

    #[test]
    fn stands_when_everyone_is_left_out() {
        let mut c = clock();
        c.advance(WALL, true, &[status(0, Some(100), false)]);
        c.advance(WALL + 16 * S, false, &[status(0, Some(100), false)]);
        assert!(c.is_left_out(PartitionId(0)) || c.clock_ns() == Some(100 * S));
        c.advance(WALL + 40 * S, false, &[status(0, Some(100), false)]);
        assert_eq!(c.clock_ns(), Some(100 * S));
    }

    #[test]
    fn those_far_ahead_are_held() {
        assert!(!runs_ahead(Some(160 * S), Some(100 * S), None));
        assert!(runs_ahead(Some(160 * S + 1), Some(100 * S), None));
        assert!(runs_ahead(Some(200 * S), None, Some(100 * S)));
        assert!(!runs_ahead(Some(200 * S), None, None));
    }
}
