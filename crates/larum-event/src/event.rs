//! One event: what was read of its record, and the view of it that is handed out.

use crate::hex;
use crate::json::Text;
use crate::keys::{KEYS, Key};
use crate::reject::Reject;
use crate::vocabulary::{ActorType, Hop, Kind, Op, Outcome, Reason};

/// What was assigned or asked for; `permission` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermissionFields<'a> {
    /// Who gets it.
    pub subject: Option<&'a str>,
    /// Which role.
    pub role: Option<&'a str>,
    /// On what.
    pub resource: Option<&'a str>,
}

/// Where an audit record stands in its queue; `audit` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFields<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// Who put it in.
    pub producer: Option<&'a str>,
    /// The producer's epoch; a new one starts `seq` again.
    pub epoch: u64,
    /// Counts up by one for each (queue, producer, epoch).
    pub seq: Option<u64>,
    /// When it was put in, Unix ns.
    pub enqueued_time_ns: Option<i64>,
}

/// What was changed; `change` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeFields<'a> {
    /// The change's own id.
    pub id: &'a str,
    /// What was changed.
    pub subject: Option<&'a str>,
    /// Its state before.
    pub from: Option<&'a str>,
    /// Its state after.
    pub to: Option<&'a str>,
    /// Who changed it.
    pub by: Option<&'a str>,
    /// Who approved.
    pub approved_by: Option<&'a str>,
}

/// One decoded event, borrowed from the record and the decoder. Texts are cut out when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct AuthEvent<'a> {
    raw: &'a RawEvent,
    record: &'a str,
    scratch: &'a str,
}

impl<'a> AuthEvent<'a> {
    #[inline]
    fn text(&self, key: Key) -> Option<&'a str> {
        let (of, start, end) = self.raw.texts[key as usize].of(self.record, self.scratch);
        if self.raw.has(key) { of.get(start..end) } else { None }
    }

    /// What was read at `key`, if the key was there.
    #[inline]
    fn given<T>(&self, key: Key, value: T) -> Option<T> {
        self.raw.has(key).then_some(value)
    }

    /// When the thing happened, Unix ns.
    #[inline]
    pub fn time_ns(&self) -> i64 {
        self.raw.time_ns
    }

    /// Unique per source, where given.
    pub fn id(&self) -> Option<&'a str> {
        self.text(Key::Id)
    }

    /// What sort of thing happened.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.raw.kind
    }

    /// What was asked.
    #[inline]
    pub fn op(&self) -> Op {
        Op::of(self.raw.kind, self.given(Key::Op, self.raw.op).flatten())
    }

    /// Stands for so many equal events, 1 to 1,000,000.
    #[inline]
    pub fn count(&self) -> u32 {
        self.given(Key::Count, self.raw.count).unwrap_or(1)
    }

    /// Customer of the platform; empty only for `audit` and `change`. Hostile.
    #[inline]
    pub fn tenant(&self) -> &'a str {
        self.text(Key::Tenant).unwrap_or("")
    }

    /// Where it was served, if said.
    #[inline]
    pub fn region(&self) -> Option<&'a str> {
        self.text(Key::Region)
    }

    /// The service that emitted it, if said.
    #[inline]
    pub fn service(&self) -> Option<&'a str> {
        self.text(Key::Service)
    }

    /// Who: id. Never leaves Larum.
    #[inline]
    pub fn actor_id(&self) -> Option<&'a str> {
        self.text(Key::ActorId)
    }

    /// Who: type.
    pub fn actor_type(&self) -> Option<ActorType> {
        self.given(Key::ActorType, self.raw.actor_type)
    }

    /// From where: address. Never leaves Larum.
    #[inline]
    pub fn source_ip(&self) -> Option<&'a str> {
        self.text(Key::SourceIp)
    }

    /// From where: autonomous system.
    pub fn source_asn(&self) -> Option<u32> {
        self.given(Key::SourceAsn, self.raw.source_asn)
    }

    /// From where: user agent. Never leaves Larum.
    pub fn source_ua(&self) -> Option<&'a str> {
        self.text(Key::SourceUa)
    }

    /// OAuth client or application.
    pub fn client(&self) -> Option<&'a str> {
        self.text(Key::Client)
    }

    /// How it ended; `None` only for `audit` and `change`.
    #[inline]
    pub fn outcome(&self) -> Option<Outcome> {
        self.given(Key::Outcome, self.raw.outcome)
    }

    /// Why it ended so.
    #[inline]
    pub fn reason(&self) -> Reason {
        self.given(Key::Reason, self.raw.reason).unwrap_or(Reason::None)
    }

    /// Service time in ns; `None` = not measured.
    #[inline]
    pub fn latency_ns(&self) -> Option<u64> {
        self.given(Key::LatencyMs, self.raw.latency_ns).flatten()
    }

    /// W3C trace id.
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        self.text(Key::TraceId).and_then(|digits| hex::bytes(digits.as_bytes()))
    }

    /// W3C span id.
    pub fn span_id(&self) -> Option<[u8; 8]> {
        self.text(Key::SpanId).and_then(|digits| hex::bytes(digits.as_bytes()))
    }

    /// W3C span id of the caller.
    pub fn parent_span_id(&self) -> Option<[u8; 8]> {
        self.text(Key::ParentSpanId).and_then(|digits| hex::bytes(digits.as_bytes()))
    }

    /// Place in an escalation chain; `permission` only.
    pub fn hop(&self) -> Option<Hop> {
        self.given(Key::Hop, self.raw.hop).filter(|_| self.raw.kind == Kind::Permission)
    }

    /// `permission` only.
    pub fn permission(&self) -> Option<PermissionFields<'a>> {
        (self.raw.kind == Kind::Permission).then(|| PermissionFields {
            subject: self.text(Key::PermissionSubject),
            role: self.text(Key::PermissionRole),
            resource: self.text(Key::PermissionResource),
        })
    }

    /// `audit` only.
    pub fn audit(&self) -> Option<AuditFields<'a>> {
        (self.raw.kind == Kind::Audit).then(|| AuditFields {
            queue: self.text(Key::Queue).unwrap_or(""),
            producer: self.text(Key::Producer),
            epoch: self.given(Key::Epoch, self.raw.epoch).unwrap_or(0),
            seq: self.given(Key::Seq, self.raw.seq),
            enqueued_time_ns: self.given(Key::EnqueuedTime, self.raw.enqueued_time_ns),
        })
    }

    /// `change` only.
    pub fn change(&self) -> Option<ChangeFields<'a>> {
        (self.raw.kind == Kind::Change).then(|| ChangeFields {
            id: self.text(Key::ChangeId).unwrap_or(""),
            subject: self.text(Key::ChangeSubject),
            from: self.text(Key::ChangeFrom),
            to: self.text(Key::ChangeTo),
            by: self.text(Key::ChangeBy),
            approved_by: self.text(Key::ChangeApprovedBy),
        })
    }
}

/// What was read so far, before kind and order of keys are known to be right. Lives in the decoder and is used again
/// for every event, uncleared: a value counts only if its key was seen and nothing was wrong.
#[derive(Debug)]
pub struct RawEvent {
    /// The earliest reason met.
    pub reject: Option<Reject>,
    /// Keys seen, one bit each.
    pub seen: u64,
    /// By key.
    pub texts: [Text; KEYS],
    pub time_ns: i64,
    pub kind: Kind,
    pub op: Option<Op>,
    pub outcome: Outcome,
    pub reason: Reason,
    pub count: u32,
    pub latency_ns: Option<u64>,
    pub actor_type: ActorType,
    pub source_asn: u32,
    pub hop: Hop,
    pub epoch: u64,
    pub seq: u64,
    pub enqueued_time_ns: i64,
}

impl Default for RawEvent {
    fn default() -> Self {
        RawEvent {
            reject: None,
            seen: 0,
            texts: [Text::default(); KEYS],
            time_ns: 0,
            kind: Kind::Login,
            op: None,
            outcome: Outcome::Success,
            reason: Reason::None,
            count: 1,
            latency_ns: None,
            actor_type: ActorType::User,
            source_asn: 0,
            hop: Hop::Gateway,
            epoch: 0,
            seq: 0,
            enqueued_time_ns: 0,
        }
    }
}

/// Keys that an event of a kind must have, as a set of bits, by kind.
const REQUIRED: [u64; Kind::ALL.len()] = {
    let always = Key::Time.bit() | Key::Kind.bit();
    let mut required = [always | Key::Tenant.bit() | Key::Outcome.bit(); Kind::ALL.len()];
    required[Kind::Audit as usize] = always | Key::Queue.bit();
    required[Kind::Change as usize] = always | Key::ChangeId.bit();
    required
};

/// The keys of [`REQUIRED`], with the reason for their absence.
const MISSING: [(Key, Reject); 6] = [
    (Key::Time, Reject::MissingTime),
    (Key::Kind, Reject::MissingKind),
    (Key::Tenant, Reject::MissingTenant),
    (Key::Outcome, Reject::MissingOutcome),
    (Key::Queue, Reject::MissingQueue),
    (Key::ChangeId, Reject::MissingChangeId),
];

impl RawEvent {
    /// Forgets the event before.
    #[inline]
    pub fn clear(&mut self) {
        self.reject = None;
        self.seen = 0;
    }

    /// Keeps the earliest reason.
    pub fn note(&mut self, reject: Reject) {
        self.reject = Some(self.reject.map_or(reject, |before| before.min(reject)));
    }

    #[inline]
    fn has(&self, key: Key) -> bool {
        self.seen & key.bit() != 0
    }

    /// Checks what the whole record had to be read for, and hands out the event.
    #[inline]
    pub fn finish<'a>(&'a mut self, record: &'a str, scratch: &'a str) -> Result<AuthEvent<'a>, Reject> {
        let missing = REQUIRED[self.kind as usize] & !self.seen;
        if missing != 0 || self.reject.is_some() {
            return Err(self.refuse());
        }
        Ok(AuthEvent { raw: self, record, scratch })
    }

    /// The earliest of the reasons, missing keys included. Without a known kind its keys are asked for in vain: that
    /// reason comes before theirs.
    #[cold]
    fn refuse(&mut self) -> Reject {
        let missing = REQUIRED[self.kind as usize] & !self.seen;
        let first = MISSING.iter().find(|(key, _)| missing & key.bit() != 0).map(|(_, reject)| *reject);
        let first = first.filter(|_| self.reject != Some(Reject::NotAnObject));
        self.reject.into_iter().chain(first).min().unwrap_or(Reject::MissingKind)
    }
}
