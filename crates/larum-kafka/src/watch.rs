//! Asks the broker what the consumers do not: partitions, ends of logs, identities; and writes offsets for lag tools.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::client::{ClientSettings, ClientStats, Context, KafkaError};
use crate::native;

/// First and end offset of a partition, as its broker reports them (read_committed: the last stable offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// First offset of the log.
    pub first: i64,
    /// Offset after its last record.
    pub end: i64,
}

/// A client of its own for questions, so that a slow answer stops no reader.
pub struct Watcher {
    pub(crate) client: BaseConsumer<Context>,
    pub(crate) timeout: Duration,
}

impl Watcher {
    /// Connects lazily; `timeout` bounds each question.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(settings: &ClientSettings, stats: Arc<ClientStats>, timeout: Duration) -> Result<Self, KafkaError> {
        Watcher::of(&settings.reader(1)?, Context::new(settings, stats), timeout)
    }

    pub(crate) fn of(config: &ClientConfig, context: Context, timeout: Duration) -> Result<Self, KafkaError> {
        let client = BaseConsumer::from_config_and_context(config, context);
        Ok(Watcher { client: client.map_err(|e| KafkaError::Setup(e.to_string()))?, timeout })
    }

    /// Lets the client report what happened to it.
    pub fn serve(&self) {
        if let Some(Err(error)) = self.client.poll(Duration::ZERO) {
            tracing::debug!(%error, "kafka client event");
        }
    }

    /// Partitions of a topic.
    ///
    /// # Errors
    /// No answer, or no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, KafkaError> {
        let what = || format!("asking for the partitions of {topic}");
        let metadata =
            self.client.fetch_metadata(Some(topic), self.timeout).map_err(|e| KafkaError::request(what(), e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let Some(found) = found.filter(|t| !t.partitions().is_empty()) else {
            return Err(KafkaError::NoTopic(topic.to_string()));
        };
        let mut partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The cluster's id; `None` when it does not say one in time.
    pub fn cluster_id(&self) -> Option<String> {
        self.client.client().fetch_cluster_id(self.timeout)
    }

    /// Ids of topics; those that the broker does not describe are left out.
    pub fn topic_ids(&self, topics: &[String]) -> HashMap<String, String> {
        native::topic_ids(&self.client, topics, self.timeout.as_millis() as i32)
    }

    /// First and end offset of one partition.
    ///
    /// # Errors
    /// No answer.
    pub fn ends_of(&self, topic: &str, partition: i32) -> Result<PartitionEnds, KafkaError> {
        let ends = self.client.fetch_watermarks(topic, partition, self.timeout);
        let (first, end) =
            ends.map_err(|e| KafkaError::request(format!("asking for the ends of {topic}/{partition}"), e))?;
        Ok(PartitionEnds { first, end })
    }

    /// End offsets of many partitions, one request per broker; those without an answer are left out.
    ///
    /// # Errors
    /// No answer at all.
    pub fn ends(&self, partitions: &[(String, i32)]) -> Result<HashMap<(String, i32), i64>, KafkaError> {
        self.offsets(partitions, Offset::End)
    }

    /// First offsets whose timestamp is at or after `time_ms`; the end of the log where there is none.
    ///
    /// # Errors
    /// No answer.
    pub fn at_time(
        &self,
        partitions: &[(String, i32)],
        time_ms: i64,
    ) -> Result<HashMap<(String, i32), Option<i64>>, KafkaError> {
        let found = self.offsets(partitions, Offset::Offset(time_ms.max(0)))?;
        Ok(partitions.iter().map(|p| (p.clone(), found.get(p).copied())).collect())
    }

    pub(crate) fn offsets(
        &self,
        partitions: &[(String, i32)],
        at: Offset,
    ) -> Result<HashMap<(String, i32), i64>, KafkaError> {
        let failed = |e: rdkafka::error::KafkaError| KafkaError::request("asking for offsets", e);
        if partitions.is_empty() {
            return Ok(HashMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, at).map_err(failed)?;
        }
        let answer = self.client.offsets_for_times(list, self.timeout).map_err(failed)?;
        let mut offsets = HashMap::new();
        for element in answer.elements() {
            // An offset that was not answered still is what was asked: the end, as a logical offset.
            if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                offsets.insert((element.topic().to_string(), element.partition()), offset);
            }
        }
        Ok(offsets)
    }

    /// Writes offsets under the group's name; nobody waits for the answer, and nobody reads them back.
    pub fn commit_for_lag_tools(&self, offsets: &[(String, i32, i64)]) {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (topic, partition, offset) in offsets {
            if let Err(error) = list.add_partition_offset(topic, *partition, Offset::Offset(*offset)) {
                tracing::debug!(%error, "offset not written for lag tools");
            }
        }
        if let Err(error) = self.client.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets not written for lag tools");
        }
    }
}
