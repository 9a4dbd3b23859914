//! The keys of the contract, and one event's reading: every value checked as it comes, faults noted in their order.

use crate::event::{ActorType, AuditFields, AuthEvent, ChangeFields, Hop, Kind, Op, Outcome, PermissionFields, Reason};
use crate::json::{NotJson, Scanner, Text, Value};
use crate::number::{integer, latency_ns};
use crate::reject::Reject;
use crate::time::{parse_epoch_ns, parse_rfc3339_ns};
use crate::words::{self, Table, Words};

/// Largest `count`.
const COUNT_MAX: u64 = 1_000_000;
/// Longest tenant and region, bytes.
const NAME_BYTES_MAX: u32 = 256;
/// Longest `id`, bytes.
const ID_BYTES_MAX: u32 = 64;

/// An object of the contract: the event or one that is nested in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Event,
    Actor,
    Source,
    Permission,
    Change,
}

/// Declares the contract's keys: a dense enum and the look-up per object.
macro_rules! keys {
    ($($scope:ident { $($key:ident = $text:literal),+ $(,)? })+) => {
        /// A key of the contract, in whichever object it stands.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        enum Key { $($($key),+),+ }

        impl Key {
            #[inline]
            fn of(scope: Scope, words: Words) -> Option<Key> {
                match scope {
                    $(Scope::$scope => {
                        const KEYS: &[Key] = &[$(Key::$key),+];
                        static TABLE: Table<{ KEYS.len() }> = Table::new([$($text),+]);
                        TABLE.find(words).map(|at| KEYS[at])
                    }),+
                }
            }
        }
    };
}

keys! {
    Event {
        Time = "time", Kind = "kind", Tenant = "tenant", Outcome = "outcome", Region = "region", Op = "op",
        Reason = "reason", LatencyMs = "latency_ms", Service = "service", Actor = "actor", Source = "source",
        Client = "client", V = "v", Id = "id", Count = "count", TraceId = "trace_id", SpanId = "span_id",
        ParentSpanId = "parent_span_id", Hop = "hop", Permission = "permission", Queue = "queue",
        Producer = "producer", Epoch = "epoch", Seq = "seq", EnqueuedTime = "enqueued_time", Change = "change",
    }
    Actor { ActorId = "id", ActorType = "type" }
    Source { SourceIp = "ip", SourceAsn = "asn", SourceUa = "ua" }
    Permission { PermissionSubject = "subject", PermissionRole = "role", PermissionResource = "resource" }
    Change {
        ChangeId = "id", ChangeSubject = "subject", ChangeFrom = "from", ChangeTo = "to", ChangeBy = "by",
        ChangeApprovedBy = "approved_by",
    }
}

/// Least and most bytes of a plain text, and the reason when it has others or is none.
const TEXT_LIMITS: [(u32, u32, Reject); KEYS] = {
    let mut limits = [(0, u32::MAX, Reject::BadField); KEYS];
    limits[Key::Tenant as usize] = (1, NAME_BYTES_MAX, Reject::BadTenant);
    limits[Key::Region as usize] = (1, NAME_BYTES_MAX, Reject::BadField);
    limits[Key::Id as usize] = (0, ID_BYTES_MAX, Reject::BadField);
    limits
};

/// How many keys there are; [`RawEvent::texts`] is indexed by key.
const KEYS: usize = Key::ChangeApprovedBy as usize + 1;

/// What was read so far, before kind and order of keys are known to be right. Lives in the decoder and is used again
/// for every event, because clearing and moving all of it costs a tenth of decoding.
#[derive(Debug)]
pub struct RawEvent {
    /// The earliest reason met.
    reject: Option<Reject>,
    /// Keys seen, one bit each; a text counts only if its key was seen.
    seen: u64,
    texts: [Text; KEYS],
    time_ns: i64,
    kind: Option<Kind>,
    op: Option<Op>,
    outcome: Option<Outcome>,
    reason: Reason,
    count: u32,
    latency_ns: Option<u64>,
    actor_type: Option<ActorType>,
    source_asn: Option<u32>,
    trace_id: Option<[u8; 16]>,
    span_id: Option<[u8; 8]>,
    parent_span_id: Option<[u8; 8]>,
    hop: Option<Hop>,
    epoch: u64,
    seq: Option<u64>,
    enqueued_time_ns: Option<i64>,
}

impl Default for RawEvent {
    fn default() -> Self {
        RawEvent {
            reject: None,
            seen: 0,
            texts: [Text::Raw(0, 0); KEYS],
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
    fn clear(&mut self) {
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

    /// Reads the value that begins here as an event; leaves the scanner behind it.
    #[inline]
    pub fn read<'r>(
        &mut self,
        record: &'r str,
        scanner: &mut Scanner<'r>,
        scratch: &mut String,
        stack: &mut Vec<u8>,
    ) -> Result<(), NotJson> {
        self.clear();
        scratch.clear();
        scanner.too_deep = false;
        if scanner.peek() == b'{' {
            let mut reader = Reader { record, scanner, scratch, stack };
            reader.members(Scope::Event, 1, self)?;
        } else {
            scanner.skip(0, stack)?;
            self.note(Reject::NotAnObject);
        }
        if scanner.too_deep {
            self.note(Reject::TooDeep);
        }
        Ok(())
    }

    /// Keeps the earliest reason.
    fn note(&mut self, reject: Reject) {
        self.reject = Some(self.reject.map_or(reject, |before| before.min(reject)));
    }

    fn has(&self, key: Key) -> bool {
        self.seen & (1 << key as u8) != 0
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
        let text = |key: Key| match self.texts[key as usize] {
            _ if !self.has(key) => None,
            Text::Raw(start, end) => record.get(start as usize..end as usize),
            Text::Unescaped(start, end) => scratch.get(start as usize..end as usize),
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

/// Values of hex digits; 255 for what is none.
const HEX: [u8; 256] = {
    let (mut values, mut digit) = ([255; 256], 0);
    while digit < 16 {
        let (lower, upper) = (b"0123456789abcdef"[digit], b"0123456789ABCDEF"[digit]);
        values[lower as usize] = digit as u8;
        values[upper as usize] = digit as u8;
        digit += 1;
    }
    values
};

/// The parts that reading needs at hand, borrowed together.
struct Reader<'r, 's> {
    record: &'r str,
    scanner: &'s mut Scanner<'r>,
    scratch: &'s mut String,
    stack: &'s mut Vec<u8>,
}

impl Reader<'_, '_> {
    /// Reads the object here. Recursion is at most two levels: only the event holds objects of the contract.
    fn members(&mut self, scope: Scope, depth: usize, raw: &mut RawEvent) -> Result<(), NotJson> {
        self.scanner.take(b'{');
        self.scanner.blanks();
        if self.scanner.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.scanner.string(self.record, self.scratch)?;
            let key = self.words(name).and_then(|words| Key::of(scope, words));
            self.scanner.colon()?;
            match key {
                Some(key) => self.member(key, depth, raw)?,
                None => self.scanner.skip(depth, self.stack)?,
            }
            if !self.scanner.another()? {
                return Ok(());
            }
        }
    }

    /// A text's words; none if it is longer than any of the contract's.
    #[inline(always)]
    fn words(&self, text: Text) -> Option<Words> {
        match text {
            Text::Raw(start, end) => words::of(self.record.as_bytes(), start as usize, end as usize),
            Text::Unescaped(start, end) => words::of(self.scratch.as_bytes(), start as usize, end as usize),
        }
    }

    #[inline]
    fn bytes(&self, text: Text) -> &[u8] {
        match text {
            Text::Raw(start, end) => &self.record.as_bytes()[start as usize..end as usize],
            Text::Unescaped(start, end) => &self.scratch.as_bytes()[start as usize..end as usize],
        }
    }

    /// Reads the value of a key of the contract: one jump by key, then what is usual there.
    #[inline]
    fn member(&mut self, key: Key, depth: usize, raw: &mut RawEvent) -> Result<(), NotJson> {
        let bit = 1 << key as u8;
        if raw.seen & bit != 0 {
            raw.note(Reject::DuplicateKey);
        }
        raw.seen |= bit;
        let kept = match key {
            Key::Actor => return self.nested(Scope::Actor, depth, raw),
            Key::Source => return self.nested(Scope::Source, depth, raw),
            Key::Permission => return self.nested(Scope::Permission, depth, raw),
            Key::Change => return self.nested(Scope::Change, depth, raw),
            Key::Time => self.time(depth)?.map(|ns| raw.time_ns = ns).ok_or(Reject::BadTime),
            Key::Kind => {
                let kind = self.word(depth)?.and_then(Kind::from_words);
                kind.map(|kind| raw.kind = Some(kind)).ok_or(Reject::UnknownKind)
            }
            Key::Outcome => {
                let outcome = self.word(depth)?.and_then(Outcome::from_words);
                outcome.map(|outcome| raw.outcome = Some(outcome)).ok_or(Reject::BadOutcome)
            }
            Key::Op => match self.text(depth)? {
                Value::Text(text) => {
                    raw.op = self.words(text).and_then(Op::from_words);
                    Ok(())
                }
                _ => Err(Reject::BadField),
            },
            Key::Reason => match self.text(depth)? {
                Value::Text(text) => {
                    raw.reason = Reason::of(self.words(text));
                    Ok(())
                }
                Value::Null => Ok(()),
                _ => Err(Reject::BadField),
            },
            Key::LatencyMs => match self.numeric(depth)? {
                Value::Null => Ok(()),
                value => {
                    raw.latency_ns = self.number(value).and_then(latency_ns);
                    raw.latency_ns.map(drop).ok_or(Reject::BadLatency)
                }
            },
            Key::V => self.integer(depth, 1, 1)?.map(drop).ok_or(Reject::UnknownVersion),
            _ => return self.rare(key, depth, raw),
        };
        if let Err(reject) = kept {
            raw.note(reject);
        }
        Ok(())
    }

    /// Reads a nested object of the contract.
    fn nested(&mut self, scope: Scope, depth: usize, raw: &mut RawEvent) -> Result<(), NotJson> {
        if self.scanner.peek() == b'{' {
            return self.members(scope, depth + 1, raw);
        }
        raw.note(Reject::BadField);
        self.scanner.skip(depth, self.stack)
    }

    /// The keys that are plain texts, and those that are seldom there.
    #[inline]
    fn rare(&mut self, key: Key, depth: usize, raw: &mut RawEvent) -> Result<(), NotJson> {
        let kept = match key {
            Key::Count => {
                let count = self.integer(depth, 1, COUNT_MAX)?;
                count.map(|count| raw.count = count as u32).ok_or(Reject::BadField)
            }
            Key::SourceAsn => {
                raw.source_asn = self.integer(depth, 0, u64::from(u32::MAX))?.map(|asn| asn as u32);
                raw.source_asn.map(drop).ok_or(Reject::BadField)
            }
            Key::Epoch => {
                let epoch = self.integer(depth, 0, i64::MAX as u64)?;
                epoch.map(|epoch| raw.epoch = epoch).ok_or(Reject::BadField)
            }
            Key::Seq => {
                raw.seq = self.integer(depth, 0, i64::MAX as u64)?;
                raw.seq.map(drop).ok_or(Reject::BadField)
            }
            Key::EnqueuedTime => {
                raw.enqueued_time_ns = self.time(depth)?;
                raw.enqueued_time_ns.map(drop).ok_or(Reject::BadField)
            }
            Key::ActorType => {
                raw.actor_type = self.word(depth)?.and_then(ActorType::from_words);
                raw.actor_type.map(drop).ok_or(Reject::BadField)
            }
            Key::Hop => {
                raw.hop = self.word(depth)?.and_then(Hop::from_words);
                raw.hop.map(drop).ok_or(Reject::BadField)
            }
            Key::TraceId => {
                raw.trace_id = self.hex(depth)?;
                raw.trace_id.map(drop).ok_or(Reject::BadField)
            }
            Key::SpanId => {
                raw.span_id = self.hex(depth)?;
                raw.span_id.map(drop).ok_or(Reject::BadField)
            }
            Key::ParentSpanId => {
                raw.parent_span_id = self.hex(depth)?;
                raw.parent_span_id.map(drop).ok_or(Reject::BadField)
            }
            _ => self.plain_text(key, depth, raw)?,
        };
        if let Err(reject) = kept {
            raw.note(reject);
        }
        Ok(())
    }

    #[inline]
    fn plain_text(&mut self, key: Key, depth: usize, raw: &mut RawEvent) -> Result<Result<(), Reject>, NotJson> {
        let (least, most, reject) = TEXT_LIMITS[key as usize];
        Ok(match self.text(depth)? {
            Value::Text(text) if (least..=most).contains(&text.len()) => {
                raw.texts[key as usize] = text;
                Ok(())
            }
            _ => Err(reject),
        })
    }

    /// The value here, which is usually a text.
    #[inline(always)]
    fn text(&mut self, depth: usize) -> Result<Value, NotJson> {
        match self.scanner.peek() {
            b'"' => self.scanner.string(self.record, self.scratch).map(Value::Text),
            _ => self.scanner.value(depth, self.record, self.scratch, self.stack),
        }
    }

    /// The value here, which is usually a number.
    #[inline(always)]
    fn numeric(&mut self, depth: usize) -> Result<Value, NotJson> {
        match self.scanner.peek() {
            b'0'..=b'9' => self.scanner.number().map(|(start, end)| Value::Number(start, end)),
            _ => self.scanner.value(depth, self.record, self.scratch, self.stack),
        }
    }

    fn number(&self, value: Value) -> Option<&[u8]> {
        match value {
            Value::Number(start, end) => Some(&self.record.as_bytes()[start..end]),
            _ => None,
        }
    }

    fn integer(&mut self, depth: usize, min: u64, max: u64) -> Result<Option<u64>, NotJson> {
        let value = self.numeric(depth)?;
        Ok(self.number(value).and_then(|n| integer(n, min, max)))
    }

    fn time(&mut self, depth: usize) -> Result<Option<i64>, NotJson> {
        Ok(match self.text(depth)? {
            Value::Text(text) => parse_rfc3339_ns(self.bytes(text)),
            value => self.number(value).and_then(parse_epoch_ns),
        })
    }

    /// The words of the text here; none if it is no text, or longer than any of the contract's.
    #[inline(always)]
    fn word(&mut self, depth: usize) -> Result<Option<Words>, NotJson> {
        Ok(match self.text(depth)? {
            Value::Text(text) => self.words(text),
            _ => None,
        })
    }

    fn hex<const N: usize>(&mut self, depth: usize) -> Result<Option<[u8; N]>, NotJson> {
        let Value::Text(text) = self.text(depth)? else { return Ok(None) };
        let digits = self.bytes(text);
        if digits.len() != 2 * N {
            return Ok(None);
        }
        let mut id = [0; N];
        let mut wrong = 0;
        for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
            let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
            wrong |= high | low;
            *byte = high << 4 | (low & 0xf);
        }
        Ok((wrong <= 0xf).then_some(id))
    }
}
