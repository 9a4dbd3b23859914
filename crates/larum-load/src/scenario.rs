//! The scenarios that can be asked for: attacks and degradations, with names and explanations for people.

use std::fmt;
use std::str::FromStr;

/// Something that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Somebody tries passwords against one tenant.
    BruteForce,
    /// Somebody tries one password on every account of a tenant.
    PasswordSpraying,
    /// Somebody tries leaked passwords from everywhere.
    CredentialStuffing,
    /// A limiter says no to a tenant's honest users.
    RateLimiter,
    /// One region's identity service fails and is slow.
    DegradedIam,
    /// Clients refresh too often, and refreshes get slow.
    RefreshOverload,
    /// A deploy breaks the token service of a region.
    BadDeploy,
    /// A region sends nothing.
    RegionLost,
    /// A tenant sends nothing.
    TenantSilent,
    /// The audit queue stands, and loses records.
    AuditStall,
    /// Somebody asks for more and more permissions.
    EscalationChain,
    /// The token service of a region is slow, and fails nobody.
    SlowTokens,
    /// Permissions cannot be assigned in a region, by none of its services.
    AssignmentsFailing,
    /// People wait for escalations.
    SlowEscalation,
    /// The audit queue leaves records out, and delivers them at the end.
    AuditGaps,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: &'static [Scenario] = &[
        Scenario::BruteForce,
        Scenario::PasswordSpraying,
        Scenario::CredentialStuffing,
        Scenario::RateLimiter,
        Scenario::DegradedIam,
        Scenario::RefreshOverload,
        Scenario::BadDeploy,
        Scenario::RegionLost,
        Scenario::TenantSilent,
        Scenario::AuditStall,
        Scenario::EscalationChain,
        Scenario::SlowTokens,
        Scenario::AssignmentsFailing,
        Scenario::SlowEscalation,
        Scenario::AuditGaps,
    ];

    /// The name to ask for it by.
    pub const fn name(self) -> &'static str {
        match self {
            Scenario::BruteForce => "brute-force",
            Scenario::PasswordSpraying => "password-spraying",
            Scenario::CredentialStuffing => "credential-stuffing",
            Scenario::RateLimiter => "rate-limiter",
            Scenario::DegradedIam => "degraded-iam",
            Scenario::RefreshOverload => "refresh-overload",
            Scenario::BadDeploy => "bad-deploy",
            Scenario::RegionLost => "region-lost",
            Scenario::TenantSilent => "tenant-silent",
            Scenario::AuditStall => "audit-stall",
            Scenario::EscalationChain => "escalation-chain",
            Scenario::SlowTokens => "slow-tokens",
            Scenario::AssignmentsFailing => "assignments-failing",
            Scenario::SlowEscalation => "slow-escalation",
            Scenario::AuditGaps => "audit-gaps",
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
            Scenario::PasswordSpraying => {
                "One tenant is attacked slowly: a twentieth of all events are tries of one password on one account after \
                 the other, from twelve addresses; nearly all end with bad_credentials, five in a thousand with a success. \
                 Distinct accounts climb far above what failures alone explain, distinct sources hardly, and no account \
                 fails often enough to be locked."
            }
            Scenario::CredentialStuffing => {
                "One tenant is attacked from everywhere: three tenths of all events are leaked names and passwords, each \
                 address used about twice, six in ten for accounts that do not exist and two in a thousand a success. \
                 Distinct accounts and distinct sources climb together, and unknown_account leads the reasons."
            }
            Scenario::RateLimiter => {
                "A limiter is set too tight for one tenant: six in ten of its honest logins and token requests are denied \
                 with rate_limited, in a millisecond or two. \
                 Its denied ratio climbs while wrong passwords fall with the rest, latency gets better, not worse, and \
                 distinct accounts and sources stay as they are: no attack."
            }
            Scenario::DegradedIam => {
                "One region's identity service is in trouble: three in ten of its logins and token requests fail with \
                 upstream_error or timeout, and all of them take eight times as long. \
                 Every tenant served there is hit alike, successes fall, and wrong passwords do not rise."
            }
            Scenario::RefreshOverload => {
                "A release of the mobile client refreshes its tokens too often: refreshes in one region come on top, half as \
                 many again as all events, and every refresh there takes six times as long. \
                 Refresh latency climbs without a single error more, and issued tokens and logins stay as they were."
            }
            Scenario::BadDeploy => {
                "A deploy of token-issuer in one region breaks it: from its change event on a fifth of the region's token \
                 requests fail with upstream_error and all take three times as long, until the rollback. \
                 Errors begin within seconds of the deploy and end with the rollback, logins go on, and nobody attacks."
            }
            Scenario::RegionLost => {
                "One region is lost: nothing that happens there is told any more. \
                 Its rates fall to nothing while those of other regions stay level, which no failure ratio shows."
            }
            Scenario::TenantSilent => {
                "One tenant falls silent: none of its events comes any more. \
                 Its rates fall to nothing, its counters stand still and do not restart, and no other tenant notices."
            }
            Scenario::AuditStall => {
                "The audit queue stands: records are put in and none comes out, until it goes on and empties at five times \
                 the everyday rate, with one in twenty lost for good. \
                 Backlog and lag climb while nothing arrives, fall when it goes on, and what was lost is missing once \
                 the queue's grace is over."
            }
            Scenario::EscalationChain => {
                "One account of one tenant asks again and again for a role above its own: chains of gateway, evaluator and \
                 enforcer with one trace id each, of which the evaluator denies seven in ten. \
                 Denied escalations of one tenant climb at one hop, and each can be followed by its trace."
            }
            Scenario::SlowTokens => {
                "The token service of one region is slow: every token request there takes forty times as long, most of them \
                 more than half a second, and none fails. \
                 The latency objective burns while availability, logins and other regions stay as they were."
            }
            Scenario::AssignmentsFailing => {
                "Roles are given out in one region by three services, a fiftieth of all events on top, and six in ten fail at \
                 each of them with upstream_error or timeout. \
                 Failed assignments climb in several services at once, so the cause lies behind them; checks go on."
            }
            Scenario::SlowEscalation => {
                "Escalations of every tenant in one region wait at the evaluator for two seconds and more, a fiftieth of all \
                 events on top, and all are allowed in the end. \
                 The latency of one hop climbs, that of the others does not, and nothing is denied."
            }
            Scenario::AuditGaps => {
                "The audit queue leaves out one record in ten while the others come as ever, and delivers what it left out when \
                 the scenario ends. \
                 Gaps turn into missing records once the queue's grace is over, and all of them are recovered after the end."
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
