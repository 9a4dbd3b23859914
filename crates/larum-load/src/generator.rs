//! The generator: everyday traffic and what scenarios send, merged by due time, struck by what goes wrong, and counted.

use larum_event::{Kind, Op};

use crate::campaign::{Backlog, Extra};
use crate::dice::{Chance, Dice};
use crate::flaw::FLAWS;
use crate::mix::{self, Activity, Facts, Place};
use crate::pace::Pace;
use crate::popularity::Popularity;
use crate::profile::{Profile, ProfileError};
use crate::scribe::{QUEUED_MS_MAX, Queued, Scribe, service_of};
use crate::stage::Stage;
use crate::tally::Tally;
use crate::timing::{Timing, Timings};
use crate::truth::Truth;

/// One record, borrowed until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated<'a> {
    /// The record's value.
    pub bytes: &'a [u8],
    /// The record's key, which partitions: the tenant's name.
    pub key: &'a [u8],
    /// When it should be appended, Unix ns; never before the one before.
    pub due_ns: i64,
}

/// Records that an audit queue loses while it stands.
const LOST: Chance = Chance::per_mille(50);

/// Records that an audit queue leaves out until later.
const LEFT_OUT: Chance = Chance::per_mille(100);

/// An endless source of records and of the truth about them.
#[derive(Debug)]
pub struct Generator {
    pace: Pace,
    timings: Timings,
    popularity: Popularity,
    malformed: Chance,
    /// Malformed records so far; they take the flaws in turn.
    flaws: usize,
    stage: Stage,
    /// What an audit queue held back while it stood, and what it left out.
    backlog: Backlog,
    left_out: Backlog,
    /// Everyday records.
    dice: Dice,
    /// What goes wrong alone, so that it leaves everyday records as they are otherwise; but what an audit queue holds back is
    /// written later, with dice of its own time.
    fault_dice: Dice,
    scribe: Scribe,
    tally: Tally,
}

impl Generator {
    /// A generator of what `profile` asks for.
    ///
    /// # Errors
    /// The first figure that is outside its range.
    pub fn new(profile: Profile) -> Result<Self, ProfileError> {
        profile.check()?;
        Ok(Generator {
            pace: Pace::new(&profile),
            timings: Timings::new(&profile),
            popularity: Popularity::new(profile.tenants, profile.zipf),
            malformed: Chance::of(profile.malformed_share),
            flaws: 0,
            stage: Stage::new(&profile),
            backlog: Backlog::new(&profile, mix::share(Activity::Deliver)),
            left_out: Backlog::new(&profile, mix::share(Activity::Deliver)),
            dice: Dice::new(profile.seed),
            fault_dice: Dice::new(!profile.seed),
            scribe: Scribe::new(profile.seed, profile.tenants),
            tally: Tally::new(profile.tenants, profile.regions),
        })
    }

    /// The next record.
    pub fn next_record(&mut self) -> Generated<'_> {
        let (due_ns, tenant) = loop {
            let everyday_ns = self.pace.due_ns();
            let held_ns = self.backlog.due_ns().min(self.left_out.due_ns());
            let told = match self.stage.campaign_before(everyday_ns.min(held_ns)) {
                Some(campaign) => Some(self.extra(campaign)),
                None if held_ns < everyday_ns => self.held_back(),
                None => self.everyday(),
            };
            if let Some(told) = told {
                break told;
            }
        };
        self.tally.record(self.scribe.bytes().len());
        Generated { bytes: self.scribe.bytes(), key: self.scribe.tenant(tenant).as_bytes(), due_ns }
    }

    /// What a reader of all records so far must find. Worked out on demand: not for every record.
    pub fn truth(&self) -> Truth {
        Truth { scenarios: self.stage.truth(&self.scribe), ..self.tally.truth(&self.scribe) }
    }

    /// Writes an everyday record; gives when it is due and its tenant, unless nobody tells of it.
    fn everyday(&mut self) -> Option<(i64, usize)> {
        let due_ns = self.pace.due_ns();
        self.stage.turn(due_ns);
        let region = self.pace.region(&mut self.dice);
        self.pace.advance();
        let tenant = self.popularity.draw(&mut self.dice);
        let (timing, time_ns) = self.timings.draw(due_ns, &mut self.dice);
        let place = Place { tenant, region, time_ns };
        if self.stage.faults.is_silent(tenant, region) {
            return None;
        }
        if self.dice.hit(self.malformed) {
            let flaw = FLAWS[self.flaws % FLAWS.len()];
            self.flaws += 1;
            self.scribe.flawed(flaw, place, &mut self.dice);
            self.tally.reject(flaw);
            return Some((due_ns, tenant));
        }
        match mix::pick(mix::MIX, &mut self.dice) {
            Activity::Deliver if !self.audit(place, timing, due_ns) => return None,
            Activity::Deliver => {}
            Activity::Change => {
                let change = Scribe::everyday_change(&mut self.dice);
                self.scribe.change(change, place, &mut self.dice);
                self.tally.event(Kind::Change, timing);
                self.tally.change(place.region, change.0, change.1);
            }
            activity => {
                let mut facts = mix::everyday(activity, place, &mut self.dice);
                self.settle(&mut facts, timing);
                self.scribe.event(&facts, &mut self.dice);
            }
        }
        Some((due_ns, tenant))
    }

    /// A record comes out of the audit queue, or while that stands is put in. False where nobody tells of it.
    fn audit(&mut self, place: Place, timing: Timing, due_ns: i64) -> bool {
        let Some(until_ns) = self.stage.faults.stalled_until_ns else {
            let queued_ns = i64::from(50 + self.dice.below(QUEUED_MS_MAX)) * 1_000_000;
            let queued = self.scribe.put_in(place.time_ns - queued_ns, &mut self.dice);
            if let Some(until_ns) = self.stage.faults.gaps_until_ns
                && self.fault_dice.hit(LEFT_OUT)
            {
                self.left_out.hold(queued, place, until_ns);
                return false;
            }
            self.delivered(queued, place, timing);
            return true;
        };
        let place = Place { time_ns: due_ns, ..place };
        let queued = self.scribe.put_in(due_ns, &mut self.dice);
        self.scribe.audit(Op::Enqueue, queued, place, &mut self.dice);
        self.tally.event(Kind::Audit, Timing::OnTime);
        if !self.fault_dice.hit(LOST) {
            self.backlog.hold(queued, place, until_ns);
        }
        true
    }

    fn delivered(&mut self, queued: Queued, place: Place, timing: Timing) {
        self.scribe.audit(Op::Deliver, queued, place, &mut self.dice);
        self.tally.event(Kind::Audit, timing);
        self.tally.delivered(place.region);
    }

    /// Writes the next record that the audit queue held back.
    fn held_back(&mut self) -> Option<(i64, usize)> {
        let is_of_stall = self.backlog.due_ns() <= self.left_out.due_ns();
        let held = if is_of_stall { &mut self.backlog } else { &mut self.left_out };
        let (queued, place) = held.take()?;
        self.stage.turn(place.time_ns);
        self.delivered(queued, place, Timing::OnTime);
        Some((place.time_ns, place.tenant))
    }

    /// Writes a campaign's next record; gives when it is due and its tenant.
    fn extra(&mut self, campaign: usize) -> (i64, usize) {
        let sender = &mut self.stage.campaigns[campaign];
        let due_ns = sender.due_ns();
        let (timing, time_ns) = self.timings.draw(due_ns, &mut sender.dice);
        let extra = sender.take(time_ns);
        self.stage.turn(due_ns);
        let tenant = match extra {
            Extra::Event(mut facts) => {
                self.settle(&mut facts, timing);
                self.scribe.event(&facts, &mut self.stage.campaigns[campaign].dice);
                facts.place.tenant
            }
            Extra::Change(op, place) => {
                let subject = service_of(Kind::Token);
                let dice = &mut self.stage.campaigns[campaign].dice;
                self.scribe.change((subject, op), Place { time_ns: due_ns, ..place }, dice);
                self.tally.event(Kind::Change, Timing::OnTime);
                self.tally.change(place.region, subject, op);
                place.tenant
            }
        };
        (due_ns, tenant)
    }

    /// Makes the facts final, by what goes wrong where they happen, and counts them.
    fn settle(&mut self, facts: &mut Facts, timing: Timing) {
        self.stage.faults.strike(facts, &mut self.fault_dice);
        self.tally.event(facts.kind, timing);
        self.tally.facts(facts);
    }
}
