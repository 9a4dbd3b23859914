//! Seeded randomness: all that is random in a stream of records comes from one [`Dice`], in a fixed order.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rand_distr::Distribution;

/// One in this many, the unit of [`Chance`].
const WHOLE: u64 = 1 << 32;

/// A probability, kept as the number of 32-bit rolls that hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(u64);

impl Chance {
    /// From a share of 0 to 1; what lies outside is cut to it.
    pub fn of(share: f64) -> Chance {
        Chance((share.clamp(0.0, 1.0) * WHOLE as f64) as u64)
    }

    /// From thousandths.
    pub const fn per_mille(thousandths: u64) -> Chance {
        Chance(thousandths * WHOLE / 1000)
    }

    /// True if `roll`, a uniform 32-bit number, hits.
    #[inline]
    pub fn holds(self, roll: u32) -> bool {
        u64::from(roll) < self.0
    }
}

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub struct Dice(SmallRng);

impl Dice {
    /// Dice whose rolls follow from `seed` alone.
    pub fn new(seed: u64) -> Self {
        Dice(SmallRng::seed_from_u64(seed))
    }

    /// A uniform 64-bit number.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform 32-bit number.
    #[inline]
    pub fn roll(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number below `end`, which is not 0. Uniform but for a bias under `end` / 2^32, which no test here could see.
    #[inline]
    pub fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.roll()) * u64::from(end)) >> 32) as u32
    }

    /// True with the given probability.
    #[inline]
    pub fn hit(&mut self, chance: Chance) -> bool {
        chance.holds(self.roll())
    }

    /// One of `values`, all alike; `values` is not empty.
    #[inline]
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u32) as usize]
    }

    /// A number from a distribution.
    #[inline]
    pub fn sample(&mut self, distribution: &impl Distribution<f64>) -> f64 {
        distribution.sample(&mut self.0)
    }
}
