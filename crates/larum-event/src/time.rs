//! Event times: RFC 3339 texts and epoch numbers to Unix ns, exactly.

use crate::number::Scaled;

/// 2000-01-01T00:00:00Z, the earliest time taken.
pub const TIME_MIN_NS: i64 = 946_684_800 * NS;
/// 2100-01-01T00:00:00Z, the latest time taken.
pub const TIME_MAX_NS: i64 = 4_102_444_800 * NS;
const NS: i64 = 1_000_000_000;

/// `utc_s` is that of a year of four digits, so nothing can overflow but the nanoseconds.
#[inline]
fn in_range_ns(utc_s: i64, fraction_ns: i64) -> Option<i64> {
    let ns = utc_s.checked_mul(NS)?.checked_add(fraction_ns)?;
    (TIME_MIN_NS..=TIME_MAX_NS).contains(&ns).then_some(ns)
}

fn in_range(ns: i128) -> Option<i64> {
    let ns = i64::try_from(ns).ok()?;
    (TIME_MIN_NS..=TIME_MAX_NS).contains(&ns).then_some(ns)
}

/// Decimals from seconds to ns.
pub const EPOCH_SCALE: usize = 9;

/// An epoch number, scaled by 10^[`EPOCH_SCALE`]: below 1e11 seconds (fraction allowed), below 1e14 ms, below 1e17 us, else ns.
#[inline]
pub fn epoch_ns(scaled: Scaled) -> Option<i64> {
    const ONE: u128 = 1_000_000_000;
    if scaled.negative || scaled.int >= Scaled::TOO_BIG {
        return None;
    }
    let (whole, fraction) = (scaled.int / ONE, !scaled.int.is_multiple_of(ONE) || scaled.rest);
    let unit_ns = match whole {
        0..100_000_000_000 => return in_range(scaled.int as i128),
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    if fraction { None } else { in_range(whole as i128 * unit_ns) }
}

/// An RFC 3339 date-time with any offset and up to nine fraction digits, to Unix ns.
///
/// Years outside 2000 to 2100 and impossible dates give `None`. A leap second (`23:59:60` UTC) counts as the first
/// second of the next day, as Unix time has none.
pub fn parse_rfc3339_ns(text: &[u8]) -> Option<i64> {
    Minute::default().parse_rfc3339_ns(text)
}

/// The minute that was read last: most times are of the same one, whose text need not be read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Minute {
    /// `2026-03-14T09:20`, as it stood; 0 is no such text.
    text: u128,
    /// Its local time, seconds since the epoch.
    local_s: i64,
}

impl Minute {
    /// See [`parse_rfc3339_ns`].
    #[inline]
    pub fn parse_rfc3339_ns(&mut self, text: &[u8]) -> Option<i64> {
        // With the length known at once, no access to it needs a check.
        let head: &[u8; 20] = text.first_chunk()?;
        let minute = u128::from_le_bytes(*head.first_chunk()?);
        if self.text != minute {
            *self = Minute { text: minute, local_s: minute_s(head)? };
        }
        let second = two(head, 17)?;
        if head[16] != b':' || second > 60 {
            return None;
        }
        let (fraction_ns, at) = fraction(text, 19)?;
        let offset_s = offset(text.get(at..)?)?;
        let utc_s = self.local_s + second - offset_s;
        if second == 60 && utc_s.rem_euclid(86_400) != 0 {
            return None;
        }
        in_range_ns(utc_s, fraction_ns)
    }
}

/// The local time of `2026-03-14T09:20`, seconds since the epoch.
#[cold]
fn minute_s(head: &[u8; 20]) -> Option<i64> {
    let separators = head[4] == b'-' && head[7] == b'-' && head[13] == b':';
    if !separators || head[10] | 0x20 != b't' {
        return None;
    }
    let year = two(head, 0)? * 100 + two(head, 2)?;
    let (month, day) = (two(head, 5)?, two(head, 8)?);
    let (hour, minute) = (two(head, 11)?, two(head, 14)?);
    let valid_day = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    (valid_day && hour <= 23 && minute <= 59)
        .then(|| days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60)
}

/// Two digits at `at`.
#[inline(always)]
fn two(text: &[u8], at: usize) -> Option<i64> {
    let (a, b) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (a <= 9 && b <= 9).then_some(i64::from(a) * 10 + i64::from(b))
}

/// The fraction that begins at `at`, in ns, and where it ends.
#[inline]
fn fraction(text: &[u8], at: usize) -> Option<(i64, usize)> {
    if text[at] != b'.' {
        return Some((0, at));
    }
    // Milliseconds are what most producers write.
    if let Some([a, b, c, after]) = text.get(at + 1..).and_then(|rest| rest.first_chunk::<4>()) {
        let [a, b, c, after] = [a, b, c, after].map(|byte| byte.wrapping_sub(b'0'));
        if a <= 9 && b <= 9 && c <= 9 && after > 9 {
            return Some(((i64::from(a) * 100 + i64::from(b) * 10 + i64::from(c)) * 1_000_000, at + 4));
        }
    }
    let digits = text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 9 {
        return None;
    }
    let value = text[at + 1..at + 1 + digits].iter().fold(0i64, |v, b| v * 10 + i64::from(b - b'0'));
    Some((value * 10i64.pow(9 - digits as u32), at + 1 + digits))
}

/// `Z` or `+hh:mm`, in seconds east of UTC.
#[inline]
fn offset(text: &[u8]) -> Option<i64> {
    match text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
            let seconds = hours * 3600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Option<i64> {
        parse_rfc3339_ns(text.as_bytes())
    }

    #[test]
    fn reads_rfc3339() {
        assert_eq!(t("2026-03-14T09:20:00.123Z"), Some(1_773_480_000_123_000_000));
        assert_eq!(t("2026-03-14T10:20:00+01:00"), t("2026-03-14t09:20:00z"));
        assert_eq!(t("2000-01-01T00:00:00Z"), Some(TIME_MIN_NS));
        assert_eq!(t("2100-01-01T00:00:00Z"), Some(TIME_MAX_NS));
        assert_eq!(t("2024-02-29T00:00:00.000000001-23:59").map(|n| n % NS), Some(1));
        assert_eq!(t("2016-12-31T23:59:60Z"), t("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "1999-12-31T23:59:59Z",
            "2100-01-01T00:00:00.000000001Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-03-14T24:00:00Z",
            "2026-03-14T09:20:60Z",
            "2026-03-14T09:20:00",
            "2026-03-14 09:20:00Z",
            "2026-03-14T09:20:00.Z",
            "2026-03-14T09:20:00.1234567890Z",
            "2026-03-14T09:20:00+24:00",
            "2026-03-14T09:20:00Zx",
        ] {
            assert_eq!(t(text), None, "{text}");
        }
    }

    #[test]
    fn reads_epochs_by_size() {
        let e = |text: &str| epoch_ns(Scaled::read(text.as_bytes(), EPOCH_SCALE));
        let want = Some(1_773_480_000_000_000_000);
        for text in ["1773480000", "1773480000000", "1773480000000000", "1773480000000000000", "1.77348e9"] {
            assert_eq!(e(text), want, "{text}");
        }
        assert_eq!(e("1773480000.1234567891"), Some(1_773_480_000_123_456_789));
        assert_eq!(e("1773480000000.5"), None);
        assert_eq!(e("1773480000000.0"), want);
        assert_eq!(e("-1"), None);
        assert_eq!(e("5"), None);
        assert_eq!(e("1e400"), None);
    }
}
