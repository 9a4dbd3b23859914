//! Samples as they are shown: of each key, where the newest records of failed, refused and slow requests stand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use larum_aggregate::choice::choose;
use larum_aggregate::{KeyId, Sample, SourceId};
use serde::{Deserialize, Serialize};

use crate::view::View;

/// Older ones are shown no more, seconds of event time.
const KEPT_S: u32 = 1_800;
/// Most of a key.
const OF_KEY_MAX: usize = 6;
/// Most keys of a source that have some; the newest stay.
const KEYS_MAX: usize = 4_096;

/// The samples of all sources. They stand beside the view, because nothing is computed from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    sources: BTreeMap<SourceId, OfSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfSource {
    /// Oldest first.
    shown: BTreeMap<KeyId, VecDeque<Sample>>,
    /// By the tick that they wait for.
    pending: BTreeMap<u32, Vec<Sample>>,
}

impl Samples {
    /// Takes in those of a Delta before `view` does, so that they join the ticks that the Delta's events do.
    pub fn wait(&mut self, samples: Vec<Sample>, view: &View) {
        let mut joined = BTreeSet::new();
        for mut sample in samples {
            let Some(source) = view.source(sample.source) else { continue };
            sample.tick = sample.tick.max(source.tick.map_or(0, |applied| applied + 1));
            joined.insert((sample.source, sample.tick));
            self.sources.entry(sample.source).or_default().pending.entry(sample.tick).or_default().push(sample);
        }
        for (source, tick) in joined {
            choose(self.sources.entry(source).or_default().pending.entry(tick).or_default());
        }
    }

    /// Shows those whose tick `view` has applied.
    pub fn show(&mut self, view: &View) {
        for (id, of_source) in &mut self.sources {
            if let Some(tick) = view.source(*id).and_then(|source| source.tick) {
                of_source.show(tick);
            }
        }
    }

    /// Those of a key, newest first.
    pub fn of(&self, source: SourceId, key: KeyId) -> impl Iterator<Item = &Sample> {
        let shown = self.sources.get(&source).and_then(|of_source| of_source.shown.get(&key));
        shown.into_iter().flat_map(|samples| samples.iter().rev())
    }
}

impl OfSource {
    fn show(&mut self, tick: u32) {
        let later = self.pending.split_off(&(tick + 1));
        let due = std::mem::replace(&mut self.pending, later);
        if due.is_empty() {
            return;
        }
        for sample in due.into_values().flatten() {
            let of_key = self.shown.entry(sample.key).or_default();
            of_key.push_back(sample);
            of_key.drain(..of_key.len().saturating_sub(OF_KEY_MAX));
        }
        // Looked after by the minute: it may not matter which ticks were applied together.
        let oldest = (tick / 60 * 60).saturating_sub(KEPT_S);
        self.shown.retain(|_, samples| samples.back().is_some_and(|newest| newest.tick >= oldest));
        if self.shown.len() > KEYS_MAX {
            let age =
                |(key, samples): (&KeyId, &VecDeque<Sample>)| (samples.back().map_or(0, |newest| newest.tick), *key);
            let mut newest: Vec<_> = self.shown.iter().map(age).collect();
            let (_, last, _) = newest.select_nth_unstable_by(KEYS_MAX, |a, b| b.cmp(a));
            let last = *last;
            self.shown.retain(|key, samples| age((key, samples)) > last);
        }
    }
}
