//! Exact conversion of JSON number texts: no floating point anywhere.

/// Powers of ten.
const POWERS: [u64; 10] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// A JSON number scaled by a power of ten, cut to an integer towards zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The number began with a minus sign.
    pub negative: bool,
    /// Integer part of |number| x 10^scale; [`Scaled::TOO_BIG`] or more means "at least that".
    pub int: u128,
    /// Something other than zero was cut off.
    pub rest: bool,
}

impl Scaled {
    /// Values from here on are not told apart; far above every range of the contract.
    pub const TOO_BIG: u128 = 1_000_000_000_000_000_000_000_000_000_000;

    /// True for zero, minus zero included.
    pub fn is_zero(&self) -> bool {
        self.int == 0 && !self.rest
    }

    /// `digits`, the last `decimals` of them behind the point, times 10^`scale`, which is not below `decimals`.
    #[inline]
    pub fn of(digits: u64, decimals: usize, scale: usize) -> Scaled {
        let int = u128::from(digits) * u128::from(POWERS[scale - decimals]);
        Scaled { negative: false, int, rest: false }
    }

    /// Reads `text`, a number that already passed the JSON grammar, times 10^`scale`.
    pub fn read(text: &[u8], scale: usize) -> Scaled {
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.iter().position(|b| *b | 0x20 == b'e') {
            Some(at) => (&text[..at], exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let int_digits = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
        // How many digits of the mantissa lie left of the point, once scaled.
        let mut left = int_digits as i64 + exponent + scale as i64;
        let (mut int, mut rest) = (0u128, false);
        for digit in mantissa.iter().filter(|b| **b != b'.').map(|b| u128::from(b - b'0')) {
            if left > 0 {
                int = (int * 10 + digit).min(Self::TOO_BIG);
                left -= 1;
            } else {
                rest |= digit != 0;
            }
        }
        while left > 0 && int > 0 && int < Self::TOO_BIG {
            int = (int * 10).min(Self::TOO_BIG);
            left -= 1;
        }
        Scaled { negative, int, rest }
    }
}

/// The exponent's value, clamped: beyond a million every result is zero or too big anyway.
fn exponent(text: &[u8]) -> i64 {
    let (sign, digits) = match text.split_first() {
        Some((b'-', rest)) => (-1, rest),
        Some((b'+', rest)) => (1, rest),
        _ => (1, text),
    };
    sign * digits.iter().fold(0i64, |value, b| (value * 10 + i64::from(b - b'0')).min(1_000_000))
}

/// A JSON number without fraction and exponent, if it is an integer from `min` to `max`.
pub fn integer(text: &[u8], min: u64, max: u64) -> Option<u64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut value = 0u64;
    for b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
    }
    let fits = (min..=max).contains(&value) && !(negative && value != 0);
    fits.then_some(value)
}

/// Milliseconds, scaled to ns (10^[`LATENCY_SCALE`]), from 0 to one day; digits past the nanosecond are dropped.
#[inline]
pub fn latency_ns(ns: Scaled) -> Option<u64> {
    const MAX_NS: u128 = 86_400_000 * 1_000_000;
    let too_big = ns.int > MAX_NS || (ns.int == MAX_NS && ns.rest);
    let below_zero = ns.negative && !ns.is_zero();
    (!too_big && !below_zero).then_some(ns.int as u64)
}

/// Decimals from ms to ns.
pub const LATENCY_SCALE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_without_floating_point() {
        let s = |t: &str, k| Scaled::read(t.as_bytes(), k);
        assert_eq!(s("112.4", 6), Scaled { negative: false, int: 112_400_000, rest: false });
        assert_eq!(s("0.0000001", 6), Scaled { negative: false, int: 0, rest: true });
        assert_eq!(s("1e3", 0).int, 1000);
        assert_eq!(s("1.5E-1", 3).int, 150);
        assert_eq!(s("0e999999999", 6).int, 0);
        assert_eq!(s("1e999999999", 6).int, Scaled::TOO_BIG);
        assert!(s("-0.0", 6).is_zero());
    }

    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..100_000 {
            let decimals = rng.usize(..=6);
            let most = 10u64.pow(rng.u32(1..15));
            let digits = rng.u64(..most);
            let (int, fraction) = (digits / POWERS[decimals], digits % POWERS[decimals]);
            let text = if decimals == 0 { format!("{int}") } else { format!("{int}.{fraction:0decimals$}") };
            for scale in [6, 9] {
                assert_eq!(Scaled::of(digits, decimals, scale), Scaled::read(text.as_bytes(), scale), "{text}");
            }
        }
    }

    #[test]
    fn latency_borders() {
        let ns = |text: &[u8]| latency_ns(Scaled::read(text, LATENCY_SCALE));
        assert_eq!(ns(b"86400000"), Some(86_400_000_000_000));
        assert_eq!(ns(b"86400000.0000000001"), None);
        assert_eq!(ns(b"-0"), Some(0));
        assert_eq!(ns(b"-0.0000000001"), None);
        assert_eq!(ns(b"8.64e7"), Some(86_400_000_000_000));
    }

    #[test]
    fn integers_are_lexical() {
        assert_eq!(integer(b"1", 1, 10), Some(1));
        assert_eq!(integer(b"1.0", 1, 10), None);
        assert_eq!(integer(b"1e0", 1, 10), None);
        assert_eq!(integer(b"-0", 0, 10), Some(0));
        assert_eq!(integer(b"18446744073709551616", 0, u64::MAX), None);
    }
}
