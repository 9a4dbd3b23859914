//! The naive recount: plain loops over plain records, nothing of the core. Shared by the simulation and the real suite.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

/// Nanoseconds in a second.
pub const S: i64 = 1_000_000_000;

/// An event as the generator of the simulation made it.
#[derive(Clone, Debug)]
pub struct Ev {
    /// When it happened, Unix ns.
    pub time_ns: i64,
    /// Its kind.
    pub kind: String,
    /// What was asked; `other` where the contract says so.
    pub op: String,
    /// Its tenant.
    pub tenant: String,
    /// Its region.
    pub region: Option<String>,
    /// The service that emitted it.
    pub service: Option<String>,
    /// Place in an escalation chain.
    pub hop: Option<String>,
    /// Who.
    pub actor: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// How long it took.
    pub latency_ns: Option<u64>,
    /// Its trace.
    pub trace: Option<u128>,
    /// How many it stands for.
    pub count: u64,
    /// Its audit queue; empty for other kinds, like all that follows.
    pub queue: String,
    /// Who put it in.
    pub producer: Option<String>,
    /// The producer's epoch.
    pub epoch: u64,
    /// Its number there.
    pub seq: Option<u64>,
    /// When it was put in, Unix ns.
    pub enqueued_ns: Option<i64>,
}

/// What stands at an offset.
#[derive(Clone, Debug)]
pub enum Body {
    /// An event.
    Event(Box<Ev>),
    /// Refused, for this reason.
    Bad(String),
    /// A null value.
    Tombstone,
    /// A control record, or one that was compacted.
    Absent,
}

/// What stands at an offset, with when and what.
#[derive(Clone, Debug)]
pub struct Rec {
    /// When it was appended, Unix ns.
    pub append_ns: i64,
    /// What it is.
    pub body: Body,
    /// Its value.
    pub bytes: Vec<u8>,
}

/// How the core should have judged a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its tick, Unix s.
    pub tick: i64,
    /// `on_time`, `late`, `skewed`; empty for what is no event.
    pub timing: &'static str,
    /// Time by which it counts in panes.
    pub pane_time_ns: i64,
}

/// Totals by texts.
pub type Totals = BTreeMap<Vec<String>, u64>;

/// Sets of names by texts.
pub type Sets = BTreeMap<[String; 3], BTreeSet<String>>;

/// One partition; LogAppendTime.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Its records by offset.
    pub records: Vec<Rec>,
    /// Warm-up begins here.
    pub start: i64,
    /// Totals begin here.
    pub origin: i64,
}

const TENANTS: [&str; 5] = ["acme", "globex", "initech", "umbrella", "hooli"];
const REASONS: [&str; 4] = ["none", "bad_credentials", "timeout", "rate_limited"];

/// A random record appended at `now_ns`.
pub fn random(rng: &mut Rng, now_ns: i64, minted: bool) -> Rec {
    let bad = |reason: &str, bytes: Vec<u8>| Rec { append_ns: now_ns, body: Body::Bad(reason.to_string()), bytes };
    match rng.u8(..100) {
        0..3 => return bad("not_json", b"{\"time\":1773480000".to_vec()),
        3 => return bad("not_utf8", vec![0xff, 0xfe, rng.u8(..)]),
        4..6 => return Rec { append_ns: now_ns, body: Body::Tombstone, bytes: Vec::new() },
        6..9 => return Rec { append_ns: now_ns, body: Body::Absent, bytes: Vec::new() },
        _ => {}
    }
    let behind_ms = match rng.u8(..100) {
        0..70 => rng.i64(0..2_000),
        70..80 => rng.i64(0..90_000),
        80..88 => rng.i64(0..900_000),
        88..91 => rng.i64(0..30_000_000),
        91..97 => -rng.i64(0..70_000),
        _ => -rng.i64(0..80_000_000),
    };
    let kind = ["login", "login", "token", "token", "permission", "change", "audit"][rng.usize(..7)];
    let tenant = match minted && rng.bool() {
        true => format!("minted-{}", rng.u32(..1000)),
        false => TENANTS[rng.usize(..5)].to_string(),
    };
    let numbers = (now_ns / S - 1_773_480_000).max(0) as u64 / 2;
    let event = Ev {
        time_ns: now_ns - behind_ms * 1_000_000,
        op: match kind {
            "token" => ["issue", "refresh", "other"][rng.usize(..3)],
            "permission" => ["escalate", "check", "assign"][rng.usize(..3)],
            "change" => ["deploy", "rollback", "other"][rng.usize(..3)],
            "audit" => ["deliver", "deliver", "enqueue"][rng.usize(..3)],
            _ => "other",
        }
        .to_string(),
        kind: kind.to_string(),
        tenant,
        region: [None, Some("eu"), Some("us")][rng.usize(..3)].map(String::from),
        service: [None, Some("gate"), Some("roles")][rng.usize(..3)].map(String::from),
        hop: [None, Some("gateway"), Some("enforcer")][rng.usize(..3)]
            .filter(|_| kind == "permission")
            .map(String::from),
        actor: (rng.u8(..) > 20).then(|| format!("u{}", rng.u32(..80))),
        ip: (rng.u8(..) > 20).then(|| format!("203.0.113.{}", rng.u32(..12))),
        outcome: ["success", "failure", "denied"][rng.usize(..3)].to_string(),
        reason: REASONS[rng.usize(..4)].to_string(),
        latency_ns: rng.bool().then(|| rng.u64(..3_000_000_000)),
        trace: rng.bool().then(|| rng.u128(1..)),
        count: if rng.u8(..) < 10 { rng.u64(2..50) } else { 1 },
        queue: if kind == "audit" { ["q", "r"][rng.usize(..2)].to_string() } else { String::new() },
        producer: [None, Some("a"), Some("b")][rng.usize(..3)].map(String::from),
        epoch: if rng.u8(..) < 10 { rng.u64(1..3) } else { 0 },
        // A number every other second, some twice, some never, some a minute or two after their time.
        seq: (rng.u8(..) > 20).then(|| match rng.u8(..5) {
            0 => numbers.saturating_sub(rng.u64(25..60)),
            _ => numbers + rng.u64(..7),
        }),
        enqueued_ns: rng.bool().then(|| now_ns - behind_ms * 1_000_000 - rng.i64(-500..5_000) * 1_000_000),
    };
    let bytes = json(&event).into_bytes();
    Rec { append_ns: now_ns, body: Body::Event(Box::new(event)), bytes }
}

fn json(e: &Ev) -> String {
    let mut text = format!(r#"{{"time":{},"kind":"{}","op":"{}","#, e.time_ns, e.kind, e.op);
    match e.kind.as_str() {
        "change" => text += r#""change":{"id":"c1"},"#,
        "audit" => {
            text += &format!(r#""queue":"{}","epoch":{},"#, e.queue, e.epoch);
            if let Some(producer) = &e.producer {
                text += &format!(r#""producer":"{producer}","#);
            }
            if let Some(seq) = e.seq {
                text += &format!(r#""seq":{seq},"#);
            }
            if let Some(ns) = e.enqueued_ns {
                text += &format!(r#""enqueued_time":{ns},"#);
            }
        }
        _ => {}
    }
    if let Some(actor) = &e.actor {
        text += &format!(r#""actor":{{"id":"{actor}"}},"#);
    }
    if let Some(ip) = &e.ip {
        text += &format!(r#""source":{{"ip":"{ip}"}},"#);
    }
    if let Some(service) = &e.service {
        text += &format!(r#""service":"{service}","#);
    }
    if let Some(hop) = &e.hop {
        text += &format!(r#""hop":"{hop}","#);
    }
    if let Some(region) = &e.region {
        text += &format!(r#""region":"{region}","#);
    }
    if e.reason != "none" {
        text += &format!(r#""reason":"{}","#, e.reason);
    }
    if let Some(ns) = e.latency_ns {
        text += &format!(r#""latency_ms":{}.{:06},"#, ns / 1_000_000, ns % 1_000_000);
    }
    if let Some(trace) = e.trace {
        text += &format!(r#""trace_id":"{trace:032x}","#);
    }
    text + &format!(r#""count":{},"tenant":"{}","outcome":"{}"}}"#, e.count, e.tenant, e.outcome)
}

impl Partition {
    /// Events of audit queues from the origin on, with their ticks and append times.
    pub fn audit(&self) -> Vec<(i64, i64, Ev)> {
        let mut events = Vec::new();
        for (offset, judged) in self.judge().into_iter().filter(|j| j.0 >= self.origin) {
            let rec = self.at(offset);
            if let Body::Event(event) = &rec.body
                && event.kind == "audit"
            {
                events.push((judged.tick, rec.append_ns, Ev::clone(event)));
            }
        }
        events
    }

    /// Changes of the platform at offsets from the origin up to `next`: when, and where.
    pub fn changes(&self, next: i64) -> Vec<(i64, i64)> {
        let change = |offset: i64| match &self.at(offset).body {
            Body::Event(event) if event.kind == "change" => {
                Some((event.time_ns.min(self.at(offset).append_ns), offset))
            }
            _ => None,
        };
        (self.origin..next).filter_map(change).collect()
    }

    /// Traces of slow and failed requests at offsets from the origin up to `next`, with their events and ticks.
    pub fn telling(&self, next: i64) -> Vec<(u128, i64, &Ev)> {
        let judged = self.judge().into_iter().filter(|(offset, _)| (self.origin..next).contains(offset));
        let telling = judged.filter_map(|(offset, judged)| match &self.at(offset).body {
            Body::Event(e) if ["login", "token", "permission"].contains(&e.kind.as_str()) => {
                let is_telling = e.outcome != "success" || e.latency_ns? >= 500_000_000;
                Some((e.trace?, judged.tick, &**e)).filter(|_| is_telling && e.latency_ns.is_some())
            }
            _ => None,
        });
        telling.collect()
    }

    /// Offset after its last record.
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// What stands at an offset.
    pub fn at(&self, offset: i64) -> &Rec {
        &self.records[offset as usize]
    }

    /// Judges every record from the start on, one after the other.
    pub fn judge(&self) -> Vec<(i64, Judged)> {
        let mut watermark: Option<i64> = None;
        let mut judged = Vec::new();
        for offset in self.start..self.end() {
            let rec = self.at(offset);
            let (mut timing, mut pane_time_ns) = ("", 0);
            if let Body::Event(event) = &rec.body {
                let before = watermark.unwrap_or(i64::MIN);
                (timing, pane_time_ns) = if event.time_ns > rec.append_ns + 60 * S {
                    ("skewed", rec.append_ns)
                } else if before != i64::MIN && event.time_ns < before - 60 * S {
                    ("late", event.time_ns)
                } else {
                    ("on_time", event.time_ns)
                };
                let seen = event.time_ns.min(rec.append_ns);
                watermark = Some(watermark.map_or(seen, |w| w.max(seen)));
            }
            let tick = watermark.map_or(0, |w| w / S);
            judged.push((offset, Judged { tick, timing, pane_time_ns }));
        }
        judged
    }

    /// Adds the totals of offsets from the origin up to `next`.
    pub fn add_totals(&self, next: i64, totals: &mut Totals) {
        for offset in self.origin..next {
            let Body::Event(e) = &self.at(offset).body else { continue };
            if let Some(labels) = labels(e) {
                *totals.entry(labels).or_default() += e.count;
            }
        }
    }

    /// Adds what a window from `start_s` to the end of the pane that holds `end_s` counts of offsets up to `next`.
    pub fn add_window(&self, judged: &[(i64, Judged)], next: i64, start_s: i64, end_s: i64, totals: &mut Totals) {
        let (from, to) = (start_s * S, (end_s / 10 + 1) * 10 * S);
        for (offset, judged) in judged.iter().filter(|j| j.0 < next) {
            let Body::Event(e) = &self.at(*offset).body else { continue };
            let Some(labels) = labels(e) else { continue };
            if (from..to).contains(&judged.pane_time_ns) {
                *totals.entry(labels).or_default() += e.count;
            }
        }
    }

    /// Adds who logged in, and from where, in the same window: by tenant, region and `accounts` or `sources`.
    pub fn add_distinct(&self, judged: &[(i64, Judged)], next: i64, start_s: i64, end_s: i64, sets: &mut Sets) {
        let (from, to) = (start_s * S, (end_s / 10 + 1) * 10 * S);
        for (offset, judged) in judged.iter().filter(|j| j.0 < next) {
            let Body::Event(e) = &self.at(*offset).body else { continue };
            if e.kind != "login" || !(from..to).contains(&judged.pane_time_ns) {
                continue;
            }
            for (what, name) in [("accounts", &e.actor), ("sources", &e.ip)] {
                let region = e.region.as_deref().unwrap_or("unknown");
                let labels = [&e.tenant, region, what].map(String::from);
                sets.entry(labels).or_default().extend(name.clone());
            }
        }
    }

    /// Records of each sort from the origin up to `next`: decoded, rejected, skipped, absent.
    pub fn records(&self, next: i64) -> [u64; 4] {
        let mut counts = [0; 4];
        for offset in self.origin..next {
            counts[match self.at(offset).body {
                Body::Event(_) => 0,
                Body::Bad(_) => 1,
                Body::Tombstone => 2,
                Body::Absent => 3,
            }] += 1;
        }
        counts
    }

    /// Events of each timing from the origin up to `next`: on time, late, skewed.
    pub fn timings(&self, judged: &[(i64, Judged)], next: i64) -> [u64; 3] {
        let counted = judged.iter().filter(|j| (self.origin..next).contains(&j.0));
        let count = |timing| counted.clone().filter(|j| j.1.timing == timing).count() as u64;
        [count("on_time"), count("late"), count("skewed")]
    }

    /// Latencies from the origin up to `next`: (count, sum in ns), weighed.
    pub fn latencies(&self, next: i64) -> (u64, u128) {
        let mut sums = (0, 0);
        for offset in self.origin..next {
            let Body::Event(e) = &self.at(offset).body else { continue };
            if labels(e).is_none() {
                continue;
            }
            let ns = match e.kind.as_str() {
                "change" => None,
                // Out of the queue, since it was put in; without that time, since it happened.
                "audit" => {
                    let append_ns = self.at(offset).append_ns;
                    let (from, to) = e.enqueued_ns.map_or((e.time_ns, append_ns), |at| (at, e.time_ns));
                    Some((to - from).max(0) as u64)
                }
                _ => e.latency_ns,
            };
            if let Some(ns) = ns {
                sums.0 += e.count;
                sums.1 += u128::from(ns) * u128::from(e.count);
            }
        }
        sums
    }
}

/// What an event is counted by: tenant, region, op (or `login`), outcome, reason. Permissions: the service with op and
/// hop in place of op, no reason. Changes and delivered audit records: no tenant, and neither outcome nor reason.
pub fn labels(e: &Ev) -> Option<Vec<String>> {
    let region = e.region.as_deref().unwrap_or("unknown");
    let service = e.service.as_deref().unwrap_or("unknown");
    let texts = match e.kind.as_str() {
        "login" => [&e.tenant, region, "login", &e.outcome, &e.reason].map(String::from),
        "token" => [&e.tenant, region, &e.op, &e.outcome, &e.reason].map(String::from),
        "permission" => {
            let hop = e.hop.as_deref().filter(|_| e.op == "escalate").unwrap_or_default();
            let op = format!("permission {service} {} {hop}", e.op);
            [&e.tenant, region, &op, &e.outcome, ""].map(String::from)
        }
        "change" => ["", region, &format!("change {service} {}", e.op), "", ""].map(String::from),
        "audit" if e.op == "deliver" => ["", region, &format!("audit {}", e.queue), "", ""].map(String::from),
        _ => return None,
    };
    Some(texts.to_vec())
}
