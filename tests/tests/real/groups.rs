//! Watched consumer groups against a real broker; what users of other lag tools complain about has a test of its name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::process::now_ms;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::program::Larum;
use crate::scrape::{Scrape, label};

/// States as the signal shows them.
const OK: f64 = 0.0;
const STALL: f64 = 2.0;
const STOP: f64 = 3.0;
const REWIND: f64 = 4.0;

/// Tells the thread beside a test to end, also when the test fails: its scope waits for that thread.
pub struct EndsWithTest<'a>(pub &'a AtomicBool);

impl Drop for EndsWithTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn member(kafka: &Kafka, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers()).set("group.id", group).set("enable.auto.commit", "false");
    config.set("session.timeout.ms", "6000").set("auto.offset.reset", "earliest").create().unwrap()
}

fn commit(consumer: &BaseConsumer, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// Records whose timestamps are a second apart and end at `last_ms`.
fn fill(kafka: &Kafka, topic: &str, partition: i32, count: i64, last_ms: i64) {
    let producer = kafka.producer().unwrap();
    for at in 0..count {
        let ms = last_ms - (count - 1 - at) * 1000;
        producer.produce(topic, Some(partition), None, Some(b"x"), Some(ms)).unwrap();
    }
    producer.flush().unwrap();
}

/// Backlog, lag in seconds and state of the audit writer in a partition.
fn shown(scrape: &Scrape, group: &str, partition: &str) -> Option<(f64, f64, Option<f64>)> {
    let labels = [("group", group), ("topic", "audit-queue"), ("partition", partition)];
    let value = |name| scrape.value(name, &labels);
    Some((
        value("larum_consumer_backlog_records")?,
        value("larum_consumer_lag_seconds")?,
        value("larum_consumer_state"),
    ))
}

fn start(kafka: &Kafka, groups: &str) -> (tempfile::TempDir, Larum) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("larum.yaml");
    let text = format!(
        "kafka: {{brokers: '{}'}}\nsources: [{{name: auth, topics: [auth]}}]\nwatched_groups:\n{groups}\n",
        kafka.brokers()
    );
    std::fs::write(&config, text).unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    let larum = Larum::configured(&config, &[]);
    (dir, larum)
}

#[test]
fn groups_are_seen_as_they_are() {
    let kafka = Kafka::start().unwrap();
    for topic in ["audit-queue", "elsewhere"] {
        kafka.create_topic(topic, 2, &[]).unwrap();
    }
    // 100 records, the last a minute old; of which 40 are committed. Partition 1 is quiet.
    let last_ms = now_ms() - 60_000;
    fill(&kafka, "audit-queue", 0, 100, last_ms);
    fill(&kafka, "audit-queue", 1, 7, last_ms);
    let writer = member(&kafka, "audit-writer");
    commit(&writer, "audit-queue", 0, 40);
    commit(&writer, "audit-queue", 1, 7);
    // kminion_102: groups that are not named make no series.
    commit(&member(&kafka, "passing-by"), "audit-queue", 0, 1);
    let (_dir, mut larum) = start(&kafka, "- {group: audit-writer, topics: [audit-queue], lag_floor: 12s}");

    // kminion_15: there within seconds, whatever was committed before. kle_175: the lag is the true age.
    let seen = |scrape: &Scrape| shown(scrape, "audit-writer", "0").is_some();
    let (backlog, lag_s, _) = shown(&larum.wait_for("the group", 15, seen), "audit-writer", "0").unwrap();
    let true_s = (now_ms() - (last_ms - 59_000)) as f64 / 1000.0;
    assert_eq!(backlog, 60.0);
    assert!((0.0..7.0).contains(&(true_s - lag_s)), "lag {lag_s} s, true age {true_s} s");

    // burrow_745, burrow_58: stopped, and the lag grows with the clock. kle_111: a quiet partition has none.
    let is = |wanted: f64| move |s: &Scrape| shown(s, "audit-writer", "0").is_some_and(|g| g.2 == Some(wanted));
    let scrape = larum.wait_for("STOP", 40, is(STOP));
    let later_s = shown(&scrape, "audit-writer", "0").unwrap().1;
    assert!(later_s > lag_s + 5.0, "{lag_s} s, then {later_s} s");
    assert_eq!(shown(&scrape, "audit-writer", "1"), Some((0.0, 0.0, Some(OK))));
    assert!(scrape.of("larum_consumer_state").all(|(labels, _)| label(labels, "group") == "audit-writer"));

    // After kill -9 nothing is said before it is known: no OK of a group that is stopped.
    larum.kill_9();
    larum.again();
    larum.wait_for("the group again", 15, seen);
    let said = larum.wait_for("a verdict", 40, |s| shown(s, "audit-writer", "0").is_some_and(|g| g.2.is_some()));
    assert_eq!(shown(&said, "audit-writer", "0").unwrap().2, Some(STOP));

    // Somebody joins and does not get on; then does (burrow_446); then is told to begin again.
    writer.subscribe(&["audit-queue"]).unwrap();
    let (stop, joined) = (AtomicBool::new(false), &writer);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = joined.poll(Duration::from_millis(100));
            }
        });
        let _end = EndsWithTest(&stop);
        larum.wait_for("STALL", 40, is(STALL));
        commit(&writer, "audit-queue", 0, 100);
        let well = larum.wait_for("OK", 20, is(OK));
        assert_eq!(shown(&well, "audit-writer", "0"), Some((0.0, 0.0, Some(OK))));
        commit(&writer, "audit-queue", 0, 10);
        let back = larum.wait_for("REWIND", 20, is(REWIND));
        assert_eq!(shown(&back, "audit-writer", "0").unwrap().0, 90.0);
    });
    assert_eq!(larum.terminate(), Some(0));
}

#[test]
fn kminion_27_a_busy_group_shows_its_backlog() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("audit-queue", 1, &[]).unwrap();
    fill(&kafka, "audit-queue", 0, 100, now_ms());
    let writer = member(&kafka, "busy");
    commit(&writer, "audit-queue", 0, 50);
    let (_dir, mut larum) = start(&kafka, "- {group: busy, topics: [audit-queue]}");
    // Always 50 behind the end, at full speed.
    let stop = AtomicBool::new(false);
    let lowest = std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = kafka.producer().unwrap();
            let mut end = 100;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..200 {
                    producer.produce("audit-queue", Some(0), None, Some(b"x"), None).unwrap();
                }
                producer.flush().unwrap();
                end += 200;
                commit(&writer, "audit-queue", 0, end - 50);
            }
        });
        let _end = EndsWithTest(&stop);
        // The first look may still see what was committed before; that is 50 s old.
        larum
            .wait_for("the group at work", 40, |scrape| shown(scrape, "busy", "0").is_some_and(|group| group.1 < 10.0));
        let look = |_| {
            std::thread::sleep(Duration::from_secs(1));
            let (backlog, lag_s, _) = larum.scrape().and_then(|scrape| shown(&scrape, "busy", "0"))?;
            assert!(lag_s < 10.0, "nothing is older than a few seconds, not {lag_s} s");
            Some(backlog)
        };
        (0..25).filter_map(look).reduce(f64::min)
    });
    assert!(lowest.is_some_and(|backlog| backlog >= 50.0), "backlog {lowest:?}");
    assert_eq!(larum.terminate(), Some(0));
}
