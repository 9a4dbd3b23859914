//! R3: seconds from SIGKILL to a served scrape with 100,000 sample lines of state in the store.

use std::time::Duration;

use larum_benches::{larum, median, now, page};
use larum_tests::kafka::Kafka;
use larum_tests::process::{Child, free_port, wait_until};

const LINES: usize = 100_000;
const RUNS: usize = 3;

/// Sample lines that come from the store; Larum's own metrics are few.
fn lines(port: u16) -> Option<usize> {
    let (_, text) = page(port, "/metrics")?;
    Some(text.lines().filter(|l| l.starts_with("larum_login") || l.starts_with("larum_token")).count())
}

fn main() -> anyhow::Result<()> {
    let kafka = Kafka::start_with_heap(512)?;
    kafka.create_topic("auth", 4, &[])?;
    let (brokers, state, port) = (kafka.brokers(), tempfile::tempdir()?, free_port());
    let fill = ["load", "--brokers", &brokers, "--topic", "auth", "--fast", "--events", "600000"];
    let mix = ["--tenants", "300", "--regions", "6", "--rate", "2000"];
    larum_tests::process::run(larum()?, fill.iter().chain(&mix), "")?;
    let (listen, dir) = (format!("127.0.0.1:{port}"), state.path().display().to_string());
    let flags = ["run", "--brokers", &brokers, "--topic", "auth", "--start-at", "earliest"];
    // All that is in the store is to be shown, which is more than a scrape holds by default.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "limits: {series: 10000000, memory: 64GiB}\n")?;
    let config = file.path().display().to_string();
    let places = ["--config", &config, "--listen", &listen, "--state", &dir];
    let start = || Child::spawn(larum()?, flags.iter().chain(&places), &[]);
    let mut child = start()?;
    wait_until("the end of the topic", Duration::from_secs(120), || {
        page(port, "/-/ready").filter(|(status, _)| *status == 200)
    })?;
    std::thread::sleep(Duration::from_secs(5));
    let before = lines(port).unwrap_or(0);
    anyhow::ensure!(before >= LINES, "only {before} sample lines: the load is too small");
    let mut figures = Vec::new();
    for _ in 0..RUNS {
        child.kill_9()?;
        let began = now();
        child = start()?;
        wait_until("a scrape with all lines", Duration::from_secs(120), || lines(port).filter(|l| *l >= LINES))?;
        figures.push(began.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_secs(3));
    }
    let size = std::fs::metadata(state.path().join("larum.redb"))?.len();
    println!("{before} sample lines, store of {} MB; {RUNS} kills: {figures:.2?} s", size >> 20);
    println!("R3 {:.2}", median(&figures));
    Ok(())
}
