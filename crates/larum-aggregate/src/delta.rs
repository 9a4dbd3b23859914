//! The Delta, the durable unit, and its versioned wire form.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::distinct::SightingGroup;
use crate::exemplar::Exemplar;
use crate::run::Run;
use crate::sample::Sample;
use crate::sequence::SequenceGroup;

/// A source, by its place in the configuration of the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceId(pub u16);
/// A partition of a topic of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionId(pub u32);
/// An admitted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameId(pub u32);
/// An admitted (source, tenant, region). Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub u32);

impl NameId {
    /// Stands for every name without a slot.
    pub const OTHER: NameId = NameId(0);
    /// The label text of [`NameId::OTHER`].
    pub const OTHER_TEXT: &'static str = "__other__";
    /// Stands for a label that a key does not have.
    pub const NONE: NameId = NameId(u32::MAX);
}

/// What a name names; each kind has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NameKind {
    /// Customer of the platform; comes from outside.
    Tenant,
    /// Where it was served; comes from the platform.
    Region,
    /// Who emitted it; comes from the platform.
    Service,
    /// An audit queue; comes from the platform.
    Queue,
    /// Who puts records into an audit queue; comes from the platform.
    Producer,
}

impl NameKind {
    /// Every kind.
    pub const ALL: [NameKind; 5] =
        [NameKind::Tenant, NameKind::Region, NameKind::Service, NameKind::Queue, NameKind::Producer];

    /// Its name in labels and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            NameKind::Tenant => "tenant",
            NameKind::Region => "region",
            NameKind::Service => "service",
            NameKind::Queue => "queue",
            NameKind::Producer => "producer",
        }
    }
}

/// An admitted name, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameDef {
    /// Its id.
    pub id: NameId,
    /// Its kind.
    pub kind: NameKind,
    /// Its label text.
    pub text: String,
}

/// An admitted key: (tenant, region) for logins and tokens, with the service for permissions; (region, service) for
/// changes and (region, queue) for audit records, which belong to no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyDef {
    /// Its id.
    pub id: KeyId,
    /// The source that its events come from.
    pub source: SourceId,
    /// The tenant, or [`NameId::NONE`].
    pub tenant: NameId,
    /// The region.
    pub region: NameId,
    /// The service or the audit queue, or [`NameId::NONE`].
    pub component: NameId,
}

impl KeyDef {
    /// Whether the key takes a slot of the budget. Those that tell apart neither tenants nor components do not: there are
    /// no more of them than regions.
    pub fn is_budgeted(&self) -> bool {
        let tells_apart = |name| name != NameId::OTHER && name != NameId::NONE;
        tells_apart(self.tenant) || tells_apart(self.component)
    }

    /// The names that the key shows.
    pub fn names(&self) -> impl Iterator<Item = NameId> + use<> {
        [self.tenant, self.region, self.component].into_iter().filter(|name| *name != NameId::NONE)
    }
}

/// A source as the Deltas know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDef {
    /// Its id.
    pub id: SourceId,
    /// Its label text.
    pub name: String,
    /// Its windows end so long before the tick, seconds.
    pub delay_s: u32,
    /// The topics that it is read from; what is known of others is kept, and waited for no more.
    pub topics: Vec<String>,
    /// How long a number may be missing from an audit queue's sequence before its record is missing.
    pub grace: Graces,
}

/// Graces of audit queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graces {
    /// Of queues that are not named, seconds.
    pub default_s: u32,
    /// Of named ones, seconds.
    pub by_queue: BTreeMap<String, u32>,
}

impl Default for Graces {
    fn default() -> Self {
        Graces { default_s: 60, by_queue: BTreeMap::new() }
    }
}

impl Graces {
    /// The grace of a queue, seconds.
    pub fn of(&self, queue: &str) -> u32 {
        self.by_queue.get(queue).copied().unwrap_or(self.default_s)
    }
}

/// From when on a partition's records are known to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cover {
    /// From this event time on, Unix ns: the start was chosen by time.
    Since(i64),
    /// From its first record on: read from the beginning of a log of which nothing was deleted.
    Birth,
    /// From its first record on: what was before it is gone.
    FirstRecord,
    /// From before anything: it joined a topic that was already read.
    Always,
}

/// A partition, as fixed before its first poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStart {
    /// Its id.
    pub id: PartitionId,
    /// Its source.
    pub source: SourceId,
    /// Its topic.
    pub topic: String,
    /// The broker's id of the topic, where it has one: a topic made anew under the same name is another.
    pub topic_id: Option<String>,
    /// Its number in the topic.
    pub partition: i32,
    /// Ranges tile from here; warm-up begins here.
    pub start: i64,
    /// Totals begin here.
    pub origin: i64,
    /// From when on it is complete.
    pub cover: Cover,
    /// When that was fixed, wall clock, Unix ns: its counters start then.
    pub began_ns: i64,
}

impl PartitionStart {
    /// A partition of a log that is read and counted from its very beginning.
    pub fn from_birth(id: PartitionId, source: SourceId, topic: &str, partition: i32) -> Self {
        let cover = Cover::Birth;
        let topic = topic.to_string();
        PartitionStart { id, source, topic, topic_id: None, partition, start: 0, origin: 0, cover, began_ns: 0 }
    }
}

/// Numbers of records and events of a stretch of a partition. Records: all but the last four; events: these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records that decoded.
    pub decoded: u64,
    /// Records with a null value.
    pub skipped: u64,
    /// Offsets without a record: control records, aborted, compacted.
    pub absent: u64,
    /// Offsets whose records are gone or unreadable.
    pub lost: u64,
    /// Refused records, by index of the reason.
    pub rejected: Vec<(u8, u64)>,
    /// Events in time.
    pub on_time: u64,
    /// Events more than the allowed lateness behind the watermark.
    pub late: u64,
    /// Events more than the allowed skew ahead of their append time.
    pub skewed: u64,
    /// Events dropped as duplicates.
    pub duplicate: u64,
}

impl Tally {
    /// Adds another stretch.
    pub fn add(&mut self, other: &Tally) {
        self.decoded += other.decoded;
        self.skipped += other.skipped;
        self.absent += other.absent;
        self.lost += other.lost;
        self.on_time += other.on_time;
        self.late += other.late;
        self.skewed += other.skewed;
        self.duplicate += other.duplicate;
        for (reason, count) in &other.rejected {
            self.reject(*reason, *count);
        }
    }

    /// Counts refused records; the list stays sorted by reason.
    pub fn reject(&mut self, reason: u8, count: u64) {
        match self.rejected.binary_search_by_key(&reason, |r| r.0) {
            Ok(at) => self.rejected[at].1 += count,
            Err(at) => self.rejected.insert(at, (reason, count)),
        }
    }

    /// Refused records of all reasons.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|r| r.1).sum()
    }

    /// Offsets that the stretch accounts for.
    pub fn offsets(&self) -> u64 {
        self.decoded + self.skipped + self.absent + self.lost + self.rejected_total()
    }
}

/// Where a tick ends in a partition, and what it held there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The tick.
    pub tick: u32,
    /// Offset after the tick's last record.
    pub end: i64,
    /// What the tick held, from the partition's origin on.
    pub tally: Tally,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartCut {
    /// The partition.
    pub id: PartitionId,
    /// First offset of the range.
    pub from: i64,
    /// Offset after the range.
    pub next: i64,
    /// The watermark after the range, Unix ns.
    pub watermark_ns: Option<i64>,
    /// Append time of the first record ever read, Unix ns.
    pub first_append_ns: Option<i64>,
    /// Wall-clock time at which it was last live, or read up to a record appended in the last minute.
    pub current_ns: Option<i64>,
    /// Something was lost in the range.
    pub damaged: bool,
    /// Its ticks, in order.
    pub marks: Vec<Mark>,
}

/// The clock of a source at a commit, with what it needs to go on after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCut {
    /// The source.
    pub id: SourceId,
    /// Its clock, event time, Unix ns; none before it begins.
    pub clock_ns: Option<i64>,
    /// Wall-clock time for which the clock stands, once nothing arrives.
    pub paced_ns: i64,
    /// Wall-clock time at which something last arrived.
    pub arrived_ns: i64,
    /// Partitions that the clock does not wait for.
    pub left_out: Vec<PartitionId>,
}

/// Aggregates of one place in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The source that they come from.
    pub source: SourceId,
    /// The tick that they belong to.
    pub tick: u32,
    /// The pane that they count in; none: too old for any window.
    pub pane: Option<u32>,
    /// They count in totals (else they were read for warm-up).
    pub totals: bool,
    /// Events by key and slot, weighed.
    pub counts: Run<u64>,
    /// Sums of latencies by key and code, ns; nothing where they count in no total.
    pub sums: Run<u128>,
}

/// A refused record on its way to the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it was read.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: i64,
    /// Index of the reason.
    pub reason: u8,
    /// Its size before it was cut, bytes.
    pub size_bytes: u64,
    /// Its bytes, cut to what the dead-letter topic takes.
    #[serde(with = "bytes")]
    pub payload: Vec<u8>,
}

impl DeadLetter {
    /// What keeping it costs, bytes: its payload and a fixed amount, so that many empty ones are not free.
    pub fn cost_bytes(&self) -> u64 {
        self.payload.len() as u64 + 256
    }
}

/// Writes a byte string in one piece instead of element by element.
pub(crate) mod bytes {
    pub fn serialize<S: serde::Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        <&[u8] as serde::Deserialize>::deserialize(d).map(<[u8]>::to_vec)
    }
}

/// What all workers read since the last commit, and what was decided on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Sources that appear or change.
    pub new_sources: Vec<SourceDef>,
    /// Partitions that appear.
    pub new_partitions: Vec<PartitionStart>,
    /// Names that the Delta relies on; known ones may come again.
    pub names: Vec<NameDef>,
    /// Keys that the Delta relies on; known ones may come again.
    pub keys: Vec<KeyDef>,
    /// What was read.
    pub parts: Vec<PartCut>,
    /// The sources' clocks.
    pub sources: Vec<SourceCut>,
    /// The aggregates.
    pub groups: Vec<Group>,
    /// Accounts and sources that were seen.
    pub sightings: Vec<SightingGroup>,
    /// Sequence numbers of audit records.
    pub sequences: Vec<SequenceGroup>,
    /// Changes of the platform.
    pub changes: Vec<Change>,
    /// Refused records to be sent to the dead-letter topic.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters that the broker has acknowledged.
    pub delivered: Vec<(PartitionId, i64)>,
    /// Keys whose slots are free again.
    pub retired_keys: Vec<KeyId>,
    /// Names whose slots are free again.
    pub retired_names: Vec<NameId>,
    /// Traces of single requests. Version 2 ends before them.
    pub exemplars: Vec<Exemplar>,
    /// Records that can be looked at.
    pub samples: Vec<Sample>,
}

/// Version of the wire form that is written.
pub const WIRE_VERSION: u8 = 4;
/// The oldest version that is read too.
const WIRE_VERSION_OLDEST: u8 = 2;
/// What later versions added stands at the end of every durable value, and without it there are zeros: version 3 added
/// exemplars, version 4 samples and states of alerts.
const ADDED: [u8; 16] = [0; 16];

/// Why bytes are no Delta.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeltaError {
    /// Written by another version of Larum.
    #[error(
        "format version {0} is not known to this version of Larum, which reads versions {WIRE_VERSION_OLDEST} to {WIRE_VERSION}"
    )]
    UnknownVersion(u8),
    /// The version is right, the rest is not.
    #[error("the bytes are damaged: {0}")]
    Damaged(String),
}

impl Delta {
    /// The wire form: one byte of version, then the fields in order.
    pub fn encode(&self) -> Vec<u8> {
        encode_versioned(self)
    }

    /// The wire form in the memory of `buffer`, whose bytes are forgotten.
    pub fn encode_in(&self, buffer: Vec<u8>) -> Vec<u8> {
        encode_versioned_in(self, buffer)
    }

    /// Back from the wire form.
    ///
    /// # Errors
    /// An unknown version, or damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Delta, DeltaError> {
        decode_versioned(bytes)
    }

    /// True when committing it would change nothing that anybody could see or need.
    pub fn is_empty(&self) -> bool {
        *self == Delta { sources: self.sources.clone(), ..Delta::default() }
    }
}

/// Writes any durable value behind the version byte.
pub fn encode_versioned<T: Serialize>(value: &T) -> Vec<u8> {
    encode_versioned_in(value, Vec::new())
}

/// The same in the memory of `buffer`, whose bytes are forgotten.
pub fn encode_versioned_in<T: Serialize>(value: &T, mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.push(WIRE_VERSION);
    // Writing to memory fails only for types that these are not (maps or lists of unknown length).
    postcard::to_extend(value, buffer).unwrap_or_else(|e| unreachable!("durable values are always encodable: {e}"))
}

/// Reads a durable value behind its version byte, as this version wrote it or one before.
///
/// # Errors
/// An unknown version, or damaged bytes.
pub fn decode_versioned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DeltaError> {
    let read = |bytes: &[u8]| postcard::from_bytes(bytes).map_err(|e| DeltaError::Damaged(e.to_string()));
    match bytes.split_first() {
        Some((&WIRE_VERSION, rest)) => read(rest),
        Some((WIRE_VERSION_OLDEST..WIRE_VERSION, rest)) => read(&[rest, &ADDED[..]].concat()),
        Some((version, _)) => Err(DeltaError::UnknownVersion(*version)),
        None => Err(DeltaError::Damaged("no bytes".to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangePlace;
    use crate::distinct::{Form, SightingRow};
    use crate::run::{Cell, Slot};
    use crate::sequence::{SeqMark, SeqRange, SequenceId, SequenceRow};

    fn sample() -> Delta {
        Delta {
            names: vec![NameDef { id: NameId(1), kind: NameKind::Tenant, text: "acme".into() }],
            parts: vec![PartCut {
                id: PartitionId(0),
                from: 5,
                next: 7,
                watermark_ns: Some(-1),
                first_append_ns: None,
                current_ns: Some(9),
                damaged: false,
                marks: vec![Mark { tick: 3, end: 7, tally: Tally { decoded: 2, on_time: 2, ..Tally::default() } }],
            }],
            groups: vec![Group {
                source: SourceId(0),
                tick: 3,
                pane: Some(0),
                totals: true,
                counts: [(Cell::new(KeyId(1), Slot::of(2, 3)), 4)].into_iter().collect(),
                sums: [(Cell::new(KeyId(1), Slot::of(2, 3).without_bucket()), u128::MAX)].into_iter().collect(),
            }],
            sightings: vec![SightingGroup {
                source: SourceId(0),
                tick: 3,
                pane: 2,
                rows: vec![SightingRow { key: KeyId(1), accounts: Form::Few(0), sources: Form::Few(2) }],
                hashes: vec![5, u32::MAX],
            }],
            sequences: vec![SequenceGroup {
                source: SourceId(0),
                tick: 3,
                rows: vec![SequenceRow {
                    delivered: vec![SeqRange { first: 4, last: 6, first_ns: 8 }],
                    enqueued: Some((SeqMark { seq: 8, ns: -2 }, SeqMark { seq: 9, ns: -1 })),
                    ..SequenceRow::new(SequenceId { queue: NameId(1), producer: NameId(2), epoch: 7 })
                }],
            }],
            changes: vec![Change {
                place: ChangePlace { at_ns: 1, partition: PartitionId(0), offset: 6, nth: 0 },
                source: SourceId(0),
                tick: 3,
                time_ns: 2,
                code: 4,
                service: "s".into(),
                region: "r".into(),
                id: "c".into(),
                subject: None,
                from: Some("1".into()),
                to: None,
                trace_id: Some([7; 16]),
                span_id: None,
            }],
            dead_letters: vec![DeadLetter {
                partition: PartitionId(0),
                offset: 6,
                reason: 3,
                size_bytes: 2,
                payload: vec![0xff, 0],
            }],
            exemplars: vec![Exemplar {
                source: SourceId(0),
                tick: 3,
                key: KeyId(1),
                histogram: 2,
                hash: 9,
                trace_id: [7; 16],
                span_id: Some([8; 8]),
                latency_ns: 5,
                time_ns: -1,
            }],
            samples: vec![Sample {
                source: SourceId(0),
                tick: 3,
                key: KeyId(1),
                code: 7,
                partition: PartitionId(0),
                offset: 6,
            }],
            ..Delta::default()
        }
    }

    fn hex_file(version: u8) -> String {
        format!("{}/tests/delta-v{version}.hex", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_wire_form_is_pinned() {
        let bytes = sample().encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if std::env::var_os("LARUM_BLESS").is_some() {
            std::fs::write(hex_file(WIRE_VERSION), &hex).unwrap();
        }
        assert_eq!(hex, std::fs::read_to_string(hex_file(WIRE_VERSION)).unwrap_or_default().trim());
        assert_eq!(Delta::decode(&bytes), Ok(sample()));
    }

    /// The files were written by the versions before and are never blessed again.
    #[test]
    fn the_versions_before_are_read() {
        let without = Delta { samples: Vec::new(), ..sample() };
        for (version, want) in [(3, without.clone()), (2, Delta { exemplars: Vec::new(), ..without })] {
            let hex = std::fs::read_to_string(hex_file(version)).unwrap();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            let bytes: Vec<u8> = hex.trim().as_bytes().chunks(2).map(byte).collect();
            assert_eq!(bytes[0], version);
            assert_eq!(Delta::decode(&bytes), Ok(want));
        }
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        assert_eq!(Delta::decode(&[9, 0]), Err(DeltaError::UnknownVersion(9)));
        assert_eq!(Delta::decode(&[1, 0]), Err(DeltaError::UnknownVersion(1)), "its layout was another");
        assert!(matches!(Delta::decode(&[WIRE_VERSION, 255]), Err(DeltaError::Damaged(_))));
        assert!(matches!(Delta::decode(&[]), Err(DeltaError::Damaged(_))));
    }
}
