//! Writes events as their producers would: several orders of keys, optional fields, blanks, escapes.

use larum_event::{Kind, Op, Reason};

use crate::dice::{Chance, Dice};
use crate::json::{Json, key};
use crate::mix::{Caller, ChainStep, Ending, Facts, Origin, Place, Table, pick};
use crate::profile::REGIONS;
use crate::stamp::Stamps;

/// Records with blanks between their tokens.
const BLANKS: Chance = Chance::per_mille(50);
/// Records that belong to a trace.
const TRACED: Chance = Chance::per_mille(300);
/// User agents that need escapes.
const ESCAPED: Chance = Chance::per_mille(20);

/// A member of a login, token or permission event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    V,
    Time,
    Id,
    Kind,
    Op,
    Tenant,
    Region,
    Service,
    Actor,
    Source,
    Client,
    Count,
    Outcome,
    Reason,
    Latency,
    Permission,
    Trace,
}
use Field as F;

/// Four producers' orders of keys. The first and third are explicit: they write `v` and a null reason.
#[rustfmt::skip]
const ORDERS: [[Field; 17]; 4] = [
    [F::V, F::Time, F::Id, F::Kind, F::Op, F::Tenant, F::Region, F::Service, F::Actor, F::Source, F::Client, F::Count,
     F::Outcome, F::Reason, F::Latency, F::Permission, F::Trace],
    [F::Time, F::Kind, F::Op, F::Tenant, F::Region, F::Client, F::Actor, F::Outcome, F::Reason, F::Latency, F::Count,
     F::Source, F::Service, F::Id, F::Permission, F::Trace, F::V],
    [F::Kind, F::Op, F::Permission, F::Tenant, F::Region, F::Service, F::Time, F::Outcome, F::Reason, F::Latency,
     F::Trace, F::Actor, F::Source, F::Client, F::Id, F::Count, F::V],
    [F::Id, F::Trace, F::Tenant, F::Actor, F::Source, F::Client, F::Service, F::Region, F::Kind, F::Op, F::Outcome,
     F::Reason, F::Latency, F::Count, F::Permission, F::V, F::Time],
];

const CLIENTS: [&str; 6] = ["mobile", "web", "desktop", "partner-portal", "tv-app", "cli"];
const SERVICE_CLIENTS: [&str; 4] = ["billing-worker", "report-export", "sync-agent", "partner-api"];
const ROLES: [&str; 4] = ["billing-admin", "viewer", "support-agent", "auditor"];
const RESOURCES: [&str; 5] = ["invoices", "projects/42", "audit-log", "users", "api-keys"];
const HOPS: [&str; 3] = ["gateway", "evaluator", "enforcer"];

/// Address blocks that are set aside for documentation (RFC 5737), with a leading quote.
const BLOCKS: [&[u8]; 3] = [b"\"192.0.2.", b"\"198.51.100.", b"\"203.0.113."];
/// The first of the AS numbers that are set aside for documentation (RFC 5398); there are 16.
const ASN_FIRST: u64 = 64_496;

const AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/134.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.3 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:136.0) Gecko/20100101 Firefox/136.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) Mobile/15E148",
    "okhttp/4.12.0",
    "ExampleMobile/7.4.1 (Android 15; arm64-v8a)",
    "ExampleMobile/7.4.1 (iOS 18.3)",
    "ExampleDesktop/3.2 (macOS 15.3)",
];
const SERVICE_AGENTS: [&str; 3] = ["Go-http-client/2.0", "ExampleSdk/2.8.1 (java/21.0.6)", "python-httpx/0.28.1"];
/// User agents as they stand in JSON.
const ESCAPED_AGENTS: [&str; 4] = [
    r#"Mozilla\/5.0 (Linux; \"Tablet 9\") Kiosk\/2.1"#,
    r"Caf\u00e9Terminal\/1.0 (build C:\\app\\term)",
    r"ExampleMobile\/7.4.1\t(caf\u00e9; \ud83d\udd11)",
    r#"curl\/8.12.1 (\"ci\")"#,
];
/// An attack's only user agent.
const ATTACK_AGENT: &str = "python-requests/2.32.3";

/// The audit queue and who puts records in.
pub const QUEUE: &str = "compliance";
const PRODUCERS: [&str; 3] = ["iam-gateway-1", "iam-gateway-2", "iam-gateway-3"];
/// Longest stay in the audit queue.
pub const QUEUED_MS_MAX: u32 = 4_000;

const CHANGE_OPS: &Table<Op> = &[
    (500, Op::Deploy),
    (250, Op::Config),
    (100, Op::SecretRotation),
    (50, Op::Rollback),
    (50, Op::Drift),
    (50, Op::Confirm),
];

/// An audit record in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Index of who put it in.
    producer: usize,
    /// Its number there.
    seq: u64,
    /// When it was put in, Unix ns.
    enqueued_ns: i64,
}

/// Writes records into one buffer.
#[derive(Debug)]
pub struct Scribe {
    pub(crate) json: Json,
    pub(crate) stamps: Stamps,
    /// Names in quotes, by index.
    tenants: Vec<String>,
    /// Sets the ids of one seed apart from those of another.
    seed: u64,
    /// Ids given.
    ids: u64,
    /// Last sequence number of each audit producer.
    sequences: [u64; PRODUCERS.len()],
    changes: u64,
}

impl Scribe {
    /// A scribe who knows so many tenants.
    pub fn new(seed: u64, tenants: usize) -> Self {
        const STEMS: [&str; 8] = ["acme", "bluefin", "cobalt", "dune", "ember", "fjord", "granite", "harbor"];
        // Stems come in pairs of indices, or each would stand for workforce or consumers alone.
        let name = |index: usize| format!("\"{}-{index:04}\"", STEMS[index / 2 % STEMS.len()]);
        Scribe {
            json: Json::default(),
            stamps: Stamps::default(),
            tenants: (0..tenants).map(name).collect(),
            seed,
            ids: 0,
            sequences: [0; PRODUCERS.len()],
            changes: 0,
        }
    }

    /// The record that was written last.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.json.bytes()
    }

    /// A tenant's name.
    #[inline]
    pub fn tenant(&self, index: usize) -> &str {
        let quoted = &self.tenants[index];
        &quoted[1..quoted.len() - 1]
    }

    /// Writes a tenant's name as a value.
    #[inline]
    pub(crate) fn tenant_value(&mut self, index: usize) {
        self.json.raw(self.tenants[index].as_bytes());
    }

    /// Writes a login, token or permission event.
    pub fn event(&mut self, facts: &Facts, dice: &mut Dice) {
        let order = dice.below(ORDERS.len() as u32) as usize;
        let explicit = order.is_multiple_of(2);
        self.json.begin(dice.hit(BLANKS));
        for field in &ORDERS[order] {
            self.field(*field, explicit, facts, dice);
        }
        self.json.close();
    }

    #[inline]
    fn field(&mut self, field: Field, explicit: bool, facts: &Facts, dice: &mut Dice) {
        let json = &mut self.json;
        match field {
            F::V if explicit => {
                key!(json, "v");
                json.number(1);
            }
            F::Time => {
                key!(json, "time");
                self.stamps.write(facts.place.time_ns, json, dice);
            }
            F::Id => self.id(),
            F::Kind => {
                key!(json, "kind");
                json.text(facts.kind.as_str());
            }
            F::Op if facts.op != Op::Other => {
                key!(json, "op");
                json.text(facts.op.as_str());
            }
            F::Tenant => {
                key!(json, "tenant");
                self.tenant_value(facts.place.tenant);
            }
            F::Region => self.region(facts.place.region),
            F::Service => {
                key!(json, "service");
                json.text(facts.service);
            }
            F::Actor => {
                key!(json, "actor");
                json.open();
                key!(json, "id");
                account(json, &facts.caller);
                key!(json, "type");
                json.text(if facts.caller.is_service { "service" } else { "user" });
                json.close();
            }
            F::Source => source(json, &facts.caller, dice),
            F::Client => {
                key!(json, "client");
                let account = facts.caller.account as usize;
                let of_service = SERVICE_CLIENTS[account % SERVICE_CLIENTS.len()];
                json.text(if facts.caller.is_service { of_service } else { CLIENTS[account % CLIENTS.len()] });
            }
            F::Count if facts.count != 1 => {
                key!(json, "count");
                json.number(u64::from(facts.count));
            }
            F::Outcome => {
                key!(json, "outcome");
                json.text(facts.ending.parts().0.as_str());
            }
            F::Reason => reason(json, facts.ending, explicit),
            F::Latency => latency(json, facts.latency_e4, dice),
            F::Permission if facts.kind == Kind::Permission => permission(json, facts, dice),
            F::Trace => trace(json, facts.chain, dice),
            F::V | F::Op | F::Count | F::Permission => {}
        }
    }

    /// Puts a record into the audit queue at `enqueued_ns`.
    pub fn put_in(&mut self, enqueued_ns: i64, dice: &mut Dice) -> Queued {
        let producer = dice.below(PRODUCERS.len() as u32) as usize;
        self.sequences[producer] += 1;
        let enqueued_ns = enqueued_ns.max(larum_event::TIME_MIN_NS);
        Queued { producer, seq: self.sequences[producer], enqueued_ns }
    }

    /// Writes the event of a record that was put into the audit queue, or came out of it.
    pub fn audit(&mut self, op: Op, queued: Queued, place: Place, dice: &mut Dice) {
        self.json.begin(dice.hit(BLANKS));
        self.id();
        let json = &mut self.json;
        key!(json, "kind");
        json.text("audit");
        key!(json, "op");
        json.text(op.as_str());
        key!(json, "queue");
        json.text(QUEUE);
        key!(json, "producer");
        json.text(PRODUCERS[queued.producer]);
        key!(json, "seq");
        json.number(queued.seq);
        key!(json, "time");
        self.stamps.write(place.time_ns, json, dice);
        if op == Op::Deliver {
            key!(json, "enqueued_time");
            self.stamps.write(queued.enqueued_ns, json, dice);
        }
        key!(json, "service");
        json.text(service_of(Kind::Audit));
        key!(json, "tenant");
        self.tenant_value(place.tenant);
        self.region(place.region);
        self.json.close();
    }

    /// What is changed on an everyday's occasion, and how.
    pub fn everyday_change(dice: &mut Dice) -> (&'static str, Op) {
        const SUBJECTS: [&str; 3] = ["token-issuer", "iam-gateway", "role-evaluator"];
        (dice.one_of(&SUBJECTS), pick(CHANGE_OPS, dice))
    }

    /// Writes a change of the platform, which belongs to no tenant.
    pub fn change(&mut self, (subject, op): (&str, Op), place: Place, dice: &mut Dice) {
        self.changes += 1;
        let minor = self.changes % 100;
        self.json.begin(dice.hit(BLANKS));
        let json = &mut self.json;
        key!(json, "kind");
        json.text("change");
        key!(json, "op");
        json.text(op.as_str());
        key!(json, "time");
        self.stamps.write(place.time_ns, json, dice);
        key!(json, "service");
        json.text(subject);
        self.region(place.region);
        let json = &mut self.json;
        key!(json, "change");
        json.open();
        key!(json, "id");
        json.raw(b"\"dep-");
        json.number(self.changes);
        json.raw(b"\"");
        key!(json, "subject");
        json.text(subject);
        key!(json, "from");
        version(json, minor);
        key!(json, "to");
        version(json, minor + 1);
        key!(json, "by");
        json.text("ci");
        key!(json, "approved_by");
        json.text("r.oncall");
        json.close();
        self.id();
        self.json.close();
    }

    /// A unique id: the running number, scrambled one to one (the finalizer of SplitMix64).
    #[inline]
    fn id(&mut self) {
        self.ids += 1;
        let mut id = self.ids.wrapping_add(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        id = (id ^ (id >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        key!(self.json, "id");
        self.json.raw(b"\"ev-");
        self.json.hex(id ^ (id >> 31), 16);
        self.json.raw(b"\"");
    }

    #[inline]
    pub(crate) fn region(&mut self, index: usize) {
        key!(self.json, "region");
        self.json.text(REGIONS[index].name);
    }
}

/// The service that emits events of a kind; changes name the one that is changed.
pub fn service_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Login => "iam-gateway",
        Kind::Token => "token-issuer",
        Kind::Permission => "role-evaluator",
        Kind::Audit => "audit-sink",
        Kind::Change => "deployer",
    }
}

fn version(json: &mut Json, minor: u64) {
    json.raw(b"\"1.");
    json.number(minor);
    json.raw(b".0\"");
}

#[inline]
fn account(json: &mut Json, caller: &Caller) {
    json.raw(if caller.is_service { b"\"svc-" } else { b"\"u-" });
    json.hex(u64::from(caller.account), 8);
    json.raw(b"\"");
}

/// Address, network and user agent; an account keeps its own, an attack has few.
#[inline]
fn source(json: &mut Json, caller: &Caller, dice: &mut Dice) {
    let scrambled = caller.account.wrapping_mul(0x9E37_79B9);
    key!(json, "source");
    json.open();
    key!(json, "ip");
    match caller.origin {
        Origin::Few(address) => {
            json.raw(BLOCKS[2]);
            json.number(u64::from(address) + 66);
        }
        Origin::Many(address) => {
            json.raw(b"\"2001:db8:bad:");
            json.hex(u64::from(address >> 16), 4);
            json.raw(b"::");
            json.hex(u64::from(address & 0xffff), 4);
        }
        // Documentation has few IPv4 addresses: a third of the accounts come from IPv6 (RFC 3849).
        Origin::Own if scrambled.is_multiple_of(3) => {
            json.raw(b"\"2001:db8:");
            json.hex(u64::from(scrambled >> 8), 4);
            json.raw(b"::");
            json.hex(u64::from(scrambled >> 16), 4);
        }
        Origin::Own => {
            json.raw(BLOCKS[(scrambled >> 8) as usize % BLOCKS.len()]);
            json.number(1 + u64::from(scrambled >> 16) % 254);
        }
    }
    json.raw(b"\"");
    key!(json, "asn");
    json.number(if caller.origin == Origin::Own { ASN_FIRST + u64::from(scrambled >> 24) % 16 } else { ASN_FIRST });
    key!(json, "ua");
    json.text(match caller.origin {
        Origin::Few(_) | Origin::Many(_) => ATTACK_AGENT,
        Origin::Own if dice.hit(ESCAPED) => dice.one_of(&ESCAPED_AGENTS),
        Origin::Own if caller.is_service => SERVICE_AGENTS[(scrambled >> 20) as usize % SERVICE_AGENTS.len()],
        Origin::Own => AGENTS[(scrambled >> 20) as usize % AGENTS.len()],
    });
    json.close();
}

#[inline]
fn reason(json: &mut Json, ending: Ending, explicit: bool) {
    match ending.parts().1 {
        Reason::None if explicit => {
            key!(json, "reason");
            json.raw(b"null");
        }
        Reason::None => {}
        Reason::Other => {
            key!(json, "reason");
            json.text("captcha_failed");
        }
        listed => {
            key!(json, "reason");
            json.text(listed.as_str());
        }
    }
}

#[inline]
fn latency(json: &mut Json, latency_e4: Option<u64>, dice: &mut Dice) {
    let decimals = 1 + dice.below(4) as usize;
    let Some(latency_e4) = latency_e4 else { return };
    key!(json, "latency_ms");
    match latency_e4 {
        0 => json.number(0),
        _ => json.decimal_e4(latency_e4, decimals),
    }
}

fn permission(json: &mut Json, facts: &Facts, dice: &mut Dice) {
    key!(json, "hop");
    json.text(facts.chain.map_or_else(|| dice.one_of(&HOPS), |step| HOPS[step.hop]));
    key!(json, "permission");
    json.open();
    key!(json, "subject");
    account(json, &facts.caller);
    key!(json, "role");
    json.text(if facts.chain.is_some() { ROLES[0] } else { dice.one_of(&ROLES) });
    key!(json, "resource");
    json.text(dice.one_of(&RESOURCES));
    json.close();
}

#[inline]
fn trace(json: &mut Json, step: Option<ChainStep>, dice: &mut Dice) {
    let step = match step {
        Some(step) => step,
        None if !dice.hit(TRACED) => return,
        None => ChainStep { hop: 0, trace: (dice.word(), dice.word()), span: dice.word(), parent: None },
    };
    key!(json, "trace_id");
    json.raw(b"\"");
    json.hex(step.trace.0, 16);
    json.hex(step.trace.1, 16);
    json.raw(b"\"");
    key!(json, "span_id");
    json.raw(b"\"");
    json.hex(step.span, 16);
    json.raw(b"\"");
    if let Some(parent) = step.parent {
        key!(json, "parent_span_id");
        json.raw(b"\"");
        json.hex(parent, 16);
        json.raw(b"\"");
    }
}
