//! Counts since a key began, in few bytes: most of them packed, what came lately beside.

use serde::{Deserialize, Serialize};

use crate::packed::{read, write};
use crate::slots::{Count, Slot, add_run};

/// Counts by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Pairs of varints, by slot: the distance from the slot before, and the count. Two to four bytes where an open list
    /// takes 16.
    packed: Vec<u8>,
    /// What came since it was packed, by slot.
    fresh: Vec<Count<Slot>>,
}

impl Totals {
    /// Counts a run, sorted by slot.
    pub fn add(&mut self, run: impl Iterator<Item = Count<Slot>>) {
        add_run(&mut self.fresh, run);
    }

    /// Packs what came lately.
    pub fn pack(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let (mut packed, mut before) = (Vec::with_capacity(self.packed.len() + 4 * self.fresh.len()), 0);
        for (slot, count) in self.iter() {
            write(&mut packed, u64::from(slot.0 - before));
            write(&mut packed, count);
            before = slot.0;
        }
        packed.shrink_to_fit();
        *self = Totals { packed, fresh: Vec::new() };
    }

    /// All counts by slot, each slot once.
    pub fn iter(&self) -> impl Iterator<Item = Count<Slot>> {
        let mut packed = unpack(&self.packed).peekable();
        let mut fresh = self.fresh.iter().copied().peekable();
        std::iter::from_fn(move || {
            let next = match (packed.peek(), fresh.peek()) {
                (Some(old), Some(new)) => old.0.min(new.0),
                (old, new) => old.or(new)?.0,
            };
            let old = packed.next_if(|count| count.0 == next).map_or(0, |count| count.1);
            let new = fresh.next_if(|count| count.0 == next).map_or(0, |count| count.1);
            Some((next, old + new))
        })
    }
}

fn unpack(mut pairs: &[u8]) -> impl Iterator<Item = Count<Slot>> + use<'_> {
    let mut slot = 0;
    std::iter::from_fn(move || {
        let (step, count) = (read(&mut pairs)?, read(&mut pairs)?);
        slot += step as u32;
        Some((Slot(slot), count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn packing_at_any_time_changes_no_count() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut totals, mut want) = (Totals::default(), BTreeMap::new());
            for _ in 0..40 {
                let run: BTreeMap<u32, u64> =
                    (0..rng.usize(..12)).map(|_| (rng.u32(..1 << 18), rng.u64(..) >> rng.u32(8..64))).collect();
                for (slot, count) in &run {
                    *want.entry(*slot).or_insert(0) += count;
                }
                totals.add(run.into_iter().map(|(slot, count)| (Slot(slot), count)));
                if rng.u8(..3) == 0 {
                    totals.pack();
                }
                assert!(totals.iter().map(|(slot, n)| (slot.0, n)).eq(want.clone()), "seed {seed}");
            }
        }
    }
}
