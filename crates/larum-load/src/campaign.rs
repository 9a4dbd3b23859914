//! What scenarios send on top of everyday records: attacks, too many refreshes, the changes around a bad deploy, what an
//! audit queue held back.

use std::collections::VecDeque;

use larum_event::Op;

use crate::dice::Dice;
use crate::mix::{ChainStep, Ending, Facts, Place};
use crate::pace::Steps;
use crate::profile::{Profile, SECOND_NS};
use crate::scribe::Queued;
use crate::trouble;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Tries of passwords.
    BruteForce,
    /// One password on all accounts.
    Spraying,
    /// Leaked passwords.
    Stuffing,
    /// Refreshes.
    Refreshes,
    /// Steps up.
    Escalation,
    /// Steps up that wait.
    SlowEscalation,
    /// Permissions given out.
    Assignments,
    /// A deploy, and at the end its rollback.
    Release,
}

impl Sort {
    /// Its share of all events while it lasts and everyday traffic is at its mean.
    const fn share(self) -> f64 {
        match self {
            Sort::BruteForce | Sort::Stuffing => 0.3,
            Sort::Spraying => 0.05,
            Sort::Refreshes => 1.0 / 3.0,
            Sort::Escalation => 0.01,
            Sort::SlowEscalation | Sort::Assignments => 0.02,
            Sort::Release => 0.0,
        }
    }
}

/// Steps of a chain that nobody denies.
const CHAIN_STEPS: u64 = 3;

/// What is to be sent next.
pub enum Extra {
    /// An event, final but for what goes wrong where it happens.
    Event(Facts),
    /// A change of the token service.
    Change(Op, Place),
}

/// A stream of its own: even spacing, day and night, as machines do.
#[derive(Debug)]
pub struct Campaign {
    sort: Sort,
    tenant: usize,
    region: usize,
    tenants: usize,
    regions: usize,
    steps: Steps,
    step_ns: f64,
    end_ns: i64,
    /// Records sent.
    sent: u64,
    /// The last step of an escalation.
    step: Option<(ChainStep, Ending)>,
    /// Its own dice, so that everyday records are the same with it and without.
    pub dice: Dice,
}

impl Campaign {
    /// Against `tenant` or in `region`, from `start_ns` to `end_ns`; the `number`-th of its profile.
    pub fn new(
        profile: &Profile,
        sort: Sort,
        (tenant, region): (usize, usize),
        (start_ns, end_ns): (i64, i64),
        number: usize,
    ) -> Self {
        let per_second = profile.events_per_second * sort.share() / (1.0 - sort.share());
        let step_ns = match sort {
            // The second and last is due at the very end.
            Sort::Release => (end_ns - start_ns - 1).max(1) as f64,
            _ => SECOND_NS as f64 / per_second,
        };
        Campaign {
            sort,
            tenant,
            region,
            tenants: profile.tenants,
            regions: profile.regions,
            steps: Steps::new(start_ns),
            step_ns,
            end_ns,
            sent: 0,
            step: None,
            dice: Dice::new(profile.seed.rotate_left(32) ^ (number as u64 + 1)),
        }
    }

    /// When the next record is due; never, once it is over.
    #[inline]
    pub fn due_ns(&self) -> i64 {
        if self.steps.due_ns() < self.end_ns { self.steps.due_ns() } else { i64::MAX }
    }

    /// Takes the next record, whose event happens at `time_ns`.
    pub fn take(&mut self, time_ns: i64) -> Extra {
        self.steps.advance(self.step_ns);
        let (number, regions, dice) = (self.sent, self.regions, &mut self.dice);
        self.sent += 1;
        let place = Place { tenant: self.tenant, region: self.region, time_ns };
        let facts = match self.sort {
            Sort::BruteForce => trouble::brute_force(place, regions, dice),
            Sort::Spraying => trouble::spraying(place, regions, number, dice),
            Sort::Stuffing => trouble::stuffing(place, regions, number, dice),
            Sort::Refreshes => {
                let tenant = dice.below(self.tenants as u32) as usize;
                trouble::refresh(Place { tenant, ..place }, dice)
            }
            Sort::Escalation => {
                let facts = trouble::escalation(place, self.step, dice);
                self.step = facts.chain.map(|chain| (chain, facts.ending));
                facts
            }
            Sort::SlowEscalation => {
                // One tenant's chain after the other's.
                let tenant = (number / CHAIN_STEPS) as usize % self.tenants;
                let facts = trouble::slow_escalation(Place { tenant, ..place }, self.step, dice);
                self.step = facts.chain.map(|chain| (chain, facts.ending));
                facts
            }
            Sort::Assignments => {
                let tenant = dice.below(self.tenants as u32) as usize;
                trouble::assignment(Place { tenant, ..place }, number, dice)
            }
            Sort::Release => return Extra::Change(if number == 0 { Op::Deploy } else { Op::Rollback }, place),
        };
        Extra::Event(facts)
    }
}

/// A record that waits in an audit queue that stands, or that was left out.
#[derive(Debug)]
struct Held {
    queued: Queued,
    tenant: usize,
    region: usize,
}

/// What an audit queue held back.
#[derive(Debug)]
pub struct Backlog {
    held: VecDeque<Held>,
    steps: Steps,
    step_ns: f64,
}

/// Most records held; what comes beyond is lost.
const HELD_MAX: usize = 1_000_000;
/// It empties so many times as fast as it fills.
const EMPTIES_TIMES: f64 = 5.0;

impl Backlog {
    /// An empty one, of a queue that takes `share` of everyday records.
    pub fn new(profile: &Profile, share: f64) -> Self {
        let step_ns = SECOND_NS as f64 / (profile.events_per_second * share * EMPTIES_TIMES);
        Backlog { held: VecDeque::new(), steps: Steps::new(profile.start_ns), step_ns }
    }

    /// Holds a record until the queue goes on at `until_ns`.
    pub fn hold(&mut self, queued: Queued, place: Place, until_ns: i64) {
        self.steps = Steps::new(until_ns);
        if self.held.len() < HELD_MAX {
            self.held.push_back(Held { queued, tenant: place.tenant, region: place.region });
        }
    }

    /// When the next record comes out; never while there is none.
    #[inline]
    pub fn due_ns(&self) -> i64 {
        if self.held.is_empty() { i64::MAX } else { self.steps.due_ns() }
    }

    /// Takes the next record out.
    pub fn take(&mut self) -> Option<(Queued, Place)> {
        let time_ns = self.steps.due_ns();
        self.steps.advance(self.step_ns);
        let Held { queued, tenant, region } = self.held.pop_front()?;
        Some((queued, Place { tenant, region, time_ns }))
    }
}
