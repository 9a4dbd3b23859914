//! How far an event's own time lies from the instant at which its record is appended.

use larum_event::{TIME_MAX_NS, TIME_MIN_NS};

use crate::dice::Dice;
use crate::profile::Profile;

const MS_NS: i64 = 1_000_000;

/// How an event's time stands to its record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Up to 300 ms back: delivery takes its time.
    OnTime,
    /// Up to 2 s further back.
    OutOfOrder,
    /// 200 to 600 s back.
    Late,
    /// 2 to 24 h ahead.
    Skewed,
}

/// Draws timings in the shares of a profile.
#[derive(Clone, Debug)]
pub struct Timings {
    /// Of 2^32 rolls, those below are skewed...
    skewed: u64,
    /// ... of the others those below late, and so on.
    late: u64,
    out_of_order: u64,
}

impl Timings {
    /// The shares of a profile that was checked.
    pub fn new(profile: &Profile) -> Self {
        let rolls = |share: f64| (share * (1u64 << 32) as f64) as u64;
        Timings {
            skewed: rolls(profile.skewed_share),
            late: rolls(profile.skewed_share + profile.late_share),
            out_of_order: rolls(profile.skewed_share + profile.late_share + profile.out_of_order_share),
        }
    }

    /// The time of an event whose record is due at `due_ns`, Unix ns.
    #[inline]
    pub fn draw(&self, due_ns: i64, dice: &mut Dice) -> (Timing, i64) {
        let roll = u64::from(dice.roll());
        let delay_ms = i64::from(dice.below(301));
        let (timing, shift_ms) = if roll >= self.out_of_order {
            (Timing::OnTime, -delay_ms)
        } else if roll >= self.late {
            (Timing::OutOfOrder, -delay_ms - i64::from(dice.below(2_001)))
        } else if roll >= self.skewed {
            (Timing::Late, -200_000 - i64::from(dice.below(400_001)))
        } else {
            (Timing::Skewed, 7_200_000 + i64::from(dice.below(79_200_001)))
        };
        let time_ns = due_ns.saturating_add(shift_ms * MS_NS);
        // Only so that a run that reaches the contract's last year goes on.
        (timing, time_ns.clamp(TIME_MIN_NS, TIME_MAX_NS))
    }
}
