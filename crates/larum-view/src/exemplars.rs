//! Exemplars as they are shown: of each histogram's classic bucket the newest trace, for an hour.

use std::collections::{BTreeMap, BTreeSet};

use larum_aggregate::choice::choose;
use larum_aggregate::histogram::classic_of;
use larum_aggregate::{Exemplar, KeyId, SourceId};
use serde::{Deserialize, Serialize};

use crate::view::View;

/// Older ones are shown no more, seconds of event time.
const KEPT_S: u32 = 3600;
/// Most that a source shows, about 1 MB; the newest stay.
const SHOWN_MAX: usize = 8192;

/// Key, histogram and classic bucket.
type Place = (KeyId, u16, u8);

/// The exemplars of all sources. They stand beside the view, because nothing is computed from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemplars {
    sources: BTreeMap<SourceId, OfSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfSource {
    /// The tick up to which they are shown.
    tick: Option<u32>,
    shown: BTreeMap<Place, Exemplar>,
    /// By the tick that they wait for.
    pending: BTreeMap<u32, Vec<Exemplar>>,
}

impl Exemplars {
    /// Takes in those of a Delta before `view` does, so that they join the ticks that the Delta's events do.
    pub fn wait(&mut self, exemplars: Vec<Exemplar>, view: &View) {
        let mut joined = BTreeSet::new();
        for mut exemplar in exemplars {
            let Some(source) = view.source(exemplar.source) else { continue };
            exemplar.tick = exemplar.tick.max(source.tick.map_or(0, |applied| applied + 1));
            joined.insert((exemplar.source, exemplar.tick));
            let of_source = self.sources.entry(exemplar.source).or_default();
            of_source.pending.entry(exemplar.tick).or_default().push(exemplar);
        }
        for (source, tick) in joined {
            let of_source = self.sources.entry(source).or_default();
            choose(of_source.pending.entry(tick).or_default());
        }
    }

    /// Shows those whose tick `view` has applied.
    pub fn show(&mut self, view: &View) {
        for (id, of_source) in &mut self.sources {
            if let Some(tick) = view.source(*id).and_then(|source| source.tick).filter(|t| of_source.tick != Some(*t)) {
                of_source.show(tick);
            }
        }
    }

    /// Those of a key, by histogram and bucket.
    pub fn of(&self, source: SourceId, key: KeyId) -> impl Iterator<Item = &Exemplar> {
        let shown = self.sources.get(&source).map(|of_source| &of_source.shown);
        shown.into_iter().flat_map(move |shown| shown.range((key, 0, 0)..=(key, u16::MAX, u8::MAX)).map(|(_, e)| e))
    }
}

impl OfSource {
    fn show(&mut self, tick: u32) {
        self.tick = Some(tick);
        let later = self.pending.split_off(&(tick + 1));
        for exemplar in std::mem::replace(&mut self.pending, later).into_values().flatten() {
            let place = (exemplar.key, exemplar.histogram, classic_of(exemplar.latency_ns) as u8);
            // Ticks come in order, and of each tick a series has one.
            self.shown.insert(place, exemplar);
        }
        // Looked after by the minute: it may not matter which ticks were applied together.
        let oldest = (tick / 60 * 60).saturating_sub(KEPT_S);
        self.shown.retain(|_, exemplar| exemplar.tick >= oldest);
        if self.shown.len() > SHOWN_MAX {
            let mut newest: Vec<(u32, u64)> = self.shown.values().map(age).collect();
            let (_, last, _) = newest.select_nth_unstable_by(SHOWN_MAX, |a, b| b.cmp(a));
            let last = *last;
            self.shown.retain(|_, exemplar| age(exemplar) > last);
        }
    }
}

/// Sorts by age; the hash settles who is older in a tick.
fn age(exemplar: &Exemplar) -> (u32, u64) {
    (exemplar.tick, exemplar.hash)
}
