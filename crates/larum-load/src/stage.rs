//! Scenarios at work: which are on, whom they hit, and when an attack tries next.

use crate::dice::Dice;
use crate::mix::Place;
use crate::pace::Steps;
use crate::profile::{Profile, REGIONS, REGIONS_MAX, SECOND_NS};
use crate::scenario::{Planned, Scenario};
use crate::scribe::{ATTACK_ADDRESSES, Scribe};
use crate::truth::ScenarioTruth;

/// An attack's share of all events while it lasts and everyday traffic is at its mean.
const ATTACK_SHARE: f64 = 0.3;

/// A planned scenario and how far it has come.
#[derive(Debug)]
struct Act {
    scenario: Scenario,
    /// Index of the tenant or region that is hit.
    target: usize,
    start_ns: i64,
    end_ns: i64,
    begun: bool,
    ended: bool,
}

/// An attack: even spacing, day and night, as machines do.
#[derive(Debug)]
pub struct Campaign {
    tenant: usize,
    regions: usize,
    steps: Steps,
    step_ns: f64,
    end_ns: i64,
    /// Its own dice, so that everyday records are the same with it and without.
    pub dice: Dice,
}

impl Campaign {
    /// When the next try is due; never, once it is over.
    #[inline]
    fn due_ns(&self) -> i64 {
        if self.steps.due_ns() < self.end_ns { self.steps.due_ns() } else { i64::MAX }
    }

    /// Takes the next try: when it is due, its place but for the event's own time, and its address.
    pub fn take(&mut self) -> (i64, Place, u8) {
        let due_ns = self.steps.due_ns();
        self.steps.advance(self.step_ns);
        let attacker = self.dice.below(u32::from(ATTACK_ADDRESSES)) as u8;
        // An address is always routed to the same region.
        let region = usize::from(attacker) % self.regions;
        (due_ns, Place { tenant: self.tenant, region, time_ns: due_ns }, attacker)
    }
}

/// All planned scenarios.
#[derive(Debug)]
pub struct Stage {
    acts: Vec<Act>,
    /// The attacks among them.
    pub campaigns: Vec<Campaign>,
    /// No scenario begins or ends before; Unix ns.
    next_turn_ns: i64,
    degraded: [bool; REGIONS_MAX],
}

impl Stage {
    /// The scenarios of a profile that was checked. Each attack hits a tenant of middling popularity, each degradation
    /// the next region, beginning with the first.
    pub fn new(profile: &Profile) -> Self {
        let mut stage =
            Stage { acts: Vec::new(), campaigns: Vec::new(), next_turn_ns: i64::MIN, degraded: [false; REGIONS_MAX] };
        for (at, planned) in profile.scenarios.iter().enumerate() {
            let before = stage.acts.iter().filter(|act| act.scenario == planned.scenario).count();
            let target = match planned.scenario {
                Scenario::BruteForce => (profile.tenants / 2 + before) % profile.tenants,
                Scenario::DegradedIam => before % profile.regions,
            };
            let (start_ns, end_ns) = span_ns(profile, planned);
            stage.acts.push(Act { scenario: planned.scenario, target, start_ns, end_ns, begun: false, ended: false });
            if planned.scenario == Scenario::BruteForce {
                let per_second = profile.events_per_second * ATTACK_SHARE / (1.0 - ATTACK_SHARE);
                stage.campaigns.push(Campaign {
                    tenant: target,
                    regions: profile.regions,
                    steps: Steps::new(start_ns),
                    step_ns: SECOND_NS as f64 / per_second,
                    end_ns,
                    dice: Dice::new(profile.seed.rotate_left(32) ^ (at as u64 + 1)),
                });
            }
        }
        stage
    }

    /// The attack whose next try is due before `due_ns`, the earliest of them.
    #[inline]
    pub fn campaign_before(&self, due_ns: i64) -> Option<usize> {
        let due = self.campaigns.iter().enumerate().map(|(at, campaign)| (campaign.due_ns(), at));
        due.min().filter(|(campaign_ns, _)| *campaign_ns < due_ns).map(|(_, at)| at)
    }

    /// True while the region's identity service is in trouble.
    #[inline]
    pub fn is_degraded(&self, region: usize) -> bool {
        self.degraded[region]
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
        self.degraded = [false; REGIONS_MAX];
        for act in &mut self.acts {
            act.begun |= now_ns >= act.start_ns;
            act.ended |= now_ns >= act.end_ns;
            let next_ns = match (act.begun, act.ended) {
                (false, _) => act.start_ns,
                (true, false) => act.end_ns,
                (true, true) => i64::MAX,
            };
            self.next_turn_ns = self.next_turn_ns.min(next_ns);
            if act.scenario == Scenario::DegradedIam && act.begun && !act.ended {
                self.degraded[act.target] = true;
            }
        }
    }

    /// What happened so far.
    pub fn truth(&self, scribe: &Scribe) -> Vec<ScenarioTruth> {
        let begun = self.acts.iter().filter(|act| act.begun);
        let truth = begun.map(|act| ScenarioTruth {
            name: act.scenario.name().to_string(),
            tenant: (act.scenario == Scenario::BruteForce).then(|| scribe.tenant(act.target).to_string()),
            region: (act.scenario == Scenario::DegradedIam).then(|| REGIONS[act.target].name.to_string()),
            start_ns: act.start_ns,
            end_ns: act.ended.then_some(act.end_ns),
        });
        truth.collect()
    }
}

/// When a scenario begins and ends, Unix ns.
fn span_ns(profile: &Profile, planned: &Planned) -> (i64, i64) {
    let at = |seconds: f64| profile.start_ns.saturating_add((seconds * SECOND_NS as f64) as i64);
    (at(planned.start_s), at(planned.start_s + planned.duration_s))
}
