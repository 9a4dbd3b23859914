//! What one key counted: totals, latencies and windows, added up cell by cell from the runs that hold them.

use std::hint::black_box;
use std::sync::LazyLock;

use larum_aggregate::time::{HISTOGRAM_WINDOW_S, Window};
use larum_aggregate::{BucketSets, Slot};
use larum_event::{Code, Histogram, Measured};

use crate::exposure::HISTOGRAM_LINES;
use crate::recent::Sign;
use crate::scan::Windows;
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

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Counts by code; none where they are not asked for.
    pub codes: Vec<(Code, u64)>,
    /// The histograms whose quantiles are shown; none in windows longer than histograms are kept.
    pub histograms: BucketSets<Histogram>,
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
    histograms: BucketSets<Histogram>,
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

/// Whether a cell is part of what is shown of windows besides logins.
#[inline]
pub(crate) fn is_shown_of_windows(slot: Slot) -> bool {
    slot.bucket().is_some() && TOKENS.get(usize::from(slot.code())).is_some_and(Option::is_some)
}

const _: () = assert!(Histogram::COUNT <= 64);

impl KeyCounts {
    /// Nothing counted yet, in so many windows.
    pub(crate) fn new(windows: usize) -> Self {
        KeyCounts { windows: vec![WindowSums::default(); windows], ..KeyCounts::default() }
    }

    /// Reads a bit of everything, so that all of it is on its way from memory at once: it would else be waited for piece by
    /// piece, which takes several times as long.
    pub(crate) fn fetch(&self) {
        self.windows.iter().for_each(|window| window.histograms.fetch());
        self.histograms.fetch();
        black_box(self.codes.iter().fold(0, |bits, of| bits | of.count));
    }

    /// Adds to totals. Cells come sorted, or several sorted stretches of them.
    pub(crate) fn add_totals(&mut self, cells: impl Iterator<Item = (Slot, u64)>, with_latencies: bool) {
        let histograms = &**HISTOGRAMS;
        let new = |code| OfCode { code, count: 0, is_measured: false };
        // Where the cell before was counted; of its code, the histogram once it was looked for.
        let (mut code_at, mut histogram_at) = (0, None);
        for (slot, n) in cells {
            let code = Code(slot.code());
            if self.codes.get(code_at).is_none_or(|of| of.code != code) {
                code_at = place_in(&mut self.codes, code_at, |of| of.code, code, || new(code));
                histogram_at = None;
            }
            let of_code = &mut self.codes[code_at];
            of_code.count += n;
            let Some(bucket) = slot.bucket() else { continue };
            of_code.is_measured = true;
            if !with_latencies {
                continue;
            }
            let at = match histogram_at {
                Some(at) => at,
                None => {
                    let Some(id) = histograms.get(usize::from(code.0)).copied().flatten() else { continue };
                    self.histograms.place(id)
                }
            };
            histogram_at = Some(at);
            self.histograms.add(at, bucket, n);
        }
    }

    /// Adds sums of latencies, ns.
    pub(crate) fn add_sums(&mut self, cells: impl Iterator<Item = (Slot, u128)>) {
        for (slot, ns) in cells {
            let Some(id) = HISTOGRAMS.get(usize::from(slot.code())).copied().flatten() else { continue };
            let at = self.histograms.place(id);
            self.histograms.add_sum(at, ns);
        }
    }

    /// Adds to a window, or takes away.
    pub(crate) fn add_window(
        &mut self,
        at: usize,
        window: Window,
        cells: impl Iterator<Item = (Slot, u64)>,
        sign: Sign,
        of_windows: Windows,
    ) {
        let Some(WindowSums { codes, histograms }) = self.windows.get_mut(at) else { return };
        let (tokens, has_histograms) = (&**TOKENS, window.span_s <= HISTOGRAM_WINDOW_S);
        let (mut before, mut code_at, mut histogram_at) = (None, 0, None);
        for (slot, n) in cells {
            let code = Code(slot.code());
            let is_new = before.replace(code) != Some(code);
            if is_new {
                histogram_at = None;
            }
            if of_windows == Windows::Whole {
                debug_assert!(sign == Sign::Plus, "only what is read anew is counted by code");
                if is_new {
                    code_at = place_in(codes, code_at, |of| of.0, code, || (code, 0));
                }
                codes[code_at].1 += n;
            }
            let Some(bucket) = slot.bucket().filter(|_| has_histograms) else { continue };
            let at = match histogram_at {
                Some(at) => at,
                None => {
                    let Some(id) = tokens.get(usize::from(code.0)).copied().flatten() else { continue };
                    histograms.place(id)
                }
            };
            histogram_at = Some(at);
            match sign {
                Sign::Plus => histograms.add(at, bucket, n),
                Sign::Minus => histograms.take(at, bucket, n),
            }
        }
        if sign == Sign::Minus {
            histograms.drop_empty();
        }
    }

    /// About how many sample lines it has; none while nothing is known of it.
    pub(crate) fn lines(&self) -> u64 {
        let of_window = |window: &WindowSums| 4 + 3 * window.histograms.len() as u64;
        let windows: u64 = self.windows.iter().map(of_window).sum();
        self.codes.len() as u64 + self.histograms.len() as u64 * HISTOGRAM_LINES + windows
    }

    /// Totals by code.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        self.codes.iter().map(|of| (of.code, of.count))
    }

    /// Totals of latencies, by histogram.
    pub fn histograms(&self) -> &BucketSets<Histogram> {
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
            self.histograms = BucketSets::default();
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
