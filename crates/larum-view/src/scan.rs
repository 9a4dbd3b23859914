//! One pass over all that is counted, key by key: the only way to read totals and windows.

use std::sync::LazyLock;

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

const _: () = assert!(Histogram::COUNT as usize * BUCKETS <= u16::MAX as usize && Histogram::COUNT <= 64);

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

/// Adds up a window's cells, in any order.
struct Adder {
    has_buckets: bool,
    codes: Places,
    buckets: Places,
}

/// Counts with a place for each, and a bit for each that is not 0: they come out sorted without being sorted.
struct Places {
    counts: Vec<u64>,
    used: Vec<u64>,
}

impl Places {
    fn new(len: usize) -> Self {
        Places { counts: vec![0; len], used: vec![0; len.div_ceil(64)] }
    }

    /// Adds to a place. Places that there are not are no fault of this program.
    #[inline]
    fn add(&mut self, at: usize, count: u64) {
        if let Some(sum) = self.counts.get_mut(at) {
            *sum += count;
            self.used[at / 64] |= 1 << (at % 64);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.used.iter().enumerate().flat_map(move |(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let at = word * 64 + (left != 0).then(|| left.trailing_zeros())? as usize;
                left &= left - 1;
                Some((at as u16, self.counts[at]))
            })
        })
    }

    fn clear(&mut self) {
        for (word, bits) in self.used.iter_mut().enumerate().filter(|(_, bits)| **bits != 0) {
            while *bits != 0 {
                self.counts[word * 64 + bits.trailing_zeros() as usize] = 0;
                *bits &= *bits - 1;
            }
        }
    }
}

/// By code, the place of its first bucket if it has a token's histogram: only their quantiles are shown.
static TOKEN_BUCKETS: LazyLock<Vec<Option<usize>>> = LazyLock::new(|| {
    let first = |code: u16| {
        let id = Code(code).histogram().filter(|id| matches!(id.measured(), Measured::Token(_)))?;
        Some(usize::from(id.0) * BUCKETS)
    };
    (0..Code::COUNT).map(first).collect()
});

impl Adder {
    fn new(window: Window) -> Self {
        Adder {
            has_buckets: window.span_s <= HISTOGRAM_WINDOW_S,
            codes: Places::new(usize::from(Code::COUNT)),
            buckets: Places::new(usize::from(Histogram::COUNT) * BUCKETS),
        }
    }

    #[inline]
    fn add(&mut self, slot: Slot, count: u64, token_buckets: &[Option<usize>]) {
        let code = usize::from(slot.code());
        self.codes.add(code, count);
        if self.has_buckets
            && let Some(first) = token_buckets.get(code).copied().flatten()
            && let Some(bucket) = slot.bucket()
        {
            self.buckets.add(first + usize::from(bucket), count);
        }
    }

    fn clear(&mut self) {
        self.codes.clear();
        self.buckets.clear();
    }

    fn sums(&self) -> WindowSums {
        let place = |at: u16| (Histogram(at / BUCKETS as u16), at % BUCKETS as u16);
        WindowSums {
            codes: self.codes.iter().map(|(code, n)| (Code(code), n)).collect(),
            buckets: self.buckets.iter().map(|(at, n)| (place(at), n)).collect(),
        }
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
        // One bit each; codes come sorted, so the same one often comes again.
        let (mut ids, mut before) = (0_u64, u16::MAX);
        for (slot, _) in self.totals.iter().filter(|(slot, _)| slot.bucket().is_some()) {
            if slot.code() != before {
                before = slot.code();
                ids |= Code(before).histogram().map_or(0, |id| 1 << id.0);
            }
        }
        (0..Histogram::COUNT).filter(|id| ids >> id & 1 != 0).map(Histogram).collect()
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
    let token_buckets = &**TOKEN_BUCKETS;
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
                        window.add(slot, n, token_buckets);
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
