//! Where other consumer groups stand: what they committed, and how old the first record beyond it is. Joins no group and
//! commits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{ClientSettings, ClientStats, Context, KafkaError};
use crate::watch::Watcher;

/// Wait for one message while looking for the oldest ones.
const POLL: Duration = Duration::from_millis(100);

/// Where a group stands in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that the group has not committed and that is still in the log.
    pub next: i64,
    /// The end of the log, asked for after the commits.
    pub end: i64,
}

/// What is left to read from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// A record with this timestamp, Unix ms; `None` if it has none.
    Record(Option<i64>),
    /// Nothing: control records at most.
    Nothing,
}

/// A client of its own for one group.
pub struct GroupReader {
    watcher: Watcher,
    group: String,
}

impl GroupReader {
    /// Connects lazily; `timeout` bounds each question.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(
        settings: &ClientSettings,
        group: &str,
        stats: Arc<ClientStats>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let mut config = ClientSettings { group: group.to_string(), ..settings.clone() }.reader(1)?;
        // One record of each partition is wanted, not what follows.
        config
            .set("fetch.message.max.bytes", "4096")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "50");
        let watcher = Watcher::of(&config, Context::new(settings, stats), timeout)?;
        Ok(GroupReader { watcher, group: group.to_string() })
    }

    /// For questions about topics.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    fn client(&self) -> &BaseConsumer<Context> {
        &self.watcher.client
    }

    /// Where the group stands. Commits are asked for before the ends: a busy group's backlog is never too low. A
    /// partition without a commit stands at its beginning: nothing of it was committed.
    ///
    /// # Errors
    /// No answer.
    pub fn standings(&self, partitions: &[(String, i32)]) -> Result<Vec<Standing>, KafkaError> {
        let failed = |e: ClientError| KafkaError::request(format!("asking what group {} committed", self.group), e);
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self.client().committed_offsets(list, self.watcher.timeout).map_err(failed)?;
        let mut places = BTreeMap::new();
        for element in committed.elements() {
            element.error().map_err(failed)?;
            let offset = if let Offset::Offset(offset) = element.offset() { offset } else { 0 };
            places.insert((element.topic().to_string(), element.partition()), offset);
        }
        let firsts = self.watcher.offsets(partitions, Offset::Beginning)?;
        let ends = self.watcher.ends(partitions)?;
        let standing = |((topic, partition), committed): ((String, i32), i64)| {
            let place = (topic, partition);
            let (first, end) = (*firsts.get(&place)?, *ends.get(&place)?);
            Some(Standing { topic: place.0, partition, next: committed.max(first), end })
        };
        Ok(places.into_iter().filter_map(standing).collect())
    }

    /// The first record at or after each (partition, offset) of a topic; partitions without an answer are left out.
    ///
    /// # Errors
    /// The client refuses.
    pub fn oldest(&self, topic: &str, places: &[(i32, i64)]) -> Result<BTreeMap<i32, Oldest>, KafkaError> {
        let failed =
            |e: ClientError| KafkaError::request(format!("reading on from group {} in {topic}", self.group), e);
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (partition, offset) in places {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
        }
        self.client().assign(&list).map_err(failed)?;
        // The client remembers from the last time that they were paused.
        self.client().resume(&list).map_err(failed)?;
        let mut awaited: BTreeSet<i32> = places.iter().map(|place| place.0).collect();
        let mut found = BTreeMap::new();
        let mut idle = Duration::ZERO;
        while !awaited.is_empty() && idle < self.watcher.timeout {
            let (partition, oldest) = match self.client().poll(POLL) {
                Some(Ok(message)) => (message.partition(), Oldest::Record(message.timestamp().to_millis())),
                Some(Err(ClientError::PartitionEOF(partition))) => (partition, Oldest::Nothing),
                Some(Err(error)) => {
                    tracing::debug!(%error, group = self.group, topic, "no record to tell the age by");
                    idle += POLL;
                    continue;
                }
                None => {
                    idle += POLL;
                    continue;
                }
            };
            if awaited.remove(&partition) {
                found.insert(partition, oldest);
                let mut answered = TopicPartitionList::new();
                answered.add_partition(topic, partition);
                self.client().pause(&answered).map_err(failed)?;
            }
        }
        self.client().unassign().map_err(failed)?;
        Ok(found)
    }

    /// Whether anybody is in the group; `None` without an answer. Consumers that take partitions by themselves are in none.
    pub fn has_members(&self) -> Option<bool> {
        let groups = self.client().client().fetch_group_list(Some(&self.group), self.watcher.timeout).ok()?;
        groups.groups().iter().find(|g| g.name() == self.group).map(|g| !g.members().is_empty())
    }
}
