//! One event to entries of the worker's open Delta.

use larum_aggregate::change::{CHANGES_MAX, keep_newest};
use larum_aggregate::histogram::bucket_of;
use larum_aggregate::{
    Change, ChangePlace, Distinct, Entry, Exemplar, KeyId, Mark, NameId, NameKind, Numbered, PartitionId, Sample,
    SequenceId, Sighting, SourceId, sample,
};
use larum_event::{AuditFields, AuthEvent, Code, Kind, Op, Outcome, traceparent};

use crate::intern::{Asked, Interner, Wanted};
use crate::names::{UNKNOWN, shown_name};
use crate::partition::{Partition, Timing};
use crate::registry::Registry;
use crate::worker::{Counted, Record};

/// From here on a request is slow, ns: its trace may become an exemplar, as may that of any that failed.
pub const SLOW_NS: u64 = 500_000_000;

/// Whether somebody may want to look at the request: it was slow, or did not succeed.
#[inline]
fn is_telling(outcome: Option<Outcome>, latency_ns: u64) -> bool {
    match outcome {
        Some(Outcome::Failure | Outcome::Denied) => true,
        _ => latency_ns >= SLOW_NS,
    }
}

/// What folding an event needs besides its partition.
pub struct Fold<'w, 'r> {
    pub registry: &'w Registry,
    pub interner: &'w mut Interner,
    pub counted: &'w mut Counted,
    pub source: SourceId,
    pub counts: bool,
    /// Read where it stands: a copy made right after it was written would wait.
    pub record: &'w Record<'r>,
}

impl Fold<'_, '_> {
    /// Counts one event of a record whose watermark is already raised and whose mark is set.
    #[inline]
    pub fn event(&mut self, partition: &mut Partition, event: &AuthEvent<'_>, watermark_ns: i64) {
        let (timing, pane) = partition.place(event.time_ns(), self.record.append_ns, watermark_ns);
        let Mark { tick, tally, .. } = partition.marked();
        let tick = *tick;
        if self.counts {
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
            self.change(partition, event, code, tick);
        }
        let entry = Entry::new(tick, pane, self.counts, key, code.0, event.count());
        let latency_ns = match audit {
            Some(audit) => Some(self.delay_ns(event, &audit).unwrap_or(0)),
            None => event.latency_ns(),
        };
        // Audit records are no requests.
        let telling = latency_ns.filter(|ns| self.counts && audit.is_none() && is_telling(event.outcome(), *ns));
        if let (Some(ns), Some(histogram)) = (telling, code.histogram()) {
            self.sample(partition.id(), tick, key, code);
            self.exemplar(event, tick, key, histogram.0, ns);
        }
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
            let hash = self.interner.hash(name.as_bytes()) as u32;
            self.counted.sightings.push(Sighting::new(tick, pane, key, what, hash));
        }
    }

    /// Trace and span of an event: its own, or what its record's header says.
    fn trace(&self, event: &AuthEvent<'_>) -> Option<([u8; 16], Option<[u8; 8]>)> {
        match event.trace_id().filter(|id| *id != [0; 16]) {
            Some(trace_id) => Some((trace_id, event.span_id().filter(|id| *id != [0; 8]))),
            None => {
                let (trace_id, span_id) = (self.record.traceparent)().and_then(traceparent)?;
                Some((trace_id, Some(span_id)))
            }
        }
    }

    /// Notes where the record of a request stands.
    #[inline]
    fn sample(&mut self, partition: PartitionId, tick: u32, key: KeyId, code: Code) {
        let offset = self.record.offset;
        let samples = &mut self.counted.samples;
        if samples.may_take(tick, sample::hash(partition, offset)) {
            samples.offer(Sample { source: self.source, tick, key, code: code.0, partition, offset });
        }
    }

    /// Notes the trace of a request, if it has one.
    #[inline(never)]
    fn exemplar(&mut self, event: &AuthEvent<'_>, tick: u32, key: KeyId, histogram: u16, latency_ns: u64) {
        let Some((trace_id, span_id)) = self.trace(event) else { return };
        let mut ids = [0; 24];
        ids[..16].copy_from_slice(&trace_id);
        ids[16..].copy_from_slice(&span_id.unwrap_or_default());
        let hash = self.interner.hash(&ids);
        let (source, time_ns) = (self.source, event.time_ns().min(self.record.append_ns));
        let exemplars = &mut self.counted.exemplars;
        if exemplars.may_take(tick, hash) {
            exemplars.offer(Exemplar { source, tick, key, histogram, hash, trace_id, span_id, latency_ns, time_ns });
        }
    }

    /// Notes a change of the platform.
    #[cold]
    fn change(&mut self, partition: &Partition, event: &AuthEvent<'_>, code: Code, tick: u32) {
        let Some(fields) = event.change() else { return };
        let key = self.registry.hash_key();
        let show = |raw: Option<&str>| raw.map_or(UNKNOWN.to_string(), |raw| shown_name(raw, key).into_owned());
        let text = |raw: Option<&str>| raw.map(Change::text);
        let trace = self.trace(event);
        let changes = &mut self.counted.changes;
        let (partition_id, offset) = (partition.id(), self.record.offset);
        let before = changes.last().map(|change| change.place);
        let same_record = before.filter(|place| (place.partition, place.offset) == (partition_id, offset));
        let place = ChangePlace {
            at_ns: event.time_ns().min(self.record.append_ns),
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
            trace_id: trace.map(|trace| trace.0),
            span_id: trace.and_then(|trace| trace.1),
        });
        if changes.len() >= 4 * CHANGES_MAX {
            keep_newest(changes);
        }
    }

    /// From being put into the queue to coming out of it, ns; `None` if it came out earlier, which is skew.
    fn delay_ns(&self, event: &AuthEvent<'_>, audit: &AuditFields<'_>) -> Option<u64> {
        let (from_ns, to_ns) = match audit.enqueued_time_ns {
            Some(enqueued_ns) => (enqueued_ns, event.time_ns()),
            None => (event.time_ns(), self.record.append_ns),
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
