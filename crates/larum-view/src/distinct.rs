//! Distinct accounts and sources of one key, by pane: small sets as they are, large ones as registers.

use larum_aggregate::distinct::{Distinct, FEW_MAX, Registers, Sketch};
use serde::{Deserialize, Serialize};

use crate::slots::{make_room, place_from_end};

/// Sets by pane and what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct DistinctPanes {
    /// Places of the small sets, sorted, with how many hashes each has; none has none.
    few: Vec<(Place, u32)>,
    /// Their hashes, those of a set sorted, one set behind the other.
    hashes: Vec<u32>,
    /// Places of the large sets, sorted.
    many: Vec<Place>,
    /// The large sets, one behind the other: counting reads all of them.
    registers: Vec<Registers>,
}

/// How sets are stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Hashes of the small sets, each behind its place, sorted: place 32 | hash 32.
    few: Vec<u64>,
    many: Vec<(Place, Registers)>,
}

impl From<Stored> for DistinctPanes {
    fn from(Stored { few, many }: Stored) -> Self {
        let place_of = |few: &u64| (*few >> 32) as Place;
        let sets = few.chunk_by(|a, b| place_of(a) == place_of(b)).map(|set| (place_of(&set[0]), set.len() as u32));
        let (many, registers) = many.into_iter().unzip();
        let hashes = few.iter().map(|few| *few as u32).collect();
        DistinctPanes { few: sets.collect(), hashes, many, registers }
    }
}

impl From<DistinctPanes> for Stored {
    fn from(panes: DistinctPanes) -> Self {
        let few = |(place, hash): (Place, &u32)| u64::from(place) << 32 | u64::from(*hash);
        let few = panes.small_sets().flat_map(|(place, set)| set.iter().map(move |hash| few((place, hash)))).collect();
        Stored { few, many: panes.many.into_iter().zip(panes.registers).collect() }
    }
}

/// pane 31 | what 1, so that old ones come first.
type Place = u32;

/// What a place is of, as a number.
fn what_of(place: Place) -> usize {
    (place & 1) as usize
}

fn place(pane: u32, what: Distinct) -> Place {
    pane << 1 | what as u32
}

impl DistinctPanes {
    /// Adds a set.
    pub fn add(&mut self, pane: u32, what: Distinct, sketch: Sketch<'_>) {
        let place = place(pane, what);
        match (self.many.binary_search(&place), sketch) {
            (Ok(at), Sketch::Few(hashes)) => hashes.iter().for_each(|hash| self.registers[at].add(*hash)),
            (Ok(at), Sketch::Many(more)) => self.registers[at].merge(more),
            (Err(at), Sketch::Few(hashes)) => {
                if self.add_few(place, hashes) > FEW_MAX {
                    self.insert_many(at, place);
                }
            }
            (Err(at), Sketch::Many(more)) => self.insert_many(at, place).merge(more),
        }
    }

    /// The small sets, with their places.
    fn small_sets(&self) -> impl Iterator<Item = (Place, &[u32])> {
        let mut rest = self.hashes.as_slice();
        self.few.iter().filter_map(move |(place, len)| {
            let (set, after) = rest.split_at_checked(*len as usize)?;
            rest = after;
            Some((*place, set))
        })
    }

    /// The place among the small sets, and where the hashes of that place begin and end.
    fn few_at(&self, place: Place) -> (usize, std::ops::Range<usize>) {
        // Mostly it is one of the last.
        let at = place_from_end(&self.few, |few| few.0 < place);
        let behind: usize = self.few[at..].iter().map(|few| few.1 as usize).sum();
        let len = self.few.get(at).filter(|few| few.0 == place).map_or(0, |few| few.1 as usize);
        let from = self.hashes.len() - behind;
        (at, from..from + len)
    }

    /// Adds to a small set; says how large it is then.
    fn add_few(&mut self, place: Place, more: &[u32]) -> usize {
        let (at, mut held) = self.few_at(place);
        for hash in more {
            if let Err(before) = self.hashes[held.clone()].binary_search(hash) {
                make_room(&mut self.hashes);
                self.hashes.insert(held.start + before, *hash);
                held.end += 1;
            }
        }
        match self.few.get_mut(at) {
            Some(few) if few.0 == place => few.1 = held.len() as u32,
            _ if held.is_empty() => {}
            _ => {
                make_room(&mut self.few);
                self.few.insert(at, (place, held.len() as u32));
            }
        }
        held.len()
    }

    /// Turns a small set into a large one.
    fn insert_many(&mut self, at: usize, place: Place) -> &mut Registers {
        let (few, held) = self.few_at(place);
        if !held.is_empty() {
            self.few.remove(few);
        }
        let registers = Registers::of(self.hashes.drain(held));
        make_room(&mut self.many);
        make_room(&mut self.registers);
        self.many.insert(at, place);
        self.registers.insert(at, registers);
        &mut self.registers[at]
    }

    /// Drops the panes before `pane`.
    pub fn drop_before(&mut self, pane: u32) {
        let first = place(pane, Distinct::Accounts);
        let few = self.few.partition_point(|few| few.0 < first);
        let hashes: usize = self.few.drain(..few).map(|few| few.1 as usize).sum();
        self.hashes.drain(..hashes);
        let many = self.many.partition_point(|many| *many < first);
        self.many.drain(..many);
        self.registers.drain(..many);
        if self.hashes.capacity() > self.hashes.len() * 2 {
            self.hashes.shrink_to_fit();
            self.few.shrink_to_fit();
        }
        if self.many.capacity() > self.many.len() * 2 {
            self.many.shrink_to_fit();
            self.registers.shrink_to_fit();
        }
    }

    /// Reads a bit of everything, so that it is on its way from memory before it is counted.
    pub fn fetch(&self) {
        /// Hashes in what memory gives at once.
        const LINE: usize = 16;
        let bits = self.hashes.iter().step_by(LINE).fold(0, |bits, hash| bits | hash);
        std::hint::black_box(self.registers.iter().fold(bits, |bits, registers| bits | registers.some()));
    }

    /// Counts in windows that end with pane `last`, the shortest first; the longest of them begins with pane `first`.
    pub fn counting<'p>(&'p self, first: u32, last: u32, counter: &'p mut Counter) -> Counting<'p> {
        let (first, last) = (place(first, Distinct::Accounts), place(last, Distinct::Sources));
        let few = self.few.partition_point(|few| few.0 <= last);
        let many = self.many.partition_point(|many| *many <= last);
        let behind: usize = self.few[few..].iter().map(|few| few.1 as usize).sum();
        let wanted = self.few[..few].iter().rev().take_while(|few| few.0 >= first);
        let sizes = wanted.fold([0; 2], |mut sizes, (place, len)| {
            sizes[what_of(*place)] += *len as usize;
            sizes
        });
        counter.clear(sizes);
        let hashes = &self.hashes[..self.hashes.len() - behind];
        Counting {
            first,
            few: &self.few[..few],
            hashes,
            many: &self.many[..many],
            registers: &self.registers[..many],
            counter,
        }
    }

    /// Bytes that it takes besides itself.
    pub fn size_bytes(&self) -> usize {
        self.few.capacity() * size_of::<(Place, u32)>()
            + self.hashes.capacity() * size_of::<u32>()
            + self.many.capacity() * size_of::<Place>()
            + self.registers.capacity() * size_of::<Registers>()
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }
}

/// What is not counted yet of the panes of a key.
pub struct Counting<'p> {
    /// What is counted at all: for so much there is room.
    first: Place,
    few: &'p [(Place, u32)],
    hashes: &'p [u32],
    many: &'p [Place],
    registers: &'p [Registers],
    counter: &'p mut Counter,
}

impl Counting<'_> {
    /// Goes on back to pane `first`; says how many there were since, by [`Distinct`]: exactly if every pane's set is small,
    /// else about.
    pub fn back_to(&mut self, first: u32) -> [u64; 2] {
        let first = place(first, Distinct::Accounts).max(self.first);
        while let Some((of, many)) = self.many.split_last().filter(|many| *many.0 >= first) {
            let Some((registers, before)) = self.registers.split_last() else { break };
            self.counter.add_large(what_of(*of), registers);
            (self.many, self.registers) = (many, before);
        }
        while let Some(((of, len), few)) = self.few.split_last().filter(|few| few.0.0 >= first) {
            let (hashes, set) = self.hashes.split_at(self.hashes.len().saturating_sub(*len as usize));
            self.counter.add(what_of(*of), set);
            (self.few, self.hashes) = (few, hashes);
        }
        self.counter.counts()
    }
}

/// Counts sets of panes together; its memory is used again and again.
#[derive(Debug, Default)]
pub struct Counter([Tally; 2]);

/// What was counted of accounts, or of sources.
#[derive(Debug, Default)]
struct Tally {
    /// Where no set was large.
    small: Table,
    /// Where one was.
    large: Registers,
    is_large: bool,
}

/// Hashes that were seen, in a table that is at most a quarter full.
#[derive(Debug, Default)]
struct Table {
    /// A place holds a hash, or 0 while it is free. As many as a power of two, or none.
    places: Vec<u32>,
    different: u64,
    has_zero: bool,
}

impl Counter {
    /// Forgets what it counted, and makes room for so many hashes, by what is counted.
    fn clear(&mut self, sizes: [usize; 2]) {
        for (tally, size) in self.0.iter_mut().zip(sizes) {
            tally.small.clear(size);
            tally.is_large = false;
        }
    }

    fn add(&mut self, what: usize, set: &[u32]) {
        let Tally { small, large, is_large } = &mut self.0[what];
        match is_large {
            true => set.iter().for_each(|hash| large.add(*hash)),
            false => small.add(set),
        }
    }

    fn add_large(&mut self, what: usize, registers: &Registers) {
        let Tally { small, large, is_large } = &mut self.0[what];
        if !std::mem::replace(is_large, true) {
            *large = Registers::of(small.hashes());
        }
        large.merge(registers);
    }

    fn counts(&self) -> [u64; 2] {
        self.0.each_ref().map(|tally| match tally.is_large {
            true => (tally.large.estimate().round() as u64).max(FEW_MAX as u64 + 1),
            false => tally.small.different + u64::from(tally.small.has_zero),
        })
    }
}

impl Table {
    /// Forgets what it holds, and makes room for so many.
    fn clear(&mut self, hashes: usize) {
        let places = if hashes == 0 { 0 } else { (4 * hashes).next_power_of_two() };
        self.places.clear();
        self.places.resize(places, 0);
        (self.different, self.has_zero) = (0, false);
    }

    /// What it holds.
    fn hashes(&self) -> impl Iterator<Item = u32> {
        let places = if self.different > 0 { &self.places[..] } else { &[] };
        places.iter().copied().filter(|hash| *hash != 0).chain(self.has_zero.then_some(0))
    }

    /// Adds hashes. Whether a place was free is counted and not asked: nobody can guess that, and with so much room hardly
    /// ever another hash is there.
    fn add(&mut self, hashes: &[u32]) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut different = 0;
        for hash in hashes.iter().copied() {
            // Their lowest bits are as good as any.
            let mut at = hash as usize & mask;
            let mut held = self.places[at];
            // Neither free nor this one.
            while held.min(held ^ hash) != 0 {
                at = (at + 1) & mask;
                held = self.places[at];
            }
            different += u64::from(held != hash);
            self.places[at] = hash;
            self.has_zero |= hash == 0;
        }
        self.different += different;
    }
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
            let (mut panes, mut counter) = (build(&seen, &mut rng), Counter::default());
            rng.shuffle(&mut seen);
            assert_eq!(panes, build(&seen, &mut rng), "seed {seed}");
            let mut counting = panes.counting(100, 102, &mut counter);
            for first in [102, 101, 101, 100] {
                let counts = counting.back_to(first);
                for what in [Distinct::Accounts, Distinct::Sources] {
                    let of = |pane: u32| -> BTreeSet<u32> {
                        seen.iter().filter(|s| (s.0, s.1) == (pane, what)).map(|s| s.2).collect()
                    };
                    let sets: Vec<BTreeSet<u32>> = (first..=102).map(of).collect();
                    let union = sets.iter().flatten().collect::<BTreeSet<_>>().len() as u64;
                    let count = counts[what as usize];
                    if sets.iter().all(|set| set.len() <= FEW_MAX) {
                        assert_eq!(count, union, "seed {seed}");
                    } else {
                        assert!(
                            count.abs_diff(union) as f64 <= union as f64 * 0.26,
                            "seed {seed}: {count} for {union}"
                        );
                        let all = Registers::of(sets.iter().flatten().copied());
                        assert_eq!(count, (all.estimate().round() as u64).max(FEW_MAX as u64 + 1), "seed {seed}");
                    }
                }
            }
            // There is room for what was asked for, and no more is counted.
            assert_eq!(
                panes.counting(102, 102, &mut counter).back_to(0),
                panes.counting(102, 102, &mut counter).back_to(102)
            );
            panes.drop_before(104);
            assert_eq!(panes.counting(0, 103, &mut counter).back_to(0), [0, 0]);
            panes.drop_before(105);
            assert!(panes.is_empty());
        }
    }

    /// Hashes that want the same place, and the one that a free place looks like, are counted once each, beside a large set as
    /// well.
    #[test]
    fn hashes_that_look_alike_are_told_apart() {
        let (mut panes, mut counter) = (DistinctPanes::default(), Counter::default());
        let alike: Vec<u32> = (0..40).map(|high| high << 16).collect();
        for pane in [7, 8, 9] {
            panes.add(pane, Distinct::Accounts, Sketch::Few(&alike[..10 * (pane as usize - 5)]));
        }
        let mut counting = panes.counting(7, 9, &mut counter);
        assert_eq!([9, 8, 7].map(|first| counting.back_to(first)[0]), [40, 40, 40]);
        let mut counting = panes.counting(7, 8, &mut counter);
        assert_eq!([8, 7].map(|first| counting.back_to(first)[0]), [30, 30]);
        let large: Vec<u32> = (0..200).map(|n: u32| n.wrapping_mul(0x9e37_79b9)).collect();
        panes.add(6, Distinct::Accounts, Sketch::Many(&Registers::of(large.iter().copied())));
        let mut counting = panes.counting(6, 8, &mut counter);
        assert_eq!(counting.back_to(7)[0], 30);
        let all = Registers::of(alike[..30].iter().chain(&large).copied());
        assert_eq!(counting.back_to(6)[0], all.estimate().round() as u64);
    }

    /// Snapshots hold hashes behind their places, and large sets behind theirs, however both stand in memory.
    #[test]
    fn the_stored_form_stays() {
        let mut panes = DistinctPanes::default();
        let large: Vec<u32> = (0..FEW_MAX as u32 + 1).map(|n| n * 0x0100_0193).collect();
        let registers = Registers::of(large.iter().copied());
        panes.add(7, Distinct::Accounts, Sketch::Few(&[3, u32::MAX]));
        panes.add(7, Distinct::Sources, Sketch::Many(&registers));
        panes.add(6, Distinct::Sources, Sketch::Few(&[0]));
        let of = |pane: u64, what: Distinct, hash: u64| (pane << 1 | what as u64) << 32 | hash;
        let few = vec![
            of(6, Distinct::Sources, 0),
            of(7, Distinct::Accounts, 3),
            of(7, Distinct::Accounts, u64::from(u32::MAX)),
        ];
        let many = vec![(place(7, Distinct::Sources), registers)];
        let stored = postcard::to_allocvec(&panes).unwrap();
        assert_eq!(stored, postcard::to_allocvec(&(few, many)).unwrap());
        // A length of two bytes, then a byte for each register.
        assert_eq!(stored[stored.len() - 258..][..2], [0x80, 0x02]);
        assert_eq!(postcard::from_bytes::<DistinctPanes>(&stored).unwrap(), panes);
    }
}
