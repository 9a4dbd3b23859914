//! The panes of a key in three widths, sparse, and the sums of a sliding window over them.
//!
//! An event counts in its 10 s pane, its minute and its ten minutes at once. A window is made of the coarsest whole
//! panes of its granularity, then of finer ones up to the pane that holds the tick, so it never sees a later pane.

use larum_aggregate::time::{HISTOGRAM_WINDOW_S, PANE_S, WINDOWS, Window};
use serde::{Deserialize, Serialize};

/// Count of one slot in one pane. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PaneCount {
    pane: u32,
    slot: u16,
    count: u64,
}

/// Pane widths, seconds.
const WIDTHS_S: [u32; 3] = [PANE_S, 60, 600];

/// The panes of one key. A slot is an opaque number of what is counted; those of histograms are marked by the caller,
/// because panes of ten minutes keep counts only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiers([Vec<PaneCount>; 3]);

/// First pane of each width that any window can still need, at the second `end_s` where windows end.
pub fn oldest_panes(end_s: u32) -> [u32; 3] {
    let oldest = |granularity_s: u32| {
        let starts = WINDOWS.iter().filter(|w| w.granularity_s() == granularity_s).map(|w| w.start_s(end_s));
        starts.min().unwrap_or(end_s) / granularity_s
    };
    WIDTHS_S.map(oldest)
}

impl Tiers {
    /// Counts in the 10 s pane `pane`, as far as windows ending at or after `oldest` was computed for can hold it.
    pub fn add(&mut self, pane: u32, slot: u16, is_histogram: bool, count: u64, oldest: &[u32; 3]) {
        for (tier, width_s) in WIDTHS_S.iter().enumerate() {
            let wide = pane / (width_s / PANE_S);
            let kept = !is_histogram || *width_s <= Window { span_s: HISTOGRAM_WINDOW_S }.granularity_s();
            if wide >= oldest[tier] && kept {
                add(&mut self.0[tier], wide, slot, count);
            }
        }
    }

    /// Drops panes before `oldest`.
    pub fn prune(&mut self, oldest: &[u32; 3]) {
        for (panes, oldest) in self.0.iter_mut().zip(oldest) {
            let gone = panes.partition_point(|p| p.pane < *oldest);
            if gone > 0 {
                panes.drain(..gone);
                if panes.capacity() > 4 * panes.len() {
                    panes.shrink_to(2 * panes.len());
                }
            }
        }
    }

    /// True when no pane holds anything.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// Shows every (slot, count) of the window that ends with the pane of second `end_s`; a slot may come several times.
    pub fn window(&self, window: Window, end_s: u32, mut visit: impl FnMut(u16, u64)) {
        let mut from_s = window.start_s(end_s);
        let finest = WIDTHS_S.iter().position(|w| *w == window.granularity_s()).unwrap_or(0);
        for tier in (0..=finest).rev() {
            let width_s = WIDTHS_S[tier];
            // Whole panes of this width; the last, partial one is made of finer panes.
            let to = if tier == 0 { end_s / width_s + 1 } else { end_s / width_s };
            let panes = &self.0[tier];
            let first = panes.partition_point(|p| p.pane < from_s / width_s);
            for pane in panes[first..].iter().take_while(|p| p.pane < to) {
                visit(pane.slot, pane.count);
            }
            from_s = from_s.max(to * width_s);
        }
    }
}

/// Adds to a sorted list; almost always at or near its end.
fn add(panes: &mut Vec<PaneCount>, pane: u32, slot: u16, count: u64) {
    let place = (pane, slot);
    if panes.last().is_none_or(|last| (last.pane, last.slot) < place) {
        panes.push(PaneCount { pane, slot, count });
        return;
    }
    match panes.binary_search_by_key(&place, |p| (p.pane, p.slot)) {
        Ok(at) => panes[at].count += count,
        Err(at) => panes.insert(at, PaneCount { pane, slot, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every window at every tick equals a plain sum over 10 s panes.
    #[test]
    fn windows_equal_a_naive_sum_of_panes() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut tiers, mut events) = (Tiers::default(), Vec::new());
            let mut tick = 1_773_480_000 + rng.u32(..1000);
            for _ in 0..300 {
                tick += [0, 1, 7, 61, 700][rng.usize(..5)];
                let oldest = oldest_panes(tick);
                for _ in 0..20 {
                    let reach_s = [100, 4_000, 30_000][rng.usize(..3)];
                    let pane = (tick + 90 - rng.u32(..reach_s)) / PANE_S;
                    tiers.add(pane, 3, false, 2, &oldest);
                    events.push(pane);
                }
                tiers.prune(&oldest);
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
        tiers.add(tick / PANE_S - 180, 9, true, 5, &oldest_panes(tick));
        let sum = |w| {
            let mut sum = 0;
            tiers.window(w, tick, |_, n| sum += n);
            sum
        };
        assert_eq!(WINDOWS.map(sum), [0, 0, 5, 5, 0]);
    }
}
