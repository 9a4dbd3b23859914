//! The panes of a source, and which of them a sliding window is made of.
//!
//! An event counts in one pane: of 10 s while a window of that granularity can hold it, then of a minute, then of ten
//! minutes. Panes are merged into coarser ones only once no window needs them as fine; finer panes serve a coarser window
//! as well, because they lie within its borders. So counting means to take in a run, and a window never sees a pane that
//! is later than it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use larum_aggregate::run::{Cell, merge};
use larum_aggregate::time::{PANE_S, WINDOWS, Window};
use larum_aggregate::{Run, Slot};
use larum_event::{Code, Measured};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;

/// Pane widths, seconds.
const WIDTHS_S: [u32; 3] = [PANE_S, 60, 600];

/// Panes of one width by their number.
type Tier = BTreeMap<u32, Ledger<u64>>;

/// The panes of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panes {
    fine: Tier,
    minutes: Tier,
    tens: Tier,
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

/// Whether a signal shows quantiles of a window: only then its panes keep buckets once they are merged.
fn has_quantiles(slot: Slot) -> bool {
    let histogram = Code(slot.code()).histogram();
    histogram.is_some_and(|histogram| matches!(histogram.measured(), Measured::Token(_)))
}

/// What panes of up to a minute keep: buckets are half of what logins and permissions would take.
fn of_short_panes(cell: Cell) -> Option<Cell> {
    Some(if has_quantiles(cell.slot()) { cell } else { of_ten_minutes(cell)? })
}

/// What panes of ten minutes keep.
fn of_ten_minutes(cell: Cell) -> Option<Cell> {
    Some(Cell::new(cell.key(), cell.slot().without_bucket()))
}

impl Panes {
    /// Counts a run in the 10 s pane `pane`, unless it begins before all windows, at `oldest`. Gives what was put in.
    pub fn add(&mut self, pane: u32, run: &Run<u64>, oldest: &[u32; 3]) -> Option<Arc<Run<u64>>> {
        let second = pane.saturating_mul(PANE_S);
        let Edges { fine_s, minutes_s } = self.edges;
        let (tier, at, keeps): (_, _, fn(Cell) -> Option<Cell>) = if second >= fine_s {
            (&mut self.fine, pane, of_short_panes)
        } else if second >= minutes_s {
            (&mut self.minutes, second / 60, of_short_panes)
        } else if second >= oldest[2] {
            (&mut self.tens, second / 600, of_ten_minutes)
        } else {
            return None;
        };
        let run = Arc::new(merge([run], keeps));
        tier.entry(at).or_default().push(run.clone());
        Some(run)
    }

    /// Drops panes before all windows, and merges those that no window needs as fine as they are.
    pub fn compact(&mut self, oldest: &[u32; 3]) {
        let edges = Edges { fine_s: oldest[0] - oldest[0] % 60, minutes_s: oldest[1] - oldest[1] % 600 };
        if edges == self.edges {
            return;
        }
        self.edges = edges;
        coarsen(&mut self.fine, edges.fine_s / PANE_S, &mut self.minutes, 6, of_short_panes);
        // Minutes that no window holds any more need not become part of ten.
        self.minutes = self.minutes.split_off(&(oldest[2] / 60));
        coarsen(&mut self.minutes, edges.minutes_s / 60, &mut self.tens, 10, of_ten_minutes);
        self.tens = self.tens.split_off(&(oldest[2] / 600));
    }

    /// The runs of the window that ends with the pane of second `end_s`.
    pub fn window(&self, window: Window, end_s: u32) -> impl Iterator<Item = &Arc<Run<u64>>> {
        let start_s = window.start_s(end_s);
        let up_to = |width_s: u32| {
            let first = start_s.div_ceil(width_s);
            first..(end_s / width_s + 1).max(first)
        };
        let tens = self.tens.range(up_to(600));
        let minutes = self.minutes.range(up_to(60));
        let fine = self.fine.range(up_to(PANE_S));
        tens.chain(minutes).chain(fine).flat_map(|(_, pane)| pane.runs())
    }

    /// The runs of panes that begin in a stretch of seconds, with where they begin.
    pub fn between(&self, seconds: Range<u32>) -> impl Iterator<Item = (u32, &Arc<Run<u64>>)> {
        let tiers = [(&self.tens, 600), (&self.minutes, 60), (&self.fine, PANE_S)];
        let places = move |width_s: u32| {
            let first = seconds.start.div_ceil(width_s);
            first..seconds.end.div_ceil(width_s).max(first)
        };
        let panes = tiers.into_iter().flat_map(move |(tier, width_s)| {
            tier.range(places(width_s)).map(move |(pane, ledger)| (pane * width_s, ledger))
        });
        panes.flat_map(|(second, ledger)| ledger.runs().iter().map(move |run| (second, run)))
    }

    /// First second of the pane in which a 10 s pane is kept.
    pub fn kept_s(&self, pane: u32) -> u32 {
        let second = pane.saturating_mul(PANE_S);
        let width_s = match self.edges {
            Edges { fine_s, .. } if second >= fine_s => PANE_S,
            Edges { minutes_s, .. } if second >= minutes_s => 60,
            _ => 600,
        };
        second - second % width_s
    }

    /// Bytes that the panes take.
    pub fn size_bytes(&self) -> usize {
        [&self.fine, &self.minutes, &self.tens].into_iter().flat_map(|tier| tier.values()).map(Ledger::size_bytes).sum()
    }
}

/// Merges the panes before `first` of a tier into those of one whose panes are `width` times as wide.
fn coarsen(from: &mut Tier, first: u32, into: &mut Tier, width: u32, keeps: impl Fn(Cell) -> Option<Cell>) {
    let later = from.split_off(&first);
    let mut aged: BTreeMap<u32, Vec<Arc<Run<u64>>>> = BTreeMap::new();
    for (pane, ledger) in std::mem::replace(from, later) {
        aged.entry(pane / width).or_default().extend(ledger.into_runs());
    }
    for (pane, mut runs) in aged {
        let ledger = into.entry(pane).or_default();
        runs.extend(std::mem::take(ledger).into_runs());
        ledger.push(Arc::new(merge(runs.iter().map(|run| &**run), &keeps)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::KeyId;

    /// A token's slot, measured.
    const SLOT: Slot = Slot::of(60, 9);
    /// A login's.
    const LOGIN: Slot = Slot::of(7, 9);

    fn run(slots: &[Slot]) -> Run<u64> {
        slots.iter().map(|slot| (Cell::new(KeyId(3), *slot), 2)).collect()
    }

    fn sum(panes: &Panes, window: Window, end_s: u32, slot: Slot) -> u64 {
        let cells = panes.window(window, end_s).flat_map(|run| run.cells());
        cells.filter(|(cell, _)| cell.slot() == slot).map(|(_, n)| n).sum()
    }

    /// Every window at every tick equals a plain sum over 10 s panes.
    #[test]
    fn windows_equal_a_naive_sum_of_panes() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut panes, mut events) = (Panes::default(), Vec::new());
            let mut tick = 1_773_480_000 + rng.u32(..1000);
            for _ in 0..300 {
                tick += [0, 1, 7, 61, 700][rng.usize(..5)];
                let oldest = oldest_s(tick);
                for _ in 0..20 {
                    let reach_s = [100, 4_000, 30_000][rng.usize(..3)];
                    let pane = (tick + 90 - rng.u32(..reach_s)) / PANE_S;
                    panes.add(pane, &run(&[SLOT]), &oldest);
                    events.push(pane);
                }
                // Compaction may come late.
                if rng.bool() {
                    panes.compact(&oldest);
                }
                for window in WINDOWS {
                    let (first, last) = (window.start_s(tick) / PANE_S, tick / PANE_S);
                    let want = 2 * events.iter().filter(|p| (first..=last).contains(*p)).count() as u64;
                    let got: u64 = panes.window(window, tick).flat_map(|run| run.cells()).map(|(_, n)| n).sum();
                    assert_eq!(got, want, "seed {seed} tick {tick} {window:?}");
                }
            }
        }
    }

    #[test]
    fn histograms_of_tokens_are_kept_up_to_an_hour() {
        let (tick, mut panes) = (1_773_480_000, Panes::default());
        let sums = |panes: &Panes, slot| WINDOWS.map(|window| sum(panes, window, tick, slot));
        for _ in 0..2 {
            // The second time they come late, and go where their time is kept.
            for age_s in [30 * 60, 2 * 3600, 9 * 3600] {
                panes.add((tick - age_s) / PANE_S, &run(&[LOGIN, SLOT]), &oldest_s(tick));
            }
            panes.compact(&oldest_s(tick));
        }
        assert_eq!(sums(&panes, SLOT), [0, 0, 4, 4, 4]);
        assert_eq!(sums(&panes, SLOT.without_bucket()), [0, 0, 0, 0, 4]);
        assert_eq!(sums(&panes, LOGIN), [0; 5], "no signal shows quantiles of logins");
        assert_eq!(sums(&panes, LOGIN.without_bucket()), [0, 0, 4, 4, 8]);
    }
}
