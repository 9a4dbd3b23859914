//! What is known of one key: totals since it began, latency histograms, panes.

use larum_aggregate::histogram::{Bucket, NOT_MEASURED};
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, PANE_S, Window};
use larum_aggregate::{Distinct, KeyDef, Row};
use larum_event::{Code, Histogram, Measured};
use serde::{Deserialize, Serialize};

use crate::distinct::DistinctPanes;
use crate::slots::{Slot, add_up};
use crate::tiers::Tiers;
use crate::totals::Totals;

/// One key's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Who and where.
    pub def: KeyDef,
    /// The tick at which its series began, Unix seconds.
    pub started_s: u32,
    /// The last tick that counted something.
    pub touched_s: u32,
    /// Counts since then, by slot.
    totals: Totals,
    /// (histogram, sum of its latencies in ns), by histogram.
    sums_ns: Vec<(u16, u128)>,
    /// Its panes.
    pub(crate) tiers: Tiers,
    /// Who logged in, and from where.
    pub(crate) distinct: DistinctPanes,
}

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

/// The slots of rows that are sorted by code and bucket, with their counts.
fn run(rows: &[Row]) -> impl Iterator<Item = (Slot, u64)> {
    rows.iter().map(|row| (Slot::of(row.code, row.bucket), row.count))
}

impl KeyView {
    pub(crate) fn new(def: KeyDef, started_s: u32) -> Self {
        KeyView {
            def,
            started_s,
            touched_s: started_s,
            totals: Totals::default(),
            sums_ns: Vec::new(),
            tiers: Tiers::default(),
            distinct: DistinctPanes::default(),
        }
    }

    /// Counts rows of this key, sorted by code and bucket, in totals.
    pub(crate) fn add_totals(&mut self, rows: &[Row]) {
        self.totals.add(run(rows));
        for row in rows.iter().filter(|row| row.bucket != NOT_MEASURED) {
            let Some(Histogram(id)) = Code(row.code).histogram() else { continue };
            match self.sums_ns.iter().position(|sum| sum.0 >= id) {
                Some(at) if self.sums_ns[at].0 == id => self.sums_ns[at].1 += row.sum_ns,
                at => self.sums_ns.insert(at.unwrap_or(self.sums_ns.len()), (id, row.sum_ns)),
            }
        }
    }

    /// Counts rows of this key, sorted by code and bucket, in a pane.
    pub(crate) fn add_pane(&mut self, pane: u32, rows: &[Row], oldest: &[u32; 3]) {
        self.tiers.add(pane, run(rows), oldest);
    }

    /// Totals by code.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        let mut counts = self.totals.iter().peekable();
        std::iter::from_fn(move || {
            let (slot, mut sum) = counts.next()?;
            while let Some((_, count)) = counts.next_if(|next| next.0.code() == slot.code()) {
                sum += count;
            }
            Some((slot.code(), sum))
        })
    }

    /// Totals of the latencies that are `wanted`, by histogram.
    pub fn histograms(&self, wanted: impl Fn(Measured) -> bool) -> Vec<(Histogram, HistogramTotals)> {
        let bucket = |slot: Slot| slot.bucket().filter(|(id, _)| wanted(id.measured()));
        let mut buckets: Vec<_> = self.totals.iter().filter_map(|(slot, count)| Some((bucket(slot)?, count))).collect();
        add_up(&mut buckets);
        let same_histogram = buckets.chunk_by(|a, b| a.0.0 == b.0.0);
        let totals = |same: &[((Histogram, Bucket), u64)]| {
            let id = same[0].0.0;
            let sum_ns = self.sums_ns.iter().find(|sum| sum.0 == id.0).map_or(0, |sum| sum.1);
            (id, HistogramTotals { buckets: same.iter().map(|((_, bucket), n)| (*bucket, *n)).collect(), sum_ns })
        };
        same_histogram.map(totals).collect()
    }

    /// Distinct accounts or sources of a window that ends with the pane of second `end_s`; 0 for windows longer than
    /// [`DISTINCT_WINDOW`].
    pub fn distinct(&self, what: Distinct, window: Window, end_s: u32) -> u64 {
        if window > DISTINCT_WINDOW {
            return 0;
        }
        self.distinct.count(what, window.start_s(end_s) / PANE_S, end_s / PANE_S)
    }

    /// Looks after panes of the past; `oldest` as in [`crate::tiers::oldest_s`].
    pub(crate) fn compact(&mut self, oldest: &[u32; 3]) {
        self.totals.pack();
        self.tiers.compact(oldest);
        self.distinct.drop_before(oldest[0] / PANE_S);
    }

    /// Sums of a window that ends with the pane of second `end_s`: by code, and by (histogram, bucket), both sorted.
    /// Windows longer than histograms are kept have no buckets.
    pub fn window(&self, window: Window, end_s: u32) -> WindowSums {
        let mut slots = Vec::new();
        self.tiers.window(window, end_s, |slot, count| slots.push((slot, count)));
        add_up(&mut slots);
        let mut sums = WindowSums::default();
        for (slot, count) in slots {
            match sums.codes.last_mut() {
                Some(last) if last.0 == slot.code() => last.1 += count,
                _ => sums.codes.push((slot.code(), count)),
            }
            if window.span_s <= HISTOGRAM_WINDOW_S {
                sums.buckets.extend(slot.bucket().map(|bucket| (bucket, count)));
            }
        }
        add_up(&mut sums.buckets);
        sums
    }
}

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Counts by code.
    pub codes: Vec<(Code, u64)>,
    /// Counts by histogram and bucket.
    pub buckets: Vec<((Histogram, Bucket), u64)>,
}
