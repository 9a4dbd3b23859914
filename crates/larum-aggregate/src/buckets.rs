//! Counts of latencies by bucket, octave next to octave: adding to one is an index, and no search.

use std::sync::LazyLock;

use crate::histogram::{BUCKETS, Bucket, CLASSIC_POWERS, ONE_SECOND_OFFSET, ZERO_BUCKET, upper_seconds};

/// Buckets of an octave, which ends at a power of two seconds.
const PER_OCTAVE: usize = crate::histogram::BUCKETS_PER_OCTAVE as usize;
/// The octave that ends at one second.
const ONE_SECOND: usize = (ONE_SECOND_OFFSET as usize - 2) / PER_OCTAVE;

/// Counts of one histogram's buckets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buckets<'a> {
    total: u64,
    zero: u64,
    /// Number of the first of `octaves`.
    first: usize,
    octaves: &'a [[u64; PER_OCTAVE]],
}

/// Counts of several histograms, all of them next to each other in memory: who reads one mostly reads the next.
#[derive(Clone, Debug)]
pub struct BucketSets<K> {
    /// By key.
    sets: Vec<Set<K>>,
    octaves: Vec<[u64; PER_OCTAVE]>,
}

/// A histogram of them.
#[derive(Clone, Debug)]
struct Set<K> {
    key: K,
    total: u64,
    zero: u64,
    sum_ns: u128,
    /// Number of its first octave, where that one is, and how many there are.
    first: usize,
    at: usize,
    len: usize,
}

impl<K> Default for BucketSets<K> {
    fn default() -> Self {
        BucketSets { sets: Vec::new(), octaves: Vec::new() }
    }
}

/// Where a bucket other than that of zero is: its octave, and its place there.
#[inline]
fn place_of(bucket: Bucket) -> (usize, usize) {
    let at = usize::from(bucket).min(BUCKETS - 1) - 1;
    (at / PER_OCTAVE, at % PER_OCTAVE)
}

/// The bucket at the first place of an octave.
fn first_of(octave: usize) -> Bucket {
    (octave * PER_OCTAVE + 1) as Bucket
}

impl<K: Copy + Ord> BucketSets<K> {
    /// The place of a key's histogram, which is there from now on.
    pub fn place(&mut self, key: K) -> usize {
        let at = self.sets.partition_point(|set| set.key < key);
        if self.sets.get(at).is_none_or(|set| set.key != key) {
            let behind = self.sets.get(at).map_or(self.octaves.len(), |next| next.at);
            self.sets.insert(at, Set { key, total: 0, zero: 0, sum_ns: 0, first: 0, at: behind, len: 0 });
        }
        at
    }

    /// Adds to a bucket of the histogram at `place`.
    #[inline]
    pub fn add(&mut self, place: usize, bucket: Bucket, n: u64) {
        let Some(set) = self.sets.get_mut(place) else { return };
        set.total += n;
        if bucket == ZERO_BUCKET {
            set.zero += n;
            return;
        }
        let (octave, within) = place_of(bucket);
        let mut at = octave.wrapping_sub(set.first);
        if at >= set.len {
            at = self.widen(place, octave);
        }
        let at = self.sets[place].at + at;
        self.octaves[at][within] += n;
    }

    /// Makes room for an octave beyond those there are; says which of them it is.
    #[cold]
    fn widen(&mut self, place: usize, octave: usize) -> usize {
        let set = &mut self.sets[place];
        if set.len == 0 {
            set.first = octave;
        }
        let (before, end) = (set.first.saturating_sub(octave), (set.first + set.len).max(octave + 1));
        let behind = end - set.first - set.len;
        let new = |count| std::iter::repeat_n([0; PER_OCTAVE], count);
        self.octaves.splice(set.at + set.len..set.at + set.len, new(behind));
        self.octaves.splice(set.at..set.at, new(before));
        set.first -= before;
        set.len += before + behind;
        let first = set.first;
        self.sets[place + 1..].iter_mut().for_each(|set| set.at += before + behind);
        octave - first
    }

    /// Takes away from a bucket of the histogram at `place`, which has as much.
    #[inline]
    pub fn take(&mut self, place: usize, bucket: Bucket, n: u64) {
        let Some(set) = self.sets.get_mut(place) else { return };
        let count = match bucket {
            ZERO_BUCKET => Some(&mut set.zero),
            _ => {
                let (octave, within) = place_of(bucket);
                let at = octave.wrapping_sub(set.first);
                let at = (at < set.len).then_some(set.at + at);
                at.and_then(|at| self.octaves.get_mut(at)).map(|counts| &mut counts[within])
            }
        };
        let has = count.as_deref().copied().unwrap_or(0);
        debug_assert!(has >= n, "bucket {bucket} has {has} and not {n}");
        if let Some(count) = count {
            *count -= n.min(has);
            set.total -= n.min(has);
        }
    }

    /// Adds to the sum of what the histogram at `place` counts, ns.
    pub fn add_sum(&mut self, place: usize, ns: u128) {
        if let Some(set) = self.sets.get_mut(place) {
            set.sum_ns += ns;
        }
    }

    /// Adds another histogram to that at `place`.
    pub fn merge(&mut self, place: usize, other: Buckets<'_>) {
        let Buckets { total, zero, first, octaves } = other;
        for octave in [first, first + octaves.len().max(1) - 1].into_iter().filter(|_| !octaves.is_empty()) {
            if self.sets.get(place).is_some_and(|set| octave.wrapping_sub(set.first) >= set.len) {
                self.widen(place, octave);
            }
        }
        let Some(set) = self.sets.get_mut(place) else { return };
        set.total += total;
        set.zero += zero;
        let held = self.octaves[set.at..set.at + set.len].iter_mut().skip(first.saturating_sub(set.first));
        for (counts, more) in held.zip(octaves) {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }

    /// Lets histograms go that count nothing any more.
    pub fn drop_empty(&mut self) {
        let mut gone = 0;
        self.sets.retain_mut(|set| {
            set.at -= gone;
            if set.total > 0 {
                return true;
            }
            self.octaves.drain(set.at..set.at + set.len);
            gone += set.len;
            false
        });
    }

    /// Lets all of them go, and keeps the memory.
    pub fn clear(&mut self) {
        self.sets.clear();
        self.octaves.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Reads a bit of everything, so that it is on its way from memory before it is asked for one by one.
    pub fn fetch(&self) {
        let bits = self.sets.iter().fold(0, |bits, set| bits | set.total);
        std::hint::black_box(self.octaves.iter().fold(bits, |bits, counts| bits | counts[0]));
    }

    /// The histogram at `place`; one without counts if there is none.
    pub fn get(&self, place: usize) -> Buckets<'_> {
        self.sets.get(place).map_or_else(Buckets::default, |set| self.read(set))
    }

    fn read(&self, set: &Set<K>) -> Buckets<'_> {
        let octaves = self.octaves.get(set.at..set.at + set.len).unwrap_or_default();
        Buckets { total: set.total, zero: set.zero, first: set.first, octaves }
    }

    /// All of them by key, with the sums of what they count, ns.
    pub fn iter(&self) -> impl Iterator<Item = (K, Buckets<'_>, u128)> {
        self.sets.iter().map(|set| (set.key, self.read(set), set.sum_ns))
    }
}

impl<'a> Buckets<'a> {
    /// All it counts.
    pub fn total(self) -> u64 {
        self.total
    }

    /// Latencies of zero.
    pub fn zero(self) -> u64 {
        self.zero
    }

    /// True if it counts nothing.
    pub fn is_empty(self) -> bool {
        self.total == 0
    }

    /// The buckets that count something, with how much, from the lowest on.
    pub fn iter(self) -> impl Iterator<Item = (Bucket, u64)> + use<'a> {
        let zero = (self.zero > 0).then_some((ZERO_BUCKET, self.zero));
        let counts = (first_of(self.first)..).zip(self.octaves.as_flattened());
        zero.into_iter().chain(counts.filter(|of| *of.1 > 0).map(|(bucket, count)| (bucket, *count)))
    }

    /// Counts of neighbouring buckets beside that of zero, with the first of them: all that count something are among them,
    /// the first and the last.
    pub fn neighbours(self) -> (Bucket, &'a [u64]) {
        let counts = self.octaves.as_flattened();
        let used = |count: &u64| *count > 0;
        let (from, to) =
            (counts.iter().position(used).unwrap_or(0), counts.iter().rposition(used).map_or(0, |at| at + 1));
        (first_of(self.first) + from as Bucket, &counts[from.min(to)..to])
    }

    /// How many lie at or below each of [`CLASSIC_BOUNDS`](crate::histogram::CLASSIC_BOUNDS).
    pub fn classic(self) -> impl Iterator<Item = u64> + use<'a> {
        let (low, high) = (*CLASSIC_POWERS.start(), *CLASSIC_POWERS.end());
        let octave = |power: i32| (ONE_SECOND as i32 + power) as usize;
        let lowest = octave(low).saturating_sub(self.first).min(self.octaves.len());
        let mut below = self.zero + self.octaves[..lowest].iter().map(sum).sum::<u64>();
        (octave(low)..=octave(high)).map(move |octave| {
            below += self.octaves.get(octave.wrapping_sub(self.first)).map_or(0, sum);
            below
        })
    }

    /// The values at rising quantiles, in seconds, as Prometheus computes them for native histograms: exponential
    /// interpolation within the bucket. `None` without samples.
    pub fn quantiles_seconds<const N: usize>(self, quantiles: [f64; N]) -> Option<[f64; N]> {
        if self.is_empty() {
            return None;
        }
        // Those below the octave at `at`.
        let (mut below, mut at) = (self.zero, 0);
        Some(quantiles.map(|q| {
            // Counts are whole, and exact as floats up to 2^53.
            let rank = q.clamp(0.0, 1.0) * self.total as f64;
            let least = ceil(rank);
            if self.zero > 0 && self.zero >= least {
                return 0.0;
            }
            let of = |at: usize| self.octaves.get(at).map_or(0, sum);
            let mut of_octave = of(at);
            while at + 1 < self.octaves.len() && (of_octave == 0 || below + of_octave < least) {
                below += of_octave;
                at += 1;
                of_octave = of(at);
            }
            self.within(at, below, rank)
        }))
    }

    /// The value at a rank within an octave, above which `below` lie.
    fn within(self, at: usize, mut below: u64, rank: f64) -> f64 {
        let Some(counts) = self.octaves.get(at) else { return 0.0 };
        // The first bucket up to which there are as many, found without a branch; the last with any, if there are fewer.
        let all = below + sum(counts);
        let least = ceil(rank).clamp(below + 1, all.max(below + 1));
        let (mut place, mut up_to) = (0, below);
        for count in counts {
            up_to += count;
            let is_before = up_to < least;
            place += usize::from(is_before);
            below = if is_before { up_to } else { below };
        }
        let Some(count) = counts.get(place).copied().filter(|count| *count > 0) else { return 0.0 };
        let fraction = ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
        UPPER_SECONDS[usize::from(first_of(self.first + at)) + place] * f64::exp2((fraction - 1.0) / 8.0)
    }
}

/// What the buckets of an octave count. It is part of a total that was added up before, so nothing can overflow; asked
/// at each of them whether it did, they are not added side by side.
#[inline]
fn sum(counts: &[u64; PER_OCTAVE]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
}

/// The least whole number that is not below one that is not negative, which takes a call where it is asked of floats.
fn ceil(number: f64) -> u64 {
    let whole = number as u64;
    whole + u64::from((whole as f64) < number)
}

/// By bucket, see [`upper_seconds`].
static UPPER_SECONDS: LazyLock<Vec<f64>> = LazyLock::new(|| (0..BUCKETS as Bucket).map(upper_seconds).collect());

/// One histogram.
impl FromIterator<(Bucket, u64)> for BucketSets<()> {
    fn from_iter<I: IntoIterator<Item = (Bucket, u64)>>(counts: I) -> Self {
        let mut sets = BucketSets::default();
        let place = sets.place(());
        counts.into_iter().for_each(|(bucket, n)| sets.add(place, bucket, n));
        sets
    }
}

// How much room there is for what was not counted is no part of it.
impl PartialEq for Buckets<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Buckets<'_> {}

impl<K: Copy + Ord> PartialEq for BucketSets<K> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Copy + Ord> Eq for BucketSets<K> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{bucket_of, classic_of};
    use std::collections::BTreeMap;

    fn one(counts: &[(Bucket, u64)]) -> BucketSets<()> {
        counts.iter().copied().collect()
    }

    /// What sorted maps of buckets say, whatever is added to whichever histogram and taken away in whatever order.
    #[test]
    fn counts_are_those_of_maps() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut sets, mut maps) = (BucketSets::<u8>::default(), BTreeMap::<u8, BTreeMap<Bucket, u64>>::new());
            let (low, high) = (rng.u16(..BUCKETS as u16), rng.u16(..BUCKETS as u16));
            for _ in 0..rng.usize(..120) {
                let key = rng.u8(..5);
                let bucket = if rng.u8(..9) == 0 { ZERO_BUCKET } else { rng.u16(low.min(high)..=low.max(high)) };
                let n = rng.u64(1..1_000);
                let place = sets.place(key);
                sets.add(place, bucket, n);
                let map = maps.entry(key).or_default();
                *map.entry(bucket).or_default() += n;
                if rng.bool() {
                    let at = rng.usize(..map.len());
                    let (&bucket, count) = map.iter_mut().nth(at).unwrap();
                    let taken = if rng.bool() { *count } else { rng.u64(..=*count) };
                    *count -= taken;
                    sets.take(place, bucket, taken);
                    map.retain(|_, count| *count > 0);
                }
                if rng.u8(..8) == 0 {
                    sets.drop_empty();
                    maps.retain(|_, map| !map.is_empty());
                }
            }
            assert!(sets.iter().map(|set| set.0).eq(maps.keys().copied()), "seed {seed}");
            for ((_, buckets, _), map) in sets.iter().zip(maps.values()) {
                let all: Vec<(Bucket, u64)> = map.iter().map(|(bucket, n)| (*bucket, *n)).collect();
                assert!(buckets.iter().eq(all.iter().copied()), "seed {seed}");
                let mut doubled = one(&all);
                assert_eq!(buckets, doubled.get(0), "seed {seed}");
                doubled.merge(0, buckets);
                assert!(doubled.get(0).iter().eq(all.iter().map(|(bucket, n)| (*bucket, n * 2))), "seed {seed}");
                let total: u64 = all.iter().map(|of| of.1).sum();
                assert_eq!((buckets.total(), buckets.is_empty()), (total, total == 0), "seed {seed}");
                let (first, counts) = buckets.neighbours();
                let used = (first..).zip(counts).filter(|of| *of.1 > 0).map(|(bucket, n)| (bucket, *n));
                assert!(used.eq(all.iter().copied().filter(|of| of.0 != ZERO_BUCKET)), "seed {seed}");
                assert!(counts.first() != Some(&0) && counts.last() != Some(&0), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_place_of_a_latency_is_the_first_classic_bucket_that_counts_it() {
        let mut rng = fastrand::Rng::with_seed(8);
        let edges = (0..40)
            .flat_map(|shift| [1_000_000_000 >> shift, (1_000_000_000 >> shift) + 1, 1_000_000_000 << (shift % 16)]);
        for ns in edges.chain((0..20_000).map(|_| {
            let bits = rng.u32(17..64);
            rng.u64(..) >> bits
        })) {
            let counted = one(&[(bucket_of(ns), 1)]).get(0).classic().position(|below| below == 1);
            assert_eq!(classic_of(ns), counted.unwrap_or(CLASSIC_POWERS.count()), "{ns}");
        }
    }

    /// Bucket by bucket, as the definition goes.
    fn quantile(buckets: &[(Bucket, u64)], q: f64) -> f64 {
        let (rank, mut below) = (q * buckets.iter().map(|of| of.1).sum::<u64>() as f64, 0);
        let mut at = 0;
        while at + 1 < buckets.len() && ((below + buckets[at].1) as f64) < rank {
            below += buckets[at].1;
            at += 1;
        }
        let (bucket, count) = buckets[at];
        let fraction = ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
        if bucket == ZERO_BUCKET { 0.0 } else { upper_seconds(bucket) * f64::exp2((fraction - 1.0) / 8.0) }
    }

    #[test]
    fn quantiles_are_those_of_the_definition() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut map = BTreeMap::new();
            for _ in 0..rng.usize(1..12) {
                map.insert(rng.u16(..BUCKETS as u16), rng.u64(1..20));
            }
            let all: Vec<(Bucket, u64)> = map.into_iter().collect();
            let quantiles = [0.0, 0.05, 0.5, 0.95, 0.99, 1.0];
            let got = one(&all).get(0).quantiles_seconds(quantiles).unwrap();
            assert_eq!(got, quantiles.map(|q| quantile(&all, q)), "seed {seed}: {all:?}");
        }
        assert_eq!(Buckets::default().quantiles_seconds([0.5]), None);
    }

    #[test]
    fn quantiles_stay_in_their_bucket() {
        let at = |ms: u64| bucket_of(ms * 1_000_000);
        let buckets = one(&[(ZERO_BUCKET, 1), (at(10), 8), (at(1000), 1)]);
        let [least, median, most] = buckets.get(0).quantiles_seconds([0.05, 0.5, 1.0]).unwrap();
        assert_eq!((least, most), (0.0, 1.0));
        assert!((median / 0.010 - 1.0).abs() < 0.091, "{median}");
    }
}
