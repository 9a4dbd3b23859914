//! What the threads tell each other without waiting: one writer per value, atomics only.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use larum_aggregate::{PartitionId, SourceId};
use larum_fold::clock::{AHEAD_MAX_NS, runs_ahead};
use larum_kafka::ClientStats;

/// Stands for "none" in the atomics below.
const NONE: i64 = i64::MIN;

fn some(value: i64) -> Option<i64> {
    (value != NONE).then_some(value)
}

/// A partition, as the threads see it.
#[derive(Debug)]
pub struct PartShared {
    /// Its id.
    pub id: PartitionId,
    /// Its source.
    pub source: SourceId,
    /// Its topic.
    pub topic: String,
    /// Its number in the topic.
    pub partition: i32,
    end: AtomicI64,
    end_at_ns: AtomicI64,
    watermark_ns: AtomicI64,
    behind: AtomicBool,
    left_out: AtomicBool,
}

impl PartShared {
    /// A partition that nothing is known of yet.
    pub fn new(id: PartitionId, source: SourceId, topic: &str, partition: i32) -> Self {
        PartShared {
            id,
            source,
            topic: topic.to_string(),
            partition,
            end: AtomicI64::new(NONE),
            end_at_ns: AtomicI64::new(NONE),
            watermark_ns: AtomicI64::new(NONE),
            behind: AtomicBool::new(true),
            left_out: AtomicBool::new(false),
        }
    }

    /// The broker reported `end` in answer to a question asked at `asked_ns`.
    pub fn report_end(&self, end: i64, asked_ns: i64) {
        // A reader between the two stores sees a newer end with an older time, which only makes it more careful.
        self.end.store(end, Ordering::Relaxed);
        self.end_at_ns.store(asked_ns, Ordering::Release);
    }

    /// The last reported end and when it was asked for.
    pub fn end(&self) -> Option<(i64, i64)> {
        let at_ns = some(self.end_at_ns.load(Ordering::Acquire))?;
        Some((self.end.load(Ordering::Relaxed), at_ns))
    }

    /// The reader says how it stands.
    pub fn progress(&self, watermark_ns: Option<i64>, behind: bool) {
        self.watermark_ns.store(watermark_ns.unwrap_or(NONE), Ordering::Relaxed);
        self.behind.store(behind, Ordering::Relaxed);
    }

    /// The committer says whether the clock waits for it.
    pub fn set_left_out(&self, left_out: bool) {
        self.left_out.store(left_out, Ordering::Relaxed);
    }
}

/// A source, as the threads see it.
#[derive(Debug)]
pub struct SourceShared {
    /// Its id.
    pub id: SourceId,
    clock_ns: AtomicI64,
    parts: RwLock<Vec<Arc<PartShared>>>,
}

impl SourceShared {
    /// A source without partitions.
    pub fn new(id: SourceId) -> Self {
        SourceShared { id, clock_ns: AtomicI64::new(NONE), parts: RwLock::new(Vec::new()) }
    }

    /// Adds a partition.
    pub fn add(&self, part: Arc<PartShared>) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// Its partitions.
    pub fn parts(&self) -> Vec<Arc<PartShared>> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The committer says where the clock stands.
    pub fn set_clock(&self, clock_ns: Option<i64>) {
        self.clock_ns.store(clock_ns.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Whether a partition with this watermark must be held. A partition that is held goes on only once it is well
    /// within the limit again, because holding costs what was fetched ahead.
    ///
    /// The clock moves with commits; between them the lowest watermark of those behind stands for where it will be.
    pub fn holds(&self, watermark_ns: Option<i64>, is_held: bool) -> bool {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let lowest = |behind_only: bool| {
            let counted = parts.iter().filter(|p| {
                let behind = p.behind.load(Ordering::Relaxed) || !behind_only;
                behind && !p.left_out.load(Ordering::Relaxed)
            });
            counted.filter_map(|p| some(p.watermark_ns.load(Ordering::Relaxed))).min()
        };
        let clock_ns = some(self.clock_ns.load(Ordering::Relaxed));
        let reference_ns = clock_ns.map(|clock| lowest(true).map_or(clock, |l| l.max(clock)));
        let margin_ns = if is_held { AHEAD_MAX_NS / 2 } else { 0 };
        let watermark_ns = watermark_ns.map(|w| w.saturating_add(margin_ns));
        runs_ahead(watermark_ns, reference_ns, lowest(false))
    }
}

/// What all threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Commits fail: readers stop reading.
    pub stalled: AtomicBool,
    /// Bytes of refused records that are not delivered.
    pub outbox_bytes: AtomicU64,
    /// Refused records whose bytes were not kept.
    pub dead_letters_dropped: AtomicU64,
    /// Errors of the Kafka clients.
    pub clients: Arc<ClientStats>,
    /// Wall clock of the committer's last round, Unix ns.
    pub round_ns: AtomicI64,
}
