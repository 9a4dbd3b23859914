//! Nominal time: when the next record is due, and which region is awake.

use crate::dice::Dice;
use crate::profile::{Profile, REGIONS, REGIONS_MAX, SECOND_NS};

/// How far a region's traffic swings around its mean: (1 - 2/3) to (1 + 2/3) is trough to peak 1 to 5.
const SWING: f64 = 2.0 / 3.0;
/// Local time of the peak, hours.
const PEAK_H: f64 = 13.0;

/// Instants with a fractional distance, so that no rate drifts.
#[derive(Clone, Debug)]
pub struct Steps {
    due_ns: i64,
    /// What the due time lacks to the exact one, 0 to 1 ns.
    carry_ns: f64,
}

impl Steps {
    /// Begins at `start_ns`.
    pub fn new(start_ns: i64) -> Self {
        Steps { due_ns: start_ns, carry_ns: 0.0 }
    }

    /// The instant, Unix ns.
    #[inline]
    pub fn due_ns(&self) -> i64 {
        self.due_ns
    }

    /// Goes on by `step_ns`.
    #[inline]
    pub fn advance(&mut self, step_ns: f64) {
        let exact = self.carry_ns + step_ns;
        let whole = exact as i64;
        self.carry_ns = exact - whole as f64;
        self.due_ns = self.due_ns.saturating_add(whole);
    }
}

/// The everyday records' times and regions.
#[derive(Clone, Debug)]
pub struct Pace {
    steps: Steps,
    step_ns: f64,
    events_per_second: f64,
    diurnal: bool,
    regions: usize,
    /// The second that the two figures below hold for.
    second: i64,
    /// Of 2^32 rolls, those below the region's figure and not below the one before are its own.
    rolls: [u64; REGIONS_MAX],
}

impl Pace {
    /// The pace of a profile that was checked.
    pub fn new(profile: &Profile) -> Self {
        let mut pace = Pace {
            steps: Steps::new(profile.start_ns),
            step_ns: 0.0,
            events_per_second: profile.events_per_second,
            diurnal: profile.diurnal,
            regions: profile.regions,
            second: profile.start_ns.div_euclid(SECOND_NS),
            rolls: [0; REGIONS_MAX],
        };
        pace.weigh();
        pace
    }

    /// When the next record is due, Unix ns.
    #[inline]
    pub fn due_ns(&self) -> i64 {
        self.steps.due_ns()
    }

    /// Goes on to the next record.
    #[inline]
    pub fn advance(&mut self) {
        self.steps.advance(self.step_ns);
        if self.diurnal {
            let second = self.steps.due_ns().div_euclid(SECOND_NS);
            if second != self.second {
                self.second = second;
                self.weigh();
            }
        }
    }

    /// The region of the next record.
    #[inline]
    pub fn region(&self, dice: &mut Dice) -> usize {
        let roll = u64::from(dice.roll());
        self.rolls[..self.regions].iter().position(|end| roll < *end).unwrap_or(0)
    }

    /// Works out rate and regions for the second.
    fn weigh(&mut self) {
        let used = &REGIONS[..self.regions];
        let mean: f64 = used.iter().map(|region| region.weight).sum();
        let mut now = [0.0; REGIONS_MAX];
        for (weight, region) in now.iter_mut().zip(used) {
            *weight = region.weight * self.activity(region.ahead_h);
        }
        let total: f64 = now.iter().sum();
        let mut sum = 0.0;
        for (roll, weight) in self.rolls.iter_mut().zip(now) {
            sum += weight;
            *roll = (sum / total * (1u64 << 32) as f64).round() as u64;
        }
        self.step_ns = SECOND_NS as f64 / (self.events_per_second * total / mean);
    }

    /// How busy a region is compared to its mean.
    fn activity(&self, ahead_h: f64) -> f64 {
        if !self.diurnal {
            return 1.0;
        }
        let local_h = self.second.rem_euclid(86_400) as f64 / 3600.0 + ahead_h;
        1.0 + SWING * ((local_h - PEAK_H) / 24.0 * std::f64::consts::TAU).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_drifts() {
        let mut pace = Pace::new(&Profile { events_per_second: 3.0, start_ns: SECOND_NS, ..Profile::default() });
        (0..30_000).for_each(|_| pace.advance());
        assert!((pace.due_ns() - 10_001 * SECOND_NS).abs() <= 1, "{}", pace.due_ns());
    }

    #[test]
    fn a_day_has_its_events_and_swings_one_to_five() {
        let profile = Profile { events_per_second: 1.0, regions: 1, diurnal: true, ..Profile::default() };
        let mut pace = Pace::new(&profile);
        let mut hours = [0u32; 24];
        while pace.due_ns() < profile.start_ns + 86_400 * SECOND_NS {
            hours[(pace.due_ns() / SECOND_NS / 3600 % 24) as usize] += 1;
            pace.advance();
        }
        let (trough, peak) = (hours.iter().min().unwrap(), hours.iter().max().unwrap());
        let ratio = f64::from(*peak) / f64::from(*trough);
        assert!((4.7..5.2).contains(&ratio), "{hours:?}");
        assert!((86_300..86_500).contains(&hours.iter().sum::<u32>()), "{hours:?}");
        // 13:00 at UTC+1, so as much before noon UTC as after it.
        assert!(matches!(hours.iter().position(|n| n == peak), Some(11 | 12)), "{hours:?}");
    }

    #[test]
    fn regions_take_turns() {
        let profile = Profile { regions: 2, diurnal: true, start_ns: 1_773_446_400 * SECOND_NS, ..Profile::default() };
        let (pace, mut dice) = (Pace::new(&profile), Dice::new(1));
        // Midnight UTC: one at night in Ireland, early evening in Virginia.
        let west = (0..10_000).filter(|_| pace.region(&mut dice) == 1).count();
        assert!(west > 7_000, "{west}");
    }
}
