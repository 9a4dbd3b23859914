//! What scrapes show, kept from one to the next: the keys that are shown with all they counted. A scrape costs what happened
//! since the last one, and not what there is.

use std::collections::BTreeMap;

use larum_aggregate::run::Weight;
use larum_aggregate::time::Window;
use larum_aggregate::{KeyId, Run, Slot, SourceId};

use crate::counts::{KeyCounts, Wanted};
use crate::key::KeyView;
use crate::recent::{Place, Step};
use crate::scan::{Counted, Pass};
use crate::slots::place_from;
use crate::sums::place_of;
use crate::view::{SourceView, View};

/// The keys that are shown.
#[derive(Debug, Default)]
pub struct Shown {
    sources: BTreeMap<SourceId, ShownSource>,
    windows: Vec<Window>,
}

/// Those of a source.
#[derive(Debug)]
struct ShownSource {
    /// Up to where it was read.
    place: Place,
    /// By id.
    keys: Vec<ShownKey>,
    /// Keys from here on did not exist then.
    next_key: u32,
}

/// A key.
#[derive(Debug)]
struct ShownKey {
    id: KeyId,
    wanted: Wanted,
    counts: KeyCounts,
    /// Its counts have to be read from the beginning.
    is_new: bool,
}

impl Shown {
    /// Shows the keys that are wanted with the sums of `windows`, by source and key, as they stand now.
    pub fn visit(
        &mut self,
        view: &View,
        windows: &[Window],
        wanted: impl Fn(&KeyView) -> Wanted,
        mut visit: impl FnMut(&Counted<'_>),
    ) {
        if self.windows != windows {
            self.sources.clear();
            self.windows = windows.to_vec();
        }
        self.sources.retain(|id, _| view.source(*id).is_some());
        for source in view.sources() {
            let shown = self.sources.remove(&source.def.id);
            let shown = ShownSource::now(shown, source, windows, &wanted, view.next_ids().1);
            let mut keys = shown.keys.iter();
            for key in &source.keys {
                // Both are sorted, and what is shown is there.
                if keys.as_slice().first().is_some_and(|shown| shown.id == key.def.id)
                    && let Some(ShownKey { counts, .. }) = keys.next()
                {
                    visit(&Counted { key, source, counts });
                }
            }
            self.sources.insert(source.def.id, shown);
        }
    }
}

impl ShownSource {
    /// Catches up with a source.
    fn now(
        before: Option<ShownSource>,
        source: &SourceView,
        windows: &[Window],
        wanted: &impl Fn(&KeyView) -> Wanted,
        next_key: u32,
    ) -> ShownSource {
        let steps = before.as_ref().and_then(|before| source.recent.since(&before.place));
        let known = before.as_ref().filter(|_| steps.is_some()).map(|before| before.next_key);
        let steps: Vec<&Step> = steps.into_iter().flatten().collect();
        let before = before.filter(|_| known.is_some()).map_or_else(Vec::new, |before| before.keys);
        let mut keys = chosen(before, source, windows.len(), wanted, known.unwrap_or(0));
        // The bit of each window among all there are.
        let bits: Vec<u32> = windows.iter().map(|window| place_of(*window).map_or(0, |at| 1 << at)).collect();
        for step in steps {
            match step {
                Step::Totals(run) => {
                    let add = |key: &mut ShownKey, cells: &[(Slot, u64)]| {
                        key.counts.add_totals(cells.iter().copied(), key.wanted == Wanted::All);
                    };
                    visit_run(&mut keys, run, add);
                }
                Step::SumsNs(run) => visit_run(&mut keys, run, |key, cells| {
                    if key.wanted == Wanted::All {
                        key.counts.add_sums(cells.iter().copied());
                    }
                }),
                Step::Windows(mask, sign, run) if bits.iter().any(|bit| mask & bit != 0) => {
                    visit_run(&mut keys, run, |key, cells| {
                        for (at, bit) in bits.iter().enumerate().filter(|(_, bit)| mask & **bit != 0) {
                            debug_assert!(*bit != 0);
                            if key.wanted >= Wanted::Windows {
                                key.counts.add_window(at, windows[at], cells.iter().copied(), *sign);
                            }
                        }
                    });
                }
                Step::Windows(..) => {}
            }
        }
        if keys.iter().any(|key| key.is_new) {
            let mut pass = Pass::new(source, windows);
            for key in keys.iter_mut().filter(|key| key.is_new) {
                pass.read(key.id, key.wanted, &mut key.counts);
                key.is_new = false;
            }
        }
        ShownSource { place: source.recent.here(), keys, next_key }
    }
}

/// The keys that are wanted now: with what is known of them, or to be read. What was not there when it was looked at last,
/// when ids were below `next_key`, counted nothing then.
fn chosen(
    before: Vec<ShownKey>,
    source: &SourceView,
    windows: usize,
    wanted: &impl Fn(&KeyView) -> Wanted,
    next_key: u32,
) -> Vec<ShownKey> {
    let mut before = before.into_iter().peekable();
    let mut keys = Vec::with_capacity(before.len());
    for key in &source.keys {
        let id = key.def.id;
        let wanted = wanted(key);
        while before.next_if(|shown| shown.id < id).is_some() {}
        let shown = before.next_if(|shown| shown.id == id);
        if wanted == Wanted::Nothing {
            continue;
        }
        keys.push(match shown {
            Some(mut shown) if shown.wanted >= wanted => {
                shown.wanted = wanted;
                shown.counts.reduce(wanted);
                shown
            }
            _ => ShownKey { id, wanted, counts: KeyCounts::new(windows), is_new: next_key == 0 || id.0 < next_key },
        });
    }
    keys
}

/// Shows the cells of a run, key by key, for keys that are known.
fn visit_run<W: Weight>(keys: &mut [ShownKey], run: &Run<W>, mut visit: impl FnMut(&mut ShownKey, &[(Slot, W)])) {
    let (mut at, mut of_key) = (0, Vec::new());
    let mut cells = run.cells();
    let mut next = cells.next();
    while let Some((first, _)) = &next {
        let id = first.key();
        at = place_from(keys, at, |key| key.id < id);
        let Some(key) = keys.get_mut(at) else { return };
        of_key.clear();
        let is_known = key.id == id && !key.is_new;
        while let Some((cell, weight)) = next.take_if(|(cell, _)| cell.key() == id) {
            if is_known {
                of_key.push((cell.slot(), weight));
            }
            next = cells.next();
        }
        if is_known {
            visit(key, &of_key);
        }
    }
}
