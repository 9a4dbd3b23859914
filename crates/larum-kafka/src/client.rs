//! Settings of the Kafka clients, and what the clients report on their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;

use crate::security::{self, Security};

/// Why Kafka could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The client cannot be made.
    #[error("the Kafka client cannot be set up: {0}")]
    Setup(String),
    /// The broker gave no usable answer.
    #[error("{what}: {why}")]
    Request {
        /// What was asked.
        what: String,
        /// What came back.
        why: String,
    },
    /// A topic is not there.
    #[error("topic {0} does not exist on the broker; create it, or mend the name")]
    NoTopic(String),
}

impl KafkaError {
    pub(crate) fn request(what: impl Into<String>, why: impl ToString) -> Self {
        KafkaError::Request { what: what.into(), why: why.to_string() }
    }
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// How the link is secured.
    pub security: Security,
    /// Group under which offsets are committed, for lag tools only.
    pub group: String,
    /// Memory for records that were fetched and not read yet, all consumers together, bytes.
    pub queue_bytes: u64,
}

/// Errors that the clients reported, counted.
#[derive(Debug, Default)]
pub struct ClientStats {
    /// A broker could not be reached, or a connection broke.
    pub transport: AtomicU64,
    /// The broker refused who we are.
    pub authentication: AtomicU64,
    /// Anything else.
    pub other: AtomicU64,
}

/// Receives what librdkafka reports; counts it and logs it, at most one line per second and client.
#[derive(Clone, Debug)]
pub struct Context {
    stats: Arc<ClientStats>,
    token: Option<PathBuf>,
}

impl Context {
    /// Of a client with these settings; counts into `stats`.
    pub fn new(settings: &ClientSettings, stats: Arc<ClientStats>) -> Self {
        Context { stats, token: settings.security.token_file() }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let path = self.token.as_ref().ok_or("no token is configured")?;
        Ok(security::token(path)?)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Errors come through `error` as well; the rest is of use only when somebody debugs.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        use rdkafka::types::RDKafkaErrorCode as Code;
        let counter = match error.rdkafka_error_code() {
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut) => {
                &self.stats.transport
            }
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => &self.stats.authentication,
            _ => &self.stats.other,
        };
        let before = counter.fetch_add(1, Ordering::Relaxed);
        // Reconnecting goes on by itself: the first report and every hundredth are enough.
        if before.is_multiple_of(100) {
            tracing::warn!(%error, reason, count = before + 1, "kafka client reports an error");
        }
    }
}

impl ConsumerContext for Context {}

impl ClientSettings {
    /// What all clients share.
    ///
    /// # Errors
    /// A secret's file cannot be read.
    pub(crate) fn base(&self) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "larum")
            // The default of 10 s outlives what users wait for after a broker's restart.
            .set("reconnect.backoff.max.ms", "500")
            // The default of 5 minutes hides new partitions and deleted topics.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("log.connection.close", "false");
        self.security.apply(&mut config)?;
        Ok(config)
    }

    /// Settings of a consumer that reads; `consumers` share the queue memory. The benches use the same for their floor.
    ///
    /// # Errors
    /// A secret's file cannot be read.
    pub fn reader(&self, consumers: usize) -> Result<ClientConfig, KafkaError> {
        let queue_kbytes = (self.queue_bytes / 1024 / consumers.max(1) as u64).clamp(1024, 2_097_151);
        let mut config = self.base()?;
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // Says where control records end a log, so that a partition can be seen as read to its end.
            .set("enable.partition.eof", "true")
            // The default of 1 s halves the rate.
            .set("fetch.queue.backoff.ms", "1")
            // Larger fetches fall out of the cache.
            .set("fetch.message.max.bytes", "524288")
            // What waits is still in the cache when its turn comes; enough for 1 M records/s from 10 ms away.
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", queue_kbytes.to_string());
        Ok(config)
    }
}
