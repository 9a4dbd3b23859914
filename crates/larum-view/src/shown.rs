//! What scrapes show, kept from one to the next: the keys that are shown with all they counted. A scrape costs what happened
//! since the last one, and not what there is.

use std::collections::BTreeMap;

use larum_aggregate::time::{HISTOGRAM_WINDOW_S, Window};
use larum_aggregate::{KeyId, SourceId};

use crate::counts::{KeyCounts, Wanted};
use crate::key::KeyView;
use crate::recent::{Place, Step};
use crate::scan::{Counted, Pass, Windows};
use crate::slots::place_from;
use crate::sums::places_of;
use crate::view::{SourceView, View};

/// Fewest sample lines of a part.
const PART_LINES_MIN: u64 = 5_000;
/// What it takes to show a key besides its sample lines, as so many lines.
const KEY_LINES: u64 = 10;

/// The keys that are shown.
#[derive(Debug, Default)]
pub struct Shown {
    sources: BTreeMap<SourceId, ShownSource>,
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
    /// The windows that are added up.
    windows: Vec<Window>,
}

/// A key.
#[derive(Debug)]
struct ShownKey {
    id: KeyId,
    wanted: Wanted,
    counts: KeyCounts,
    /// Its counts have to be read from the beginning.
    is_new: bool,
    /// About how many sample lines it had when it was shown; none before.
    lines: u64,
}

/// A source whose keys are about to be shown.
struct Due<'v> {
    source: Source<'v>,
    keys: Vec<ShownKey>,
    /// How far its steps reach.
    place: Place,
}

/// A source, and what happened since its keys were shown.
struct Source<'v> {
    view: &'v SourceView,
    steps: Vec<&'v Step>,
    windows: &'v [Window],
}

/// Keys about to be shown, source by source.
pub(crate) struct Showing<'v, 's> {
    due: Vec<Due<'v>>,
    next_key: u32,
    shown: &'s mut Shown,
}

/// Some of the keys about to be shown, next to each other.
pub(crate) struct Part<'v, 'd> {
    pieces: Vec<(&'d Source<'v>, &'d mut [ShownKey])>,
}

/// Shows parts of the keys, each behind the one before: what is read of a source goes on where it ended.
#[derive(Default)]
pub(crate) struct Walker<'v>(BTreeMap<SourceId, Walk<'v>>);

/// Where a walker is in a source.
struct Walk<'v> {
    since: Pass<'v>,
    all: Option<Pass<'v>>,
    /// Where the key before stands in the source.
    at: usize,
}

impl Shown {
    /// Shows the keys that are wanted with the sums of `windows`, by source and key, as they stand now.
    pub fn visit(
        &mut self,
        view: &View,
        windows: &[Window],
        wanted: impl FnMut(&KeyView) -> Wanted,
        mut visit: impl FnMut(&Counted<'_>),
    ) {
        let mut showing = self.begin(view, |_| windows, wanted);
        let mut walker = Walker::default();
        showing.parts(1).into_iter().for_each(|part| walker.visit(part, &mut visit));
        showing.end();
    }

    /// The same in parts, all of which have to be visited before it ends; if it does not end, everything is read anew.
    /// Which windows are shown may differ from source to source; one whose windows change is read anew.
    pub(crate) fn begin<'v>(
        &mut self,
        view: &'v View,
        windows: impl Fn(&SourceView) -> &'v [Window],
        mut wanted: impl FnMut(&KeyView) -> Wanted,
    ) -> Showing<'v, '_> {
        let mut before = std::mem::take(&mut self.sources);
        let due =
            view.sources().map(|source| Due::of(before.remove(&source.def.id), source, windows(source), &mut wanted));
        Showing { due: due.collect(), next_key: view.next_ids().1, shown: self }
    }
}

impl<'v> Due<'v> {
    fn of(
        before: Option<ShownSource>,
        source: &'v SourceView,
        windows: &'v [Window],
        wanted: &mut impl FnMut(&KeyView) -> Wanted,
    ) -> Self {
        let before = before.filter(|before| before.windows == windows);
        let steps = before.as_ref().and_then(|before| Some(source.recent.since(&before.place)?.collect()));
        let before = before.filter(|_| steps.is_some());
        let (keys, next_key) = before.map_or_else(Default::default, |before| (before.keys, before.next_key));
        let keys = chosen(keys, source, windows.len(), wanted, next_key);
        // Of longer ones nothing is added up here.
        let with_histograms = windows.iter().filter(|window| window.span_s <= HISTOGRAM_WINDOW_S);
        let (steps, place) = (steps.unwrap_or_default(), source.recent.here(places_of(with_histograms)));
        Due { source: Source { view: source, steps, windows }, keys, place }
    }
}

impl<'v> Showing<'v, '_> {
    /// All of them, in up to so many parts that take about as long to show.
    pub(crate) fn parts(&mut self, parts_max: usize) -> Vec<Part<'v, '_>> {
        let weight = |shown: &ShownKey| KEY_LINES + shown.lines;
        let total: u64 = self.due.iter().flat_map(|due| &due.keys).map(weight).sum();
        let count = (total / PART_LINES_MIN).clamp(1, parts_max.max(1) as u64);
        let mut parts: Vec<Part<'v, '_>> = Vec::with_capacity(count as usize);
        let mut lines = 0;
        for Due { source, keys, .. } in &mut self.due {
            let mut rest = keys.as_mut_slice();
            while !rest.is_empty() {
                // Those that end in this part, of so many lines.
                let at = (lines * count / total.max(1)).min(count - 1);
                let ends = |shown: &&ShownKey| {
                    let is_in_it = lines * count < total * (at + 1);
                    lines += if is_in_it { weight(shown) } else { 0 };
                    is_in_it
                };
                let fit = rest.iter().take_while(ends).count();
                let (piece, after) = rest.split_at_mut(fit);
                parts.resize_with(parts.len().max(at as usize + 1), || Part { pieces: Vec::new() });
                parts[at as usize].pieces.push((source, piece));
                rest = after;
            }
        }
        // One at least, though it shows nothing: whoever shows it names what there is.
        parts.resize_with(parts.len().max(1), || Part { pieces: Vec::new() });
        parts
    }

    /// All parts were visited.
    pub(crate) fn end(self) {
        let next_key = self.next_key;
        let shown = |Due { source, keys, place }| {
            (source.view.def.id, ShownSource { place, keys, next_key, windows: source.windows.to_vec() })
        };
        self.shown.sources = self.due.into_iter().map(shown).collect();
    }
}

impl Part<'_, '_> {
    /// Which keys it shows.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.pieces.iter().flat_map(|piece| piece.1.iter().map(|shown| shown.id))
    }
}

impl<'v> Walker<'v> {
    /// Catches up with each key of a part, and shows it right after: what it counted is read from memory once.
    pub(crate) fn visit(&mut self, part: Part<'v, '_>, mut visit: impl FnMut(&Counted<'_>)) {
        for (Source { view, steps, windows }, keys) in part.pieces {
            let walk = self.0.entry(view.def.id).or_insert_with(|| Walk {
                since: Pass::over_steps(steps.iter().copied(), windows),
                all: None,
                at: 0,
            });
            for ShownKey { id, wanted, counts, is_new, lines } in keys {
                // Both are sorted, and what is shown is there.
                walk.at = place_from(&view.keys, walk.at, |key| key.def.id < *id);
                let key = view.keys.get(walk.at).filter(|key| key.def.id == *id);
                counts.fetch();
                key.into_iter().for_each(|key| key.distinct.fetch());
                if std::mem::take(is_new) {
                    let all = walk.all.get_or_insert_with(|| Pass::over_all(view, windows, Windows::Histograms));
                    all.read(*id, *wanted, counts);
                } else {
                    walk.since.read(*id, *wanted, counts);
                }
                *lines = counts.lines();
                if let Some(key) = key {
                    visit(&Counted { key, source: view, counts });
                }
            }
        }
    }
}

/// The keys that are wanted now: with what is known of them, or to be read. What was not there when it was looked at last,
/// when ids were below `next_key`, counted nothing then.
fn chosen(
    before: Vec<ShownKey>,
    source: &SourceView,
    windows: usize,
    wanted: &mut impl FnMut(&KeyView) -> Wanted,
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
            _ => ShownKey {
                id,
                wanted,
                counts: KeyCounts::new(windows),
                is_new: next_key == 0 || id.0 < next_key,
                lines: 0,
            },
        });
    }
    keys
}
