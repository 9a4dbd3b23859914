//! A broker inside the process, for the demo and tests without a Kafka: librdkafka's mock cluster.
//!
//! It speaks the real protocol on a loopback port, but keeps at most 5 MiB or 100,000 batches of a partition and forgets
//! older records silently: whoever writes must not run further ahead of the reader than that.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::client::KafkaError;

/// Bytes of records that the broker keeps per partition at least.
pub const KEPT_BYTES: usize = 5 << 20;

/// A running broker; it ends when dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts one.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn start() -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1).map_err(|e| KafkaError::Setup(format!("embedded broker: {e}")))?;
        Ok(EmbeddedBroker { cluster })
    }

    /// `host:port` of it.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        let created = self.cluster.create_topic(topic, partitions, 1);
        created.map_err(|e| KafkaError::request(format!("creating topic {topic}"), e))
    }
}
