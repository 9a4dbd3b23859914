//! Exemplars: traces of single slow or failed requests, a bounded choice that does not depend on who chooses when.
//!
//! Of a tick, each series keeps the exemplar with the lowest keyed hash, and a source the [`PER_TICK_MAX`] lowest of
//! these. A worker's [`Choice`] never holds more. Choosing among chosen ones gives what choosing among all would, so workers, commits and merges may choose at
//! any time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::delta::{KeyId, SourceId};

/// Most exemplars of a tick of a source.
pub const PER_TICK_MAX: usize = 64;

/// One request that can be looked at. It names no account, no address and no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exemplar {
    /// The source that it comes from.
    pub source: SourceId,
    /// The tick of its record.
    pub tick: u32,
    /// The key that it is counted in.
    pub key: KeyId,
    /// The histogram of the key that it is measured in; opaque here.
    pub histogram: u16,
    /// Keyed hash of its ids: the lowest is chosen.
    pub hash: u64,
    /// W3C trace id.
    pub trace_id: [u8; 16],
    /// W3C span id, where there is one.
    pub span_id: Option<[u8; 8]>,
    /// How long it took, ns.
    pub latency_ns: u64,
    /// When it happened, or when its record was appended if that was before, Unix ns.
    pub time_ns: i64,
}

impl Exemplar {
    /// Whether both are of one series.
    fn is_of_series(&self, other: &Exemplar) -> bool {
        (self.key, self.histogram, self.source) == (other.key, other.histogram, other.source)
    }

    /// Of series of a tick, those with the lowest ranks are chosen.
    fn rank(&self) -> (u64, KeyId, u16) {
        (self.hash, self.key, self.histogram)
    }
}

/// The chosen ones of a source among those that were offered so far; it holds no others.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    ticks: BTreeMap<u32, OfTick>,
    /// How many there are, which is asked after every batch.
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct OfTick {
    chosen: Vec<Exemplar>,
    /// Place of the one with the highest rank.
    last: usize,
}

impl Choice {
    /// Whether an exemplar of this tick and hash may be chosen. Asked first, because most may not.
    #[inline]
    pub fn may_take(&self, tick: u32, hash: u64) -> bool {
        self.ticks.get(&tick).is_none_or(|of_tick| {
            let last = of_tick.chosen.get(of_tick.last);
            of_tick.chosen.len() < PER_TICK_MAX || last.is_none_or(|last| hash <= last.hash)
        })
    }

    /// Takes one, unless others are chosen.
    pub fn offer(&mut self, exemplar: Exemplar) {
        let OfTick { chosen, last } = self.ticks.entry(exemplar.tick).or_default();
        match chosen.iter().position(|other| other.is_of_series(&exemplar)) {
            Some(same) => chosen[same] = chosen[same].min(exemplar),
            None if chosen.len() < PER_TICK_MAX => {
                chosen.push(exemplar);
                self.len += 1;
            }
            None if exemplar.rank() < chosen[*last].rank() => chosen[*last] = exemplar,
            None => return,
        }
        let ranks = chosen.iter().map(Exemplar::rank).enumerate();
        *last = ranks.max_by_key(|(_, rank)| *rank).map_or(0, |(at, _)| at);
    }

    /// Offers those of another.
    pub fn extend(&mut self, other: &Choice) {
        other.ticks.values().flat_map(|of_tick| &of_tick.chosen).for_each(|exemplar| self.offer(*exemplar));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        *self = Choice::default();
    }

    /// Gives them up, sorted as [`choose`] does.
    pub fn take(&mut self) -> Vec<Exemplar> {
        let mut chosen: Vec<Exemplar> =
            std::mem::take(self).ticks.into_values().flat_map(|of_tick| of_tick.chosen).collect();
        choose(&mut chosen);
        chosen
    }
}

/// Leaves the chosen ones, sorted.
pub fn choose(exemplars: &mut Vec<Exemplar>) {
    exemplars.sort_unstable();
    exemplars.dedup_by_key(|e| (e.source, e.tick, e.key, e.histogram));
    exemplars.sort_unstable_by_key(|e| (e.source, e.tick, e.hash, e.key, e.histogram));
    let (mut tick, mut of_tick) = (None, 0);
    exemplars.retain(|e| {
        of_tick = if tick == Some((e.source, e.tick)) { of_tick + 1 } else { 0 };
        tick = Some((e.source, e.tick));
        of_tick < PER_TICK_MAX
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_bit_by_bit_or_at_once_the_same_ones_stay() {
        let mut rng = fastrand::Rng::with_seed(6);
        for _ in 0..50 {
            let all: Vec<Exemplar> = (0..rng.usize(1..1500))
                .map(|_| Exemplar {
                    source: SourceId(rng.u16(..2)),
                    tick: rng.u32(..3),
                    key: KeyId(rng.u32(..200)),
                    histogram: rng.u16(..2),
                    hash: rng.u64(..5000),
                    trace_id: [rng.u8(..3); 16],
                    span_id: rng.bool().then_some([1; 8]),
                    latency_ns: rng.u64(..9),
                    time_ns: rng.i64(..9),
                })
                .collect();
            let mut at_once = all.clone();
            choose(&mut at_once);
            let mut by_bits = Vec::new();
            for bit in all.chunks(rng.usize(1..400)) {
                let mut bit = bit.to_vec();
                choose(&mut bit);
                by_bits.extend(bit);
                if rng.bool() {
                    choose(&mut by_bits);
                }
            }
            choose(&mut by_bits);
            assert_eq!(by_bits, at_once);
            for source in [0, 1].map(SourceId) {
                let of_source = || all.iter().filter(|e| e.source == source);
                let (mut first, mut second) = (Choice::default(), Choice::default());
                for exemplar in of_source() {
                    let choice = if rng.bool() { &mut first } else { &mut second };
                    if choice.may_take(exemplar.tick, exemplar.hash) {
                        choice.offer(*exemplar);
                    }
                }
                first.extend(&second);
                let want: Vec<_> = at_once.iter().filter(|e| e.source == source).copied().collect();
                assert_eq!(first.take(), want);
            }
            for of_tick in at_once.chunk_by(|a, b| (a.source, a.tick) == (b.source, b.tick)) {
                assert!(of_tick.len() <= PER_TICK_MAX);
            }
        }
    }
}
