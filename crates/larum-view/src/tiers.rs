//! The panes of a key, sparse, and the sums of a sliding window over them.
//!
//! An event counts in one pane: of 10 s while a window of that granularity can hold it, then of a minute, then of ten
//! minutes. Panes are merged and packed only long after, by [`Tiers::compact`]; finer panes serve a coarser window as
//! well, because they lie within its borders. So counting costs one addition, and a window never sees a pane that is
//! later than it.

use larum_aggregate::time::{PANE_S, WINDOWS, Window};
use serde::{Deserialize, Serialize};

use crate::packed::{Packed, PaneCount};
use crate::slots::{Slot, add_run, add_up};

/// Pane widths, seconds.
const WIDTHS_S: [u32; 3] = [PANE_S, 60, 600];

/// Counts of one width, by (pane, slot).
type Panes = Vec<PaneCount>;

/// The panes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiers {
    fine: Panes,
    minutes: Coarse,
    tens: Coarse,
    edges: Edges,
}

/// Where panes of 10 s begin and where panes of a minute begin, Unix seconds; the first is a whole minute, the second
/// are whole ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Edges {
    fine_s: u32,
    minutes_s: u32,
}

/// Panes of a minute or of ten: packed, and what came late since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Coarse {
    packed: Packed,
    late: Panes,
}

impl Coarse {
    /// Takes in counts of any order and packs everything.
    fn take_in(&mut self, mut counts: Vec<PaneCount>) {
        counts.append(&mut self.late);
        if counts.is_empty() {
            return;
        }
        let first = counts.iter().map(|count| Some(count.0.0)).min().flatten();
        if first <= self.packed.last_pane() {
            self.packed.visit(0, |pane, slot, count| counts.push(((pane, slot), count)));
            self.packed = Packed::default();
        }
        add_up(&mut counts);
        self.packed.append(&counts);
    }

    /// Takes out what lies before `pane`; everything is packed.
    fn take_before(&mut self, pane: u32) -> Vec<PaneCount> {
        let mut taken = Vec::new();
        self.packed.visit(0, |at, slot, count| {
            if at < pane {
                taken.push(((at, slot), count));
            }
        });
        self.packed.drop_before(pane);
        taken
    }

    fn is_empty(&self) -> bool {
        self.packed.is_empty() && self.late.is_empty()
    }

    /// Shows the counts from pane `first` on.
    fn visit(&self, first: u32, mut visit: impl FnMut(Slot, u64)) {
        self.packed.visit(first, |_, slot, count| visit(slot, count));
        self.late.iter().filter(|late| late.0.0 >= first).for_each(|late| visit(late.0.1, late.1));
    }
}

/// First second that any window of each granularity can still need, where windows end in second `end_s` or later.
pub fn oldest_s(end_s: u32) -> [u32; 3] {
    WIDTHS_S.map(|width_s| {
        let starts = WINDOWS.iter().filter(|w| w.granularity_s() == width_s).map(|w| w.start_s(end_s));
        starts.min().unwrap_or(end_s)
    })
}

impl Tiers {
    /// Counts `run`, sorted by slot, in the 10 s pane `pane`, unless it begins before all windows, at `oldest`.
    pub fn add(&mut self, pane: u32, run: impl Iterator<Item = (Slot, u64)>, oldest: &[u32; 3]) {
        let second = pane.saturating_mul(PANE_S);
        let Edges { fine_s, minutes_s } = self.edges;
        if second >= fine_s {
            add_run(&mut self.fine, run.map(|(slot, count)| ((pane, slot), count)));
        } else if second >= minutes_s {
            add_run(&mut self.minutes.late, run.map(|(slot, count)| ((second / 60, slot), count)));
        } else if second >= oldest[2] {
            // Without their buckets, slots are no run any more.
            for (slot, count) in run {
                add_run(&mut self.tens.late, std::iter::once(((second / 600, slot.without_bucket()), count)));
            }
        }
    }

    /// Drops panes before all windows, and merges and packs those that no window needs as fine as they are.
    pub fn compact(&mut self, oldest: &[u32; 3]) {
        let edges = Edges { fine_s: oldest[0] - oldest[0] % 60, minutes_s: oldest[1] - oldest[1] % 600 };
        if edges == self.edges {
            return;
        }
        self.edges = edges;
        let aged = self.fine.partition_point(|p| p.0.0 < edges.fine_s / PANE_S);
        let aged = self.fine.drain(..aged).map(|((pane, slot), count)| ((pane / 6, slot), count)).collect();
        self.minutes.take_in(aged);
        let aged = self.minutes.take_before(edges.minutes_s / 60).into_iter();
        let aged = aged.filter(|((minute, _), _)| minute * 60 >= oldest[2]);
        self.tens.take_in(aged.map(|((minute, slot), count)| ((minute / 10, slot.without_bucket()), count)).collect());
        self.tens.packed.drop_before(oldest[2] / 600);
        if self.fine.capacity() > self.fine.len() * 2 {
            self.fine.shrink_to(self.fine.len() * 3 / 2);
        }
    }

    /// True when no pane holds anything.
    pub fn is_empty(&self) -> bool {
        self.fine.is_empty() && self.minutes.is_empty() && self.tens.is_empty()
    }

    /// Shows every (slot, count) of the window that ends with the pane of second `end_s`; a slot may come several times.
    pub fn window(&self, window: Window, end_s: u32, mut visit: impl FnMut(Slot, u64)) {
        let start_s = window.start_s(end_s);
        self.tens.visit(start_s.div_ceil(600), &mut visit);
        self.minutes.visit(start_s.div_ceil(60), &mut visit);
        let first = self.fine.partition_point(|p| p.0.0 < start_s.div_ceil(PANE_S));
        for ((_, slot), count) in self.fine[first..].iter().take_while(|p| p.0.0 <= end_s / PANE_S) {
            visit(*slot, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot::of(7, 9);

    /// Every window at every tick equals a plain sum over 10 s panes.
    #[test]
    fn windows_equal_a_naive_sum_of_panes() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut tiers, mut events) = (Tiers::default(), Vec::new());
            let mut tick = 1_773_480_000 + rng.u32(..1000);
            for _ in 0..300 {
                tick += [0, 1, 7, 61, 700][rng.usize(..5)];
                let oldest = oldest_s(tick);
                for _ in 0..20 {
                    let reach_s = [100, 4_000, 30_000][rng.usize(..3)];
                    let pane = (tick + 90 - rng.u32(..reach_s)) / PANE_S;
                    tiers.add(pane, [(SLOT, 2)].into_iter(), &oldest);
                    events.push(pane);
                }
                // Compaction may come late.
                if rng.bool() {
                    tiers.compact(&oldest);
                }
                for window in WINDOWS {
                    let (first, last) = (window.start_s(tick) / PANE_S, tick / PANE_S);
                    let want = 2 * events.iter().filter(|p| (first..=last).contains(*p)).count() as u64;
                    let mut got = 0;
                    tiers.window(window, tick, |_, count| got += count);
                    assert_eq!(got, want, "seed {seed} tick {tick} {window:?}");
                }
            }
        }
    }

    #[test]
    fn histograms_are_kept_up_to_an_hour() {
        let (tick, mut tiers) = (1_773_480_000, Tiers::default());
        let add = |tiers: &mut Tiers, age_s: u32| {
            tiers.add((tick - age_s) / PANE_S, [(SLOT, 5)].into_iter(), &oldest_s(tick));
        };
        let sums = |tiers: &Tiers, slot| {
            WINDOWS.map(|window| {
                let mut sum = 0;
                tiers.window(window, tick, |at, n| sum += if at == slot { n } else { 0 });
                sum
            })
        };
        add(&mut tiers, 30 * 60);
        add(&mut tiers, 2 * 3600);
        add(&mut tiers, 9 * 3600);
        tiers.compact(&oldest_s(tick));
        assert_eq!(sums(&tiers, SLOT), [0, 0, 5, 5, 5]);
        assert_eq!(sums(&tiers, SLOT.without_bucket()), [0, 0, 0, 0, 5]);
        // Late ones go where their time is kept.
        add(&mut tiers, 30 * 60);
        add(&mut tiers, 2 * 3600);
        add(&mut tiers, 9 * 3600);
        assert_eq!(sums(&tiers, SLOT), [0, 0, 10, 10, 10]);
        assert_eq!(sums(&tiers, SLOT.without_bucket()), [0, 0, 0, 0, 10]);
        assert_eq!((tiers.fine.len(), tiers.minutes.late.len(), tiers.tens.late.len()), (0, 1, 1));
        tiers.compact(&oldest_s(tick + 60));
        assert_eq!(sums(&tiers, SLOT), [0, 0, 10, 10, 10]);
        assert!(tiers.minutes.late.is_empty() && tiers.tens.late.is_empty());
    }
}
