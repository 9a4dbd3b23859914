//! P2: events/s of `larum run` (durable, serving, scraped every second) reading a filled topic of a
//! real Kafka, over a bare rdkafka batch consume of it with the same client settings and allocator, interleaved. Of the
//! same runs: P2b, over a bare `BaseConsumer::poll` loop; P3, processor time per event over that of the bare consume; P9,
//! events/s over 150,000. Beside them what they would be if nothing came behind the fold: no store, no windows, no alerts, no
//! scrapes. P5d: events/s while scraped over events/s of the program alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larum_aggregate::{PartitionId, PartitionStart, SourceId};
use larum_benches::{larum, median, now, page, registry, time};
use larum_event::Limits;
use larum_fold::{DeadLetters, PartitionState, Record, Registry, SourcePolicy, Worker, no_header};
use larum_kafka::{ClientSettings, Consumer, Fetched};
use larum_tests::kafka::Kafka;
use larum_tests::process::{Child, free_port, wait_until};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPIC: &str = "auth";
const PARTITIONS: i32 = 4;
const RUNS: usize = 5;
/// Pairs of P5d: even, so that either run comes first as often as the other.
const PAIRS: usize = 10;
/// What P9 compares catching up with.
const INGEST_PER_SECOND: f64 = 150_000.0;
/// Threads that fold, as many as the program has on two cores.
const FOLDERS: usize = 2;
/// Records that a folding thread reads between cuts: about what a commit interval holds.
const CUT: u64 = 100_000;

/// Records of the topic: so many that what is read before the first commit, which counts for nobody, matters little.
fn events() -> u64 {
    std::env::var("LARUM_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8_000_000)
}

/// Figures of the same runs.
const NAMES: [&str; 4] = ["P2", "P2b", "P3", "P9"];
/// Of every run, by [`NAMES`].
type Ratios = [Vec<f64>; NAMES.len()];

/// What one way of reading the topic showed.
#[derive(Clone, Copy, Debug)]
struct Reading {
    events_per_second: f64,
    /// Processor time of the whole process per event.
    cpu_ns: f64,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, brokers, ends] = args.as_slice() {
        let ends = ends.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
        return match mode.as_str() {
            "bare" => bare(brokers, &ends),
            "poll" => poll(brokers, &ends),
            _ => fold(brokers, &ends),
        };
    }
    let wanted = args.get(1).map_or("P2", String::as_str);
    let kafka = Kafka::start_with_heap(1024)?;
    kafka.create_topic(TOPIC, PARTITIONS, &[])?;
    let count = events().to_string();
    let flags =
        ["--events", &count, "--fast", "--tenants", "10000", "--regions", "12", "--rate", "20000", "--malformed", "0"];
    let brokers = kafka.brokers();
    let fill = ["load", "--brokers", &brokers, "--topic", TOPIC];
    let (took, filled) = time(|| larum_tests::process::run(larum()?, fill.iter().chain(&flags), ""));
    filled?;
    let ends = kafka.end_offsets(TOPIC)?;
    let rate = events() as f64 / took.as_secs_f64();
    println!("larum load wrote {count} records at {rate:.0} a second, into {PARTITIONS} partitions: {ends:?}");
    let total = ends.iter().sum();
    if wanted == "P5d" {
        println!("P5d {:.3}", scraped_over_alone(&brokers, total)?);
        return Ok(());
    }
    let (mut ratios, mut of_fold): (Ratios, Ratios) = Default::default();
    for run in 0..=RUNS {
        let bare = child("bare", &brokers, &ends)?;
        let figure = larum_run(&brokers, total, true)?;
        let poll = child("poll", &brokers, &ends)?;
        let fold = child("fold", &brokers, &ends)?;
        let note = if run == 0 { " (warm-up, not counted)" } else { "" };
        let show = |r: Reading| format!("{:.0} events/s at {:.0} ns of CPU", r.events_per_second, r.cpu_ns);
        let (of_bare, of_poll, folded, of_larum) = (show(bare), show(poll), show(fold), show(figure));
        println!("bare batch {of_bare}, poll {of_poll}, fold with nothing behind {folded}, larum run {of_larum}{note}");
        if run > 0 {
            // The machine's speed drifts within a run: each figure is compared with the floors beside it.
            for (ratios, of) in [(&mut ratios, figure), (&mut of_fold, fold)] {
                let rate_over = |rate: f64| of.events_per_second / rate;
                let (p2, p2b) = (rate_over(bare.events_per_second), rate_over(poll.events_per_second));
                let figures = [p2, p2b, of.cpu_ns / bare.cpu_ns, rate_over(INGEST_PER_SECOND)];
                ratios.iter_mut().zip(figures).for_each(|(ratios, figure)| ratios.push(figure));
            }
        }
    }
    let [p2, p2b, p3, p9] = of_fold.map(|ratios| median(&ratios));
    println!("with nothing behind the fold: P2 {p2:.3}, P2b {p2b:.3}, P3 {p3:.3}, P9 {p9:.3}");
    let figures = NAMES.into_iter().zip(ratios.map(|ratios| median(&ratios)));
    let (last, others): (Vec<_>, Vec<_>) = figures.partition(|(name, _)| *name == wanted);
    for (name, figure) in others.into_iter().chain(last) {
        println!("{name} {figure:.3}");
    }
    Ok(())
}

/// P5d: the median of pairs, the first of which warms up. Which run of a pair comes first changes from pair to pair: what
/// is slower or faster a few seconds later favours neither.
fn scraped_over_alone(brokers: &str, total: i64) -> anyhow::Result<f64> {
    let mut ratios = Vec::new();
    for pair in 0..=PAIRS {
        let rate = |is_scraped| anyhow::Ok(larum_run(brokers, total, is_scraped)?.events_per_second);
        let is_scraped_first = pair % 2 == 0;
        let (first, second) = (rate(is_scraped_first)?, rate(!is_scraped_first)?);
        let (scraped, alone) = if is_scraped_first { (first, second) } else { (second, first) };
        let order = if is_scraped_first { "scraped first" } else { "alone first" };
        println!("scraped {scraped:.0} events/s, alone {alone:.0}, {:.3} ({order})", scraped / alone);
        ratios.push(scraped / alone);
    }
    Ok(median(&ratios[1..]))
}

/// Reads everything with a child process of this program.
fn child(mode: &str, brokers: &str, ends: &[i64]) -> anyhow::Result<Reading> {
    let ends: Vec<String> = ends.iter().map(i64::to_string).collect();
    let text = larum_tests::process::run(std::env::current_exe()?, [mode, brokers, &ends.join(",")], "")?;
    let mut figures = text.split_whitespace().map(str::parse);
    let (Some(Ok(events_per_second)), Some(Ok(cpu_ns))) = (figures.next(), figures.next()) else {
        anyhow::bail!("no figures in {text:?}")
    };
    Ok(Reading { events_per_second, cpu_ns })
}

/// Processor time of a process so far, user and system, ns; 0 if it cannot be had.
fn cpu_ns(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15, in ticks of 10 ms; the second field is a name in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 1e7
}

/// The program's own settings of the client.
fn settings(brokers: &str) -> ClientSettings {
    ClientSettings {
        brokers: brokers.into(),
        group: "bare".into(),
        queue_bytes: 64 << 20,
        security: Default::default(),
    }
}

/// Reads everything with the reader's own consumer and does nothing with it; prints records per second from the first
/// on.
fn bare(brokers: &str, ends: &[i64]) -> anyhow::Result<()> {
    let mut consumer = Consumer::new(&settings(brokers), 1, Default::default())?;
    for partition in 0..ends.len() {
        let slot = consumer.add(TOPIC, partition as i32);
        consumer.assign(slot, 0)?;
    }
    let (mut seen, mut began) = (0u64, None);
    let total: i64 = ends.iter().sum();
    while seen < total as u64 {
        consumer.fetch(10);
        while let Some(fetched) = consumer.take() {
            if let Fetched::Record { value, .. } = fetched {
                std::hint::black_box(value);
                seen += 1;
            }
        }
        if seen > 0 && began.is_none() {
            began = Some((now(), seen));
        }
    }
    finish(seen, began)
}

/// The same with rust-rdkafka's own loop, one message at a time.
fn poll(brokers: &str, ends: &[i64]) -> anyhow::Result<()> {
    let consumer: BaseConsumer = settings(brokers).reader(1)?.set("enable.partition.eof", "false").create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..ends.len() {
        partitions.add_partition_offset(TOPIC, partition as i32, Offset::Offset(0))?;
    }
    consumer.assign(&partitions)?;
    let (mut seen, mut began) = (0u64, None);
    let total: i64 = ends.iter().sum();
    while seen < total as u64 {
        if let Some(message) = consumer.poll(Duration::from_millis(10)) {
            std::hint::black_box(message?.payload());
            seen += 1;
        }
        if seen > 0 && began.is_none() {
            began = Some((now(), seen));
        }
    }
    finish(seen, began)
}

/// Decodes and folds everything as the program's readers do, and throws away what was counted; prints the same.
fn fold(brokers: &str, ends: &[i64]) -> anyhow::Result<()> {
    let (registry, seen) = (registry(), AtomicU64::new(0));
    let total = ends.iter().sum::<i64>() as u64;
    let began = std::thread::scope(|scope| {
        let of = |n: usize| (0..ends.len() as i32).filter(move |partition| *partition as usize % FOLDERS == n);
        let threads: Vec<_> = (0..FOLDERS)
            .map(|n| {
                scope.spawn({
                    let (registry, seen) = (&registry, &seen);
                    // One that fails is not waited for by the other.
                    let end = move |_: &_| seen.store(total, Ordering::Relaxed);
                    move || fold_some(brokers, of(n), registry, seen, total).inspect_err(end)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread died"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    finish(seen.into_inner(), began.into_iter().flatten().min_by_key(|(began, _)| *began))
}

/// One thread's part of it; gives when the first records came, and how many these were.
fn fold_some(
    brokers: &str,
    partitions: impl Iterator<Item = i32>,
    registry: &Arc<Registry>,
    seen: &AtomicU64,
    total: u64,
) -> anyhow::Result<Option<(std::time::Instant, u64)>> {
    let mut consumer = Consumer::new(&settings(brokers), FOLDERS, Default::default())?;
    let mut worker = Worker::new(registry.clone(), Limits::default(), 1);
    for partition in partitions {
        let start = PartitionStart::from_birth(PartitionId(partition as u32), SourceId(0), TOPIC, partition);
        worker.add(PartitionState::new(start), SourcePolicy::default());
        let slot = consumer.add(TOPIC, partition);
        consumer.assign(slot, 0)?;
    }
    let (mut since_cut, mut spare, mut began) = (0, Vec::new(), None);
    while seen.load(Ordering::Relaxed) < total {
        consumer.fetch(10);
        let mut read = 0;
        while let Some(fetched) = consumer.take() {
            if let Fetched::Record { slot, offset, timestamp_ms, value, .. } = fetched {
                let append_ns = timestamp_ms * 1_000_000;
                let record = Record { offset, append_ns, value, traceparent: &no_header };
                worker.record(slot, record, append_ns, DeadLetters::Count);
                read += 1;
            }
        }
        seen.fetch_add(read, Ordering::Relaxed);
        since_cut += read;
        if read > 0 && began.is_none() {
            began = Some((now(), read));
        }
        if since_cut >= CUT {
            since_cut = 0;
            spare = worker.cut(false, std::mem::take(&mut spare)).counted;
        }
    }
    Ok(began)
}

/// Prints events per second from the first on, and processor time per event.
fn finish(seen: u64, began: Option<(std::time::Instant, u64)>) -> anyhow::Result<()> {
    let Some((began, first)) = began else { anyhow::bail!("nothing was read") };
    let rate = (seen - first) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} {:.0}", cpu_ns("self") / seen as f64);
    // The client may wait for its broker when it is dropped.
    std::process::exit(0);
}

/// Runs the program on a fresh store until everything is durable; events per second from the first commit on.
fn larum_run(brokers: &str, total: i64, is_scraped: bool) -> anyhow::Result<Reading> {
    let (state, port) = (tempfile::tempdir()?, free_port());
    let (listen, dir) = (format!("127.0.0.1:{port}"), state.path().display().to_string());
    let flags = ["--topic", TOPIC, "--start-at", "earliest", "--listen", &listen, "--state", &dir];
    let mut child = Child::spawn(larum()?, ["run", "--brokers", brokers].iter().chain(&flags), &[])?;
    let (mut first, mut scraped) = (None, now());
    let rate = wait_until("the end of the topic", Duration::from_secs(600), || {
        if is_scraped && scraped.elapsed() >= Duration::from_secs(1) {
            scraped = now();
            page(port, "/metrics")?;
        }
        let (status, text) = page(port, "/-/ready")?;
        let left: i64 = text.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0);
        match (status, first) {
            (200, Some((began, at_first))) => {
                let began: std::time::Instant = began;
                Some((at_first as f64) / began.elapsed().as_secs_f64())
            }
            (503, None) if left > 0 && left < total => {
                first = Some((now(), left));
                None
            }
            _ => None,
        }
    });
    let events_per_second = rate.map_err(|error| anyhow::anyhow!("{error:#}\n{}", child.log_tail()))?;
    let cpu_ns = cpu_ns(&child.pid().to_string()) / total as f64;
    anyhow::ensure!(child.terminate(Duration::from_secs(6)) == Some(0), "{}", child.log_tail());
    Ok(Reading { events_per_second, cpu_ns })
}
