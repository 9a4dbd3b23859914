//! The generator: everyday traffic and attacks merged by due time, degraded where a scenario says so, and counted.

use larum_event::Kind;

use crate::dice::{Chance, Dice};
use crate::flaw::FLAWS;
use crate::mix::{self, Activity, Facts, Place};
use crate::pace::Pace;
use crate::popularity::Popularity;
use crate::profile::{Profile, ProfileError};
use crate::scribe::Scribe;
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
    /// Everyday records.
    dice: Dice,
    /// Degradation alone, so that it leaves everyday records as they are otherwise.
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
            dice: Dice::new(profile.seed),
            fault_dice: Dice::new(!profile.seed),
            scribe: Scribe::new(profile.seed, profile.tenants),
            tally: Tally::new(profile.tenants, profile.regions),
        })
    }

    /// The next record.
    pub fn next_record(&mut self) -> Generated<'_> {
        let (due_ns, tenant) = match self.stage.campaign_before(self.pace.due_ns()) {
            Some(campaign) => self.attack(campaign),
            None => self.everyday(),
        };
        self.tally.record(self.scribe.bytes().len());
        Generated { bytes: self.scribe.bytes(), key: self.scribe.tenant(tenant).as_bytes(), due_ns }
    }

    /// What a reader of all records so far must find. Worked out on demand: not for every record.
    pub fn truth(&self) -> Truth {
        Truth { scenarios: self.stage.truth(&self.scribe), ..self.tally.truth(&self.scribe) }
    }

    /// Writes an everyday record; gives when it is due and its tenant.
    fn everyday(&mut self) -> (i64, usize) {
        let due_ns = self.pace.due_ns();
        self.stage.turn(due_ns);
        let region = self.pace.region(&mut self.dice);
        self.pace.advance();
        let tenant = self.popularity.draw(&mut self.dice);
        let (timing, time_ns) = self.timings.draw(due_ns, &mut self.dice);
        let place = Place { tenant, region, time_ns };
        if self.dice.hit(self.malformed) {
            let flaw = FLAWS[self.flaws % FLAWS.len()];
            self.flaws += 1;
            self.scribe.flawed(flaw, place, &mut self.dice);
            self.tally.reject(flaw);
            return (due_ns, tenant);
        }
        match mix::pick(mix::MIX, &mut self.dice) {
            Activity::Deliver => {
                self.scribe.deliver(place, &mut self.dice);
                self.tally.event(Kind::Audit, timing);
                self.tally.delivered(place.region);
            }
            Activity::Change => {
                let (service, op) = self.scribe.change(place, &mut self.dice);
                self.tally.event(Kind::Change, timing);
                self.tally.change(place.region, service, op);
            }
            activity => {
                let mut facts = mix::everyday(activity, place, &mut self.dice);
                self.settle(&mut facts, timing);
                self.scribe.event(&facts, &mut self.dice);
            }
        }
        (due_ns, tenant)
    }

    /// Writes an attack's next try; gives when it is due and its tenant.
    fn attack(&mut self, campaign: usize) -> (i64, usize) {
        let (due_ns, mut place, attacker) = self.stage.campaigns[campaign].take();
        self.stage.turn(due_ns);
        let dice = &mut self.stage.campaigns[campaign].dice;
        let (timing, time_ns) = self.timings.draw(due_ns, dice);
        place.time_ns = time_ns;
        let mut facts = mix::attack(place, attacker, dice);
        self.settle(&mut facts, timing);
        self.scribe.event(&facts, &mut self.stage.campaigns[campaign].dice);
        (due_ns, place.tenant)
    }

    /// Makes the facts final, by what goes wrong where they happen, and counts them.
    fn settle(&mut self, facts: &mut Facts, timing: Timing) {
        if self.stage.is_degraded(facts.place.region) {
            mix::degrade(facts, &mut self.fault_dice);
        }
        self.tally.event(facts.kind, timing);
        self.tally.facts(facts);
    }
}
