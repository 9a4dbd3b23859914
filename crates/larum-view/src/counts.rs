//! What one key counted: totals, latencies and windows, added up cell by cell from the runs that hold them.

use std::sync::LazyLock;

use larum_aggregate::Slot;
use larum_aggregate::histogram::Bucket;
use larum_aggregate::time::{HISTOGRAM_WINDOW_S, Window};
use larum_event::{Code, Histogram, Measured};

use crate::recent::Sign;
use crate::slots::place_from;

/// How much of a key is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// Nothing: it is passed over.
    Nothing,
    /// Totals by code.
    Counters,
    /// Those and windows.
    Windows,
    /// Those and totals of latencies.
    All,
}

/// Totals of a latency histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    /// (bucket, count), by bucket.
    pub buckets: Vec<(Bucket, u64)>,
    /// Sum of latencies, ns.
    pub sum_ns: u128,
}

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Counts by code.
    pub codes: Vec<(Code, u64)>,
    /// (bucket, count) of the histograms whose quantiles are shown; none in windows longer than histograms are kept.
    pub histograms: Vec<(Histogram, Vec<(Bucket, u64)>)>,
}

/// What a key counted of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OfCode {
    code: Code,
    count: u64,
    /// Some of it was measured.
    is_measured: bool,
}

/// What one key counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    codes: Vec<OfCode>,
    histograms: Vec<(Histogram, HistogramTotals)>,
    windows: Vec<WindowSums>,
}

/// By code, the histogram that its latencies are in.
static HISTOGRAMS: LazyLock<Vec<Option<Histogram>>> =
    LazyLock::new(|| (0..Code::COUNT).map(|code| Code(code).histogram()).collect());
/// The same of tokens: only their quantiles are shown.
static TOKENS: LazyLock<Vec<Option<Histogram>>> = LazyLock::new(|| {
    let is_token = |id: &Histogram| matches!(id.measured(), Measured::Token(_));
    HISTOGRAMS.iter().map(|id| id.filter(is_token)).collect()
});

const _: () = assert!(Histogram::COUNT <= 64);

impl KeyCounts {
    /// Nothing counted yet, in so many windows.
    pub(crate) fn new(windows: usize) -> Self {
        KeyCounts { windows: vec![WindowSums::default(); windows], ..KeyCounts::default() }
    }

    /// Adds to totals. Cells come sorted, or several sorted stretches of them.
    pub(crate) fn add_totals(&mut self, cells: impl Iterator<Item = (Slot, u64)>, with_latencies: bool) {
        let histograms = &**HISTOGRAMS;
        let new = |code| OfCode { code, count: 0, is_measured: false };
        // Where the cell before was counted.
        let (mut code_at, mut histogram_at, mut bucket_at) = (0, 0, usize::MAX);
        for (slot, n) in cells {
            let code = Code(slot.code());
            if self.codes.get(code_at).is_none_or(|of| of.code != code) {
                code_at = place_in(&mut self.codes, code_at, |of| of.code, code, || new(code));
                bucket_at = usize::MAX;
            }
            let of_code = &mut self.codes[code_at];
            of_code.count += n;
            let Some(bucket) = slot.bucket() else { continue };
            of_code.is_measured = true;
            if !with_latencies {
                continue;
            }
            let Some(id) = histograms.get(usize::from(code.0)).copied().flatten() else { continue };
            if bucket_at == usize::MAX {
                histogram_at =
                    place_in(&mut self.histograms, histogram_at, |of| of.0, id, || (id, HistogramTotals::default()));
                bucket_at = 0;
            }
            bucket_at = add_bucket(&mut self.histograms[histogram_at].1.buckets, bucket_at, bucket, n);
        }
    }

    /// Adds sums of latencies, ns.
    pub(crate) fn add_sums(&mut self, cells: impl Iterator<Item = (Slot, u128)>) {
        for (slot, ns) in cells {
            let Some(id) = HISTOGRAMS.get(usize::from(slot.code())).copied().flatten() else { continue };
            let at = place_in(&mut self.histograms, 0, |of| of.0, id, || (id, HistogramTotals::default()));
            self.histograms[at].1.sum_ns += ns;
        }
    }

    /// Adds to a window, or takes away.
    pub(crate) fn add_window(
        &mut self,
        at: usize,
        window: Window,
        cells: impl Iterator<Item = (Slot, u64)>,
        sign: Sign,
    ) {
        let Some(WindowSums { codes, histograms }) = self.windows.get_mut(at) else { return };
        let (tokens, has_histograms) = (&**TOKENS, window.span_s <= HISTOGRAM_WINDOW_S);
        let (mut code_at, mut histogram_at, mut bucket_at) = (0, 0, usize::MAX);
        for (slot, n) in cells {
            let code = Code(slot.code());
            if codes.get(code_at).is_none_or(|of| of.0 != code) {
                code_at = place_in(codes, code_at, |of| of.0, code, || (code, 0));
                bucket_at = usize::MAX;
            }
            let count = &mut codes[code_at].1;
            match sign {
                Sign::Plus => *count += n,
                Sign::Minus => {
                    debug_assert!(*count >= n, "{code:?} never had {n}");
                    *count = count.saturating_sub(n);
                }
            }
            let Some(bucket) = slot.bucket().filter(|_| has_histograms) else { continue };
            let Some(id) = tokens.get(usize::from(code.0)).copied().flatten() else { continue };
            if bucket_at == usize::MAX {
                histogram_at = place_in(histograms, histogram_at, |of| of.0, id, || (id, Vec::new()));
                bucket_at = 0;
            }
            let buckets = &mut histograms[histogram_at].1;
            match sign {
                Sign::Plus => bucket_at = add_bucket(buckets, bucket_at, bucket, n),
                Sign::Minus => bucket_at = take_bucket(buckets, bucket_at, bucket, n),
            }
        }
        if sign == Sign::Minus {
            codes.retain(|of| of.1 > 0);
            histograms.retain(|of| !of.1.is_empty());
        }
    }

    /// Totals by code.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        self.codes.iter().map(|of| (of.code, of.count))
    }

    /// Totals of latencies, by histogram.
    pub fn histograms(&self) -> &[(Histogram, HistogramTotals)] {
        &self.histograms
    }

    /// The histograms that its totals are in, whether they were added up or not.
    pub fn histogram_ids(&self) -> impl Iterator<Item = Histogram> + use<> {
        // One bit each.
        let measured = self.codes.iter().filter(|of| of.is_measured);
        let ids = measured.fold(0_u64, |ids, of| ids | of.code.histogram().map_or(0, |id| 1 << id.0));
        (0..Histogram::COUNT).filter(move |id| ids >> id & 1 != 0).map(Histogram)
    }

    /// Sums of the windows that were asked for, in their order.
    pub fn windows(&self) -> &[WindowSums] {
        &self.windows
    }

    /// Forgets what is not wanted any more.
    pub(crate) fn reduce(&mut self, wanted: Wanted) {
        if wanted < Wanted::All && !self.histograms.is_empty() {
            self.histograms = Vec::new();
        }
        if wanted < Wanted::Windows {
            self.windows.iter_mut().for_each(|window| *window = WindowSums::default());
        }
    }

    /// Forgets all, and keeps the memory of what is always there.
    pub(crate) fn clear(&mut self) {
        self.codes.clear();
        self.histograms.clear();
        self.windows.iter_mut().for_each(|window| *window = WindowSums::default());
    }
}

impl HistogramTotals {
    /// Adds another histogram.
    pub(crate) fn add(&mut self, other: &HistogramTotals) {
        let mut at = 0;
        for (bucket, n) in &other.buckets {
            at = add_bucket(&mut self.buckets, at, *bucket, *n);
        }
        self.sum_ns += other.sum_ns;
    }
}

/// The place of a key in a short sorted list, looked for from `from` on if it may be there; it is put in if it is not.
#[inline]
fn place_in<T, K: Ord>(
    list: &mut Vec<T>,
    from: usize,
    key: impl Fn(&T) -> K,
    wanted: K,
    new: impl FnOnce() -> T,
) -> usize {
    let from = if list.get(from).is_some_and(|one| key(one) <= wanted) { from } else { 0 };
    let at = place_from(list, from, |one| key(one) < wanted);
    if list.get(at).is_none_or(|one| key(one) != wanted) {
        list.insert(at, new());
    }
    at
}

/// Adds to a bucket, looked for from `from` on if it may be there; gives its place.
#[inline]
fn add_bucket(buckets: &mut Vec<(Bucket, u64)>, from: usize, bucket: Bucket, n: u64) -> usize {
    let from = if buckets.get(from).is_some_and(|(at, _)| *at <= bucket) { from } else { 0 };
    let at = place_from(buckets, from, |(at, _)| *at < bucket);
    match buckets.get_mut(at).filter(|(at, _)| *at == bucket) {
        Some((_, count)) => *count += n,
        None => buckets.insert(at, (bucket, n)),
    }
    at
}

/// Takes away from a bucket, which goes when it is empty; gives its place.
#[inline]
fn take_bucket(buckets: &mut Vec<(Bucket, u64)>, from: usize, bucket: Bucket, n: u64) -> usize {
    let from = if buckets.get(from).is_some_and(|(at, _)| *at <= bucket) { from } else { 0 };
    let at = place_from(buckets, from, |(at, _)| *at < bucket);
    let Some((_, count)) = buckets.get_mut(at).filter(|(at, _)| *at == bucket) else {
        debug_assert!(false, "bucket {bucket} never had {n}");
        return at;
    };
    debug_assert!(*count >= n, "bucket {bucket} never had {n}");
    *count = count.saturating_sub(n);
    if *count == 0 {
        buckets.remove(at);
    }
    at
}
