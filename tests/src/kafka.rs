//! A real Kafka broker for tests: one combined KRaft node on loopback ports, with topics, a producer and a reader.

use crate::process::{self, Child, free_port, run, wait_until};
use anyhow::{Context, anyhow, bail, ensure};
use futures_executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
pub use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Any 16 bytes in base64 do; every broker has its own folder and ports.
const CLUSTER_ID_BEGIN: &str = "bGFydW0tdGVzdH";
/// One combined node with single replicas. No retention but what a topic chooses: records with old timestamps would go
/// at once. A short broker session: without it the start after kill -9 takes 12 s instead of 5.
const SETTINGS: &str = "
    process.roles=broker,controller node.id=1 controller.listener.names=CONTROLLER auto.create.topics.enable=false
    offsets.topic.replication.factor=1 offsets.topic.num.partitions=4
    transaction.state.log.replication.factor=1 transaction.state.log.min.isr=1 transaction.state.log.num.partitions=4
    share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1
    share.coordinator.state.topic.num.partitions=1
    group.initial.rebalance.delay.ms=0 group.min.session.timeout.ms=1000
    broker.session.timeout.ms=3000 broker.heartbeat.interval.ms=500
    log.retention.ms=-1 log.retention.check.interval.ms=1000
    log.initial.task.delay.ms=1000 log.segment.delete.delay.ms=0
";

// === Kafka ===

/// One broker with its own data folder; dropping it kills the broker and removes the data.
pub struct Kafka {
    child: Child,
    admin: AdminClient<DefaultClientContext>,
    brokers: String,
    jvm: Vec<String>,
    dir: TempDir,
}

/// A record as a reader of committed records gets it; [`Kafka::read_all`] orders them by partition and offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The partition it is in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The timestamp in milliseconds since 1970, of the kind its topic is set to; -1 when it has none.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Vec<u8>>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in order; a header without a value has an empty one here.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Kafka {
    /// Starts a broker and waits until it serves; fetches Kafka first when that is needed.
    pub fn start() -> anyhow::Result<Kafka> {
        // Half the compiling saves 1.5 of 4.5 s of processor time, and a short test never earns it back.
        Kafka::start_with(vec!["-Xmx256m".to_owned(), "-XX:TieredStopAtLevel=1".to_owned()])
    }

    /// As [`Kafka::start`], for runs under load: with a Java heap of `heap_mb` and the full compiler.
    pub fn start_with_heap(heap_mb: u32) -> anyhow::Result<Kafka> {
        Kafka::start_with(vec![format!("-Xmx{heap_mb}m")])
    }

    fn start_with(jvm: Vec<String>) -> anyhow::Result<Kafka> {
        Kafka::start_in(tempfile::tempdir().context("no temporary folder for Kafka")?, jvm, "", "", &[])
    }

    /// A broker with further `listeners` (each with a comma in front) and `settings`; `format` goes to the storage tool.
    pub(crate) fn start_in(
        dir: TempDir,
        jvm: Vec<String>,
        listeners: &str,
        settings: &str,
        format: &[&str],
    ) -> anyhow::Result<Kafka> {
        let [brokers, controller] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let properties = properties(&brokers, &controller, listeners, dir.path()) + settings;
        fs::write(dir.path().join("server.properties"), properties).context("cannot write server.properties")?;
        // Each broker is a cluster of its own, with an id of its own.
        let cluster_id = format!("{CLUSTER_ID_BEGIN}{:08x}", fastrand::u32(..));
        let tool = [&["kafka.tools.StorageTool", "format", "-t", &cluster_id], format, &["-c"]].concat();
        run("java", java_args(&[], &tool, dir.path())?, "").context("cannot format Kafka's storage")?;
        let child = spawn_broker(&jvm, dir.path(), &brokers)?;
        let admin = client(&brokers).create().context("cannot create the admin client")?;
        Ok(Kafka { child, admin, brokers, jvm, dir })
    }

    /// The bootstrap address, `127.0.0.1:PORT`; a restart keeps it.
    pub fn brokers(&self) -> String {
        self.brokers.clone()
    }

    /// Ends the broker with SIGKILL; its data stays for [`Kafka::restart`].
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.child.kill_9()
    }

    /// Starts the broker again on the same ports and data, killing it first when it still runs; waits until it serves.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill_9()?;
        self.child = spawn_broker(&self.jvm, self.dir.path(), &self.brokers)?;
        self.admin = client(&self.brokers).create().context("cannot create the admin client")?;
        Ok(())
    }

    /// The broker's process, to stop and continue it or to look at its log.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Creates a topic with the broker's topic settings `configs` and waits until every partition has a leader.
    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> anyhow::Result<()> {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let new = configs.iter().fold(new, |new, (key, value)| new.set(key, value));
        let what = format!("create topic {name}");
        check_topics(&what, block_on(self.admin.create_topics(&[new], &admin_options())))?;
        self.wait_for_partitions(name, partitions)
    }

    /// Grows a topic to `total` partitions and waits until every partition has a leader.
    pub fn add_partitions(&self, topic: &str, total: i32) -> anyhow::Result<()> {
        let count = usize::try_from(total).context("a number of partitions cannot be negative")?;
        let new = NewPartitions::new(topic, count);
        let what = format!("grow topic {topic} to {total} partitions");
        check_topics(&what, block_on(self.admin.create_partitions(&[new], &admin_options())))?;
        self.wait_for_partitions(topic, total)
    }

    /// Deletes a topic and waits until the broker no longer knows it.
    pub fn delete_topic(&self, topic: &str) -> anyhow::Result<()> {
        let what = format!("delete topic {topic}");
        check_topics(&what, block_on(self.admin.delete_topics(&[topic], &admin_options())))?;
        let gone = || self.partitions(topic).is_ok_and(|count| count == 0).then_some(());
        wait_until(&format!("topic {topic} to be gone"), REQUEST_TIMEOUT, gone)
    }

    /// Deletes the records of a partition whose offset is lower than `before_offset`.
    pub fn delete_records(&self, topic: &str, partition: i32, before_offset: i64) -> anyhow::Result<()> {
        let what = || format!("delete records of {topic}[{partition}] before {before_offset}");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before_offset)).with_context(what)?;
        let done = block_on(self.admin.delete_records(&list, &admin_options())).with_context(what)?;
        done.elements().iter().try_for_each(|element| element.error()).with_context(what)
    }

    /// A producer that checks what the broker says about every record.
    pub fn producer(&self) -> anyhow::Result<Producer> {
        let inner = client(&self.brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "500000")
            .set("message.timeout.ms", "60000")
            .set("topic.metadata.propagation.max.ms", "2000")
            .create_with_context(Reports::default())
            .context("cannot create a producer")?;
        Ok(Producer { inner, sent: AtomicU64::new(0) })
    }

    /// Where each partition of the topic ends for a reader of committed records, indexed by partition.
    pub fn end_offsets(&self, topic: &str) -> anyhow::Result<Vec<i64>> {
        let ranges = self.offset_ranges(&self.reader()?, topic)?;
        Ok(ranges.into_iter().map(|(_, end)| end).collect())
    }

    /// Every committed record of the topic, from the first to the end as it is now, ordered by partition and offset.
    pub fn read_all(&self, topic: &str) -> anyhow::Result<Vec<Message>> {
        let reader = self.reader()?;
        // Where to stop, for each partition that is not read to there.
        let ranges = (0..).zip(self.offset_ranges(&reader, topic)?).filter(|(_, (low, end))| low < end);
        let mut open: BTreeMap<i32, i64> = ranges.map(|(partition, (_, end))| (partition, end)).collect();
        let mut list = TopicPartitionList::new();
        for partition in open.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning).context("cannot assign a partition")?;
        }
        reader.assign(&list).context("cannot assign partitions")?;
        let mut messages = Vec::new();
        while !open.is_empty() {
            let polled = reader.poll(REQUEST_TIMEOUT);
            let (partition, next) = match polled.with_context(|| format!("reading {topic} stalled before {open:?}"))? {
                Ok(message) => {
                    if open.get(&message.partition()).is_some_and(|end| message.offset() < *end) {
                        messages.push(Message::from(&message));
                    }
                    (message.partition(), message.offset() + 1)
                }
                Err(KafkaError::PartitionEOF(partition)) => (partition, i64::MAX),
                Err(error) => return Err(error).with_context(|| format!("reading {topic} failed")),
            };
            if open.get(&partition).is_some_and(|end| *end <= next) {
                open.remove(&partition);
            }
        }
        messages.sort_by_key(|message| (message.partition, message.offset));
        Ok(messages)
    }

    /// A consumer for manual assignment; its group commits nothing.
    fn reader(&self) -> anyhow::Result<BaseConsumer> {
        client(&self.brokers)
            .set("group.id", "larum-tests-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .context("cannot create a reader")
    }

    /// First and end offset of each partition of the topic.
    fn offset_ranges(&self, reader: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<(i64, i64)>> {
        let count = self.partitions(topic)?;
        ensure!(count > 0, "there is no topic {topic}");
        let range = |partition| {
            let range = reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
            range.with_context(|| format!("cannot ask for the offsets of {topic}[{partition}]"))
        };
        (0..count).map(range).collect()
    }

    /// The number of partitions, 0 when there is no such topic.
    fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let metadata = metadata.with_context(|| format!("cannot ask for the metadata of {topic}"))?;
        let topic = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(i32::try_from(topic.map_or(0, |topic| topic.partitions().len()))?)
    }

    fn wait_for_partitions(&self, topic: &str, total: i32) -> anyhow::Result<()> {
        let client = self.admin.inner();
        // The metadata knows of a partition a moment before its leader does.
        let served = |partition| client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).is_ok();
        wait_until(&format!("{total} partitions of {topic}"), REQUEST_TIMEOUT, || {
            let count = self.partitions(topic).ok()?;
            (count == total && (0..total).all(served)).then_some(())
        })
    }
}

impl From<&BorrowedMessage<'_>> for Message {
    fn from(message: &BorrowedMessage<'_>) -> Message {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Message {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
        }
    }
}

// === Producer ===

/// Sends records; [`Producer::flush`] tells whether the broker took all of them.
pub struct Producer {
    inner: ThreadedProducer<Reports>,
    sent: AtomicU64,
}

/// What the delivery reports said.
#[derive(Default)]
struct Reports {
    delivered: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let text = format!("{}[{}]: {error}", message.topic(), message.partition());
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        } else {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    /// Puts a record into the send queue, waiting while that is full. Without a partition the key decides as in Java's
    /// client; without a timestamp it is the time of the call.
    pub fn produce(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        timestamp_ms: Option<i64>,
    ) -> anyhow::Result<()> {
        self.produce_with(topic, partition, key, payload, timestamp_ms, None)
    }

    /// The same with headers.
    pub fn produce_with(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        timestamp: Option<i64>,
        headers: Option<OwnedHeaders>,
    ) -> anyhow::Result<()> {
        ensure!(timestamp != Some(0), "librdkafka takes the timestamp 0 for none");
        let delivery_opaque = ();
        let record = BaseRecord { topic, partition, payload, key, timestamp, headers, delivery_opaque };
        match self.inner.send(record) {
            Ok(()) => {}
            Err((error, record)) => self.send_later(&error, record)?,
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the broker answered for every record since the last call; one that it did not take is an error.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.inner.flush(FLUSH_TIMEOUT).context("the broker did not answer for every record in time")?;
        let reports = self.inner.context();
        let failures = std::mem::take(&mut *reports.failures.lock().unwrap_or_else(PoisonError::into_inner));
        let (sent, delivered) = (self.sent.swap(0, Ordering::Relaxed), reports.delivered.swap(0, Ordering::Relaxed));
        if let Some(first) = failures.first() {
            bail!("{} of {sent} records were not delivered; the first: {first}", failures.len());
        }
        ensure!(sent == delivered, "sent {sent} records, but {delivered} are reported as delivered");
        Ok(())
    }

    /// Sends a refused record again for as long as the refusal can pass: a full queue empties, and a partition that was
    /// added lately is found by asking for the topic's metadata.
    fn send_later(&self, refusal: &KafkaError, record: BaseRecord<'_, [u8], [u8]>) -> anyhow::Result<()> {
        let topic = record.topic;
        let what = format!("room for a record to {topic} (first refusal: {refusal})");
        let mut pending = Some(record);
        let sent = wait_until(&what, FLUSH_TIMEOUT, || match self.inner.send(pending.take()?) {
            Ok(()) => Some(Ok(())),
            Err((error, record)) => {
                pending = Some(record);
                let can_pass = match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => true,
                    Some(RDKafkaErrorCode::UnknownPartition) => {
                        self.inner.client().fetch_metadata(Some(topic), REQUEST_TIMEOUT).is_ok()
                    }
                    _ => false,
                };
                (!can_pass).then_some(Err(error))
            }
        })?;
        sent.with_context(|| format!("cannot send to {topic}"))
    }
}

// === Parts ===

/// What every client of the broker has in common; it finds a restarted broker quickly.
fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("broker.address.family", "v4");
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "200");
    config
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn check_topics(what: &str, results: KafkaResult<Vec<TopicResult>>) -> anyhow::Result<()> {
    for result in results.with_context(|| format!("cannot {what}"))? {
        result.map_err(|(_, code)| anyhow!("cannot {what}: {code}"))?;
    }
    Ok(())
}

fn properties(brokers: &str, controller: &str, more: &str, dir: &Path) -> String {
    let settings = SETTINGS.split_whitespace().collect::<Vec<_>>().join("\n");
    let listeners = format!("listeners=PLAINTEXT://{brokers},CONTROLLER://{controller}{more}");
    let data = dir.join("data");
    format!("{settings}\n{listeners}\ncontroller.quorum.voters=1@{controller}\nlog.dirs={}\n", data.display())
}

/// The arguments of `java` for one of Kafka's programs.
fn java_args(jvm: &[String], program: &[&str], dir: &Path) -> anyhow::Result<Vec<String>> {
    let logging = process::services_source().join("log4j2.properties");
    let mut args = jvm.to_vec();
    args.push(format!("-Dlog4j2.configurationFile={}", logging.display()));
    args.extend(["-cp".to_owned(), format!("{}/kafka/libs/*", process::services("kafka")?.display())]);
    args.extend(program.iter().map(|arg| (*arg).to_owned()));
    args.push(dir.join("server.properties").display().to_string());
    Ok(args)
}

/// Starts the broker and waits until it says so and its port accepts.
fn spawn_broker(jvm: &[String], dir: &Path, brokers: &str) -> anyhow::Result<Child> {
    let jvm = [&["-Xms64m".to_owned(), "-XX:+UseSerialGC".to_owned()], jvm].concat();
    let mut child = Child::spawn("java", java_args(&jvm, &["kafka.Kafka"], dir)?, &[])?;
    child.wait_ready(START_TIMEOUT, |child| {
        child.log().contains("Kafka Server started") && TcpStream::connect(brokers).is_ok()
    })?;
    Ok(child)
}
