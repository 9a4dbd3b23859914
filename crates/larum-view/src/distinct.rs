//! Distinct accounts and sources of one key, by pane: small sets as they are, large ones as registers.

use larum_aggregate::distinct::{Distinct, FEW_MAX, Registers, Sketch};
use serde::{Deserialize, Serialize};

use crate::slots::{make_room, place_from_end};

/// Sets by pane and what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistinctPanes {
    /// Hashes of the small sets, each behind its place, sorted: place 32 | hash 32.
    few: Vec<u64>,
    /// The large sets, by place.
    many: Vec<(Place, Registers)>,
}

/// pane 31 | what 1, so that old ones come first.
type Place = u32;

fn place(pane: u32, what: Distinct) -> Place {
    pane << 1 | what as u32
}

impl DistinctPanes {
    /// Adds a set.
    pub fn add(&mut self, pane: u32, what: Distinct, sketch: Sketch<'_>) {
        let place = place(pane, what);
        match (self.many.binary_search_by_key(&place, |many| many.0), sketch) {
            (Ok(at), Sketch::Few(hashes)) => hashes.iter().for_each(|hash| self.many[at].1.add(*hash)),
            (Ok(at), Sketch::Many(more)) => self.many[at].1.merge(more),
            (Err(at), Sketch::Few(hashes)) => {
                for hash in hashes {
                    self.add_few(place, *hash);
                }
                if self.few.len() > FEW_MAX && self.few_at(place).len() > FEW_MAX {
                    let registers = self.take_few(place);
                    self.many.insert(at, (place, registers));
                }
            }
            (Err(at), Sketch::Many(more)) => {
                let mut registers = self.take_few(place);
                registers.merge(more);
                self.many.insert(at, (place, registers));
            }
        }
    }

    fn add_few(&mut self, place: Place, hash: u32) {
        let few = u64::from(place) << 32 | u64::from(hash);
        let at = place_from_end(&self.few, |other| *other < few);
        if self.few.get(at) != Some(&few) {
            make_room(&mut self.few);
            self.few.insert(at, few);
        }
    }

    /// Where a small set is.
    fn few_at(&self, place: Place) -> std::ops::Range<usize> {
        let from = self.few.partition_point(|few| *few >> 32 < u64::from(place));
        from..self.few.partition_point(|few| *few >> 32 <= u64::from(place))
    }

    /// Turns a small set into registers.
    fn take_few(&mut self, place: Place) -> Registers {
        let at = self.few_at(place);
        Registers::of(self.few.drain(at).map(|few| few as u32))
    }

    /// Drops the panes before `pane`.
    pub fn drop_before(&mut self, pane: u32) {
        let first = place(pane, Distinct::Accounts);
        self.few.drain(..self.few.partition_point(|few| *few >> 32 < u64::from(first)));
        self.many.drain(..self.many.partition_point(|many| many.0 < first));
        if self.few.capacity() > self.few.len() * 2 {
            self.few.shrink_to_fit();
        }
        if self.many.is_empty() {
            self.many.shrink_to_fit();
        }
    }

    /// How many there were in panes `first` to `last`: exactly if every pane's set is small, else about.
    pub fn count(&self, what: Distinct, first: u32, last: u32) -> u64 {
        let is_wanted = |of: Place| of & 1 == what as u32 && (first..=last).contains(&(of >> 1));
        let before = |pane: u32| self.few.partition_point(|few| *few >> 33 < u64::from(pane));
        let few = &self.few[before(first)..before(last.saturating_add(1))];
        let few = few.iter().filter(|few| **few >> 32 & 1 == what as u64).map(|few| *few as u32);
        let mut many = self.many.iter().filter(|many| is_wanted(many.0)).map(|many| &many.1);
        let Some(large) = many.next() else {
            return count_different(few);
        };
        let mut all = large.clone();
        many.for_each(|more| all.merge(more));
        few.for_each(|hash| all.add(hash));
        (all.estimate().round() as u64).max(FEW_MAX as u64 + 1)
    }

    /// Bytes that it takes besides itself.
    pub fn size_bytes(&self) -> usize {
        let many = self.many.capacity() * size_of::<(Place, Registers)>() + self.many.len() * Registers::SIZE_BYTES;
        self.few.capacity() * size_of::<u64>() + many
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }
}

/// How many different numbers there are.
fn count_different(numbers: impl Iterator<Item = u32> + Clone) -> u64 {
    // A table that is at most half full; a place holds a number, or 0 while it is free.
    let places = (2 * numbers.clone().count()).next_power_of_two();
    let (mut table, mut different, mut has_zero) = (vec![0_u32; places], 0, 0);
    for number in numbers {
        if number == 0 {
            has_zero = 1;
            continue;
        }
        // Hashes: their lowest bits are as good as any.
        let mut at = number as usize & (places - 1);
        while table[at] != number {
            if table[at] == 0 {
                table[at] = number;
                different += 1;
                break;
            }
            at = (at + 1) & (places - 1);
        }
    }
    different + has_zero
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The same sightings, spread over sets in any way and order, give the same state; small ones count exactly.
    #[test]
    fn states_depend_on_what_was_seen_alone() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let variety = [20, 200, 4_000][rng.usize(..3)];
            let mut seen: Vec<(u32, Distinct, u32)> = (0..rng.usize(1..600))
                .map(|_| {
                    let what = if rng.bool() { Distinct::Accounts } else { Distinct::Sources };
                    (rng.u32(100..104), what, fastrand::Rng::with_seed(rng.u64(..variety)).u32(..))
                })
                .collect();
            let build = |seen: &[(u32, Distinct, u32)], rng: &mut fastrand::Rng| {
                let mut panes = DistinctPanes::default();
                let mut rest = seen;
                while !rest.is_empty() {
                    let (part, after) = rest.split_at(rng.usize(1..=rest.len().min(150)));
                    let mut sets: BTreeMap<(u32, Distinct), BTreeSet<u32>> = BTreeMap::new();
                    part.iter().for_each(|(pane, what, hash)| {
                        sets.entry((*pane, *what)).or_default().insert(*hash);
                    });
                    for ((pane, what), hashes) in sets {
                        let hashes: Vec<u32> = hashes.into_iter().collect();
                        let many = Registers::of(hashes.iter().copied());
                        let few = hashes.len() <= FEW_MAX;
                        panes.add(pane, what, if few { Sketch::Few(&hashes) } else { Sketch::Many(&many) });
                    }
                    rest = after;
                }
                panes
            };
            let mut panes = build(&seen, &mut rng);
            rng.shuffle(&mut seen);
            assert_eq!(panes, build(&seen, &mut rng), "seed {seed}");
            for what in [Distinct::Accounts, Distinct::Sources] {
                let of = |pane: u32| -> BTreeSet<u32> {
                    seen.iter().filter(|s| (s.0, s.1) == (pane, what)).map(|s| s.2).collect()
                };
                let sets: Vec<BTreeSet<u32>> = (101..=103).map(of).collect();
                let union = sets.iter().flatten().collect::<BTreeSet<_>>().len() as u64;
                let count = panes.count(what, 101, 103);
                if sets.iter().all(|set| set.len() <= FEW_MAX) {
                    assert_eq!(count, union, "seed {seed}");
                } else {
                    assert!(count.abs_diff(union) as f64 <= union as f64 * 0.26, "seed {seed}: {count} for {union}");
                }
            }
            panes.drop_before(104);
            assert_eq!(panes.count(Distinct::Accounts, 0, 103), 0);
            panes.drop_before(105);
            assert!(panes.is_empty());
        }
    }
}
