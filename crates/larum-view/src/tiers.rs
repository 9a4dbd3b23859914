//! The panes of a key, sparse, and the sums of a sliding window over them.
//!
//! An event counts in one pane: of 10 s while a window of that granularity can hold it, then of a minute, then of ten
//! minutes. Panes are merged only long after, by [`Tiers::compact`]; finer panes serve a coarser window as well, because
//! they lie within its borders. So counting costs one addition, and a window never sees a pane that is later than it.

use larum_aggregate::time::{PANE_S, WINDOWS, Window};
use serde::{Deserialize, Serialize};

use crate::slots::{Slot, SlotCount, add_run};

/// Pane widths, seconds.
const WIDTHS_S: [u32; 3] = [PANE_S, 60, 600];

/// Counts of one width, by (pane, slot).
type Panes = Vec<SlotCount<(u32, Slot)>>;

/// The panes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiers {
    panes: [Panes; 3],
    edges: Edges,
}

/// Where panes of 10 s begin and where panes of a minute begin, Unix seconds; the first is a whole minute, the second
/// are whole ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Edges {
    fine_s: u32,
    minutes_s: u32,
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
            add_run(&mut self.panes[0], run.map(|(slot, count)| ((pane, slot), count)));
        } else if second >= minutes_s {
            add_run(&mut self.panes[1], run.map(|(slot, count)| ((second / 60, slot), count)));
        } else if second >= oldest[2] {
            let run = run.map(|(slot, count)| ((second / 600, slot.without_bucket()), count));
            add_run(&mut self.panes[2], run);
        }
    }

    /// Drops panes before all windows, and merges those that no window needs as fine as they are.
    pub fn compact(&mut self, oldest: &[u32; 3]) {
        let edges = Edges { fine_s: oldest[0] - oldest[0] % 60, minutes_s: oldest[1] - oldest[1] % 600 };
        let gone = self.panes[2].partition_point(|p| p.key.0 < oldest[2] / 600);
        self.panes[2].drain(..gone);
        if edges == self.edges {
            return;
        }
        self.edges = edges;
        let [fine, minutes, tens] = &mut self.panes;
        pass_on(minutes, edges.minutes_s / 60, tens, |(minute, slot)| {
            (minute * 60 >= oldest[2]).then_some((minute / 10, slot.without_bucket()))
        });
        // After a leap of time a pane may be too old for minutes as well.
        pass_on(fine, edges.fine_s.min(edges.minutes_s) / PANE_S, tens, |(pane, slot)| {
            (pane * PANE_S >= oldest[2]).then_some((pane / 60, slot.without_bucket()))
        });
        pass_on(fine, edges.fine_s / PANE_S, minutes, |(pane, slot)| Some((pane / 6, slot)));
        for panes in &mut self.panes {
            if panes.capacity() > 4 * panes.len() {
                panes.shrink_to(2 * panes.len());
            }
        }
    }

    /// True when no pane holds anything.
    pub fn is_empty(&self) -> bool {
        self.panes.iter().all(Vec::is_empty)
    }

    /// Shows every (slot, count) of the window that ends with the pane of second `end_s`; a slot may come several times.
    pub fn window(&self, window: Window, end_s: u32, mut visit: impl FnMut(Slot, u64)) {
        let start_s = window.start_s(end_s);
        for (panes, width_s) in self.panes.iter().zip(WIDTHS_S) {
            let first = panes.partition_point(|p| p.key.0 < start_s.div_ceil(width_s));
            for pane in panes[first..].iter().take_while(|p| p.key.0 <= end_s / width_s) {
                visit(pane.key.1, pane.count);
            }
        }
    }
}

/// Takes the panes before `end` out of `finer` and adds them to `coarser` under their `place` there.
fn pass_on(finer: &mut Panes, end: u32, coarser: &mut Panes, place: impl Fn((u32, Slot)) -> Option<(u32, Slot)>) {
    let passed = finer.partition_point(|p| p.key.0 < end);
    if passed == 0 {
        return;
    }
    let placed = finer.drain(..passed).filter_map(|p| Some((place(p.key)?, p.count)));
    let mut placed: Vec<_> = placed.collect();
    placed.sort_unstable_by_key(|p| p.0);
    add_run(coarser, placed.into_iter());
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
        assert_eq!(tiers.panes.each_ref().map(Vec::len), [0, 1, 1]);
    }
}
