//! A bounded choice among many that does not depend on who chooses when.
//!
//! Of a tick, each series keeps the one with the lowest hash, and a source the [`PER_TICK_MAX`] lowest of these. A worker's
//! [`Choice`] never holds more. Choosing among chosen ones gives what choosing among all would, so workers, commits and
//! merges may choose at any time.

use std::collections::BTreeMap;

use crate::delta::SourceId;

/// Most chosen ones of a tick of a source.
pub const PER_TICK_MAX: usize = 64;

/// Something that is chosen from; equal ones are the same.
pub trait Chosen: Copy + Ord {
    /// Of these each keeps one a tick.
    type Series: Copy + Ord;

    /// The source that it comes from.
    fn source(&self) -> SourceId;
    /// The tick of its record.
    fn tick(&self) -> u32;
    /// Its series within the source.
    fn series(&self) -> Self::Series;
    /// The lowest is chosen.
    fn hash(&self) -> u64;
}

/// Of series of a tick, those with the lowest ranks are chosen.
fn rank<T: Chosen>(one: &T) -> (u64, T::Series) {
    (one.hash(), one.series())
}

/// The chosen ones of a source among those that were offered so far; it holds no others.
#[derive(Clone, Debug)]
pub struct Choice<T> {
    ticks: BTreeMap<u32, OfTick<T>>,
    /// How many there are, which is asked after every batch.
    len: usize,
}

#[derive(Clone, Debug)]
struct OfTick<T> {
    chosen: Vec<T>,
    /// Place of the one with the highest rank.
    last: usize,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Choice { ticks: BTreeMap::new(), len: 0 }
    }
}

impl<T: Chosen> Choice<T> {
    /// Whether one of this tick and hash may be chosen. Asked first, because most may not.
    #[inline]
    pub fn may_take(&self, tick: u32, hash: u64) -> bool {
        self.ticks.get(&tick).is_none_or(|of_tick| {
            let last = of_tick.chosen.get(of_tick.last);
            of_tick.chosen.len() < PER_TICK_MAX || last.is_none_or(|last| hash <= last.hash())
        })
    }

    /// Takes one, unless others are chosen.
    pub fn offer(&mut self, one: T) {
        let none = || OfTick { chosen: Vec::new(), last: 0 };
        let OfTick { chosen, last } = self.ticks.entry(one.tick()).or_insert_with(none);
        match chosen.iter().position(|other| other.series() == one.series()) {
            Some(same) if rank(&chosen[same]) <= rank(&one) => return,
            Some(same) => chosen[same] = one,
            None if chosen.len() < PER_TICK_MAX => {
                chosen.push(one);
                self.len += 1;
            }
            None if rank(&one) < rank(&chosen[*last]) => chosen[*last] = one,
            None => return,
        }
        let ranks = chosen.iter().map(rank).enumerate();
        *last = ranks.max_by_key(|(_, rank)| *rank).map_or(0, |(at, _)| at);
    }

    /// Offers those of another.
    pub fn extend(&mut self, other: &Choice<T>) {
        other.ticks.values().flat_map(|of_tick| &of_tick.chosen).for_each(|one| self.offer(*one));
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
    pub fn take(&mut self) -> Vec<T> {
        let mut chosen: Vec<T> = std::mem::take(self).ticks.into_values().flat_map(|of_tick| of_tick.chosen).collect();
        choose(&mut chosen);
        chosen
    }
}

/// Leaves the chosen ones, sorted.
pub fn choose<T: Chosen>(all: &mut Vec<T>) {
    all.sort_unstable_by(|a, b| {
        (a.source(), a.tick(), a.series())
            .cmp(&(b.source(), b.tick(), b.series()))
            .then(a.hash().cmp(&b.hash()))
            .then(a.cmp(b))
    });
    all.dedup_by_key(|one| (one.source(), one.tick(), one.series()));
    all.sort_unstable_by_key(|one| (one.source(), one.tick(), rank(one)));
    let (mut tick, mut of_tick) = (None, 0);
    all.retain(|one| {
        of_tick = if tick == Some((one.source(), one.tick())) { of_tick + 1 } else { 0 };
        tick = Some((one.source(), one.tick()));
        of_tick < PER_TICK_MAX
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::KeyId;
    use crate::exemplar::Exemplar;

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
