//! The hot path: a record's bytes to entries of the worker's open Delta.

use std::sync::Arc;

use larum_aggregate::choice::Choice;
use larum_aggregate::{
    Change, DeadLetter, Entry, Exemplar, KeyDef, NameDef, Numbered, PartCut, PartitionId, Sample, Sighting,
};
use larum_event::{Decoder, Limits, Records, Reject};

use crate::fold::Fold;
use crate::intern::Interner;
use crate::partition::{Partition, PartitionState};
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
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// When it was appended, Unix ns, already clamped to the time of receipt where the producer set it.
    pub append_ns: i64,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Gives its header `traceparent`; asked only of requests that may become exemplars.
    pub traceparent: &'a dyn Fn() -> Option<&'a [u8]>,
}

/// For records without headers.
pub fn no_header<'a>() -> Option<&'a [u8]> {
    None
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
    /// Traces of slow and failed requests.
    pub exemplars: Choice<Exemplar>,
    /// Where records of such requests stand.
    pub samples: Choice<Sample>,
}

impl Counted {
    /// How much there is.
    pub fn len(&self) -> usize {
        let chosen = self.exemplars.len() + self.samples.len();
        self.entries.len() + self.sightings.len() + self.numbers.len() + self.changes.len() + chosen
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
        self.exemplars.extend(&other.exemplars);
        self.samples.extend(&other.samples);
    }

    /// Forgets it, keeps the memory, and makes room for as much as `like` has room for: what grows event by event is
    /// copied, and every copy waits for fresh pages.
    fn clear_for(&mut self, like: &Counted) {
        self.entries.clear();
        self.sightings.clear();
        self.numbers.clear();
        self.changes.clear();
        self.exemplars.clear();
        self.samples.clear();
        make_room(&mut self.entries, like.entries.capacity());
        make_room(&mut self.sightings, like.sightings.capacity());
        make_room(&mut self.numbers, like.numbers.capacity());
    }

    /// Makes room for what several workers counted, in memory that is empty.
    pub fn make_room_for<'a>(&mut self, workers: impl Iterator<Item = &'a Counted> + Clone) {
        make_room(&mut self.entries, workers.clone().map(|of| of.entries.len()).sum());
        make_room(&mut self.sightings, workers.clone().map(|of| of.sightings.len()).sum());
        make_room(&mut self.numbers, workers.map(|of| of.numbers.len()).sum());
    }
}

/// Makes room in a list that is empty. What is too small is given back first: it would else be copied.
fn make_room<T>(list: &mut Vec<T>, len: usize) {
    if list.capacity() < len {
        *list = Vec::new();
        *list = Vec::with_capacity(len);
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
        let mut fold = Fold { registry, interner, counted, source, counts, record: &record };
        let verdict = match partition.policy.records {
            // Looked at where it stands: what was just written in words is slow to be read in pairs of them.
            Records::One => match &decoder.decode(value) {
                Ok(event) => {
                    let before_ns = partition.state.watermark_ns.unwrap_or(i64::MIN);
                    partition.raise(event.time_ns(), append_ns);
                    partition.mark(end).decoded += u64::from(counts);
                    fold.event(partition, event, before_ns);
                    Ok(())
                }
                Err(reject) => Err(*reject),
            },
            several => Self::several(decoder, several, value, partition, &mut fold),
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
        fold: &mut Fold<'_, '_>,
    ) -> Result<(), Reject> {
        let before = partition.state.watermark_ns;
        let mut latest_ns = i64::MIN;
        decoder.decode_each(value, records, |event| latest_ns = latest_ns.max(event.time_ns()))?;
        partition.raise(latest_ns, fold.record.append_ns);
        partition.mark(fold.record.offset + 1).decoded += u64::from(fold.counts);
        let mut watermark_ns = before.unwrap_or(i64::MIN);
        decoder.decode_each(value, records, |event| {
            fold.event(partition, event, watermark_ns);
            watermark_ns = watermark_ns.max(event.time_ns().min(fold.record.append_ns));
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
        spare.resize_with(self.counted.len(), Counted::default);
        spare.iter_mut().zip(&self.counted).for_each(|(spare, like)| spare.clear_for(like));
        Cut {
            parts: self.partitions.iter_mut().filter_map(Partition::cut).collect(),
            counted: std::mem::replace(&mut self.counted, spare),
            names: relied.names,
            keys: relied.keys,
            dead_letters: std::mem::take(&mut self.dead_letters),
        }
    }
}
