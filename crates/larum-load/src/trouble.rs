//! What scenarios do to everyday events, and the events of attacks.

use larum_event::{Kind, Op};

use crate::dice::{Chance, Dice};
use crate::mix::{
    CHECK_TIME, Caller, ChainStep, Ending, Facts, LATENCY_E4_MAX, LIMITED_TIME, LOGIN_TIME, Origin, PEOPLE, Place,
    REFRESH_TIME, Table, pick,
};
use crate::profile::REGIONS_MAX;
use crate::scribe::service_of;

/// Tries of a brute force; all fail.
const BRUTE_FORCE: &Table<Ending> = &[(900, Ending::BadCredentials), (100, Ending::UnknownAccount)];
/// How many addresses a brute force comes from.
const BRUTE_FORCE_ADDRESSES: u32 = 4;
/// Tries of a spraying.
const SPRAYING: &Table<Ending> = &[(995, Ending::BadCredentials), (5, Ending::Success)];
/// How many addresses a spraying comes from.
const SPRAYING_ADDRESSES: u32 = 12;
/// Tries of a stuffing.
const STUFFING: &Table<Ending> = &[(600, Ending::UnknownAccount), (398, Ending::BadCredentials), (2, Ending::Success)];
/// Tries from each address of a stuffing.
const STUFFING_REUSE: u64 = 2;
/// What broken requests of a degraded region end with.
const BROKEN: &Table<Ending> = &[(700, Ending::UpstreamError), (300, Ending::Timeout)];
/// What a step up is answered with, by the evaluator.
const EVALUATED: &Table<Ending> = &[(700, Ending::AgainstPolicy), (300, Ending::Success)];

/// What assignments end with where they fail.
const ASSIGNED: &Table<Ending> = &[(400, Ending::UpstreamError), (200, Ending::Timeout), (400, Ending::Success)];
/// The services that assign permissions.
pub const ASSIGNING: [&str; 3] = ["role-service", "group-service", "scim-bridge"];

/// How many of a degraded region's requests break.
const DEGRADED_BREAKS: Chance = Chance::per_mille(300);
/// So many times longer a degraded region takes.
const DEGRADED_TIMES: u64 = 8;
/// So many times longer refreshes take under overload.
const OVERLOAD_TIMES: u64 = 6;
/// How many token requests break after a bad deploy.
const DEPLOY_BREAKS: Chance = Chance::per_mille(200);
/// So many times longer they take.
const DEPLOY_TIMES: u64 = 3;
/// So many times longer token requests take where their service is slow.
const SLOW_TOKENS_TIMES: u64 = 40;
/// So many times longer than a login an evaluator takes that people wait for.
const SLOW_EVALUATOR_TIMES: u64 = 20;
/// How many requests a limiter denies that is set too tight.
const LIMITED: Chance = Chance::per_mille(600);

/// What is wrong at the moment, by region or tenant.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Regions with a degraded identity service.
    pub degraded: [bool; REGIONS_MAX],
    /// Regions with too many refreshes.
    pub overloaded: [bool; REGIONS_MAX],
    /// Regions with a broken token service.
    pub deployed: [bool; REGIONS_MAX],
    /// Regions with a slow token service.
    pub slow_tokens: [bool; REGIONS_MAX],
    /// Regions that tell nothing.
    pub lost: [bool; REGIONS_MAX],
    /// Tenants whose limiter is too tight.
    pub limited: Vec<usize>,
    /// Tenants that tell nothing.
    pub silent: Vec<usize>,
    /// Until when the audit queue stands, Unix ns.
    pub stalled_until_ns: Option<i64>,
    /// Until when the audit queue leaves records out, Unix ns.
    pub gaps_until_ns: Option<i64>,
}

impl Faults {
    /// True where nothing is told.
    #[inline]
    pub fn is_silent(&self, tenant: usize, region: usize) -> bool {
        self.lost[region] || self.silent.contains(&tenant)
    }

    /// Makes of an event what it becomes where it happens; others stay as they are.
    pub fn strike(&self, facts: &mut Facts, dice: &mut Dice) {
        if !matches!(facts.kind, Kind::Login | Kind::Token) {
            return;
        }
        let Place { tenant, region, .. } = facts.place;
        if self.degraded[region] {
            slower(facts, DEGRADED_TIMES);
            if dice.hit(DEGRADED_BREAKS) {
                facts.ending = pick(BROKEN, dice);
            }
        }
        if self.overloaded[region] && facts.op == Op::Refresh {
            slower(facts, OVERLOAD_TIMES);
        }
        if self.deployed[region] && facts.kind == Kind::Token {
            slower(facts, DEPLOY_TIMES);
            if dice.hit(DEPLOY_BREAKS) {
                facts.ending = Ending::UpstreamError;
            }
        }
        if self.slow_tokens[region] && facts.kind == Kind::Token {
            slower(facts, SLOW_TOKENS_TIMES);
        }
        if self.limited.contains(&tenant) && dice.hit(LIMITED) {
            facts.ending = Ending::RateLimited;
            facts.latency_e4 = LIMITED_TIME.draw(dice);
        }
    }
}

fn slower(facts: &mut Facts, times: u64) {
    facts.latency_e4 = facts.latency_e4.map(|e4| (e4 * times).min(LATENCY_E4_MAX));
}

/// A person of a tenant.
fn person(tenant: usize, number: u32) -> u32 {
    (tenant as u32).wrapping_mul(PEOPLE).wrapping_add(number % PEOPLE)
}

fn event(kind: Kind, op: Op, ending: Ending, place: Place, account: u32, origin: Origin) -> Facts {
    let caller = Caller { account, is_service: false, origin };
    Facts { kind, op, ending, place, latency_e4: None, count: 1, caller, chain: None, service: service_of(kind) }
}

/// An address is always routed to the same region.
fn region_of(address: u32, regions: usize) -> usize {
    address as usize % regions
}

/// A try of a brute force.
pub fn brute_force(mut place: Place, regions: usize, dice: &mut Dice) -> Facts {
    let address = dice.below(BRUTE_FORCE_ADDRESSES);
    place.region = region_of(address, regions);
    let ending = pick(BRUTE_FORCE, dice);
    let account = match ending {
        // Guessed names: hardly one comes twice.
        Ending::UnknownAccount => dice.roll() | 1 << 31,
        _ => person(place.tenant, dice.below(PEOPLE)),
    };
    let facts = event(Kind::Login, Op::Password, ending, place, account, Origin::Few(address as u8));
    Facts { latency_e4: LOGIN_TIME.draw(dice), ..facts }
}

/// The `number`-th try of a spraying: one account after the other.
pub fn spraying(mut place: Place, regions: usize, number: u64, dice: &mut Dice) -> Facts {
    let address = dice.below(SPRAYING_ADDRESSES);
    place.region = region_of(address, regions);
    let (ending, account) = (pick(SPRAYING, dice), person(place.tenant, number as u32));
    let facts = event(Kind::Login, Op::Password, ending, place, account, Origin::Few(address as u8));
    Facts { latency_e4: LOGIN_TIME.draw(dice), ..facts }
}

/// The `number`-th try of a stuffing.
pub fn stuffing(mut place: Place, regions: usize, number: u64, dice: &mut Dice) -> Facts {
    let address = (number / STUFFING_REUSE) as u32;
    place.region = region_of(address, regions);
    let ending = pick(STUFFING, dice);
    let account = match ending {
        Ending::UnknownAccount => dice.roll() | 1 << 31,
        _ => person(place.tenant, dice.below(PEOPLE)),
    };
    let facts = event(Kind::Login, Op::Password, ending, place, account, Origin::Many(address));
    Facts { latency_e4: LOGIN_TIME.draw(dice), ..facts }
}

/// A refresh too many.
pub fn refresh(place: Place, dice: &mut Dice) -> Facts {
    let account = person(place.tenant, dice.below(PEOPLE));
    let facts = event(Kind::Token, Op::Refresh, Ending::Success, place, account, Origin::Own);
    Facts { latency_e4: REFRESH_TIME.draw(dice), ..facts }
}

/// The next step up: after the one `before`, or a new chain. A chain ends with a denial, or at its third step.
pub fn escalation(place: Place, before: Option<(ChainStep, Ending)>, dice: &mut Dice) -> Facts {
    let chain = step_up(before, dice);
    let ending = if chain.hop == 1 { pick(EVALUATED, dice) } else { Ending::Success };
    let facts = event(Kind::Permission, Op::Escalate, ending, place, person(place.tenant, 7), Origin::Own);
    Facts { latency_e4: CHECK_TIME.draw(dice), chain: Some(chain), ..facts }
}

/// The same where the evaluator is slow; all steps are allowed.
pub fn slow_escalation(place: Place, before: Option<(ChainStep, Ending)>, dice: &mut Dice) -> Facts {
    let chain = step_up(before, dice);
    let facts = event(Kind::Permission, Op::Escalate, Ending::Success, place, person(place.tenant, 7), Origin::Own);
    let mut facts = Facts { latency_e4: CHECK_TIME.draw(dice), chain: Some(chain), ..facts };
    if chain.hop == 1 {
        facts.latency_e4 = LOGIN_TIME.draw(dice);
        slower(&mut facts, SLOW_EVALUATOR_TIMES);
    }
    facts
}

fn step_up(before: Option<(ChainStep, Ending)>, dice: &mut Dice) -> ChainStep {
    match before {
        Some((step, Ending::Success)) if step.hop < 2 => {
            ChainStep { hop: step.hop + 1, span: dice.word(), parent: Some(step.span), ..step }
        }
        _ => ChainStep { hop: 0, trace: (dice.word(), dice.word()), span: dice.word(), parent: None },
    }
}

/// The `number`-th assignment, which most likely fails.
pub fn assignment(place: Place, number: u64, dice: &mut Dice) -> Facts {
    let account = person(place.tenant, dice.below(PEOPLE));
    let facts = event(Kind::Permission, Op::Assign, pick(ASSIGNED, dice), place, account, Origin::Own);
    Facts { latency_e4: CHECK_TIME.draw(dice), service: ASSIGNING[number as usize % ASSIGNING.len()], ..facts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::WHOLE;

    #[test]
    fn tables_are_whole() {
        for table in [BRUTE_FORCE, SPRAYING, STUFFING, BROKEN, EVALUATED, ASSIGNED] {
            assert_eq!(table.iter().map(|(share, _)| share).sum::<u32>(), WHOLE, "{table:?}");
        }
    }
}
