//! Counts what was sent, in a dense array; names come in only when the truth is asked for.

use std::collections::BTreeMap;

use larum_event::{Kind, Op, Outcome, Reason, Reject};

use crate::mix::{Ending, Facts};
use crate::profile::REGIONS;
use crate::scribe::{QUEUE, Scribe, service_of};
use crate::timing::Timing;
use crate::truth::{AuditKey, ChangeKey, LoginKey, PermissionKey, TokenKey, Truth};

/// Logins, each op of tokens, each op of permissions.
const FAMILIES: usize = 1 + TOKEN_OPS.len() + PERMISSION_OPS.len();
const TOKEN_OPS: &[Op] = Op::listed(Kind::Token);
const PERMISSION_OPS: &[Op] = Op::listed(Kind::Permission);

/// The kind and op of a family.
fn family(number: usize) -> (Kind, Op) {
    match number.checked_sub(1 + TOKEN_OPS.len()) {
        Some(op) => (Kind::Permission, PERMISSION_OPS[op]),
        None if number == 0 => (Kind::Login, Op::Other),
        None => (Kind::Token, TOKEN_OPS[number - 1]),
    }
}

/// Counts of everything sent.
#[derive(Debug)]
pub struct Tally {
    regions: usize,
    records: u64,
    bytes: u64,
    kinds: [u64; Kind::ALL.len()],
    rejected: [u64; Reject::ALL.len()],
    timings: [u64; 4],
    /// Weighted by `count`; by tenant, region, family and ending.
    cells: Vec<u64>,
    /// Decisions of other services than that which checks permissions.
    elsewhere: BTreeMap<(usize, &'static str, Op, Ending), u64>,
    changes: BTreeMap<ChangeKey, u64>,
    /// By region.
    delivered: Vec<u64>,
}

impl Tally {
    /// Nothing sent yet.
    pub fn new(tenants: usize, regions: usize) -> Self {
        Tally {
            regions,
            records: 0,
            bytes: 0,
            kinds: [0; Kind::ALL.len()],
            rejected: [0; Reject::ALL.len()],
            timings: [0; 4],
            cells: vec![0; tenants * regions * FAMILIES * Ending::ALL.len()],
            elsewhere: BTreeMap::new(),
            changes: BTreeMap::new(),
            delivered: vec![0; regions],
        }
    }

    /// A record of so many bytes, whatever it holds.
    #[inline]
    pub fn record(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
    }

    /// A record that breaks the contract.
    #[inline]
    pub fn reject(&mut self, reject: Reject) {
        self.rejected[reject as usize] += 1;
    }

    /// An event.
    #[inline]
    pub fn event(&mut self, kind: Kind, timing: Timing) {
        self.kinds[kind as usize] += 1;
        self.timings[timing as usize] += 1;
    }

    /// What an event was about; see [`Tally::event`] for its being there.
    #[inline]
    pub fn facts(&mut self, facts: &Facts) {
        let family = match facts.kind {
            Kind::Login => 0,
            Kind::Token => 1 + TOKEN_OPS.iter().position(|op| *op == facts.op).unwrap_or(0),
            Kind::Permission => 1 + TOKEN_OPS.len() + PERMISSION_OPS.iter().position(|op| *op == facts.op).unwrap_or(0),
            _ => return,
        };
        let key = facts.place.tenant * self.regions + facts.place.region;
        if facts.service != service_of(facts.kind) {
            *self.elsewhere.entry((key, facts.service, facts.op, facts.ending)).or_default() += u64::from(facts.count);
            return;
        }
        let cell = (key * FAMILIES + family) * Ending::ALL.len() + facts.ending as usize;
        self.cells[cell] += u64::from(facts.count);
    }

    fn audits(&self) -> BTreeMap<AuditKey, u64> {
        let key = |region: usize| AuditKey { queue: QUEUE.into(), region: REGIONS[region].name.into() };
        let delivered = self.delivered.iter().enumerate().filter(|(_, count)| **count > 0);
        delivered.map(|(region, count)| (key(region), *count)).collect()
    }

    /// A change of the platform.
    pub fn change(&mut self, region: usize, service: &str, op: Op) {
        let (region, service, op) = (REGIONS[region].name.into(), service.into(), op.as_str().into());
        *self.changes.entry(ChangeKey { region, service, op }).or_default() += 1;
    }

    /// An audit record that came out of its queue.
    pub fn delivered(&mut self, region: usize) {
        self.delivered[region] += 1;
    }

    /// The counts with their names; scenarios are not known here.
    pub fn truth(&self, scribe: &Scribe) -> Truth {
        let named = |texts: Vec<&str>, counts: &[u64]| {
            let counted = texts.into_iter().zip(counts).filter(|(_, count)| **count > 0);
            counted.map(|(text, count)| (text.to_string(), *count)).collect()
        };
        let mut truth = Truth {
            records: self.records,
            bytes: self.bytes,
            events: named(Kind::ALL.iter().map(|kind| kind.as_str()).collect(), &self.kinds),
            rejected: named(Reject::ALL.iter().map(|reject| reject.as_str()).collect(), &self.rejected),
            out_of_order: self.timings[Timing::OutOfOrder as usize],
            late: self.timings[Timing::Late as usize],
            skewed: self.timings[Timing::Skewed as usize],
            changes: self.changes.clone(),
            audits: self.audits(),
            ..Truth::default()
        };
        for (cell, count) in self.cells.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (rest, ending) = (cell / Ending::ALL.len(), Ending::ALL[cell % Ending::ALL.len()]);
            let (key, of) = (rest / FAMILIES, family(rest % FAMILIES));
            let tenant = scribe.tenant(key / self.regions);
            let region = REGIONS[key % self.regions].name;
            truth.add((tenant, region, service_of(of.0)), of, ending.parts(), *count);
        }
        for ((key, service, op, ending), count) in &self.elsewhere {
            let (tenant, region) = (scribe.tenant(key / self.regions), REGIONS[key % self.regions].name);
            truth.add((tenant, region, service), (Kind::Permission, *op), ending.parts(), *count);
        }
        truth
    }
}

impl Truth {
    /// Counts logins, token requests or decisions on permissions.
    pub(crate) fn add(
        &mut self,
        (tenant, region, service): (&str, &str, &str),
        (kind, op): (Kind, Op),
        (outcome, reason): (Outcome, Reason),
        count: u64,
    ) {
        let (tenant, region, op) = (tenant.to_string(), region.to_string(), op.as_str().to_string());
        let (outcome, reason) = (outcome.as_str().to_string(), reason.as_str().to_string());
        let counted = match kind {
            Kind::Login => self.logins.entry(LoginKey { tenant, region, outcome, reason }).or_default(),
            Kind::Token => self.tokens.entry(TokenKey { tenant, region, op, outcome, reason }).or_default(),
            _ => {
                let service = service.to_string();
                self.permissions.entry(PermissionKey { tenant, region, service, op, outcome }).or_default()
            }
        };
        *counted += count;
    }
}
