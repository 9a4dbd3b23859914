//! What goes wrong around Larum: lost records, another log under the same name, another cluster, bad stores.

use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::process::wait_until;

use crate::oracle::Oracle;
use crate::program::{Larum, Load, load};

/// Waits until it ends by itself; gives exit code and log.
fn ended(larum: &mut Larum) -> (i32, String) {
    let code = wait_until("its end", Duration::from_secs(30), || larum.exit_code()).unwrap();
    (code, larum.log())
}

#[test]
fn deleted_records_are_lost_loudly_and_reading_goes_on() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    load(&kafka.brokers(), "auth", &["--fast", "--events", "5000", "--tenants", "5"]);
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    larum.wait_visible(&[5000], 30);
    assert_eq!(larum.terminate(), Some(0));
    load(&kafka.brokers(), "auth", &["--fast", "--events", "5000", "--tenants", "5", "--seed", "2"]);
    kafka.delete_records("auth", 0, 8000).unwrap();
    larum.again();
    let scrape = larum.wait_visible(&[10_000], 30);
    assert_eq!(scrape.value("larum_pipeline_records_total", &[("result", "lost")]), Some(3000.0));
    assert_eq!(scrape.value("larum_pipeline_window_incomplete", &[("window", "1h")]), Some(1.0));
    assert!(larum.log().contains("lost"), "{}", larum.log());
}

#[test]
fn a_topic_made_anew_is_refused() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    load(&kafka.brokers(), "auth", &["--fast", "--events", "1000", "--tenants", "5"]);
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    larum.wait_visible(&[1000], 30);
    larum.terminate();
    kafka.delete_topic("auth").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    kafka.create_topic("auth", 1, &[]).unwrap();
    larum.again();
    let (code, log) = ended(&mut larum);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("was made anew") && log.contains("--reset-state"), "{log}");
    // What the message says helps.
    larum.args.push("--reset-state".into());
    load(&kafka.brokers(), "auth", &["--fast", "--events", "500", "--tenants", "5"]);
    larum.again();
    let scrape = larum.wait_visible(&[500], 30);
    Oracle::of(&kafka, "auth").check_totals(&scrape);
}

#[test]
fn a_store_of_another_cluster_is_refused() {
    let first = Kafka::start().unwrap();
    first.create_topic("auth", 1, &[]).unwrap();
    let mut larum = Larum::start(&first.brokers(), &["auth"], &["--start-at", "earliest"]);
    larum.wait_for("ready", 30, |s| s.tick().is_some());
    larum.terminate();
    drop(first);
    let second = Kafka::start().unwrap();
    second.create_topic("auth", 1, &[]).unwrap();
    let at = larum.args.iter().position(|a| a == "--brokers").unwrap();
    larum.args[at + 1] = second.brokers();
    larum.again();
    let (code, log) = ended(&mut larum);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("belongs to Kafka cluster") && log.contains("--state"), "{log}");
}

#[test]
fn a_second_process_on_the_same_state_is_refused() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    let larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    larum.wait_for("a tick", 30, |s| s.tick().is_some());
    let mut second = Larum::start(&kafka.brokers(), &["auth"], &["--state", larum.state.path().to_str().unwrap()]);
    let (code, log) = ended(&mut second);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("another process"), "{log}");
}

/// A tmpfs that is too small: what is committed stays served, and all goes on by itself when space returns.
#[test]
fn a_full_disk_pauses_and_resumes() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().to_str().unwrap();
    let mounted = larum_tests::process::run("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", path], "");
    mounted.expect("this test mounts a small tmpfs, which takes root: run the suite as root");
    let unmount = Unmount(path.to_string());
    let state = disk.path().join("state");
    let filler = disk.path().join("filler");
    let flags = ["--start-at", "earliest", "--state", state.to_str().unwrap()];
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &flags);
    load(&kafka.brokers(), "auth", &["--fast", "--events", "2000", "--tenants", "5"]);
    larum.wait_visible(&[2000], 30);
    while std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&filler)
        .and_then(|mut f| {
            use std::io::Write as _;
            f.write_all(&[0; 65_536])
        })
        .is_ok()
    {}
    load(&kafka.brokers(), "auth", &["--fast", "--events", "100000", "--tenants", "200", "--seed", "2"]);
    let stalled = larum.wait_for("a stall", 30, |s| s.value("larum_pipeline_store_stalled", &[]) == Some(1.0));
    let seen = stalled.next_offset(0).unwrap();
    std::fs::remove_file(&filler).unwrap();
    let remounted = larum_tests::process::run("mount", ["-o", "remount,size=256m", path], "");
    remounted.unwrap();
    let last = larum.wait_visible(&[102_000], 60);
    println!("stalled at {seen}, resumed to the end");
    Oracle::of(&kafka, "auth").check_totals(&last);
    assert_eq!(larum.terminate(), Some(0), "{}", larum.log());
    drop(unmount);
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        larum_tests::process::run("umount", ["-l", &self.0], "").ok();
    }
}

/// Its length was looked at every 64 records only, which took a minute at one a second.
#[test]
fn a_load_of_few_records_ends_when_it_should() {
    let kafka = Kafka::start().unwrap();
    let mut load = Load::start(&kafka.brokers(), "auth", &["--rate", "1", "--for", "3s", "--tenants", "5"]);
    load.finish(Duration::from_secs(30));
    let sent: i64 = kafka.end_offsets("auth").unwrap().iter().sum();
    assert!((2..=6).contains(&sent), "{sent}");
}

/// A record is given up after a minute. Without looking, the load would go on to its end, or until the client's queue is
/// full: half a million records later.
#[test]
fn a_load_whose_broker_is_gone_gives_up_soon() {
    let mut kafka = Kafka::start().unwrap();
    let mut load = Load::start(&kafka.brokers(), "auth", &["--rate", "500", "--tenants", "5"]);
    wait_until("records", Duration::from_secs(30), || {
        kafka.end_offsets("auth").ok()?.iter().any(|end| *end > 0).then_some(())
    })
    .unwrap();
    kafka.kill_9().unwrap();
    let (code, log) = load.give_up(Duration::from_secs(100));
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("were not delivered"), "{log}");
}
