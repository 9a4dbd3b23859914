//! What scrapes show, kept from one to the next: the keys that are shown with all they counted. A scrape costs what happened
//! since the last one, and not what there is.

use std::collections::BTreeMap;

use larum_aggregate::time::Window;
use larum_aggregate::{KeyId, SourceId};

use crate::counts::{KeyCounts, Wanted};
use crate::key::KeyView;
use crate::recent::Place;
use crate::scan::{Counted, Pass};
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
            let before = self.sources.remove(&source.def.id);
            let shown = ShownSource::visited(before, source, windows, &wanted, view.next_ids().1, &mut visit);
            self.sources.insert(source.def.id, shown);
        }
    }
}

impl ShownSource {
    /// Catches up with a source, and shows each key right after: what it counted is read from memory once.
    fn visited(
        before: Option<ShownSource>,
        source: &SourceView,
        windows: &[Window],
        wanted: &impl Fn(&KeyView) -> Wanted,
        next_key: u32,
        visit: &mut impl FnMut(&Counted<'_>),
    ) -> ShownSource {
        let steps = before.as_ref().and_then(|before| source.recent.since(&before.place));
        let known = before.as_ref().filter(|_| steps.is_some()).map(|before| before.next_key);
        let mut since = Pass::over_steps(steps.into_iter().flatten(), windows);
        let before = before.filter(|_| known.is_some()).map_or_else(Vec::new, |before| before.keys);
        let mut keys = chosen(before, source, windows.len(), wanted, known.unwrap_or(0));
        let (mut all, mut views) = (None, source.keys.iter());
        for shown in &mut keys {
            let ShownKey { id, wanted, counts, is_new } = shown;
            if std::mem::take(is_new) {
                all.get_or_insert_with(|| Pass::over_all(source, windows)).read(*id, *wanted, counts);
            } else {
                since.read(*id, *wanted, counts);
            }
            // Both are sorted, and what is shown is there.
            if let Some(key) = views.find(|key| key.def.id == *id) {
                visit(&Counted { key, source, counts });
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
