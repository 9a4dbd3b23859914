//! What was read of one event, before kind and order of keys are known to be right.

use crate::event::{ActorType, AuditFields, AuthEvent, ChangeFields, Hop, Kind, Op, Outcome, PermissionFields, Reason};
use crate::json::Text;
use crate::keys::{KEYS, Key};
use crate::reject::Reject;

/// What was read so far, before kind and order of keys are known to be right. Lives in the decoder and is used again
/// for every event, because clearing and moving all of it costs a tenth of decoding.
#[derive(Debug)]
pub struct RawEvent {
    /// The earliest reason met.
    pub(crate) reject: Option<Reject>,
    /// Keys seen, one bit each; a text counts only if its key was seen.
    pub(crate) seen: u64,
    pub(crate) texts: [Text; KEYS],
    pub(crate) time_ns: i64,
    pub(crate) kind: Option<Kind>,
    pub(crate) op: Option<Op>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) reason: Reason,
    pub(crate) count: u32,
    pub(crate) latency_ns: Option<u64>,
    pub(crate) actor_type: Option<ActorType>,
    pub(crate) source_asn: Option<u32>,
    pub(crate) trace_id: Option<[u8; 16]>,
    pub(crate) span_id: Option<[u8; 8]>,
    pub(crate) parent_span_id: Option<[u8; 8]>,
    pub(crate) hop: Option<Hop>,
    pub(crate) epoch: u64,
    pub(crate) seq: Option<u64>,
    pub(crate) enqueued_time_ns: Option<i64>,
}

impl Default for RawEvent {
    fn default() -> Self {
        RawEvent {
            reject: None,
            seen: 0,
            texts: [Text::default(); KEYS],
            time_ns: 0,
            kind: None,
            op: None,
            outcome: None,
            reason: Reason::None,
            count: 1,
            latency_ns: None,
            actor_type: None,
            source_asn: None,
            trace_id: None,
            span_id: None,
            parent_span_id: None,
            hop: None,
            epoch: 0,
            seq: None,
            enqueued_time_ns: None,
        }
    }
}

impl RawEvent {
    /// Forgets the event before, but for its texts.
    #[inline]
    pub fn clear(&mut self) {
        self.reject = None;
        self.seen = 0;
        self.kind = None;
        self.op = None;
        self.outcome = None;
        self.reason = Reason::None;
        self.count = 1;
        self.latency_ns = None;
        self.actor_type = None;
        self.source_asn = None;
        self.trace_id = None;
        self.span_id = None;
        self.parent_span_id = None;
        self.hop = None;
        self.epoch = 0;
        self.seq = None;
        self.enqueued_time_ns = None;
    }

    /// Keeps the earliest reason.
    pub fn note(&mut self, reject: Reject) {
        self.reject = Some(self.reject.map_or(reject, |before| before.min(reject)));
    }

    pub fn has(&self, key: Key) -> bool {
        self.seen & key.bit() != 0
    }

    fn require(&mut self, key: Key, missing: Reject) {
        if !self.has(key) {
            self.note(missing);
        }
    }

    /// Checks what the whole record had to be read for, and hands out the event.
    pub fn finish<'a>(&mut self, record: &'a str, scratch: &'a str) -> Result<AuthEvent<'a>, Reject> {
        let of_platform = matches!(self.kind, Some(Kind::Audit | Kind::Change));
        if self.reject != Some(Reject::NotAnObject) {
            self.require(Key::Time, Reject::MissingTime);
            self.require(Key::Kind, Reject::MissingKind);
            if self.kind.is_some() && !of_platform {
                self.require(Key::Tenant, Reject::MissingTenant);
                self.require(Key::Outcome, Reject::MissingOutcome);
            }
            match self.kind {
                Some(Kind::Audit) => self.require(Key::Queue, Reject::MissingQueue),
                Some(Kind::Change) => self.require(Key::ChangeId, Reject::MissingChangeId),
                _ => {}
            }
        }
        let (None, Some(kind)) = (self.reject, self.kind) else {
            return Err(self.reject.unwrap_or(Reject::MissingKind));
        };
        let text = |key: Key| {
            let (of, start, end) = self.texts[key as usize].of(record, scratch);
            if self.has(key) { of.get(start..end) } else { None }
        };
        Ok(AuthEvent {
            time_ns: self.time_ns,
            id: text(Key::Id),
            kind,
            op: Op::of(kind, self.op),
            count: self.count,
            tenant: text(Key::Tenant).unwrap_or(""),
            region: text(Key::Region),
            service: text(Key::Service),
            actor_id: text(Key::ActorId),
            actor_type: self.actor_type,
            source_ip: text(Key::SourceIp),
            source_asn: self.source_asn,
            source_ua: text(Key::SourceUa),
            client: text(Key::Client),
            outcome: self.outcome,
            reason: self.reason,
            latency_ns: self.latency_ns,
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            hop: if kind == Kind::Permission { self.hop } else { None },
            permission: (kind == Kind::Permission).then(|| PermissionFields {
                subject: text(Key::PermissionSubject),
                role: text(Key::PermissionRole),
                resource: text(Key::PermissionResource),
            }),
            audit: (kind == Kind::Audit).then(|| AuditFields {
                queue: text(Key::Queue).unwrap_or(""),
                producer: text(Key::Producer),
                epoch: self.epoch,
                seq: self.seq,
                enqueued_time_ns: self.enqueued_time_ns,
            }),
            change: (kind == Kind::Change).then(|| ChangeFields {
                id: text(Key::ChangeId).unwrap_or(""),
                subject: text(Key::ChangeSubject),
                from: text(Key::ChangeFrom),
                to: text(Key::ChangeTo),
                by: text(Key::ChangeBy),
                approved_by: text(Key::ChangeApprovedBy),
            }),
        })
    }
}
