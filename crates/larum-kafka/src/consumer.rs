//! Reads the partitions that it is told to, in batches, each from a given offset.
//!
//! No group membership: the caller's store says where to read, and nothing waits for a session timeout after a crash. A
//! partition is held by taking it out of the assignment and put back at an explicit offset: pausing would make
//! librdkafka go on from a position of its own, which an end-of-partition event moves one too far.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{ClientSettings, ClientStats, Context, KafkaError};
use crate::native::{BatchQueue, Message};
use crate::watch::PartitionEnds;

/// Most messages in a batch.
const BATCH_MAX: usize = 128;

/// What came of a partition. `slot` is the caller's number for it.
pub enum Fetched<'a> {
    /// A record.
    Record {
        /// The caller's number.
        slot: usize,
        /// Its offset.
        offset: i64,
        /// Its timestamp, ms; negative when it has none.
        timestamp_ms: i64,
        /// The broker set the timestamp.
        log_append: bool,
        /// Its value; `None` is a tombstone.
        value: Option<&'a [u8]>,
        /// Its headers.
        headers: Headers<'a>,
    },
    /// The partition has been read up to here; what lies between the last record and here holds none.
    End {
        /// The caller's number.
        slot: usize,
        /// Offset after everything.
        offset: i64,
    },
    /// The offset asked for is not in the log.
    OutOfRange {
        /// The caller's number.
        slot: usize,
    },
    /// Anything else; the client goes on by itself.
    Trouble {
        /// The caller's number.
        slot: usize,
        /// librdkafka's code.
        code: i32,
    },
}

/// Headers of a record, read only when they are asked for.
#[derive(Clone, Copy)]
pub struct Headers<'a>(Message<'a>);

impl<'a> Headers<'a> {
    /// The W3C header that says which trace the record belongs to, as it stands.
    pub fn traceparent(&self) -> Option<&'a [u8]> {
        self.0.header(c"traceparent")
    }
}

/// A consumer and the partitions assigned to it.
pub struct Consumer {
    // Declared before the client, because it must be dropped first.
    queue: BatchQueue,
    client: BaseConsumer<Context>,
    names: Vec<(String, i32)>,
    slots: HashMap<(usize, i32), usize>,
    /// Slot of the partition that the last message came from.
    last: Option<(usize, i32, usize)>,
}

impl Consumer {
    /// A consumer without partitions; `consumers` share the settings' memory.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(settings: &ClientSettings, consumers: usize, stats: Arc<ClientStats>) -> Result<Self, KafkaError> {
        let client = BaseConsumer::from_config_and_context(&settings.reader(consumers)?, Context::new(settings, stats))
            .map_err(|e| KafkaError::Setup(e.to_string()))?;
        let queue =
            BatchQueue::new(&client, BATCH_MAX).ok_or_else(|| KafkaError::Setup("no queue can be made".into()))?;
        Ok(Consumer { queue, client, names: Vec::new(), slots: HashMap::new(), last: None })
    }

    /// Names a partition; gives its slot. It is not read before [`Consumer::assign`].
    pub fn add(&mut self, topic: &str, partition: i32) -> usize {
        self.names.push((topic.to_string(), partition));
        self.names.len() - 1
    }

    /// Reads the partition in `slot` from `offset` on.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn assign(&mut self, slot: usize, offset: i64) -> Result<(), KafkaError> {
        let (topic, partition) = &self.names[slot];
        let what = || format!("assigning {topic}/{partition}@{offset}");
        if !self.queue.forward(&self.client, topic, *partition) {
            return Err(KafkaError::request(what(), "its queue cannot be had"));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *partition, Offset::Offset(offset))
            .and_then(|()| self.client.incremental_assign(&list))
            .map_err(|e| KafkaError::request(what(), e))
    }

    /// Stops reading the partition in `slot`.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn unassign(&mut self, slot: usize) -> Result<(), KafkaError> {
        let (topic, partition) = &self.names[slot];
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, *partition);
        let done = self.client.incremental_unassign(&list);
        done.map_err(|e| KafkaError::request(format!("unassigning {topic}/{partition}"), e))
    }

    /// First and end offset of the partition in `slot`.
    ///
    /// # Errors
    /// No answer within `timeout`.
    pub fn ends_of(&self, slot: usize, timeout: Duration) -> Result<PartitionEnds, KafkaError> {
        let (topic, partition) = &self.names[slot];
        let ends = self.client.fetch_watermarks(topic, *partition, timeout);
        let (first, end) =
            ends.map_err(|e| KafkaError::request(format!("asking for the ends of {topic}/{partition}"), e))?;
        Ok(PartitionEnds { first, end })
    }

    /// Lets the client report what happened to it. Call often.
    pub fn serve(&mut self) {
        // All partitions are forwarded to our own queue, so only events can be here.
        if let Some(Err(error)) = self.client.poll(Duration::ZERO) {
            tracing::debug!(%error, "kafka client event");
        }
    }

    /// Waits up to `timeout_ms` for a batch, unless one is left; it is taken with [`Consumer::take`].
    pub fn fetch(&mut self, timeout_ms: i32) {
        self.queue.refill(timeout_ms);
    }

    /// Messages of the batch that were not taken yet.
    pub fn left(&self) -> usize {
        self.queue.left()
    }

    /// The next message of the batch; `None` when it is used up.
    #[inline]
    pub fn take(&mut self) -> Option<Fetched<'_>> {
        let Consumer { queue, names, slots, last, .. } = self;
        let message = queue.take()?;
        let (topic, partition) = (message.topic_key(), message.partition());
        let slot = match *last {
            Some((t, p, slot)) if t == topic && p == partition => slot,
            _ => {
                let known = *slots.entry((topic, partition)).or_insert_with(|| {
                    let name = message.topic();
                    names.iter().position(|n| n.1 == partition && n.0 == name).unwrap_or(usize::MAX)
                });
                *last = Some((topic, partition, known));
                known
            }
        };
        let offset = message.offset();
        let code = message.error();
        if code == 0 {
            let (timestamp_ms, log_append) = message.timestamp();
            // The bytes live until the next call; the message itself is only a view of them.
            let (value, headers) = (message.value(), Headers(message));
            return Some(Fetched::Record { slot, offset, timestamp_ms, log_append, value, headers });
        }
        Some(match code {
            c if c == RDKafkaErrorCode::PartitionEOF as i32 => Fetched::End { slot, offset },
            c if c == RDKafkaErrorCode::AutoOffsetReset as i32 || c == RDKafkaErrorCode::OffsetOutOfRange as i32 => {
                Fetched::OutOfRange { slot }
            }
            code => Fetched::Trouble { slot, code },
        })
    }
}
