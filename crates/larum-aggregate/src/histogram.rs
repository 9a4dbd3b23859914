//! The one latency layout: base-2 exponential buckets of scale 3 over seconds, with a zero bucket.
//!
//! OpenTelemetry index `i` at scale 3 covers `(2^(i/8), 2^((i+1)/8)]` seconds. A [`Bucket`] is 0 for the zero bucket and
//! `i + 241` otherwise, so that everything from 1 ns to one day fits. Bounds are kept in whole nanoseconds, which is
//! exact: latencies are whole nanoseconds.

use std::sync::LazyLock;

/// Number of a latency bucket, see the module.
pub type Bucket = u16;

/// The bucket of a latency of zero.
pub const ZERO_BUCKET: Bucket = 0;
/// Stands for "not measured" where a bucket is expected.
pub const NOT_MEASURED: Bucket = Bucket::MAX;
/// Buckets per doubling.
pub const BUCKETS_PER_OCTAVE: i32 = 8;
/// The longest latency taken, ns: one day.
pub const LATENCY_MAX_NS: u64 = 86_400_000_000_000;
/// Bucket number of OpenTelemetry index 0, which begins right above one second.
pub const ONE_SECOND_OFFSET: i32 = 241;
/// How many buckets there are, the zero bucket included.
pub const BUCKETS: usize = 373;

/// Upper bounds in ns, and where to begin looking for a latency by its leading bits.
struct Layout {
    upper_ns: [u64; BUCKETS],
    begin: [Bucket; 64 * 8],
}

static LAYOUT: LazyLock<Layout> = LazyLock::new(Layout::new);

/// floor(sqrt(n)).
fn sqrt(n: u128) -> u128 {
    n.isqrt()
}

/// 2^(j/8) for j in 0..8, as fixed point with 62 fractional bits, from repeated integer square roots.
fn eighth_powers() -> [u128; 8] {
    const ONE: u128 = 1 << 62;
    let root = |x: u128| sqrt(x << 62);
    let half = root(2 * ONE);
    let quarter = root(half);
    let eighth = root(quarter);
    let mul = |a: u128, b: u128| (a * b) >> 62;
    [
        ONE,
        eighth,
        quarter,
        mul(quarter, eighth),
        half,
        mul(half, eighth),
        mul(half, quarter),
        mul(mul(half, quarter), eighth),
    ]
}

/// floor(2^(index/8) x 1e9), and the fraction that was cut in 2^-62.
fn bound_ns(index: i32) -> (u64, u128) {
    let octave = index.div_euclid(BUCKETS_PER_OCTAVE);
    let mantissa = eighth_powers()[index.rem_euclid(BUCKETS_PER_OCTAVE) as usize] * 1_000_000_000;
    let fixed = if octave >= 0 { mantissa << octave } else { mantissa >> -octave };
    ((fixed >> 62) as u64, fixed & ((1 << 62) - 1))
}

impl Layout {
    fn new() -> Layout {
        let mut upper_ns = [0; BUCKETS];
        for (bucket, upper) in upper_ns.iter_mut().enumerate().skip(1) {
            *upper = bound_ns(bucket as i32 - ONE_SECOND_OFFSET + 1).0;
        }
        let mut begin = [1; 64 * 8];
        for (at, first) in begin.iter_mut().enumerate() {
            let (log, top) = (at / 8, at as u128 % 8);
            let smallest = ((8 + top) << log) / 8;
            *first = upper_ns.iter().position(|u| u128::from(*u) >= smallest.max(1)).unwrap_or(BUCKETS - 1) as u16;
        }
        Layout { upper_ns, begin }
    }
}

/// The bucket of a latency; longer than a day counts as a day.
#[inline]
pub fn bucket_of(latency_ns: u64) -> Bucket {
    if latency_ns == 0 {
        return ZERO_BUCKET;
    }
    let layout = &*LAYOUT;
    let latency_ns = latency_ns.min(LATENCY_MAX_NS);
    let log = 63 - latency_ns.leading_zeros();
    let top = if log >= 3 { (latency_ns >> (log - 3)) & 7 } else { (latency_ns << (3 - log)) & 7 };
    let mut bucket = layout.begin[(log * 8) as usize + top as usize];
    // At most two bounds lie between there and the latency. They are counted and not asked: nobody can guess which.
    for _ in 0..2 {
        bucket += Bucket::from(latency_ns > layout.upper_ns[usize::from(bucket)]);
    }
    bucket
}

/// Longest latency in whole ns that a bucket holds.
pub fn upper_ns(bucket: Bucket) -> u64 {
    LAYOUT.upper_ns[usize::from(bucket).min(BUCKETS - 1)]
}

/// The bucket's upper bound in seconds, `2^((i+1)/8)`; 0 for the zero bucket.
pub fn upper_seconds(bucket: Bucket) -> f64 {
    match bucket {
        ZERO_BUCKET => 0.0,
        _ => f64::exp2(f64::from(i32::from(bucket) - ONE_SECOND_OFFSET + 1) / 8.0),
    }
}

/// Classic buckets end at these powers of two seconds: 2^-10 (about 1 ms) to 2^7 (128 s). Each is a bound of the layout,
/// so they are exact.
pub const CLASSIC_POWERS: std::ops::RangeInclusive<i32> = -10..=7;

/// Those bounds, seconds.
pub static CLASSIC_BOUNDS: LazyLock<Vec<f64>> =
    LazyLock::new(|| CLASSIC_POWERS.map(|power| f64::exp2(f64::from(power))).collect());

/// The place of a latency among classic buckets: that of the first power whose bucket holds it, or the one behind the last
/// for what only infinity holds.
pub fn classic_of(latency_ns: u64) -> usize {
    let (first, last) = (*CLASSIC_POWERS.start(), *CLASSIC_POWERS.end());
    let bucket = i32::from(bucket_of(latency_ns));
    // The bucket numbered so ends at one second.
    let ends_at_one = ONE_SECOND_OFFSET - 1;
    let power = (bucket - ends_at_one + BUCKETS_PER_OCTAVE - 1).div_euclid(BUCKETS_PER_OCTAVE);
    (power.clamp(first, last + 1) - first) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bound_is_too_near_an_integer_to_be_cut_right() {
        // Powers of two seconds are exact; every other bound is irrational, and the fixed point error is below 2^-20.
        for index in -240..=131 {
            let (_, fraction) = bound_ns(index);
            let margin = 1u128 << 42;
            let exact = index % 8 == 0;
            assert!(exact || (fraction > margin && fraction < (1 << 62) - margin), "index {index}");
        }
    }

    #[test]
    fn buckets_follow_the_definition() {
        let naive = |ns: u64| {
            let exact = (ns as f64 / 1e9).log2() * 8.0;
            (exact.ceil() as i32 - 1 + ONE_SECOND_OFFSET) as u16
        };
        let mut rng = fastrand::Rng::with_seed(7);
        let random = std::iter::repeat_with(|| (rng.f64() * 46.0).exp2() as u64 % LATENCY_MAX_NS + 1).take(200_000);
        let bounds = (1..BUCKETS as Bucket).flat_map(|bucket| [0, 1].map(|more| upper_ns(bucket) + more));
        for ns in random.chain(bounds.filter(|ns| (1..=LATENCY_MAX_NS).contains(ns))) {
            let (got, want) = (bucket_of(ns), naive(ns));
            let on_bound = ns.abs_diff(upper_ns(got)) <= 1 || ns.abs_diff(upper_ns(want)) <= 1;
            assert!(got == want || on_bound, "{ns}: {got} {want}");
            assert!(upper_ns(got - 1) < ns && ns <= upper_ns(got), "{ns}: {got}");
        }
        assert_eq!(bucket_of(1_000_000_000), 240);
        assert_eq!(bucket_of(1_000_000_001), 241);
        assert_eq!(bucket_of(500_000_000), 232);
        assert_eq!(bucket_of(1), 1);
        assert_eq!(usize::from(bucket_of(u64::MAX)), BUCKETS - 1);
    }
}
