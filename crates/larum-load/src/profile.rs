//! What traffic is asked for, and whether it can be had.

use std::fmt;

use larum_event::{TIME_MAX_NS, TIME_MIN_NS};

use crate::scenario::{Planned, Scenario};

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;

/// Most tenants; bounds the memory of the truth (1 KiB per tenant and region).
const TENANTS_MAX: usize = 100_000;
/// Most regions: as many as there are names.
pub const REGIONS_MAX: usize = REGIONS.len();
/// Most scenarios in one profile.
const SCENARIOS_MAX: usize = 64;
/// Steepest popularity; beyond it one tenant is all there is.
const ZIPF_MAX: f64 = 10.0;
/// Slowest and fastest event-time rate, per second: beyond, nominal times would overflow or stand still.
const RATE_RANGE: (f64, f64) = (0.001, 1e9);
/// A scenario ends at most this long after the first event, in seconds (ten years).
const SCENARIO_END_S_MAX: f64 = 315_360_000.0;

/// A region: its name, its share of the traffic in parts, and how far its day runs ahead of UTC, in hours.
pub struct Region {
    /// As in the events.
    pub name: &'static str,
    /// Its part of the mean traffic; of the regions in use, not of all.
    pub weight: f64,
    /// Local time minus UTC.
    pub ahead_h: f64,
}

const fn region(name: &'static str, weight: f64, ahead_h: f64) -> Region {
    Region { name, weight, ahead_h }
}

/// The regions there can be; a profile takes the first so many.
pub const REGIONS: [Region; 12] = [
    region("eu-west-1", 4.0, 1.0),
    region("us-east-1", 4.0, -5.0),
    region("ap-southeast-1", 2.0, 8.0),
    region("us-west-2", 3.0, -8.0),
    region("eu-central-1", 3.0, 2.0),
    region("ap-northeast-1", 2.0, 9.0),
    region("sa-east-1", 1.0, -3.0),
    region("ap-south-1", 2.0, 5.5),
    region("ca-central-1", 1.0, -5.0),
    region("eu-north-1", 1.0, 2.0),
    region("me-central-1", 1.0, 4.0),
    region("af-south-1", 1.0, 2.0),
];

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// All randomness follows from it.
    pub seed: u64,
    /// How many tenants there are, 1 to 100,000.
    pub tenants: usize,
    /// How many regions there are, 1 to 12.
    pub regions: usize,
    /// Steepness of the tenants' popularity (Zipf's exponent), 0 to 10; 0 makes all alike.
    pub zipf: f64,
    /// Everyday events per second of event time, on average over a day; attacks come on top.
    pub events_per_second: f64,
    /// Nominal time of the first event, Unix ns, from 2000 to 2100.
    pub start_ns: i64,
    /// Share of events whose time lies 200 to 600 s back.
    pub late_share: f64,
    /// Share of events whose time lies up to 2 s further back than the delivery delay explains.
    pub out_of_order_share: f64,
    /// Share of events whose time lies 2 to 24 h ahead.
    pub skewed_share: f64,
    /// Share of everyday records that break the contract, each reason in turn.
    pub malformed_share: f64,
    /// Each region's traffic follows its local day, trough to peak 1 to 5; otherwise it is level.
    pub diurnal: bool,
    /// What goes wrong, and when.
    pub scenarios: Vec<Planned>,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            seed: 0,
            tenants: 200,
            regions: 4,
            zipf: 1.1,
            events_per_second: 10_000.0,
            start_ns: 1_773_480_000 * SECOND_NS,
            late_share: 0.05,
            out_of_order_share: 0.4,
            skewed_share: 0.001,
            malformed_share: 0.001,
            diurnal: false,
            scenarios: Vec::new(),
        }
    }
}

impl Profile {
    /// Checks that every figure is within its range.
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let within = |what, value: f64, min: f64, max: f64| {
            // Not the other way round: a NaN is within nothing.
            if (min..=max).contains(&value) { Ok(()) } else { Err(ProfileError::OutOfRange { what, value, min, max }) }
        };
        within("tenants", self.tenants as f64, 1.0, TENANTS_MAX as f64)?;
        within("regions", self.regions as f64, 1.0, REGIONS_MAX as f64)?;
        within("zipf", self.zipf, 0.0, ZIPF_MAX)?;
        within("events per second", self.events_per_second, RATE_RANGE.0, RATE_RANGE.1)?;
        within("start", self.start_ns as f64, TIME_MIN_NS as f64, TIME_MAX_NS as f64)?;
        within("late share", self.late_share, 0.0, 1.0)?;
        within("out-of-order share", self.out_of_order_share, 0.0, 1.0)?;
        within("skewed share", self.skewed_share, 0.0, 1.0)?;
        within("malformed share", self.malformed_share, 0.0, 1.0)?;
        let off_time = self.late_share + self.out_of_order_share + self.skewed_share;
        within("late, out-of-order and skewed shares together", off_time, 0.0, 1.0)?;
        within("scenarios", self.scenarios.len() as f64, 0.0, SCENARIOS_MAX as f64)?;
        for planned in &self.scenarios {
            let (start_s, end_s) = (planned.start_s, planned.start_s + planned.duration_s);
            let fits = start_s >= 0.0 && planned.duration_s > 0.0 && end_s <= SCENARIO_END_S_MAX;
            if !fits {
                return Err(ProfileError::ScenarioTimes(planned.scenario));
            }
        }
        Ok(())
    }
}

/// Why a profile cannot be had.
#[derive(Clone, Debug, PartialEq)]
pub enum ProfileError {
    /// A figure is outside its range.
    OutOfRange {
        /// Which figure.
        what: &'static str,
        /// What was asked for.
        value: f64,
        /// The least there can be.
        min: f64,
        /// The most there can be.
        max: f64,
    },
    /// A scenario begins before the first event, lasts no time, or ends more than ten years on.
    ScenarioTimes(Scenario),
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProfileError::OutOfRange { what, value, min, max } => write!(f, "{what}: {value} is not {min} to {max}"),
            ProfileError::ScenarioTimes(scenario) => {
                write!(f, "scenario {scenario}: must begin at 0 s or later, last, and end within ten years")
            }
        }
    }
}

impl std::error::Error for ProfileError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_had() {
        assert_eq!(Profile::default().check(), Ok(()));
        let planned = Planned { scenario: Scenario::BruteForce, start_s: 0.0, duration_s: 1.0 };
        let plan = |planned| Profile { scenarios: vec![planned], ..Profile::default() };
        for bad in [
            Profile { tenants: 0, ..Profile::default() },
            Profile { regions: 13, ..Profile::default() },
            Profile { zipf: f64::NAN, ..Profile::default() },
            Profile { events_per_second: 0.0, ..Profile::default() },
            Profile { start_ns: 0, ..Profile::default() },
            Profile { late_share: -0.1, ..Profile::default() },
            Profile { late_share: 0.6, out_of_order_share: 0.6, ..Profile::default() },
            plan(Planned { start_s: -1.0, ..planned }),
            plan(Planned { duration_s: 0.0, ..planned }),
            plan(Planned { duration_s: f64::INFINITY, ..planned }),
        ] {
            let error = bad.check().expect_err("refused");
            assert!(!error.to_string().is_empty(), "{error}");
        }
        assert_eq!(plan(planned).check(), Ok(()));
    }
}
