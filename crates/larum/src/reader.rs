//! A worker's thread: fetch a batch, fold it, look after its partitions, hand over a cut when asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use larum_aggregate::time::SECOND_NS;
use larum_fold::{Counted, DeadLetters, PartStatus, PartitionState, Record, SourcePolicy, Worker};
use larum_kafka::{Consumer, Fetched, PartitionEnds};

use crate::clock::now_ns;
use crate::keeper::WorkerCut;
use crate::logging::SPANS;
use crate::shared::{PartShared, Shared, SourceShared};

/// An end counts as current for so long after it was asked for, ns.
const LIVE_FOR_NS: i64 = 2 * SECOND_NS;
/// Reported ends that were not reached yet and are remembered; older ones are no longer current anyway.
const UNMET_MAX: usize = 8;
/// Longest wait for a full batch, ms: bounds how late a cut is.
const FETCH_MS: i32 = 10;
/// Longest wait for an answer about a partition's ends.
const ASK: Duration = Duration::from_secs(2);
/// A partition that was unassigned is not assigned again before so long, ns: the client stops reading in its own time.
const RELEASE_NS: i64 = SECOND_NS / 4;
/// One batch in so many is a span: a batch is worth less than what is written about it.
const SPAN_EVERY: u64 = 256;
/// Wait while nothing may be read.
const IDLE: Duration = Duration::from_millis(5);

/// A partition to be read.
pub struct NewPart {
    /// What the threads share of it.
    pub shared: Arc<PartShared>,
    /// Its source.
    pub source: Arc<SourceShared>,
    /// Where to go on.
    pub state: PartitionState,
    /// How to read it.
    pub policy: SourcePolicy,
}

/// What a reader is told.
pub enum Control {
    /// Read this partition too.
    Add(Box<NewPart>),
    /// Hand over what was read; `forget` drops every look-up, so that slots can be freed.
    Cut {
        /// Drop every look-up.
        forget: bool,
        /// Memory for what is to come.
        spare: Vec<Counted>,
        /// Where to.
        reply: Sender<ReaderCut>,
    },
}

/// What a reader hands over.
#[derive(Debug, Default)]
pub struct ReaderCut {
    /// For the commit.
    pub cut: WorkerCut,
    /// Append time of the newest record in it, Unix ns.
    pub newest_append_ns: Option<i64>,
}

/// Settings of a reader.
pub struct ReaderSettings {
    /// What happens to the bytes of refused records.
    pub dead_letters: DeadLetters,
    /// Bytes of refused records beyond which reading waits, or records are dropped.
    pub outbox_bytes_max: u64,
    /// Reading waits when the outbox is full.
    pub block: bool,
    /// Counted events beyond which the reader waits for its cut.
    pub open_entries_max: usize,
}

struct ReadPart {
    shared: Arc<PartShared>,
    source: Arc<SourceShared>,
    held: bool,
    /// Not read any more: its log does not fit the store.
    stopped: bool,
    /// Reported ends not reached yet: (end, asked at).
    unmet: VecDeque<(i64, i64)>,
    /// When the last end that was reached had been asked for.
    live_at_ns: Option<i64>,
    /// To be assigned, where it stands by then, at this time.
    assign_at_ns: Option<i64>,
    /// When it was last unassigned.
    released_ns: i64,
}

/// A worker with its consumer.
pub struct Reader {
    worker: Worker,
    consumer: Consumer,
    parts: Vec<ReadPart>,
    control: Receiver<Control>,
    settings: ReaderSettings,
    shared: Arc<Shared>,
    newest_append_ns: Option<i64>,
    served_ns: i64,
    batches: u64,
}

impl Reader {
    /// A reader without partitions.
    pub fn new(
        worker: Worker,
        consumer: Consumer,
        control: Receiver<Control>,
        settings: ReaderSettings,
        shared: Arc<Shared>,
    ) -> Self {
        Reader {
            worker,
            consumer,
            parts: Vec::new(),
            control,
            settings,
            shared,
            newest_append_ns: None,
            served_ns: 0,
            batches: 0,
        }
    }

    /// Reads until nobody is left to hand anything to.
    pub fn run(mut self) {
        loop {
            match self.control.try_recv() {
                Ok(Control::Add(part)) => self.add(*part),
                Ok(Control::Cut { forget, spare, reply }) => {
                    let cut = self.cut(forget, spare);
                    if reply.send(cut).is_err() {
                        return;
                    }
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if self.may_read() {
                        self.read();
                    } else {
                        std::thread::sleep(IDLE);
                    }
                    self.look_after(now_ns());
                }
            }
        }
    }

    fn outbox_is_full(&self) -> bool {
        self.shared.outbox_bytes.load(Ordering::Relaxed) >= self.settings.outbox_bytes_max
    }

    fn may_read(&self) -> bool {
        let blocked = self.settings.block && self.outbox_is_full();
        let stalled = self.shared.stalled.load(Ordering::Relaxed);
        let has_room = self.worker.open_entries() < self.settings.open_entries_max;
        has_room && !stalled && !blocked
    }

    fn add(&mut self, part: NewPart) {
        self.consumer.add(&part.shared.topic, part.shared.partition);
        part.shared.progress(part.state.watermark_ns, true);
        self.worker.add(part.state, part.policy);
        self.parts.push(ReadPart {
            shared: part.shared,
            source: part.source,
            held: false,
            stopped: false,
            unmet: VecDeque::new(),
            live_at_ns: None,
            assign_at_ns: Some(0),
            released_ns: 0,
        });
    }

    /// Reads on from where the partition stands; tried again if the client refuses.
    fn assign(&mut self, slot: usize, now_ns: i64) {
        self.parts[slot].assign_at_ns = None;
        if let Err(error) = self.consumer.assign(slot, self.worker.state(slot).next) {
            tracing::warn!(%error, "a partition cannot be read yet");
            self.parts[slot].assign_at_ns = Some(now_ns + SECOND_NS);
        }
    }

    /// Stops reading; the client needs a moment for it, and until then the partition must not be assigned again.
    fn unassign(&mut self, slot: usize, now_ns: i64) {
        self.parts[slot].assign_at_ns = None;
        self.parts[slot].released_ns = now_ns;
        if let Err(error) = self.consumer.unassign(slot) {
            tracing::warn!(%error, "a partition cannot be given back");
        }
    }

    /// Folds one batch, or what may be read of it.
    fn read(&mut self) {
        self.batches += 1;
        let is_shown = self.batches.is_multiple_of(SPAN_EVERY);
        let _span = is_shown.then(|| tracing::info_span!(target: SPANS, "batch").entered());
        self.consumer.fetch(FETCH_MS);
        let received_ns = now_ns();
        let mut out_of_range = None;
        while let Some(fetched) = self.consumer.take() {
            match fetched {
                Fetched::Record { slot, offset, timestamp_ms, log_append, value, headers } => {
                    let Some(part) = self.parts.get(slot) else { continue };
                    if part.held || part.stopped {
                        // Fetched before it was held; it is fetched again.
                        continue;
                    }
                    let append_ns = append_time(timestamp_ms, log_append, received_ns);
                    let traceparent = || headers.traceparent();
                    let record = Record { offset, append_ns, value, traceparent: &traceparent };
                    self.newest_append_ns = self.newest_append_ns.max(Some(append_ns));
                    let before = self.worker.open_dead_letter_bytes();
                    let drop = !self.settings.block
                        && self.shared.outbox_bytes.load(Ordering::Relaxed) >= self.settings.outbox_bytes_max;
                    let letters = if drop { DeadLetters::Count } else { self.settings.dead_letters };
                    self.worker.record(slot, record, received_ns, letters);
                    let added = self.worker.open_dead_letter_bytes() - before;
                    if added > 0 {
                        self.shared.outbox_bytes.fetch_add(added as u64, Ordering::Relaxed);
                        if self.settings.block && self.outbox_is_full() {
                            break;
                        }
                    }
                }
                Fetched::End { slot, offset } => {
                    if self.parts.get(slot).is_some_and(|p| !p.held && !p.stopped) {
                        self.worker.pass(slot, offset);
                    }
                }
                Fetched::OutOfRange { slot } => {
                    out_of_range = Some(slot);
                    break;
                }
                Fetched::Trouble { slot, code } => {
                    let topic = self.parts.get(slot).map_or("?", |p| &p.shared.topic);
                    tracing::debug!(topic, code, "kafka client reports trouble with a partition");
                }
            }
        }
        if let Some(slot) = out_of_range.filter(|slot| *slot < self.parts.len()) {
            self.mend_range(slot);
        }
        let dropped = self.worker.take_dead_letters_dropped();
        if dropped > 0 {
            self.shared.dead_letters_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// The offset asked for is not in the log: below it, what lies between is lost; above it, the log is another one.
    fn mend_range(&mut self, slot: usize) {
        let next = self.worker.state(slot).next;
        let (topic, partition) = (self.parts[slot].shared.topic.clone(), self.parts[slot].shared.partition);
        if self.parts[slot].held || self.parts[slot].stopped {
            return;
        }
        let now_ns = now_ns();
        self.unassign(slot, now_ns);
        self.parts[slot].assign_at_ns = Some(now_ns + RELEASE_NS);
        match self.consumer.ends_of(slot, ASK) {
            Ok(PartitionEnds { first, .. }) if next < first => {
                tracing::error!(topic, partition, next, first, "records were deleted before they were read: lost");
                self.worker.lose(slot, first);
            }
            Ok(PartitionEnds { end, .. }) if next > end => {
                self.parts[slot].stopped = true;
                self.parts[slot].assign_at_ns = None;
                let text = format!(
                    "{topic}/{partition} ends at {end}, below offset {next} up to which it was counted: its log was \
                     cut or made anew. It is not read any more; mend the topic, or start a new epoch with --reset-state"
                );
                tracing::error!("{text}");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "asking again"),
        }
    }

    /// Serves the client, notes who is live, holds who runs ahead.
    fn look_after(&mut self, now_ns: i64) {
        if now_ns - self.served_ns > SECOND_NS / 20 {
            self.served_ns = now_ns;
            self.consumer.serve();
        }
        for slot in 0..self.parts.len() {
            let (next, watermark_ns) = (self.worker.state(slot).next, self.worker.state(slot).watermark_ns);
            let part = &mut self.parts[slot];
            part.note_end(next, now_ns);
            let live = part.is_live(now_ns);
            part.shared.progress(watermark_ns, !live);
            if live {
                self.worker.live(slot, now_ns);
            }
            if self.parts[slot].assign_at_ns.is_some_and(|at_ns| now_ns >= at_ns) {
                self.assign(slot, now_ns);
            }
            self.hold_or_release(slot, watermark_ns, now_ns);
        }
    }

    /// Holds a partition that runs too far ahead of the clock, and releases it once the clock has followed.
    fn hold_or_release(&mut self, slot: usize, watermark_ns: Option<i64>, now_ns: i64) {
        let part = &self.parts[slot];
        let hold = part.source.holds(watermark_ns, part.held);
        if part.stopped || hold == part.held {
            return;
        }
        if hold {
            self.parts[slot].held = true;
            self.unassign(slot, now_ns);
        } else if self.consumer.left() == 0 && now_ns - part.released_ns >= RELEASE_NS {
            // What is left of a batch may hold later records of it, which must not be taken for the next ones.
            self.parts[slot].held = false;
            self.assign(slot, now_ns);
        }
    }

    fn cut(&mut self, forget: bool, spare: Vec<Counted>) -> ReaderCut {
        let now_ns = now_ns();
        self.look_after(now_ns);
        let waiting = !self.may_read();
        let status = |(slot, part): (usize, &ReadPart)| {
            let held = part.held || waiting;
            let status = PartStatus {
                id: part.shared.id,
                watermark_ns: self.worker.state(slot).watermark_ns,
                live: part.is_live(now_ns) && !held,
                held,
            };
            (part.shared.source, status)
        };
        let statuses = self.parts.iter().enumerate().map(status).collect();
        ReaderCut {
            cut: WorkerCut { statuses, cut: self.worker.cut(forget, spare) },
            newest_append_ns: self.newest_append_ns.take(),
        }
    }
}

impl ReadPart {
    /// Takes in a newly reported end, and sees which of those remembered are reached.
    fn note_end(&mut self, next: i64, now_ns: i64) {
        if let Some((end, at_ns)) = self.shared.end() {
            let is_new = self.unmet.back().map_or(self.live_at_ns.is_none_or(|l| at_ns > l), |u| at_ns > u.1);
            if is_new {
                if self.unmet.len() == UNMET_MAX {
                    self.unmet.pop_front();
                }
                self.unmet.push_back((end, at_ns));
            }
        }
        while let Some((end, at_ns)) = self.unmet.front().copied() {
            let reached = next >= end;
            if reached {
                self.live_at_ns = self.live_at_ns.max(Some(at_ns));
            }
            if !reached && now_ns - at_ns <= LIVE_FOR_NS {
                break;
            }
            self.unmet.pop_front();
        }
    }

    fn is_live(&self, now_ns: i64) -> bool {
        !self.held && !self.stopped && self.live_at_ns.is_some_and(|at_ns| now_ns - at_ns <= LIVE_FOR_NS)
    }
}

/// When a record was appended, Unix ns: its timestamp, clamped to the time of receipt where the producer set it.
fn append_time(timestamp_ms: i64, log_append: bool, received_ns: i64) -> i64 {
    let stamped_ns = timestamp_ms.saturating_mul(1_000_000);
    match (timestamp_ms, log_append) {
        (..0, _) => received_ns,
        (_, true) => stamped_ns,
        (_, false) => stamped_ns.min(received_ns),
    }
}
