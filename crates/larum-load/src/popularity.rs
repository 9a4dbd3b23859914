//! How traffic spreads over tenants: Zipf's law, drawn in constant time.
//!
//! The weights are exact and worked out once (Walker's alias method, in Vose's form); the rejection method of
//! `rand_distr::Zipf` takes several powers for each draw, a quarter of the time that a whole record takes to write.

use crate::dice::Dice;

/// A share of the draws, split between a rank of its own and one that has too much.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of 2^32 rolls, those below are the slot's own rank.
    own: u64,
    /// The rank that takes the others.
    other: u32,
}

/// Draws ranks, 0 the most popular.
#[derive(Clone, Debug)]
pub struct Popularity(Vec<Slot>);

impl Popularity {
    /// Ranks below `ranks` (1 or more), the k-th in proportion to (k + 1)^-`exponent`.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        const WHOLE: f64 = (1u64 << 32) as f64;
        let weights: Vec<f64> = (1..=ranks).map(|rank| (rank as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / ranks as f64;
        let mut left: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let mut slots = vec![Slot { own: WHOLE as u64, other: 0 }; ranks];
        let (mut short, mut ample): (Vec<usize>, Vec<usize>) = (0..ranks).partition(|rank| left[*rank] < 1.0);
        // A slot that falls short is filled up by a rank with more than a slot. What rounding leaves over is whole.
        while let (Some(poor), Some(rich)) = (short.pop(), ample.pop()) {
            slots[poor] = Slot { own: (left[poor] * WHOLE) as u64, other: rich as u32 };
            left[rich] -= 1.0 - left[poor];
            if left[rich] < 1.0 { short.push(rich) } else { ample.push(rich) }
        }
        Popularity(slots)
    }

    /// A rank.
    #[inline]
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let rank = dice.below(self.0.len() as u32) as usize;
        let Slot { own, other } = self.0[rank];
        if u64::from(dice.roll()) < own { rank } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_zipf() {
        for (ranks, exponent) in [(1, 1.1), (5, 0.0), (200, 1.1), (1000, 3.0)] {
            let popularity = Popularity::new(ranks, exponent);
            // What each rank gets, slot by slot, exactly.
            let mut shares = vec![0.0; ranks];
            for (rank, slot) in popularity.0.iter().enumerate() {
                let own = slot.own as f64 / (1u64 << 32) as f64;
                shares[rank] += own;
                shares[slot.other as usize] += 1.0 - own;
            }
            for (rank, share) in shares.iter().enumerate() {
                let want = shares[0] / (rank as f64 + 1.0).powf(exponent);
                assert!((share - want).abs() < 1e-6 * shares[0], "{ranks} {exponent}: {rank} {share} {want}");
            }
        }
        let (popularity, mut dice) = (Popularity::new(200, 1.1), Dice::new(3));
        let first = (0..100_000).filter(|_| popularity.draw(&mut dice) == 0).count();
        // 1 / (sum of k^-1.1 for k up to 200) is 0.2128.
        assert!((20_900..21_700).contains(&first), "{first}");
    }
}
