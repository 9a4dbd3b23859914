//! Times as producers write them: RFC 3339 in UTC or with an offset, and epoch milliseconds.

use crate::dice::Dice;
use crate::json::Json;

const MS_NS: i64 = 1_000_000;
const DAY_MS: i64 = 86_400_000;

/// Offsets that are written, with their minutes east of UTC.
const OFFSETS: [(i64, &[u8; 6]); 6] =
    [(120, b"+02:00"), (60, b"+01:00"), (-300, b"-05:00"), (330, b"+05:30"), (540, b"+09:00"), (0, b"+00:00")];

/// Writes times; remembers the day's date, which seldom changes from one event to the next.
#[derive(Debug)]
pub struct Stamps {
    /// Days since 1970-01-01.
    day: i64,
    date: [u8; 10],
}

impl Default for Stamps {
    fn default() -> Self {
        Stamps { day: 0, date: *b"1970-01-01" }
    }
}

impl Stamps {
    /// A time to the millisecond: 70 % in UTC, 10 % with an offset, 20 % as epoch milliseconds.
    #[inline]
    pub fn write(&mut self, time_ns: i64, json: &mut Json, dice: &mut Dice) {
        match dice.below(10) {
            0..7 => self.rfc3339(time_ns, 0, b"Z", json),
            7 => {
                let (minutes, offset) = dice.one_of(&OFFSETS);
                self.rfc3339(time_ns, minutes, offset, json);
            }
            // Times of the contract lie after 1970.
            _ => json.number(time_ns.div_euclid(MS_NS).unsigned_abs()),
        }
    }

    fn rfc3339(&mut self, time_ns: i64, offset_min: i64, offset: &[u8], json: &mut Json) {
        let local_ms = time_ns.div_euclid(MS_NS) + offset_min * 60_000;
        let (day, ms) = (local_ms.div_euclid(DAY_MS), local_ms.rem_euclid(DAY_MS) as u32);
        if day != self.day {
            self.day = day;
            self.date = date(day);
        }
        let mut text = *b"\"0000-00-00T00:00:00.000";
        text[1..11].copy_from_slice(&self.date);
        two(&mut text[12..14], ms / 3_600_000);
        two(&mut text[15..17], ms / 60_000 % 60);
        two(&mut text[18..20], ms / 1000 % 60);
        two(&mut text[21..23], ms % 1000 / 10);
        text[23] = b'0' + (ms % 10) as u8;
        json.raw(&text);
        json.raw(offset);
        json.raw(b"\"");
    }
}

#[inline]
fn two(text: &mut [u8], value: u32) {
    text[0] = b'0' + (value / 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

/// The date of a day since 1970-01-01 (H. Hinnant's `civil_from_days`); years 0 to 9999.
fn date(day: i64) -> [u8; 10] {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on, so that the leap day is a year's last.
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00";
    two(&mut text[..2], (year / 100) as u32);
    two(&mut text[2..4], (year % 100) as u32);
    two(&mut text[5..7], month as u32);
    two(&mut text[8..], day_of_month as u32);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_event::{TIME_MAX_NS, TIME_MIN_NS, parse_rfc3339_ns};

    #[test]
    fn times_read_back() {
        let (mut stamps, mut json) = (Stamps::default(), Json::default());
        // Steps of 11 h and a bit meet every day of the century, and every hour.
        for time_ns in (TIME_MIN_NS + DAY_MS * MS_NS..TIME_MAX_NS - DAY_MS * MS_NS).step_by(40_000_017_000_000) {
            for (minutes, offset) in OFFSETS {
                json.truncate(0);
                stamps.rfc3339(time_ns, minutes, offset, &mut json);
                let text = json.bytes();
                let read = parse_rfc3339_ns(&text[1..text.len() - 1]);
                assert_eq!(read, Some(time_ns), "{}", String::from_utf8_lossy(text));
            }
        }
    }
}
