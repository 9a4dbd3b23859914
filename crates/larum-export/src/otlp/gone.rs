//! Which series of a push are not part of the next one.

use std::collections::HashSet;

use foldhash::fast::FixedState;

/// How far it is looked for where two lists go on alike.
const LOOKED_AHEAD: usize = 256;

/// Those of `before` whose hash is not among `now`; each hash is once in either. Mostly both are in the same order, with
/// little put in or left out between: that is stepped over, and what does not fit even so is looked up.
pub(super) fn gone<T: Copy>(
    before: impl Iterator<Item = T> + Clone,
    now: impl Iterator<Item = u64> + Clone,
    hash: impl Fn(&T) -> u64,
) -> Vec<T> {
    let (mut before, mut now) = (before.peekable(), now.peekable());
    let (mut missing, mut others) = (Vec::new(), HashSet::<u64, FixedState>::default());
    while let Some((old, new)) = before.peek().map(&hash).zip(now.peek().copied()) {
        if old == new {
            before.next();
            now.next();
        } else if let Some(more) = now.clone().take(LOOKED_AHEAD).position(|new| new == old) {
            others.extend(now.by_ref().take(more));
        } else if let Some(less) = before.clone().take(LOOKED_AHEAD).position(|old| hash(&old) == new) {
            missing.extend(before.by_ref().take(less));
        } else {
            break;
        }
    }
    missing.extend(before);
    if !missing.is_empty() {
        others.extend(now);
        missing.retain(|old| !others.contains(&hash(old)));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two sets say, whatever comes, goes and moves, a little of it or a lot.
    #[test]
    fn series_that_are_gone_are_those_of_one_set_and_not_the_other() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let before: Vec<u64> = (0..rng.u64(..1_200)).collect();
            let mut now = before.clone();
            let mut fresh = 10_000..;
            for _ in 0..rng.usize(..4) {
                let len = [1, 3, 40, 300][rng.usize(..4)].min(now.len());
                let from = rng.usize(..=now.len() - len);
                let taken: Vec<u64> = match rng.u8(..3) {
                    // Goes, moves, or comes anew.
                    0 => now.drain(from..from + len).take(0).collect(),
                    1 => now.drain(from..from + len).collect(),
                    _ => fresh.by_ref().take(len).collect(),
                };
                let to = rng.usize(..=now.len());
                now.splice(to..to, taken);
            }
            let held: HashSet<u64> = now.iter().copied().collect();
            let want: Vec<u64> = before.iter().copied().filter(|old| !held.contains(old)).collect();
            let mut got = gone(before.iter().copied(), now.iter().copied(), |old| *old);
            got.sort_unstable();
            assert_eq!(got, want, "seed {seed}");
        }
    }
}
