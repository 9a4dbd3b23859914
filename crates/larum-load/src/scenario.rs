//! The scenarios that can be asked for: attacks and degradations, with names and explanations for people.

use std::fmt;
use std::str::FromStr;

/// Something that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Somebody tries passwords against one tenant.
    BruteForce,
    /// One region's identity service fails and is slow.
    DegradedIam,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: &'static [Scenario] = &[Scenario::BruteForce, Scenario::DegradedIam];

    /// The name to ask for it by.
    pub const fn name(self) -> &'static str {
        match self {
            Scenario::BruteForce => "brute-force",
            Scenario::DegradedIam => "degraded-iam",
        }
    }

    /// What happens and what should be seen, in two sentences.
    pub const fn explain(self) -> &'static str {
        match self {
            Scenario::BruteForce => {
                "One tenant is attacked: failed logins from four addresses with one user agent, nine in ten with a \
                 wrong password and the rest for accounts that do not exist, make up three tenths of all events. \
                 Its honest users go on as before, so its successes stay level while its failure ratio climbs, \
                 and no other tenant and no token request notices."
            }
            Scenario::DegradedIam => {
                "One region's identity service is in trouble: three in ten of its logins and token requests fail with \
                 upstream_error or timeout, and all of them take eight times as long. \
                 Every tenant served there is hit alike, successes fall, and wrong passwords do not rise."
            }
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        let known = Scenario::ALL.iter().find(|scenario| scenario.name() == name);
        known.copied().ok_or_else(|| UnknownScenario(name.to_string()))
    }
}

/// There is no scenario of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScenario(pub String);

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        write!(f, "no scenario {:?}, there are: {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownScenario {}

/// A scenario and when it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// What happens.
    pub scenario: Scenario,
    /// When it begins, in seconds after the first event, 0 or more.
    pub start_s: f64,
    /// How long it lasts, in seconds, above 0.
    pub duration_s: f64,
}
