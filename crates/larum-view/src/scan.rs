//! One pass over all that is counted, key by key, front to back: how totals and windows are read for the first time, and by
//! those who read them once.

use larum_aggregate::run::{Cells, Weight};
use larum_aggregate::time::Window;
use larum_aggregate::{Cell, KeyId, Run, Slot};

use crate::counts::{KeyCounts, Wanted};
use crate::key::KeyView;
use crate::recent::Sign;
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
pub(crate) struct Cursor<'v, W> {
    next: Option<(Cell, W)>,
    cells: Cells<'v, W>,
    /// Which windows it is part of, a bit for each.
    pub(crate) windows: u32,
}

impl<'v, W: Weight> Cursor<'v, W> {
    pub(crate) fn new(run: &'v Run<W>, windows: u32) -> Self {
        let mut cells = run.cells();
        Cursor { next: cells.next(), cells, windows }
    }

    /// The cells of `key`, passing over keys before it, which are gone or not wanted.
    #[inline]
    pub(crate) fn of(&mut self, key: KeyId) -> impl Iterator<Item = (Slot, W)> {
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
            let mut pass = Pass::new(source, windows);
            for (key, wanted) in keys.filter(|(_, wanted)| *wanted > Wanted::Nothing) {
                counts.clear();
                pass.read(key.def.id, wanted, &mut counts);
                visit(&Counted { key, source, counts: &counts });
            }
        }
    }
}

/// A pass over all that a source counted.
pub(crate) struct Pass<'v> {
    totals: Vec<Cursor<'v, u64>>,
    sums_ns: Vec<Cursor<'v, u128>>,
    panes: Vec<Cursor<'v, u64>>,
    windows: &'v [Window],
}

impl<'v> Pass<'v> {
    pub(crate) fn new(source: &'v SourceView, windows: &'v [Window]) -> Self {
        Pass {
            totals: source.totals.runs().iter().map(|run| Cursor::new(run, 0)).collect(),
            sums_ns: source.sums_ns.runs().iter().map(|run| Cursor::new(run, 0)).collect(),
            panes: pane_cursors(source, windows),
            windows,
        }
    }

    /// Adds up a key, which comes after the one before.
    pub(crate) fn read(&mut self, key: KeyId, wanted: Wanted, counts: &mut KeyCounts) {
        let with_latencies = wanted == Wanted::All;
        self.totals.iter_mut().for_each(|cursor| counts.add_totals(cursor.of(key), with_latencies));
        if with_latencies {
            self.sums_ns.iter_mut().for_each(|cursor| counts.add_sums(cursor.of(key)));
        }
        let mut cells = Vec::new();
        for cursor in self.panes.iter_mut().filter(|_| wanted >= Wanted::Windows) {
            cells.clear();
            cells.extend(cursor.of(key));
            if cells.is_empty() {
                continue;
            }
            for (at, window) in self.windows.iter().enumerate().filter(|(at, _)| cursor.windows >> at & 1 != 0) {
                counts.add_window(at, *window, cells.iter().copied(), Sign::Plus);
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
