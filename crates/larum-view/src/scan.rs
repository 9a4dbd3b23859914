//! One pass over all that is counted, key by key, front to back, past the keys that nobody wants: how totals and windows are
//! read for the first time, and by those who read them once.

use larum_aggregate::run::{Cells, Weight};
use larum_aggregate::time::Window;
use larum_aggregate::{Cell, KeyId, Run, Slot};

use crate::counts::{KeyCounts, Wanted, is_shown_of_windows};
use crate::key::KeyView;
use crate::recent::{Sign, Step};
use crate::sums::place_of;
use crate::view::{SourceView, View};

/// A key and what it counted.
pub struct Counted<'v> {
    /// The key.
    pub key: &'v KeyView,
    /// Its source.
    pub source: &'v SourceView,
    /// What it counted.
    pub counts: &'v KeyCounts,
}

/// A run being read, with the cell that comes next.
struct Cursor<'v, W> {
    run: &'v Run<W>,
    next: Option<(Cell, W)>,
    cells: Cells<'v, W>,
    /// From this key on it may pass over what is in between.
    jumps_from: KeyId,
    /// Which windows it is part of, a bit for each.
    windows: u32,
}

impl<'v, W: Weight> Cursor<'v, W> {
    fn new(run: &'v Run<W>, windows: u32) -> Self {
        let mut cells = run.cells();
        Cursor { run, next: cells.next(), cells, jumps_from: KeyId(0), windows }
    }

    /// Passes over as much as can be of what stands before `key`.
    fn jump(&mut self, key: KeyId) {
        let (cells, next) = self.run.cells_near(key);
        self.cells = cells;
        self.next = self.cells.next();
        self.jumps_from = next.unwrap_or(KeyId(u32::MAX));
    }

    /// The cells of `key`, passing over keys before it, which are gone or not wanted.
    #[inline]
    fn of(&mut self, key: KeyId) -> impl Iterator<Item = (Slot, W)> {
        if key >= self.jumps_from {
            self.jump(key);
        }
        while self.next.as_ref().is_some_and(|next| next.0.key() < key) {
            self.next = self.cells.next();
        }
        std::iter::from_fn(move || {
            let (cell, weight) = self.next.take_if(|next| next.0.key() == key)?;
            self.next = self.cells.next();
            Some((cell.slot(), weight))
        })
    }
}

impl View {
    /// Shows every key with its totals and the sums of `windows`, by source and key; 32 windows at most.
    pub fn scan(&self, windows: &[Window], visit: impl FnMut(&Counted<'_>)) {
        self.scan_some(windows, |_| Wanted::All, visit);
    }

    /// The same of the keys that are wanted, as much as is wanted of each; what is passed over costs little.
    pub fn scan_some(
        &self,
        windows: &[Window],
        wanted: impl Fn(&KeyView) -> Wanted,
        mut visit: impl FnMut(&Counted<'_>),
    ) {
        for source in self.sources() {
            let mut counts = KeyCounts::new(windows.len());
            let keys = source.keys.iter().map(|key| (key, wanted(key)));
            let mut pass = Pass::over_all(source, windows, Windows::Whole);
            for (key, wanted) in keys.filter(|(_, wanted)| *wanted > Wanted::Nothing) {
                counts.clear();
                pass.read(key.def.id, wanted, &mut counts);
                visit(&Counted { key, source, counts: &counts });
            }
        }
    }
}

/// A pass over what a source counted, key by key: over all of it, or over the steps since it was read.
pub(crate) struct Pass<'v> {
    totals: Vec<Cursor<'v, u64>>,
    sums_ns: Vec<Cursor<'v, u128>>,
    windows: Vec<(Cursor<'v, u64>, Sign)>,
    asked: &'v [Window],
    of_windows: Windows,
    /// Cells of a key.
    cells: Vec<(Slot, u64)>,
}

/// What of windows is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    /// Histograms. What logins come to is kept from tick to tick: see [`KeyView::logins`].
    Histograms,
    /// Counts by code as well.
    Whole,
}

impl<'v> Pass<'v> {
    /// Over nothing.
    fn empty(asked: &'v [Window], of_windows: Windows) -> Self {
        Pass { totals: Vec::new(), sums_ns: Vec::new(), windows: Vec::new(), asked, of_windows, cells: Vec::new() }
    }

    /// Over everything.
    pub(crate) fn over_all(source: &'v SourceView, asked: &'v [Window], of_windows: Windows) -> Self {
        let mut pass = Pass::empty(asked, of_windows);
        pass.totals.extend(source.totals.runs().iter().map(|run| Cursor::new(run, 0)));
        pass.sums_ns.extend(source.sums_ns.runs().iter().map(|run| Cursor::new(run, 0)));
        pass.windows.extend(pane_cursors(source, asked).into_iter().map(|cursor| (cursor, Sign::Plus)));
        pass
    }

    /// Over steps, for histograms of windows only.
    pub(crate) fn over_steps(steps: impl Iterator<Item = &'v Step>, asked: &'v [Window]) -> Self {
        let mut pass = Pass::empty(asked, Windows::Histograms);
        for step in steps {
            match step {
                Step::Totals(run) => pass.totals.push(Cursor::new(run, 0)),
                Step::SumsNs(run) => pass.sums_ns.push(Cursor::new(run, 0)),
                Step::Windows(mask, sign, run) => {
                    let is_in_it = |window: &Window| place_of(*window).is_some_and(|at| mask >> at & 1 != 0);
                    let bits = asked.iter().enumerate().filter(|(_, window)| is_in_it(window));
                    let windows = bits.fold(0, |bits, (at, _)| bits | 1 << at);
                    pass.windows.extend((windows != 0).then(|| (Cursor::new(run, windows), *sign)));
                }
            }
        }
        pass
    }

    /// Adds up a key, which comes after the one before.
    pub(crate) fn read(&mut self, key: KeyId, wanted: Wanted, counts: &mut KeyCounts) {
        let with_latencies = wanted == Wanted::All;
        self.totals.iter_mut().for_each(|cursor| counts.add_totals(cursor.of(key), with_latencies));
        if with_latencies {
            self.sums_ns.iter_mut().for_each(|cursor| counts.add_sums(cursor.of(key)));
        }
        for (cursor, sign) in self.windows.iter_mut().filter(|_| wanted >= Wanted::Windows) {
            self.cells.clear();
            match self.of_windows {
                Windows::Whole => self.cells.extend(cursor.of(key)),
                Windows::Histograms => self.cells.extend(cursor.of(key).filter(|(slot, _)| is_shown_of_windows(*slot))),
            }
            if self.cells.is_empty() {
                continue;
            }
            let is_in_it = |at: &usize| cursor.windows >> at & 1 != 0;
            for (at, window) in self.asked.iter().enumerate().filter(|(at, _)| is_in_it(at)) {
                counts.add_window(at, *window, self.cells.iter().copied(), *sign, self.of_windows);
            }
        }
    }
}

/// A cursor for each run that any of the windows holds.
fn pane_cursors<'v>(source: &'v SourceView, asked: &[Window]) -> Vec<Cursor<'v, u64>> {
    // Where sums and steps stand: a source that was defined anew has no tick of its new delay yet.
    let Some(end_s) = source.sums.end_s().or(source.window_end_s()) else { return Vec::new() };
    let mut runs: Vec<(*const Run<u64>, &'v Run<u64>, u32)> = Vec::new();
    for (at, window) in asked.iter().enumerate().take(32) {
        for run in source.panes.window(*window, end_s) {
            runs.push((&raw const **run, run, 1 << at));
        }
    }
    // The same run in several windows is read once.
    runs.sort_by_key(|(place, ..)| *place);
    runs.chunk_by(|a, b| a.0 == b.0).map(|same| Cursor::new(same[0].1, same.iter().fold(0, |w, r| w | r.2))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_finds_every_key_that_is_asked_for() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let keys = 1 << rng.u32(2..20);
            let mut cells: Vec<_> =
                (0..3_000).map(|_| (Cell::new(KeyId(rng.u32(..keys)), Slot(rng.u32(..50))), 1)).collect();
            cells.sort_unstable();
            let run: Run<u64> = cells.into_iter().collect();
            let mut cursor = Cursor::new(&run, 0);
            let mut asked: Vec<KeyId> = (0..rng.usize(1..1_000)).map(|_| KeyId(rng.u32(..keys))).collect();
            asked.sort_unstable();
            asked.dedup();
            for key in asked {
                let want = run.cells().filter(|(cell, _)| cell.key() == key).map(|(cell, n)| (cell.slot(), n));
                assert!(cursor.of(key).eq(want), "seed {seed}, {key:?}");
            }
        }
    }
}
