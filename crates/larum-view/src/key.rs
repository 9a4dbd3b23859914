//! What is known of one key: totals since it began, latency histograms, panes.

use larum_aggregate::histogram::{Bucket, NOT_MEASURED};
use larum_aggregate::time::Window;
use larum_aggregate::{KeyDef, Row};
use larum_event::{Code, Histogram};
use serde::{Deserialize, Serialize};

use crate::tiers::Tiers;

/// Totals of a latency histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramTotals {
    /// (bucket, count), by bucket.
    pub buckets: Vec<(Bucket, u64)>,
    /// Sum of latencies, ns.
    pub sum_ns: u128,
}

/// One key's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Who and where.
    pub def: KeyDef,
    /// The tick at which its series began, Unix seconds.
    pub started_s: u32,
    /// The last tick that counted something.
    pub touched_s: u32,
    /// (code, count), by code.
    codes: Vec<(u16, u64)>,
    /// (histogram, totals), by histogram.
    histograms: Vec<(u16, HistogramTotals)>,
    /// Its panes.
    pub(crate) tiers: Tiers,
}

/// Slots of panes below this are codes, the others histogram buckets.
const BUCKET_SLOTS: u16 = 1024;
/// Slots per histogram.
const SLOTS_PER_HISTOGRAM: u16 = 384;
const _: () = assert!(Code::COUNT <= BUCKET_SLOTS);
const _: () = assert!(larum_aggregate::histogram::BUCKETS <= SLOTS_PER_HISTOGRAM as usize);

/// Adds to a sorted list of (key, count).
fn add(list: &mut Vec<(u16, u64)>, key: u16, count: u64) {
    match list.binary_search_by_key(&key, |e| e.0) {
        Ok(at) => list[at].1 += count,
        Err(at) => list.insert(at, (key, count)),
    }
}

impl KeyView {
    pub(crate) fn new(def: KeyDef, started_s: u32) -> Self {
        KeyView {
            def,
            started_s,
            touched_s: started_s,
            codes: Vec::new(),
            histograms: Vec::new(),
            tiers: Tiers::default(),
        }
    }

    /// Counts a row in totals.
    pub(crate) fn add_total(&mut self, row: &Row) {
        add(&mut self.codes, row.code, row.count);
        if row.bucket == NOT_MEASURED {
            return;
        }
        let id = Code(row.code).histogram().0;
        let at = match self.histograms.binary_search_by_key(&id, |h| h.0) {
            Ok(at) => at,
            Err(at) => {
                self.histograms.insert(at, (id, HistogramTotals::default()));
                at
            }
        };
        let totals = &mut self.histograms[at].1;
        add(&mut totals.buckets, row.bucket, row.count);
        totals.sum_ns += row.sum_ns;
    }

    /// Counts a row in a pane.
    pub(crate) fn add_pane(&mut self, pane: u32, row: &Row, oldest: &[u32; 3]) {
        self.tiers.add(pane, row.code, false, row.count, oldest);
        if row.bucket != NOT_MEASURED {
            let slot = BUCKET_SLOTS + Code(row.code).histogram().0 * SLOTS_PER_HISTOGRAM + row.bucket;
            self.tiers.add(pane, slot, true, row.count, oldest);
        }
    }

    /// Totals by code.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        self.codes.iter().map(|(code, count)| (Code(*code), *count))
    }

    /// Totals of latencies.
    pub fn histograms(&self) -> impl Iterator<Item = (Histogram, &HistogramTotals)> {
        self.histograms.iter().map(|(id, totals)| (Histogram(*id), totals))
    }

    /// Sums of a window that ends with the pane of second `end_s`: by code, and by (histogram, bucket), both sorted.
    pub fn window(&self, window: Window, end_s: u32) -> WindowSums {
        let mut sums = WindowSums::default();
        self.tiers.window(window, end_s, |slot, count| match slot.checked_sub(BUCKET_SLOTS) {
            None => sums.codes.push((Code(slot), count)),
            Some(slot) => {
                let histogram = Histogram(slot / SLOTS_PER_HISTOGRAM);
                sums.buckets.push(((histogram, slot % SLOTS_PER_HISTOGRAM), count));
            }
        });
        add_up(&mut sums.codes);
        add_up(&mut sums.buckets);
        sums
    }
}

/// Sorts and adds up equal keys.
fn add_up<K: Ord + Copy>(list: &mut Vec<(K, u64)>) {
    list.sort_unstable_by_key(|e| e.0);
    list.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0 };
        same
    });
}

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Counts by code.
    pub codes: Vec<(Code, u64)>,
    /// Counts by histogram and bucket.
    pub buckets: Vec<((Histogram, Bucket), u64)>,
}
