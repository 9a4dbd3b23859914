//! Producers: refused records to the dead-letter topic, and generated load.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{DefaultClientContext, OAuthToken};
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::client::{ClientSettings, ClientStats, Context, KafkaError};
use crate::{native, security};

/// A record to send; `ticket` comes back with its delivery.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The caller's number for it.
    pub ticket: u64,
    /// Its value.
    pub value: &'a [u8],
    /// Its headers.
    pub headers: &'a [(&'static str, String)],
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The caller's number for it.
    pub ticket: u64,
    /// `None` when the broker has it.
    pub error: Option<String>,
    /// It is larger than the topic takes.
    pub too_large: bool,
}

struct Reports {
    context: Context,
    sender: Sender<Delivery>,
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<u64>) {
        let error = result.as_ref().err().map(|(error, _)| error);
        let too_large = error.and_then(|e| e.rdkafka_error_code()) == Some(RDKafkaErrorCode::MessageSizeTooLarge);
        let delivery = Delivery { ticket: *ticket, error: error.map(ToString::to_string), too_large };
        // Nobody listens any more only while the process ends; the record is sent again after it.
        let _ = self.sender.send(delivery);
    }
}

/// Sends to one topic, and reports each delivery. At least once, in no order.
pub struct Producer {
    topic: String,
    client: ThreadedProducer<Reports>,
    deliveries: Receiver<Delivery>,
}

/// How long a record is tried before its delivery fails and the caller decides, ms.
const DELIVERY_TIMEOUT_MS: &str = "10000";

impl Producer {
    /// A producer for `topic`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(settings: &ClientSettings, topic: &str, stats: Arc<ClientStats>) -> Result<Self, KafkaError> {
        let (sender, deliveries) = channel();
        let mut config = settings.base()?;
        config
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("message.max.bytes", "100000000")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS);
        let reports = Reports { context: Context::new(settings, stats), sender };
        let client = ThreadedProducer::from_config_and_context(&config, reports)
            .map_err(|e| KafkaError::Setup(e.to_string()))?;
        Ok(Producer { topic: topic.to_string(), client, deliveries })
    }

    /// Hands a record to the client; false when its queue is full, then try later.
    ///
    /// # Errors
    /// The client refuses for good.
    pub fn send(&self, outgoing: &Outgoing<'_>) -> Result<bool, KafkaError> {
        let headers = outgoing
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |h, (key, value)| h.insert(Header { key, value: Some(value.as_str()) }));
        let record = BaseRecord::<(), [u8], Box<u64>>::with_opaque_to(&self.topic, Box::new(outgoing.ticket))
            .payload(outgoing.value)
            .headers(headers);
        match self.client.send(record) {
            Ok(()) => Ok(true),
            Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(KafkaError::request(format!("sending to {}", self.topic), error)),
        }
    }

    /// Deliveries that were reported since the last call; waits up to `timeout` for the first.
    pub fn deliveries(&self, timeout: Duration) -> Vec<Delivery> {
        let first = self.deliveries.recv_timeout(timeout).ok();
        first.into_iter().chain(self.deliveries.try_iter()).collect()
    }
}

/// A client for questions about topics.
fn admin(settings: &ClientSettings) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    let admin = AdminClient::from_config(&settings.base()?).map_err(|e| KafkaError::Setup(e.to_string()))?;
    if let Some(path) = settings.security.token_file() {
        let token = security::token(&path)?;
        native::give_token(admin.inner(), &token).map_err(KafkaError::Setup)?;
    }
    Ok(admin)
}

/// Largest record that a topic takes, bytes; `None` when the broker does not say.
pub fn record_bytes_max(settings: &ClientSettings, topic: &str, timeout: Duration) -> Option<usize> {
    let admin = admin(settings).ok()?;
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer = futures_executor::block_on(admin.describe_configs(&asked, &options)).ok()?;
    let config = answer.into_iter().next()?.ok()?;
    config.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}

/// Creates a topic unless it is there.
///
/// # Errors
/// The broker refuses.
pub fn create_topic(settings: &ClientSettings, topic: &str, partitions: i32) -> Result<(), KafkaError> {
    let what = || format!("creating topic {topic}");
    let admin = admin(settings)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let answers = futures_executor::block_on(admin.create_topics([&new], &AdminOptions::new()))
        .map_err(|e| KafkaError::request(what(), e))?;
    match answers.into_iter().next() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(KafkaError::request(what(), code)),
        None => Err(KafkaError::request(what(), "no answer")),
    }
}

/// How long a record of generated load is tried, seconds: longer than a broker takes to start again.
pub const DELIVERY_TIMEOUT_S: u64 = 60;

/// Sends generated load fast; a record that cannot be delivered is counted, and the caller told at the end.
pub struct LoadProducer {
    topic: String,
    client: ThreadedProducer<LoadReports>,
    failed: Arc<std::sync::atomic::AtomicU64>,
}

struct LoadReports {
    context: Context,
    failed: Arc<std::sync::atomic::AtomicU64>,
}

impl ClientContext for LoadReports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for LoadReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::debug!(%error, bytes = message.payload_len(), "load not delivered");
        }
    }
}

impl LoadProducer {
    /// A producer for `topic`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(settings: &ClientSettings, topic: &str, stats: Arc<ClientStats>) -> Result<Self, KafkaError> {
        let mut config = settings.base()?;
        config
            .set("acks", "all")
            // Each event once and in order, or the truth file would be wrong.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", (DELIVERY_TIMEOUT_S * 1000).to_string())
            .set("linger.ms", "20")
            .set("batch.size", "500000")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144");
        let failed = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let reports = LoadReports { context: Context::new(settings, stats), failed: failed.clone() };
        let client = ThreadedProducer::from_config_and_context(&config, reports)
            .map_err(|e| KafkaError::Setup(e.to_string()))?;
        Ok(LoadProducer { topic: topic.to_string(), client, failed })
    }

    /// Hands a record to the client; false when its queue is full, then try later. `time_ms` is the producer's
    /// timestamp, where it is not the moment of sending.
    ///
    /// # Errors
    /// The client refuses for good.
    pub fn send(
        &self,
        partition: Option<i32>,
        key: &[u8],
        value: &[u8],
        time_ms: Option<i64>,
    ) -> Result<bool, KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).key(key).payload(value);
        record.partition = partition;
        record.timestamp = time_ms;
        match self.client.send(record) {
            Ok(()) => Ok(true),
            Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(KafkaError::request(format!("sending to {}", self.topic), error)),
        }
    }

    /// Records that are not acknowledged yet.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.in_flight_count()).unwrap_or(0)
    }

    /// Records that could not be delivered.
    pub fn failed(&self) -> u64 {
        self.failed.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until every record is acknowledged or has failed.
    ///
    /// # Errors
    /// Not within `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.client.flush(timeout).map_err(|e| KafkaError::request(format!("flushing {}", self.topic), e))
    }
}
