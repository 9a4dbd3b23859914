//! P8: seconds from the append of the record that crosses an alert's threshold until a real Alertmanager lists the alert, the
//! 99th percentile over 200 runs, with 20,000 events/s in the background and the phase uniform over the commit interval.
//! P8b: the median of that over the median of a real Prometheus (scrape and rule every 15 s) with the same condition.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larum_benches::{larum, median, now};
use larum_tests::alertmanager::Alertmanager;
use larum_tests::kafka::Kafka;
use larum_tests::process::{Child, free_port, now_ms, wait_until};
use larum_tests::prometheus::Prometheus;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPIC: &str = "auth";
/// Runs (`LARUM_RUNS` for another number), and runs side by side.
const RUNS: usize = 200;
const AT_ONCE: usize = 3;
/// Runs with Prometheus, all at once, over so many seconds.
const PROMETHEUS_RUNS: usize = 12;
const PROMETHEUS_OVER_S: u64 = 45;
/// Logins within a minute from which on the condition holds.
const CROSSING: usize = 30;
/// Regions of the tenants.
const REGIONS: u32 = 53;
const PATIENCE: Duration = Duration::from_secs(60);

const CATALOGUE: &str = "
alerts:
  - name: LoginFailures
    severity: page
    owner: bench
    dashboard: d
    summary: s
    per: tenant
    when:
      - ratio: {of: login_failure, to: [login_success, login_failure], window: 1m, above: 0.8, floor: 0.5}
    for: 0s
    keep_firing_for: 0s
";

const RULES: &str = r#"
groups:
  - name: larum
    interval: 15s
    rules:
      - alert: LoginFailures
        expr: larum_login_failure_ratio{window="1m"} > 0.8 and on (tenant, region) larum_login_attempts_per_second{window="1m"} >= 0.43
"#;

fn login(tenant: &str, outcome: &str) -> String {
    let time = now_ms();
    // Many tenants of one region would be one alert, for the region.
    let region = tenant.bytes().map(u32::from).sum::<u32>() % REGIONS;
    format!(
        r#"{{"kind":"login","op":"password","time":{time},"tenant":"{tenant}","region":"r-{region}","outcome":"{outcome}","latency_ms":12}}"#
    )
}

/// Sends logins up to the one that crosses the threshold, which goes at a random phase; gives its time.
fn probe(kafka: &Kafka, tenant: &str, phase: Duration) -> anyhow::Result<std::time::Instant> {
    let producer = kafka.producer()?;
    let send =
        |outcome| producer.produce(TOPIC, None, Some(tenant.as_bytes()), Some(login(tenant, outcome).as_bytes()), None);
    // A name with a success gets a slot at any time.
    send("success")?;
    for _ in 0..CROSSING - 2 {
        send("failure")?;
    }
    producer.flush()?;
    std::thread::sleep(Duration::from_secs(2) + phase);
    let sent = now();
    send("failure")?;
    producer.flush()?;
    Ok(sent)
}

fn write_configuration(dir: &Path, alertmanager: &str) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir.join("runbooks"))?;
    let parts = larum::config::catalogue::RUNBOOK_PARTS.map(|part| format!("## {part}\nnone: a bench\n")).concat();
    std::fs::write(dir.join("runbooks/LoginFailures.md"), parts)?;
    std::fs::write(dir.join("alerts.yaml"), CATALOGUE)?;
    let path = dir.join("larum.yaml");
    let catalogue = dir.join("alerts.yaml").display().to_string();
    std::fs::write(
        &path,
        format!(
            "windows: [1m]\nlimits: {{series: 1_000_000, memory: 16GiB}}\nalerts:\n  catalogue: {catalogue}\n  alertmanagers: [\"{alertmanager}\"]\n"
        ),
    )?;
    Ok(path.display().to_string())
}

fn with_alertmanager(kafka: &Kafka, alertmanager: &Alertmanager) -> anyhow::Result<Vec<f64>> {
    let runs = std::env::var("LARUM_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    let (next, seconds) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    let one = |run: usize| -> anyhow::Result<f64> {
        let tenant = format!("probe-{run}");
        // Spread evenly, whatever the number of runs.
        let sent = probe(kafka, &tenant, Duration::from_micros((run as u64 * 97_003) % 250_000))?;
        wait_until(&format!("the alert of {tenant}"), PATIENCE, || {
            alertmanager.alerts("tenant", &tenant).ok().filter(|list| !list.is_empty())
        })?;
        Ok(sent.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= runs {
                    return Ok(());
                }
                let took = one(run)?;
                seconds.lock().map_err(|_| anyhow::anyhow!("a run panicked"))?.push(took);
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a run panicked"))?)
    })?;
    seconds.into_inner().map_err(|_| anyhow::anyhow!("a run panicked"))
}

fn with_prometheus(kafka: &Kafka, prometheus: &Prometheus) -> anyhow::Result<Vec<f64>> {
    let one = |run: usize| -> anyhow::Result<f64> {
        let tenant = format!("slow-{run}");
        let phase = Duration::from_millis(run as u64 * PROMETHEUS_OVER_S * 1_000 / PROMETHEUS_RUNS as u64);
        let sent = probe(kafka, &tenant, phase)?;
        let query = format!("ALERTS{{alertstate=\"firing\",tenant=\"{tenant}\"}}");
        wait_until("the alert", PATIENCE, || prometheus.query(&query).ok().filter(|found| !found.is_empty()))?;
        Ok(sent.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..PROMETHEUS_RUNS).map(|run| scope.spawn(move || one(run))).collect();
        runs.into_iter().map(|run| run.join().map_err(|_| anyhow::anyhow!("a run panicked"))?).collect()
    })
}

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or("P8".into());
    let (kafka, alertmanager) = (Kafka::start_with_heap(1024)?, Alertmanager::start()?);
    kafka.create_topic(TOPIC, 4, &[("message.timestamp.type", "LogAppendTime")])?;
    let (dir, state, port) = (tempfile::tempdir()?, tempfile::tempdir()?, free_port());
    let config = write_configuration(dir.path(), &alertmanager.url)?;
    let (brokers, state) = (kafka.brokers(), state.path().display().to_string());
    let listen = format!("127.0.0.1:{port}");
    let run = ["run", "--config", &config, "--brokers", &brokers, "--topic", TOPIC, "--state", &state];
    let _larum = Child::spawn(larum()?, run.iter().chain(&["--listen", &listen]), &[])?;
    let load = ["load", "--brokers", &brokers, "--topic", TOPIC, "--rate", "20000", "--for", "30m", "--tenants", "300"];
    let _load = Child::spawn(larum()?, load, &[])?;
    std::thread::sleep(Duration::from_secs(10));
    let mut seconds = with_alertmanager(&kafka, &alertmanager)?;
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() as f64 * share).ceil() as usize).clamp(1, seconds.len()) - 1];
    println!("{} runs: median {:.2} s, 99 % {:.2} s, worst {:.2} s", seconds.len(), at(0.5), at(0.99), at(1.0));
    if wanted == "P8b" {
        let prometheus = Prometheus::start_ruled(&listen, 15_000, RULES)?;
        let up = || prometheus.query("up == 1").ok().filter(|found| !found.is_empty());
        wait_until("the first scrape", PATIENCE, up)?;
        let slow = median(&with_prometheus(&kafka, &prometheus)?);
        println!("Prometheus, scrape and rule every 15 s: median {slow:.1} s over {PROMETHEUS_RUNS} runs");
        println!("P8 {:.2}", at(0.99));
        println!("P8b {:.3}", at(0.5) / slow);
        return Ok(());
    }
    println!("P8 {:.2}", at(0.99));
    Ok(())
}
