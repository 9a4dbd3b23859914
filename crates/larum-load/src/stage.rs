//! Scenarios at work: which are on, whom they hit, and what they send on top.

use crate::campaign::{Campaign, Sort};
use crate::profile::{Profile, REGIONS, SECOND_NS};
use crate::scenario::{Planned, Scenario};
use crate::scribe::Scribe;
use crate::trouble::Faults;
use crate::truth::ScenarioTruth;

/// Whom a scenario hits, by index.
#[derive(Clone, Copy, Debug)]
enum Target {
    Tenant(usize),
    Region(usize),
    /// The audit queue, which belongs to all.
    Queue,
}

/// A planned scenario and how far it has come.
#[derive(Debug)]
struct Act {
    scenario: Scenario,
    target: Target,
    start_ns: i64,
    end_ns: i64,
    begun: bool,
    ended: bool,
}

/// All planned scenarios.
#[derive(Debug)]
pub struct Stage {
    acts: Vec<Act>,
    /// What they send on top.
    pub campaigns: Vec<Campaign>,
    /// What is wrong at the moment.
    pub faults: Faults,
    /// No scenario begins or ends before; Unix ns.
    next_turn_ns: i64,
}

/// What a scenario sends on top.
const fn sort(scenario: Scenario) -> Option<Sort> {
    match scenario {
        Scenario::BruteForce => Some(Sort::BruteForce),
        Scenario::PasswordSpraying => Some(Sort::Spraying),
        Scenario::CredentialStuffing => Some(Sort::Stuffing),
        Scenario::RefreshOverload => Some(Sort::Refreshes),
        Scenario::EscalationChain => Some(Sort::Escalation),
        Scenario::SlowEscalation => Some(Sort::SlowEscalation),
        Scenario::AssignmentsFailing => Some(Sort::Assignments),
        Scenario::BadDeploy => Some(Sort::Release),
        Scenario::RateLimiter
        | Scenario::DegradedIam
        | Scenario::RegionLost
        | Scenario::TenantSilent
        | Scenario::SlowTokens
        | Scenario::AuditGaps
        | Scenario::AuditStall => None,
    }
}

/// The `before`-th scenario of its sort hits a tenant of middling popularity, or the next region from the first on.
fn target(scenario: Scenario, before: usize, profile: &Profile) -> Target {
    match scenario {
        Scenario::DegradedIam
        | Scenario::RefreshOverload
        | Scenario::BadDeploy
        | Scenario::SlowTokens
        | Scenario::AssignmentsFailing
        | Scenario::SlowEscalation
        | Scenario::RegionLost => Target::Region(before % profile.regions),
        Scenario::AuditStall | Scenario::AuditGaps => Target::Queue,
        _ => Target::Tenant((profile.tenants / 2 + before) % profile.tenants),
    }
}

impl Stage {
    /// The scenarios of a profile that was checked.
    pub fn new(profile: &Profile) -> Self {
        let (mut acts, mut campaigns): (Vec<Act>, Vec<Campaign>) = (Vec::new(), Vec::new());
        for (at, Planned { scenario, start_s, duration_s }) in profile.scenarios.iter().enumerate() {
            let scenario = *scenario;
            let before = acts.iter().filter(|act| act.scenario == scenario).count();
            let target = target(scenario, before, profile);
            let at_ns = |seconds: f64| profile.start_ns.saturating_add((seconds * SECOND_NS as f64) as i64);
            let (start_ns, end_ns) = (at_ns(*start_s), at_ns(start_s + duration_s));
            acts.push(Act { scenario, target, start_ns, end_ns, begun: false, ended: false });
            let place = match target {
                Target::Tenant(tenant) => (tenant, 0),
                Target::Region(region) => (0, region),
                Target::Queue => (0, 0),
            };
            campaigns.extend(sort(scenario).map(|sort| Campaign::new(profile, sort, place, (start_ns, end_ns), at)));
        }
        Stage { acts, campaigns, faults: Faults::default(), next_turn_ns: i64::MIN }
    }

    /// The campaign whose next record is due before `due_ns`, the earliest of them.
    #[inline]
    pub fn campaign_before(&self, due_ns: i64) -> Option<usize> {
        let due = self.campaigns.iter().enumerate().map(|(at, campaign)| (campaign.due_ns(), at));
        due.min().filter(|(campaign_ns, _)| *campaign_ns < due_ns).map(|(_, at)| at)
    }

    /// Begins and ends what is due at the nominal time `now_ns`.
    #[inline]
    pub fn turn(&mut self, now_ns: i64) {
        if now_ns >= self.next_turn_ns {
            self.turn_acts(now_ns);
        }
    }

    #[cold]
    fn turn_acts(&mut self, now_ns: i64) {
        self.next_turn_ns = i64::MAX;
        let mut faults = Faults::default();
        for act in &mut self.acts {
            act.begun |= now_ns >= act.start_ns;
            act.ended |= now_ns >= act.end_ns;
            let next_ns = match (act.begun, act.ended) {
                (false, _) => act.start_ns,
                (true, false) => act.end_ns,
                (true, true) => i64::MAX,
            };
            self.next_turn_ns = self.next_turn_ns.min(next_ns);
            if !act.begun || act.ended {
                continue;
            }
            match (act.scenario, act.target) {
                (Scenario::DegradedIam, Target::Region(region)) => faults.degraded[region] = true,
                (Scenario::RefreshOverload, Target::Region(region)) => faults.overloaded[region] = true,
                (Scenario::BadDeploy, Target::Region(region)) => faults.deployed[region] = true,
                (Scenario::SlowTokens, Target::Region(region)) => faults.slow_tokens[region] = true,
                (Scenario::RegionLost, Target::Region(region)) => faults.lost[region] = true,
                (Scenario::RateLimiter, Target::Tenant(tenant)) => faults.limited.push(tenant),
                (Scenario::TenantSilent, Target::Tenant(tenant)) => faults.silent.push(tenant),
                (Scenario::AuditGaps, _) => faults.gaps_until_ns = faults.gaps_until_ns.max(Some(act.end_ns)),
                (Scenario::AuditStall, _) => {
                    faults.stalled_until_ns = faults.stalled_until_ns.max(Some(act.end_ns));
                }
                _ => {}
            }
        }
        self.faults = faults;
    }

    /// What happened so far.
    pub fn truth(&self, scribe: &Scribe) -> Vec<ScenarioTruth> {
        let begun = self.acts.iter().filter(|act| act.begun);
        let truth = begun.map(|act| {
            let (tenant, region) = match act.target {
                Target::Tenant(tenant) => (Some(scribe.tenant(tenant).to_string()), None),
                Target::Region(region) => (None, Some(REGIONS[region].name.to_string())),
                Target::Queue => (None, None),
            };
            let (name, end_ns) = (act.scenario.name().to_string(), act.ended.then_some(act.end_ns));
            ScenarioTruth { name, tenant, region, start_ns: act.start_ns, end_ns }
        });
        truth.collect()
    }
}
