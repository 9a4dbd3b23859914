//! One pass over all that is counted, key by key: the only way to read totals and windows.

use larum_aggregate::histogram::{BUCKETS, Bucket};
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

const _: () = assert!(Histogram::COUNT as usize * BUCKETS <= u16::MAX as usize);

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
    /// The windows asked for.
    windows: Vec<Adder>,
}

/// Adds up a window's cells, in any order: a place for every code and every bucket, and which of them are not 0.
struct Adder {
    has_buckets: bool,
    codes: Vec<u64>,
    codes_used: Vec<u16>,
    buckets: Vec<u64>,
    buckets_used: Vec<u16>,
}

impl Adder {
    fn new(window: Window) -> Self {
        Adder {
            has_buckets: window.span_s <= HISTOGRAM_WINDOW_S,
            codes: vec![0; usize::from(Code::COUNT)],
            codes_used: Vec::new(),
            buckets: vec![0; usize::from(Histogram::COUNT) * BUCKETS],
            buckets_used: Vec::new(),
        }
    }

    #[inline]
    fn add(&mut self, slot: Slot, count: u64) {
        bump(&mut self.codes, &mut self.codes_used, slot.code(), count);
        if self.has_buckets
            && let Some((id, bucket)) = measured(slot)
            && matches!(id.measured(), Measured::Token(_))
        {
            bump(&mut self.buckets, &mut self.buckets_used, id.0 * BUCKETS as u16 + bucket, count);
        }
    }

    fn clear(&mut self) {
        self.codes_used.drain(..).for_each(|at| self.codes[usize::from(at)] = 0);
        self.buckets_used.drain(..).for_each(|at| self.buckets[usize::from(at)] = 0);
    }

    fn sums(&self) -> WindowSums {
        let counts = |used: &[u16], counts: &[u64]| {
            let mut used = used.to_vec();
            used.sort_unstable();
            used.into_iter().map(|at| (at, counts[usize::from(at)])).collect::<Vec<_>>()
        };
        let (codes, buckets) = (counts(&self.codes_used, &self.codes), counts(&self.buckets_used, &self.buckets));
        let place = |at: u16| (Histogram(at / BUCKETS as u16), at % BUCKETS as u16);
        WindowSums {
            codes: codes.into_iter().map(|(code, n)| (Code(code), n)).collect(),
            buckets: buckets.into_iter().map(|(at, n)| (place(at), n)).collect(),
        }
    }
}

/// Adds to a place, and notes it if it was 0. Places that there are not are no fault of this program.
#[inline]
fn bump(counts: &mut [u64], used: &mut Vec<u16>, at: u16, count: u64) {
    if let Some(sum) = counts.get_mut(usize::from(at)) {
        if *sum == 0 {
            used.push(at);
        }
        *sum += count;
    }
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
        self.windows.get(at).map(Adder::sums).unwrap_or_default()
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
    pub fn scan(&self, windows: &[Window], visit: impl FnMut(&Counted<'_>)) {
        self.scan_some(windows, |_| Wanted::Windows, visit);
    }

    /// The same of the keys that are wanted; what is passed over costs little.
    pub fn scan_some(
        &self,
        windows: &[Window],
        wanted: impl Fn(&KeyView) -> Wanted,
        mut visit: impl FnMut(&Counted<'_>),
    ) {
        for source in self.sources() {
            scan_source(source, windows, &wanted, &mut visit);
        }
    }
}

/// What a scan adds up of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// Nothing: it is passed over.
    Nothing,
    /// Totals.
    Totals,
    /// Totals and windows.
    Windows,
}

fn scan_source(
    source: &SourceView,
    asked: &[Window],
    wanted: &impl Fn(&KeyView) -> Wanted,
    visit: &mut impl FnMut(&Counted<'_>),
) {
    let mut totals: Vec<_> = source.totals.runs().iter().map(|run| Cursor::new(run, 0)).collect();
    let mut sums: Vec<_> = source.sums_ns.runs().iter().map(|run| Cursor::new(run, 0)).collect();
    let mut panes = pane_cursors(source, asked);
    let mut counted = None;
    for key in &source.keys {
        let (id, wanted) = (key.def.id, wanted(key));
        if wanted == Wanted::Nothing {
            // Its cells are passed over on the way to the next key's.
            continue;
        }
        let counted = counted.get_or_insert_with(|| Counted {
            key,
            source,
            totals: Vec::new(),
            sums_ns: Vec::new(),
            windows: asked.iter().map(|window| Adder::new(*window)).collect(),
        });
        counted.key = key;
        counted.totals.clear();
        totals.iter_mut().for_each(|cursor| cursor.visit(id, |slot, n| counted.totals.push((slot, n))));
        add_up(&mut counted.totals);
        counted.sums_ns.clear();
        sums.iter_mut().for_each(|cursor| cursor.visit(id, |slot, ns| counted.sums_ns.push((Code(slot.code()), ns))));
        counted.windows.iter_mut().for_each(Adder::clear);
        for cursor in panes.iter_mut().filter(|_| wanted == Wanted::Windows) {
            let windows = cursor.windows;
            cursor.visit(id, |slot, n| {
                let of_window = |(at, window): (usize, &mut Adder)| {
                    if windows >> at & 1 != 0 {
                        window.add(slot, n);
                    }
                };
                counted.windows.iter_mut().enumerate().for_each(of_window);
            });
        }
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
