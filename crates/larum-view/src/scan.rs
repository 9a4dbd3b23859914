//! One pass over all that is counted, key by key: the only way to read totals and windows.

use larum_aggregate::histogram::Bucket;
use larum_aggregate::run::{Cells, Weight};
use larum_aggregate::time::{HISTOGRAM_WINDOW_S, Window};
use larum_aggregate::{KeyId, Run, Slot};
use larum_event::{Code, Histogram, Measured};

use crate::key::KeyView;
use crate::slots::{Count, add_up, measured};
use crate::view::{SourceView, View};

/// Totals of a latency histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    /// (bucket, count), by bucket.
    pub buckets: Vec<(Bucket, u64)>,
    /// Sum of latencies, ns.
    pub sum_ns: u128,
}

impl HistogramTotals {
    /// Adds another histogram.
    pub(crate) fn add(&mut self, other: &HistogramTotals) {
        self.buckets.extend_from_slice(&other.buckets);
        add_up(&mut self.buckets);
        self.sum_ns += other.sum_ns;
    }
}

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Counts by code.
    pub codes: Vec<(Code, u64)>,
    /// Counts of the histograms whose quantiles are shown, by histogram and bucket; none in windows longer than histograms
    /// are kept.
    pub buckets: Vec<((Histogram, Bucket), u64)>,
}

/// What one key counted.
pub struct Counted<'v> {
    /// The key.
    pub key: &'v KeyView,
    /// Its source.
    pub source: &'v SourceView,
    /// Since the key began, by slot.
    totals: Vec<Count<Slot>>,
    /// Sums of latencies by code, ns.
    sums_ns: Vec<(Code, u128)>,
    /// In each of the windows asked for, by slot.
    windows: Vec<Vec<Count<Slot>>>,
    asked: &'v [Window],
}

impl Counted<'_> {
    /// Totals by code.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        let same_code = self.totals.chunk_by(|a, b| a.0.code() == b.0.code());
        same_code.map(|same| (Code(same[0].0.code()), same.iter().map(|count| count.1).sum()))
    }

    /// Totals of the latencies that are `wanted`, by histogram.
    pub fn histograms(&self, wanted: impl Fn(Measured) -> bool) -> Vec<(Histogram, HistogramTotals)> {
        let bucket = |slot: Slot| measured(slot).filter(|(id, _)| wanted(id.measured()));
        let mut buckets: Vec<_> =
            self.totals.iter().filter_map(|(slot, count)| Some((bucket(*slot)?, *count))).collect();
        add_up(&mut buckets);
        let totals = |same: &[((Histogram, Bucket), u64)]| {
            let id = same[0].0.0;
            let of_it = self.sums_ns.iter().filter(|(code, _)| code.histogram() == Some(id));
            let sum_ns = of_it.map(|(_, sum_ns)| sum_ns).sum();
            (id, HistogramTotals { buckets: same.iter().map(|((_, bucket), n)| (*bucket, *n)).collect(), sum_ns })
        };
        buckets.chunk_by(|a, b| a.0.0 == b.0.0).map(totals).collect()
    }

    /// The histograms that its totals are in.
    pub fn histogram_ids(&self) -> Vec<Histogram> {
        let mut ids: Vec<Histogram> = self.totals.iter().filter_map(|(slot, _)| Some(measured(*slot)?.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Sums of the window that was asked for at this place.
    pub fn window(&self, at: usize) -> WindowSums {
        let mut sums = WindowSums::default();
        let (Some(slots), Some(asked)) = (self.windows.get(at), self.asked.get(at)) else { return sums };
        for (slot, count) in slots {
            let code = Code(slot.code());
            match sums.codes.last_mut() {
                Some(last) if last.0 == code => last.1 += count,
                _ => sums.codes.push((code, *count)),
            }
            if asked.span_s <= HISTOGRAM_WINDOW_S
                && let Some(bucket) = measured(*slot).filter(|(id, _)| matches!(id.measured(), Measured::Token(_)))
            {
                sums.buckets.push((bucket, *count));
            }
        }
        add_up(&mut sums.buckets);
        sums
    }
}

/// A run being read, with the cell that comes next.
struct Cursor<'v, W> {
    next: Option<(KeyId, Slot, W)>,
    cells: Cells<'v, W>,
    /// Which windows it is part of, a bit for each.
    windows: u32,
}

impl<'v, W: Weight> Cursor<'v, W> {
    fn new(run: &'v Run<W>, windows: u32) -> Self {
        let mut cursor = Cursor { next: None, cells: run.cells(), windows };
        cursor.advance();
        cursor
    }

    #[inline]
    fn advance(&mut self) {
        self.next = self.cells.next().map(|(cell, weight)| (cell.key(), cell.slot(), weight));
    }

    /// Shows the cells of `key`, passing over keys before it, which are gone.
    #[inline]
    fn visit(&mut self, key: KeyId, mut visit: impl FnMut(Slot, W)) {
        while let Some((at, slot, weight)) = self.next.filter(|next| next.0 <= key) {
            if at == key {
                visit(slot, weight);
            }
            self.advance();
        }
    }
}

impl View {
    /// Shows every key with its totals and the sums of `windows`, by source and key; 32 windows at most.
    pub fn scan(&self, windows: &[Window], mut visit: impl FnMut(&Counted<'_>)) {
        for source in self.sources() {
            scan_source(source, windows, &mut visit);
        }
    }
}

fn scan_source(source: &SourceView, asked: &[Window], visit: &mut impl FnMut(&Counted<'_>)) {
    let mut totals: Vec<_> = source.totals.runs().iter().map(|run| Cursor::new(run, 0)).collect();
    let mut sums: Vec<_> = source.sums_ns.runs().iter().map(|run| Cursor::new(run, 0)).collect();
    let mut panes = pane_cursors(source, asked);
    let mut counted = None;
    for key in &source.keys {
        let id = key.def.id;
        let counted = counted.get_or_insert_with(|| Counted {
            key,
            source,
            totals: Vec::new(),
            sums_ns: Vec::new(),
            windows: vec![Vec::new(); asked.len()],
            asked,
        });
        counted.key = key;
        counted.totals.clear();
        totals.iter_mut().for_each(|cursor| cursor.visit(id, |slot, n| counted.totals.push((slot, n))));
        add_up(&mut counted.totals);
        counted.sums_ns.clear();
        sums.iter_mut().for_each(|cursor| cursor.visit(id, |slot, ns| counted.sums_ns.push((Code(slot.code()), ns))));
        counted.windows.iter_mut().for_each(Vec::clear);
        for cursor in &mut panes {
            let windows = cursor.windows;
            cursor.visit(id, |slot, n| {
                let of_window = |(at, window): (usize, &mut Vec<_>)| {
                    if windows >> at & 1 != 0 {
                        window.push((slot, n));
                    }
                };
                counted.windows.iter_mut().enumerate().for_each(of_window);
            });
        }
        counted.windows.iter_mut().for_each(add_up);
        visit(counted);
    }
}

/// A cursor for each run that any of the windows holds.
fn pane_cursors<'v>(source: &'v SourceView, asked: &[Window]) -> Vec<Cursor<'v, u64>> {
    let Some(end_s) = source.window_end_s() else { return Vec::new() };
    let mut runs: Vec<(*const Run<u64>, &'v Run<u64>, u32)> = Vec::new();
    for (at, window) in asked.iter().enumerate().take(32) {
        for run in source.panes.window(*window, end_s) {
            runs.push((run, run, 1 << at));
        }
    }
    // The same run in several windows is read once.
    runs.sort_by_key(|(place, ..)| *place);
    runs.chunk_by(|a, b| a.0 == b.0).map(|same| Cursor::new(same[0].1, same.iter().fold(0, |w, r| w | r.2))).collect()
}
