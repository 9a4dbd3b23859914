//! The hot path: a record's bytes to entries of the worker's open Delta.

use std::sync::Arc;

use larum_aggregate::change::{CHANGES_MAX, keep_newest};
use larum_aggregate::histogram::bucket_of;
use larum_aggregate::{
    Change, ChangePlace, DeadLetter, Distinct, Entry, KeyDef, KeyId, NameDef, NameId, NameKind, Numbered, PartCut,
    PartitionId, SequenceId, Sighting, SourceId,
};
use larum_event::{AuditFields, AuthEvent, Code, Decoder, Kind, Limits, Op, Outcome, Records, Reject};

use crate::intern::{Asked, Interner, Wanted};
use crate::names::{UNKNOWN, shown_name};
use crate::partition::{Partition, PartitionState, Timing};
use crate::registry::Registry;

/// How a source's records are read and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePolicy {
    /// Events in a record.
    pub records: Records,
    /// Region of events that say none.
    pub region: Option<Arc<str>>,
    /// Events further behind their partition's watermark are late, ns.
    pub lateness_ns: i64,
    /// Events further ahead of their append time are skewed, ns.
    pub skew_ns: i64,
    /// The source's windows end so long before the tick, seconds.
    pub delay_s: u32,
}

impl Default for SourcePolicy {
    fn default() -> Self {
        let minute_ns = 60 * larum_aggregate::time::SECOND_NS;
        SourcePolicy { records: Records::One, region: None, lateness_ns: minute_ns, skew_ns: minute_ns, delay_s: 0 }
    }
}

/// What happens to the bytes of refused records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// They are kept for the dead-letter topic, cut to so many bytes each.
    Keep {
        /// What the topic takes.
        record_bytes_max: usize,
    },
    /// There is no topic, or no room for them: they are counted only.
    Count,
}

/// A record as the consumer hands it over; its bytes are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// When it was appended, Unix ns, already clamped to the time of receipt where the producer set it.
    pub append_ns: i64,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What a worker counted of one source since its last cut.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Counted events.
    pub entries: Vec<Entry>,
    /// Accounts and sources that were seen.
    pub sightings: Vec<Sighting>,
    /// Sequence numbers of audit records.
    pub numbers: Vec<Numbered>,
    /// Changes of the platform, the newest.
    pub changes: Vec<Change>,
}

impl Counted {
    /// How much there is.
    pub fn len(&self) -> usize {
        self.entries.len() + self.sightings.len() + self.numbers.len() + self.changes.len()
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what another worker counted.
    pub fn extend(&mut self, other: &Counted) {
        self.entries.extend_from_slice(&other.entries);
        self.sightings.extend_from_slice(&other.sightings);
        self.numbers.extend_from_slice(&other.numbers);
        self.changes.extend_from_slice(&other.changes);
    }

    /// Forgets it, and keeps the memory.
    fn clear(&mut self) {
        self.entries.clear();
        self.sightings.clear();
        self.numbers.clear();
        self.changes.clear();
    }
}

/// What a worker read since its last cut.
#[derive(Debug, Default)]
pub struct Cut {
    /// Ranges of its partitions.
    pub parts: Vec<PartCut>,
    /// What was counted, by source.
    pub counted: Vec<Counted>,
    /// Names that the entries rely on.
    pub names: Vec<NameDef>,
    /// Keys that the entries rely on.
    pub keys: Vec<KeyDef>,
    /// Refused records.
    pub dead_letters: Vec<DeadLetter>,
}

/// One worker's state. Its partitions are addressed by the slot that [`Worker::add`] gives.
pub struct Worker {
    registry: Arc<Registry>,
    decoder: Decoder,
    interner: Interner,
    partitions: Vec<Partition>,
    /// By source.
    counted: Vec<Counted>,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
    dead_letters_dropped: u64,
}

impl Worker {
    /// A worker without partitions, for `sources` sources.
    pub fn new(registry: Arc<Registry>, limits: Limits, sources: usize) -> Self {
        Worker {
            interner: Interner::new(registry.hash_key(), sources),
            registry,
            decoder: Decoder::new(limits),
            partitions: Vec::new(),
            counted: vec![Counted::default(); sources],
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            dead_letters_dropped: 0,
        }
    }

    /// Takes over a partition; gives its slot.
    pub fn add(&mut self, state: PartitionState, policy: SourcePolicy) -> usize {
        self.partitions.push(Partition::new(state, policy));
        self.partitions.len() - 1
    }

    /// Where the partition in `slot` stands.
    pub fn state(&self, slot: usize) -> &PartitionState {
        &self.partitions[slot].state
    }

    /// How many partitions there are; slots are below that.
    pub fn slots(&self) -> usize {
        self.partitions.len()
    }

    /// The partition in `slot`.
    pub fn id(&self, slot: usize) -> PartitionId {
        self.partitions[slot].id()
    }

    /// What the open Delta holds, in entries of 16 to 64 bytes.
    pub fn open_entries(&self) -> usize {
        self.counted.iter().map(Counted::len).sum()
    }

    /// Bytes of refused records in the open Delta.
    pub fn open_dead_letter_bytes(&self) -> usize {
        self.dead_letter_bytes
    }

    /// Dead letters that were not kept since the last call.
    pub fn take_dead_letters_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dead_letters_dropped)
    }

    /// Folds one record that was received at `now_ns` (wall clock). Offsets that were read before are ignored.
    #[inline]
    pub fn record(&mut self, slot: usize, record: Record<'_>, now_ns: i64, dead_letters: DeadLetters) {
        let Worker { registry, decoder, interner, partitions, counted, .. } = self;
        let partition = &mut partitions[slot];
        if record.offset < partition.state.next {
            return;
        }
        if record.offset > partition.state.next {
            partition.pass(record.offset, false);
        }
        partition.arrived(record.append_ns, now_ns);
        let (counts, end, append_ns) = (partition.counts(record.offset), record.offset + 1, record.append_ns);
        let Some(value) = record.value else {
            partition.mark(end).skipped += u64::from(counts);
            return;
        };
        let source = partition.state.start.source;
        let counted = &mut counted[usize::from(source.0)];
        let mut fold = Fold { registry, interner, counted, source, counts, append_ns };
        let verdict = match partition.policy.records {
            Records::One => match decoder.decode(value) {
                Ok(event) => {
                    let before_ns = partition.state.watermark_ns.unwrap_or(i64::MIN);
                    partition.raise(event.time_ns(), append_ns);
                    partition.mark(end).decoded += u64::from(counts);
                    fold.event(partition, &event, before_ns, end);
                    Ok(())
                }
                Err(reject) => Err(reject),
            },
            several => Self::several(decoder, several, value, partition, &mut fold, end),
        };
        if let Err(reject) = verdict {
            self.reject(slot, record.offset, reject, value, counts, dead_letters);
        }
    }

    /// A record of several events: read twice, because it is taken whole, and its tick is that of its last event.
    fn several(
        decoder: &mut Decoder,
        records: Records,
        value: &[u8],
        partition: &mut Partition,
        fold: &mut Fold<'_>,
        end: i64,
    ) -> Result<(), Reject> {
        let before = partition.state.watermark_ns;
        let mut latest_ns = i64::MIN;
        decoder.decode_each(value, records, |event| latest_ns = latest_ns.max(event.time_ns()))?;
        partition.raise(latest_ns, fold.append_ns);
        partition.mark(end).decoded += u64::from(fold.counts);
        let mut watermark_ns = before.unwrap_or(i64::MIN);
        decoder.decode_each(value, records, |event| {
            fold.event(partition, event, watermark_ns, end);
            watermark_ns = watermark_ns.max(event.time_ns().min(fold.append_ns));
        })?;
        Ok(())
    }

    #[cold]
    fn reject(
        &mut self,
        slot: usize,
        offset: i64,
        reject: Reject,
        value: &[u8],
        counts: bool,
        dead_letters: DeadLetters,
    ) {
        let partition = &mut self.partitions[slot];
        let tally = partition.mark(offset + 1);
        if !counts {
            return;
        }
        tally.reject(reject as u8, 1);
        let DeadLetters::Keep { record_bytes_max } = dead_letters else {
            self.dead_letters_dropped += 1;
            return;
        };
        let payload = value[..value.len().min(record_bytes_max)].to_vec();
        let (partition, reason, size_bytes) = (partition.id(), reject as u8, value.len() as u64);
        let letter = DeadLetter { partition, offset, reason, size_bytes, payload };
        self.dead_letter_bytes += letter.cost_bytes() as usize;
        self.dead_letters.push(letter);
    }

    /// Offsets up to `end` hold no record that could be read: control records, aborted or compacted ones.
    pub fn pass(&mut self, slot: usize, end: i64) {
        if end > self.partitions[slot].state.next {
            self.partitions[slot].pass(end, false);
        }
    }

    /// Offsets up to `end` are gone or unreadable.
    pub fn lose(&mut self, slot: usize, end: i64) {
        if end > self.partitions[slot].state.next {
            self.partitions[slot].pass(end, true);
        }
    }

    /// Notes that the partition was live at `now_ns` (wall clock).
    pub fn live(&mut self, slot: usize, now_ns: i64) {
        self.partitions[slot].state.current_ns = Some(now_ns);
    }

    /// Hands over what was read since the last cut. `forget`: also drop every look-up, so that slots can be freed.
    /// `spare`: what an earlier cut counted, whose memory is used again; fresh pages cost more than the fold.
    pub fn cut(&mut self, forget: bool, mut spare: Vec<Counted>) -> Cut {
        if forget {
            self.interner.forget();
        }
        self.dead_letter_bytes = 0;
        self.registry.refuse_keys(self.interner.take_refused_events());
        let relied = std::mem::take(&mut self.interner.relied);
        spare.iter_mut().for_each(Counted::clear);
        spare.resize_with(self.counted.len(), Counted::default);
        Cut {
            parts: self.partitions.iter_mut().filter_map(Partition::cut).collect(),
            counted: std::mem::replace(&mut self.counted, spare),
            names: relied.names,
            keys: relied.keys,
            dead_letters: std::mem::take(&mut self.dead_letters),
        }
    }
}

/// What folding an event needs besides its partition.
struct Fold<'w> {
    registry: &'w Registry,
    interner: &'w mut Interner,
    counted: &'w mut Counted,
    source: SourceId,
    counts: bool,
    append_ns: i64,
}

impl Fold<'_> {
    /// Counts one event of a record whose watermark is already raised and whose mark is set.
    #[inline]
    fn event(&mut self, partition: &mut Partition, event: &AuthEvent<'_>, watermark_ns: i64, end: i64) {
        let (timing, pane) = partition.place(event.time_ns(), self.append_ns, watermark_ns);
        let tick = larum_aggregate::time::second_of(partition.state.watermark_ns.unwrap_or(0));
        if self.counts {
            let tally = partition.mark(end);
            match timing {
                Timing::OnTime => tally.on_time += 1,
                Timing::Late => tally.late += 1,
                Timing::Skewed => tally.skewed += 1,
            }
        }
        let audit = event.audit();
        if let Some(audit) = audit.filter(|_| self.counts) {
            self.number(event, &audit, tick);
        }
        let Some(code) = Code::of(event) else { return };
        if pane.is_none() && !self.counts {
            return;
        }
        let (source, region) = (self.source, event.region().or(partition.policy.region.as_deref()));
        let tenant = Some(event.tenant());
        let wanted = match event.kind() {
            Kind::Login | Kind::Token => Wanted { source, tenant, region, component: None },
            Kind::Permission => {
                Wanted { source, tenant, region, component: Some((NameKind::Service, event.service())) }
            }
            Kind::Audit => {
                let queue = audit.map(|audit| audit.queue);
                Wanted { source, tenant: None, region, component: Some((NameKind::Queue, queue)) }
            }
            Kind::Change => {
                Wanted { source, tenant: None, region, component: Some((NameKind::Service, event.service())) }
            }
        };
        let asked = Asked { registry: self.registry, success: event.outcome() == Some(Outcome::Success) };
        let key = self.interner.key(wanted, asked);
        if let Some(pane) = pane.filter(|pane| event.kind() == Kind::Login && partition.tells_apart(*pane)) {
            self.sight(event, tick, key, pane);
        }
        if event.kind() == Kind::Change && self.counts {
            self.change(partition, event, code, tick, end - 1);
        }
        let entry = Entry::new(tick, pane, self.counts, key, code.0, event.count());
        let latency_ns = match audit {
            Some(audit) => Some(self.delay_ns(event, &audit).unwrap_or(0)),
            None => event.latency_ns(),
        };
        self.counted.entries.push(match latency_ns.filter(|_| code.is_measured()) {
            Some(ns) => entry.measured(ns, bucket_of(ns)),
            None => entry,
        });
    }

    /// Notes who logs in, and from where. Names go no further than their hash under the store's key.
    #[inline]
    fn sight(&mut self, event: &AuthEvent<'_>, tick: u32, key: KeyId, pane: u32) {
        for (what, name) in [(Distinct::Accounts, event.actor_id()), (Distinct::Sources, event.source_ip())] {
            let Some(name) = name else { continue };
            let hash = self.interner.hash(name) as u32;
            self.counted.sightings.push(Sighting::new(tick, pane, key, what, hash));
        }
    }

    /// Notes a change of the platform.
    #[cold]
    fn change(&mut self, partition: &Partition, event: &AuthEvent<'_>, code: Code, tick: u32, offset: i64) {
        let Some(fields) = event.change() else { return };
        let key = self.registry.hash_key();
        let show = |raw: Option<&str>| raw.map_or(UNKNOWN.to_string(), |raw| shown_name(raw, key).into_owned());
        let text = |raw: Option<&str>| raw.map(Change::text);
        let changes = &mut self.counted.changes;
        let partition_id = partition.id();
        let before = changes.last().map(|change| change.place);
        let same_record = before.filter(|place| (place.partition, place.offset) == (partition_id, offset));
        let place = ChangePlace {
            at_ns: event.time_ns().min(self.append_ns),
            partition: partition_id,
            offset,
            nth: same_record.map_or(0, |place| place.nth + 1),
        };
        changes.push(Change {
            place,
            source: self.source,
            tick,
            time_ns: event.time_ns(),
            code: code.0,
            service: show(event.service()),
            region: show(event.region().or(partition.policy.region.as_deref())),
            id: Change::text(fields.id),
            subject: text(fields.subject),
            from: text(fields.from),
            to: text(fields.to),
            trace_id: event.trace_id(),
            span_id: event.span_id(),
        });
        if changes.len() >= 4 * CHANGES_MAX {
            keep_newest(changes);
        }
    }

    /// From being put into the queue to coming out of it, ns; `None` if it came out earlier, which is skew.
    fn delay_ns(&self, event: &AuthEvent<'_>, audit: &AuditFields<'_>) -> Option<u64> {
        let (from_ns, to_ns) = match audit.enqueued_time_ns {
            Some(enqueued_ns) => (enqueued_ns, event.time_ns()),
            None => (event.time_ns(), self.append_ns),
        };
        u64::try_from(to_ns.saturating_sub(from_ns)).ok()
    }

    /// Notes where an audit event stands in its sequence.
    fn number(&mut self, event: &AuthEvent<'_>, audit: &AuditFields<'_>, tick: u32) {
        let delivered = event.op() == Op::Deliver;
        // Both names come from the platform.
        let asked = Asked { registry: self.registry, success: true };
        let queue = self.interner.name(NameKind::Queue, Some(audit.queue), asked);
        let producer = self.interner.name(NameKind::Producer, audit.producer, asked);
        // Numbers of producers without a slot would be mixed up.
        let seq = audit.seq.filter(|_| queue != NameId::OTHER && producer != NameId::OTHER);
        if seq.is_none() && !delivered {
            return;
        }
        self.counted.numbers.push(Numbered {
            tick,
            id: SequenceId { queue, producer, epoch: audit.epoch },
            seq,
            enqueued_ns: audit.enqueued_time_ns.unwrap_or(event.time_ns()),
            delivered,
            skewed: delivered && self.delay_ns(event, audit).is_none(),
        });
    }
}
