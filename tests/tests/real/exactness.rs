//! Killed at random instants while it is scraped: every scrape equals the recount of the offsets that it states.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larum_tests::kafka::Kafka;
use larum_tests::process::{Child, wait_until};

use crate::oracle::{Oracle, assert_same, never_down, truth_series};
use crate::program::{Larum, Load};
use crate::scrape::Scrape;

const LETTERS: &str = "dead-letters";

/// Scrapes every 250 ms in the background.
pub struct Scraper {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Scrape>>,
}

impl Scraper {
    pub fn start(port: u16) -> Scraper {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).proxy(None).build().into();
            let mut scrapes = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let page = agent.get(format!("http://127.0.0.1:{port}/metrics")).call();
                if let Ok(text) = page.map_err(drop).and_then(|mut p| p.body_mut().read_to_string().map_err(drop)) {
                    scrapes.push(Scrape::parse(&text));
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            scrapes
        });
        Scraper { stop, thread }
    }

    pub fn finish(self) -> Vec<Scrape> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn kills() -> u64 {
    if std::env::var_os("LARUM_LONG").is_some() { 200 } else { 20 }
}

#[test]
fn every_scrape_is_exact_across_kill_9() {
    let seed = std::env::var("LARUM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..10_000));
    println!("LARUM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut kafka = Kafka::start_with_heap(512).unwrap();
    kafka.create_topic("auth", 4, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    kafka.create_topic(LETTERS, 1, &[]).unwrap();
    let kills = kills();
    let length = format!("{}s", 15 + kills * 5 / 2);
    let seed_text = seed.to_string();
    let mix = ["--rate", "3000", "--for", &length, "--seed", &seed_text, "--malformed", "0.004", "--tenants", "50"];
    let mut load = Load::start(&kafka.brokers(), "auth", &mix);
    let flags = ["--start-at", "earliest", "--dead-letter-topic", LETTERS];
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &flags);
    let scraper = Scraper::start(larum.port);
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(rng.u64(200..4_000)));
        larum.kill_9();
        match kill {
            k if k == kills / 4 => {
                println!("the broker is killed and comes back");
                kafka.kill_9().unwrap();
                larum.again();
                std::thread::sleep(Duration::from_secs(1));
                kafka.restart().unwrap();
            }
            k if k == kills / 2 => {
                println!("two partitions join");
                larum.again();
                kafka.add_partitions("auth", 6).unwrap();
            }
            k if k == kills * 3 / 4 => {
                println!("larum stays away for a while");
                std::thread::sleep(Duration::from_secs(8));
                larum.again();
            }
            _ => larum.again(),
        }
    }
    let truth = load.finish(Duration::from_secs(120));
    let ends = kafka.end_offsets("auth").unwrap();
    let last = larum.wait_visible(&ends, 60);
    let oracle = Oracle::of(&kafka, "auth");
    let letters_wanted: u64 = oracle.partitions.iter().map(|p| p.records(p.end())[1]).sum();
    let letters = wait_until("every dead letter", Duration::from_secs(30), || {
        let found = kafka.read_all(LETTERS).unwrap();
        let distinct: std::collections::BTreeSet<_> = found.iter().map(|l| l.headers.clone()).collect();
        (distinct.len() as u64 >= letters_wanted).then_some(found)
    });
    let mut scrapes = scraper.finish();
    scrapes.push(last);
    assert_eq!(larum.terminate(), Some(0), "{}", larum.log());
    report(&oracle, &scrapes, &truth, &letters.unwrap());
}

fn report(oracle: &Oracle, scrapes: &[Scrape], truth: &larum_load::Truth, letters: &[larum_tests::kafka::Message]) {
    let mut windows = 0;
    for (at, scrape) in scrapes.iter().enumerate() {
        if at > 0 {
            never_down(&scrapes[at - 1], scrape);
        }
        oracle.check_totals(scrape);
        if at % 10 == 0 {
            windows += oracle.check_windows(scrape, oracle.first_append_ns());
        }
    }
    let last = &scrapes[scrapes.len() - 1];
    assert_same(&oracle.series(), &truth_series(truth));
    let found = oracle.check_dead_letters(letters);
    let violations: f64 = last.of("larum_pipeline_invariant_violations_total").map(|s| s.1).sum();
    assert_eq!(violations, 0.0);
    println!(
        "{} records, {} scrapes equal their recount, {windows} windowed gauges compared, {found} dead letters ({} sent)",
        truth.records,
        scrapes.len(),
        letters.len()
    );
    assert!(windows > 0 && found > 0);
}

/// Refused before any port opens, every problem named, exit code 64.
#[test]
fn bad_configuration_ends_with_64() {
    let args = ["run", "--listen", "nowhere", "--start-at", "yesterday"];
    let mut child = Child::spawn(crate::program::binary(), args, &[]).unwrap();
    let code = wait_until("its end", Duration::from_secs(5), || child.exit_code()).unwrap();
    let log = child.log();
    assert_eq!(code, 64, "{log}");
    assert!(log.contains("--listen") && log.contains("--start-at"), "{log}");
}

/// A first start on a topic with history: totals begin at its end, windows are filled from before.
#[test]
fn a_first_start_on_history_fills_windows_and_counts_from_the_end() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 3, &[]).unwrap();
    let history = ["--fast", "--events", "120000", "--rate", "150", "--late", "0.05", "--tenants", "20"];
    crate::program::load(&kafka.brokers(), "auth", &history);
    let ends = kafka.end_offsets("auth").unwrap();
    let began = Instant::now();
    let larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "end"]);
    let warm = larum.wait_visible(&ends, 60);
    println!("warmed up over {} records in {:.1} s", ends.iter().sum::<i64>(), began.elapsed().as_secs_f64());
    assert_eq!(warm.of("larum_login_attempts_total").count(), 0, "nothing counts before the origin");
    let origins: Vec<i64> = (0..3)
        .map(|p| warm.value("larum_pipeline_first_offset", &[("partition", &p.to_string())]).unwrap() as i64)
        .collect();
    assert_eq!(origins, ends);
    crate::program::load(&kafka.brokers(), "auth", &["--rate", "500", "--for", "5s", "--tenants", "20", "--seed", "9"]);
    let last = larum.wait_visible(&kafka.end_offsets("auth").unwrap(), 60);
    // Warm-up reaches back an hour of the 800 s that there are: all of it.
    let oracle = Oracle::of(&kafka, "auth").beginning_at(&origins, &[0, 0, 0]);
    oracle.check_totals(&last);
    let covered_ns = i64::MIN / 2;
    assert!(oracle.check_windows(&last, covered_ns) > 0);
}
