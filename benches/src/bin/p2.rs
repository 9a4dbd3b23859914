//! P2: events/s of `larum run` (durable, serving) reading a filled topic of a real Kafka, over a bare rdkafka batch
//! consume of it with the same client settings and allocator, interleaved.

use std::time::Duration;

use larum_benches::{larum, median, now, page, time};
use larum_kafka::{ClientSettings, Consumer, Fetched};
use larum_tests::kafka::Kafka;
use larum_tests::process::{Child, free_port, wait_until};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPIC: &str = "auth";
const PARTITIONS: i32 = 4;
const RUNS: usize = 5;

fn events() -> u64 {
    std::env::var("LARUM_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000_000)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, brokers, ends] = args.as_slice()
        && mode == "bare"
    {
        return bare(brokers, &ends.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>()?);
    }
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
    let mut ratios = Vec::new();
    for run in 0..=RUNS {
        let floor = bare_child(&brokers, &ends)?;
        let figure = larum_run(&brokers, ends.iter().sum())?;
        let note = if run == 0 { " (warm-up, not counted)" } else { "" };
        println!("bare {floor:.0} events/s, larum run {figure:.0} events/s{note}");
        if run > 0 {
            ratios.push(figure / floor);
        }
    }
    // The machine's speed drifts within a run: each figure is compared with the floor right before it.
    println!("P2 {:.3}", median(&ratios));
    Ok(())
}

fn bare_child(brokers: &str, ends: &[i64]) -> anyhow::Result<f64> {
    let ends: Vec<String> = ends.iter().map(i64::to_string).collect();
    let text = larum_tests::process::run(std::env::current_exe()?, ["bare", brokers, &ends.join(",")], "")?;
    Ok(text.trim().parse()?)
}

/// Reads everything with the reader's own consumer and does nothing with it; prints records per second from the first
/// on.
fn bare(brokers: &str, ends: &[i64]) -> anyhow::Result<()> {
    let settings = ClientSettings { brokers: brokers.into(), group: "bare".into(), queue_bytes: 64 << 20 };
    let mut consumer = Consumer::new(&settings, 1, Default::default())?;
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
    let Some((began, first)) = began else { anyhow::bail!("nothing was read") };
    println!("{:.0}", (seen - first) as f64 / began.elapsed().as_secs_f64());
    // The client may wait for its broker when it is dropped.
    std::process::exit(0);
}

/// Runs the program on a fresh store until everything is durable; gives records per second from the first commit on.
fn larum_run(brokers: &str, total: i64) -> anyhow::Result<f64> {
    let (state, port) = (tempfile::tempdir()?, free_port());
    let (listen, dir) = (format!("127.0.0.1:{port}"), state.path().display().to_string());
    let flags = ["--topic", TOPIC, "--start-at", "earliest", "--listen", &listen, "--state", &dir];
    let mut child = Child::spawn(larum()?, ["run", "--brokers", brokers].iter().chain(&flags), &[])?;
    let mut first = None;
    let rate = wait_until("the end of the topic", Duration::from_secs(600), || {
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
    let rate = rate.map_err(|error| anyhow::anyhow!("{error:#}\n{}", child.log_tail()))?;
    anyhow::ensure!(child.terminate(Duration::from_secs(6)) == Some(0), "{}", child.log_tail());
    Ok(rate)
}
