//! What sliding windows of tenants, services and regions add up to, kept from tick to tick: a pane is added where it comes
//! into a window and taken away where it leaves it, so that a tick costs what happened in it and not what there is.

use std::collections::BTreeMap;
use std::ops::Range;

use larum_aggregate::BucketSets;
use larum_aggregate::histogram::{BUCKETS, Bucket};
use larum_aggregate::run::Cell;
use larum_aggregate::time::{HISTOGRAM_WINDOW_S, PANE_S, WINDOWS, Window};
use larum_aggregate::{KeyDef, KeyId, NameId, Run};
use larum_event::Op;

use crate::key::KeyView;
use crate::measure::{COUNTS, MEASURES, Measure, TENANT_MEASURES, TOKEN_OPS};
use crate::panes::Panes;
use crate::places::KeyPlaces;
use crate::recent::{Recent, Sign, Step};

/// How many windows there are.
const SPANS: usize = WINDOWS.len();
/// Of these, the first so many keep histograms.
const HISTOGRAMS: usize = {
    let mut n = 0;
    while n < SPANS && WINDOWS[n].span_s <= HISTOGRAM_WINDOW_S {
        n += 1;
    }
    n
};

/// Counts of some measures in every window.
#[derive(Clone, Debug)]
pub(crate) struct Sums<const M: usize>([[u64; SPANS]; M]);

impl<const M: usize> Default for Sums<M> {
    fn default() -> Self {
        Sums([[0; SPANS]; M])
    }
}

impl<const M: usize> Sums<M> {
    /// Adds counts to the windows of `mask`, or takes them away.
    #[inline]
    fn add(&mut self, counts: &[u64], mask: u32, sign: Sign) {
        for (sums, count) in self.0.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            for (at, sum) in sums.iter_mut().enumerate().filter(|(at, _)| mask >> at & 1 != 0) {
                debug_assert!(sign == Sign::Plus || *sum >= *count, "window {at} never held {count}");
                *sum = match sign {
                    Sign::Plus => sum.saturating_add(*count),
                    Sign::Minus => sum.saturating_sub(*count),
                };
            }
        }
    }

    pub(crate) fn get(&self, measure: usize, window: usize) -> u64 {
        self.0.get(measure).map_or(0, |sums| sums[window])
    }

    fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(|sum| *sum == 0)
    }
}

/// A key's sums; none for keys that are of no tenant, and before something was counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySums(pub(crate) Option<Box<Sums<TENANT_MEASURES>>>);

impl KeySums {
    pub(crate) fn size_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |_| size_of::<Sums<TENANT_MEASURES>>())
    }
}

// Made of the panes, which are compared.
impl PartialEq for KeySums {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for KeySums {}

/// Latencies of an op in a region: a place for each bucket, by window.
type TokenBuckets = Box<[[u64; BUCKETS]; HISTOGRAMS]>;

/// What was counted in a pane in one tick, of all tenants of a region or of one.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// The tenant; [`NameId::NONE`] for all of the region.
    pub tenant: NameId,
    /// The region.
    pub region: NameId,
    /// First second of the pane.
    pub pane_s: u32,
    /// Events by measure.
    pub counts: [u64; MEASURES],
}

/// Who is looked at by who looks at ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Keys with fewer logins and token requests in the longest window need not be shown as touched.
    pub events_min: u64,
    /// What single tenants counted is wanted too.
    pub tenants: bool,
}

/// A key with what a run holds of it.
struct Found {
    /// Its place.
    at: usize,
    /// By measure.
    counts: [u64; MEASURES],
    /// Where its cells are.
    cells: Range<usize>,
}

/// So many keys are looked for at once.
const FOUND_MAX: usize = 16;

/// The sums of a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceSums {
    /// First second of each window.
    starts_s: [u32; SPANS],
    /// The second whose pane ends all windows.
    end_s: Option<u32>,
    services: BTreeMap<(NameId, NameId), Sums<2>>,
    tokens: BTreeMap<(NameId, Op), TokenBuckets>,
    /// Where the keys stand.
    pub(crate) places: KeyPlaces,
    /// Who is looked at.
    pub(crate) looks: Looks,
    /// Counted in the tick that is applied.
    pub(crate) added: Vec<Added>,
    /// Places of keys whose sums changed in it; some come twice.
    pub(crate) touched: Vec<u32>,
}

// Made of the panes, which are compared.
impl PartialEq for SourceSums {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SourceSums {}

const EVERY_WINDOW: u32 = (1 << SPANS) - 1;

impl SourceSums {
    /// The second whose pane ends all windows.
    pub(crate) fn end_s(&self) -> Option<u32> {
        self.end_s
    }

    /// The windows that hold a pane, a bit for each.
    fn windows_of(&self, pane_s: u32) -> u32 {
        let Some(end_s) = self.end_s.filter(|end_s| pane_s <= *end_s) else { return 0 };
        debug_assert!(pane_s <= end_s);
        self.starts_s.iter().enumerate().fold(0, |mask, (at, start_s)| mask | u32::from(pane_s >= *start_s) << at)
    }

    /// Begins a tick whose windows end with the pane of second `end_s`: what they let go of is taken away.
    pub(crate) fn advance(&mut self, end_s: u32, panes: &Panes, keys: &mut [KeyView], recent: &mut Recent) {
        self.added.clear();
        self.touched.clear();
        let starts_s = WINDOWS.map(|window| window.start_s(end_s));
        let Some(before_s) = self.end_s.replace(end_s) else {
            self.starts_s = starts_s;
            recent.lose();
            return self.rebuild(panes, keys);
        };
        if end_s < before_s {
            // The source's delay was raised.
            self.starts_s = starts_s;
            keys.iter_mut().for_each(|key| key.sums.0 = None);
            self.services.clear();
            self.tokens.clear();
            recent.lose();
            return self.rebuild(panes, keys);
        }
        if end_s.is_multiple_of(600) {
            self.services.retain(|_, sums| !sums.is_empty());
            self.tokens.retain(|_, windows| windows.iter().flatten().any(|n| *n > 0));
        }
        let starts_before_s = std::mem::replace(&mut self.starts_s, starts_s);
        let pane = |second: u32| second - second % PANE_S;
        let entered = pane(before_s) + PANE_S..pane(end_s) + PANE_S;
        for at in 0..SPANS {
            // Up to where the window reached: what came later was never in it.
            let left = starts_before_s[at]..starts_s[at].min(entered.start);
            if left.is_empty() {
                continue;
            }
            for (_, run) in panes.between(left) {
                self.count(run, 1 << at, Sign::Minus, keys);
                recent.push(Step::Windows(1 << at, Sign::Minus, run.clone()));
            }
        }
        // Where windows end before the tick, panes are there before the windows come to them.
        if entered.is_empty() {
            return;
        }
        for (pane_s, run) in panes.between(entered) {
            let of_windows = self.windows_of(pane_s);
            self.count(run, of_windows, Sign::Plus, keys);
            recent.push(Step::Windows(of_windows, Sign::Plus, run.clone()));
        }
    }

    /// Adds up all windows anew.
    fn rebuild(&mut self, panes: &Panes, keys: &mut [KeyView]) {
        let Some(end_s) = self.end_s else { return };
        for (at, window) in WINDOWS.iter().enumerate() {
            for run in panes.window(*window, end_s) {
                self.count(run, 1 << at, Sign::Plus, keys);
            }
        }
    }

    /// Adds up all windows of a state that was read back, as of its tick.
    pub(crate) fn recover(&mut self, end_s: u32, panes: &Panes, keys: &mut [KeyView]) {
        (self.end_s, self.starts_s) = (Some(end_s), WINDOWS.map(|window| window.start_s(end_s)));
        self.rebuild(panes, keys);
    }

    /// Counts what the tick holds of a pane; gives the windows that hold it, a bit for each.
    pub(crate) fn add(&mut self, pane: u32, run: &Run<u64>, panes: &Panes, keys: &mut [KeyView]) -> u32 {
        let pane_s = pane.saturating_mul(PANE_S);
        let of_windows = self.windows_of(panes.kept_s(pane));
        let first = self.added.len();
        self.visit(run, keys, |sums, key_at, key, counts, cells| {
            let KeyDef { tenant, region, .. } = key.def;
            if tenant != NameId::NONE {
                sums.note(first, NameId::NONE, region, pane_s, counts);
                if sums.looks.tenants {
                    sums.note(first, tenant, region, pane_s, counts);
                }
            }
            sums.count_key(key_at, key, counts, cells, of_windows, Sign::Plus);
        });
        of_windows
    }

    /// Adds to what a pane counted; those of this run begin at `first`. There are few regions, and a tenant has one
    /// key there.
    fn note(&mut self, first: usize, tenant: NameId, region: NameId, pane_s: u32, counts: &[u64; MEASURES]) {
        let of_run = &mut self.added[first..];
        let known = match tenant {
            NameId::NONE => of_run.iter_mut().find(|added| added.region == region && added.tenant == tenant),
            _ => None,
        };
        match known {
            Some(added) => added.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            None => self.added.push(Added { tenant, region, pane_s, counts: *counts }),
        }
    }

    fn count(&mut self, run: &Run<u64>, mask: u32, sign: Sign, keys: &mut [KeyView]) {
        self.visit(run, keys, |sums, key_at, key, counts, cells| {
            sums.count_key(key_at, key, counts, cells, mask, sign);
        });
    }

    /// Shows a run key by key, with what it counts by measure.
    fn visit(
        &mut self,
        run: &Run<u64>,
        keys: &mut [KeyView],
        mut show: impl FnMut(&mut Self, u32, &mut KeyView, &[u64; MEASURES], &[(Cell, u64)]),
    ) {
        let counts_of = &**COUNTS;
        self.places.fit(keys);
        let places = std::mem::take(&mut self.places);
        let mut cells = run.cells().peekable();
        let (mut found, mut of_keys): (Vec<Found>, Vec<(Cell, u64)>) = (Vec::with_capacity(FOUND_MAX), Vec::new());
        while let Some((first, _)) = cells.peek() {
            let id = first.key();
            let (mut counts, from) = ([0_u64; MEASURES], of_keys.len());
            while let Some((cell, n)) = cells.next_if(|(cell, _)| cell.key() == id) {
                let slot = cell.slot();
                let mut bits = counts_of.get(usize::from(slot.code())).map_or(0, |counts| counts.of(slot.bucket()));
                while bits != 0 {
                    counts[bits.trailing_zeros() as usize] += n;
                    bits &= bits - 1;
                }
                of_keys.push((cell, n));
            }
            found.extend(places.of(id, keys).map(|at| Found { at, counts, cells: from..of_keys.len() }));
            if found.len() < FOUND_MAX && cells.peek().is_some() {
                continue;
            }
            // Keys lie all over memory: all of them are asked for before the first is waited for.
            let asked = found.iter().filter_map(|found| keys.get(found.at)?.sums.0.as_ref());
            std::hint::black_box(
                asked.fold(0, |sum, sums| sum ^ sums.get(0, 0) ^ sums.get(Measure::Token as usize, 0)),
            );
            for Found { at, counts, cells } in found.drain(..) {
                if let Some(key) = keys.get_mut(at) {
                    show(self, at as u32, key, &counts, &of_keys[cells]);
                }
            }
            of_keys.clear();
        }
        self.places = places;
    }

    /// A key was put in, at this place.
    pub(crate) fn admitted(&mut self, at: usize, id: KeyId) {
        self.places.admitted(at, id);
    }

    /// Keys were taken out, or put in between others.
    pub(crate) fn moved(&mut self) {
        self.places.moved();
    }

    fn count_key(
        &mut self,
        key_at: u32,
        key: &mut KeyView,
        counts: &[u64; MEASURES],
        cells: &[(Cell, u64)],
        mask: u32,
        sign: Sign,
    ) {
        let KeyDef { tenant, region, component, .. } = key.def;
        if mask == 0 {
            return;
        }
        if component != NameId::NONE {
            let assigned = &counts[Measure::Assign as usize..=Measure::AssignFailure as usize];
            if assigned[0] > 0 {
                self.services.entry((region, component)).or_default().add(assigned, mask, sign);
            }
            return;
        }
        if tenant == NameId::NONE {
            return;
        }
        let sums = key.sums.0.get_or_insert_default();
        let events = |sums: &Sums<TENANT_MEASURES>| {
            sums.get(Measure::Login as usize, SPANS - 1) + sums.get(Measure::Token as usize, SPANS - 1)
        };
        let before = events(sums);
        sums.add(&counts[..TENANT_MEASURES], mask, sign);
        if before.max(events(sums)) >= self.looks.events_min {
            self.touched.push(key_at);
        }
        if sign == Sign::Minus && sums.is_empty() {
            key.sums.0 = None;
        }
        self.count_tokens(region, cells, mask, sign);
    }

    fn count_tokens(&mut self, region: NameId, cells: &[(Cell, u64)], mask: u32, sign: Sign) {
        let ops = &**TOKEN_OPS;
        let mut held: Option<(Op, &mut TokenBuckets)> = None;
        for (cell, n) in cells {
            let slot = cell.slot();
            let Some(op) = ops.get(usize::from(slot.code())).copied().flatten() else { continue };
            let Some(bucket) = slot.bucket().map(usize::from).filter(|bucket| *bucket < BUCKETS) else { continue };
            if held.as_ref().is_none_or(|(of, _)| *of != op) {
                let new = || Box::new([[0; BUCKETS]; HISTOGRAMS]);
                held = Some((op, self.tokens.entry((region, op)).or_insert_with(new)));
            }
            let Some((_, buckets)) = &mut held else { continue };
            for (_, of_window) in buckets.iter_mut().enumerate().filter(|(at, _)| mask >> at & 1 != 0) {
                of_window[bucket] = match sign {
                    Sign::Plus => of_window[bucket].saturating_add(*n),
                    Sign::Minus => of_window[bucket].saturating_sub(*n),
                };
            }
        }
    }

    /// Events of a measure of a service in a region; none but of assignments.
    pub(crate) fn service(&self, region: NameId, service: NameId, measure: Measure, window: usize) -> u64 {
        let Some(at) = (measure as usize).checked_sub(Measure::Assign as usize) else { return 0 };
        self.services.get(&(region, service)).map_or(0, |sums| sums.get(at, window))
    }

    /// Services of a region that assigned permissions.
    pub(crate) fn services_of(&self, region: NameId) -> impl Iterator<Item = NameId> {
        self.services.range((region, NameId(0))..=(region, NameId(u32::MAX))).map(|((_, service), _)| *service)
    }

    /// Latencies of an op in a region: (bucket, count), by bucket; none in windows that keep no histograms.
    pub(crate) fn token_buckets(&self, region: NameId, op: Op, window: usize) -> BucketSets<()> {
        let counts = self.tokens.get(&(region, op)).and_then(|windows| windows.get(window));
        let pair = |(bucket, n): (usize, &u64)| (*n > 0).then_some((bucket as Bucket, *n));
        counts.into_iter().flatten().enumerate().filter_map(pair).collect()
    }

    /// Bytes that they take, without those of keys.
    pub(crate) fn size_bytes(&self) -> usize {
        let of_tick = self.added.capacity() * size_of::<Added>() + self.touched.capacity() * size_of::<u32>();
        let of_tick = of_tick + self.places.size_bytes();
        let tokens = self.tokens.len() * size_of::<[[u64; BUCKETS]; HISTOGRAMS]>();
        of_tick + tokens + self.services.len() * size_of::<((NameId, NameId), Sums<2>)>()
    }

    /// Ends a tick: places of keys hold no longer.
    pub(crate) fn end(&mut self) {
        self.added.clear();
        self.touched.clear();
    }
}

/// The place of a window among those that are kept.
pub fn place_of(window: Window) -> Option<usize> {
    WINDOWS.iter().position(|kept| *kept == window)
}

/// The places of windows, a bit for each.
pub(crate) fn places_of<'w>(windows: impl Iterator<Item = &'w Window>) -> u32 {
    windows.filter_map(|window| place_of(*window)).fold(0, |places, at| places | 1 << at)
}

const _: () = assert!(EVERY_WINDOW.count_ones() as usize == SPANS && SPANS <= 32);
