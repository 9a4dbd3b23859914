//! `larum demo`: a broker inside the process, realistic load with an attack, and the whole pipeline on it.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use larum_aggregate::time::{SECOND_NS, WINDOWS};
use larum_event::{CodeParts, Kind, Outcome};
use larum_kafka::{ClientSettings, EmbeddedBroker, LoadProducer};
use larum_load::{Generator, Planned, Profile, Scenario, Truth};
use larum_view::View;

use crate::cli::DemoArgs;
use crate::clock::now_ns;
use crate::config::{Config, Overrides};
use crate::run::{self, Running};
use crate::state;

const TOPIC: &str = "auth-events";
const DEAD_LETTERS: &str = "larum-dead-letters";
const PARTITIONS: i32 = 4;
/// The embedded broker forgets what is more than 5 MiB behind: at 400 bytes a record this is well below, even if all
/// are in one partition.
const AHEAD_MAX: u64 = 6_000;
/// Tenants in the table.
const ROWS: usize = 8;
/// Time for the pipeline to show the last record.
const DRAIN: Duration = Duration::from_secs(30);

/// The generator's thread, and what it has sent.
struct Load {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<anyhow::Result<Truth>>,
}

/// Runs the demo.
///
/// # Errors
/// Something cannot be started, or the pipeline's counts differ from the truth.
pub async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let broker = EmbeddedBroker::start()?;
    broker.create_topic(TOPIC, PARTITIONS)?;
    broker.create_topic(DEAD_LETTERS, 1)?;
    let state = std::env::temp_dir().join(format!("larum-demo-{}", std::process::id()));
    let config = Arc::new(config(&broker, args, state.clone())?);
    let result = on(&config, args).await;
    if let Err(error) = std::fs::remove_dir_all(&state) {
        tracing::debug!(%error, "the demo's state stays behind");
    }
    result
}

fn config(broker: &EmbeddedBroker, args: &DemoArgs, state: PathBuf) -> anyhow::Result<Config> {
    let overrides = Overrides {
        brokers: Some(broker.brokers()),
        topics: vec![TOPIC.into()],
        state: Some(state),
        listen: Some(args.listen.clone()),
        web_config: None,
        alertmanagers: Vec::new(),
        start_at: Some("earliest".into()),
        dead_letter_topic: Some(DEAD_LETTERS.into()),
    };
    Config::resolve("windows: [1m, 5m]", &overrides).map_err(|problems| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(texts.join("\n"))
    })
}

async fn on(config: &Arc<Config>, args: &DemoArgs) -> anyhow::Result<()> {
    let mut running = run::start(config.clone(), state::open(config, false)?, None).await?;
    println!("metrics on http://{}/metrics; an attack on one tenant begins after 20 s", config.listen);
    let load = start_load(config, args)?;
    let began_ns = now_ns();
    let mut ages_ms = Histogram::<u64>::new(3).context("histogram of ages")?;
    let stopped = watch(&mut running, &load, args, began_ns, &mut ages_ms).await;
    load.stop.store(true, Ordering::Relaxed);
    let truth = tokio::task::spawn_blocking(move || load.thread.join());
    let truth = truth.await?.map_err(|_| anyhow::anyhow!("the generator died"))??;
    stopped?;
    drain(&running, &truth).await;
    let differences = summary(&running, &truth, &ages_ms);
    running.stop().await?;
    if differences > 0 {
        anyhow::bail!("{differences} series differ from what was sent");
    }
    Ok(())
}

fn start_load(config: &Config, args: &DemoArgs) -> anyhow::Result<Load> {
    let settings = ClientSettings { group: "larum-load".into(), ..config.kafka.clone() };
    let producer = LoadProducer::new(&settings, TOPIC, Default::default())?;
    let attack = Planned { scenario: Scenario::BruteForce, start_s: 20.0, duration_s: 86_400.0 };
    let profile = Profile {
        seed: args.seed,
        tenants: 40,
        events_per_second: args.rate,
        start_ns: now_ns(),
        scenarios: vec![attack],
        ..Profile::default()
    };
    let mut generator = Generator::new(profile).context("these figures do not fit")?;
    let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stop_load, read_load) = (stop.clone(), read.clone());
    let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
        let mut sent = 0u64;
        while !stop_load.load(Ordering::Relaxed) {
            // The broker would forget what the pipeline has not read.
            if sent.saturating_sub(read_load.load(Ordering::Relaxed)) >= AHEAD_MAX {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let record = generator.next_record();
            let wait_ns = record.due_ns - now_ns();
            if wait_ns > 0 {
                std::thread::sleep(Duration::from_nanos(wait_ns as u64));
            }
            while !producer.send(None, record.key, record.bytes, None)? {
                std::thread::sleep(Duration::from_millis(1));
            }
            sent += 1;
        }
        producer.flush(DRAIN)?;
        anyhow::ensure!(producer.failed() == 0, "{} records were not delivered", producer.failed());
        Ok(generator.truth())
    })?;
    Ok(Load { stop, read, thread })
}

/// Shows the signals until the time is over, somebody interrupts, or the engine ends.
async fn watch(
    running: &mut Running,
    load: &Load,
    args: &DemoArgs,
    began_ns: i64,
    ages_ms: &mut Histogram<u64>,
) -> anyhow::Result<()> {
    let until_ns = args.length.map_or(i64::MAX, |length| began_ns.saturating_add(length.as_nanos() as i64));
    let mut shown_ns = began_ns;
    let every_ns = if std::io::stdout().is_terminal() { SECOND_NS } else { 5 * SECOND_NS };
    while now_ns() < until_ns && !load.thread.is_finished() {
        tokio::select! {
            result = running.ended() => return result,
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let durable = running.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        let read: i64 = durable.view.partitions().map(|p| p.next).sum();
        load.read.store(read.max(0) as u64, Ordering::Relaxed);
        if let Some(tick) = durable.view.sources().find_map(|s| s.tick) {
            let age_ns = now_ns() - (i64::from(tick) + 1) * SECOND_NS;
            ages_ms.saturating_record((age_ns.max(0) / 1_000_000) as u64);
        }
        if now_ns() - shown_ns >= every_ns {
            shown_ns = now_ns();
            show(&durable.view, (shown_ns - began_ns) / SECOND_NS)?;
        }
    }
    Ok(())
}

/// The tenants with the most failed logins in the last minute.
fn show(view: &View, elapsed_s: i64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        write!(out, "\x1b[2J\x1b[H")?;
    }
    let Some(source) = view.sources().next() else { return Ok(()) };
    let Some(span_s) = view.span_s(source, WINDOWS[0]) else { return Ok(()) };
    let mut rows = Vec::new();
    view.scan(&WINDOWS[..1], |counted| {
        let (mut failed, mut succeeded) = (0, 0);
        for (code, count) in counted.counts.windows().iter().flat_map(|window| &window.codes) {
            let CodeParts { kind, outcome, .. } = code.parts();
            match (kind, outcome) {
                (Kind::Login, Outcome::Failure) => failed += count,
                (Kind::Login, Outcome::Success) => succeeded += count,
                _ => {}
            }
        }
        let def = counted.key.def;
        rows.push((failed, succeeded, view.name(def.tenant), view.name(def.region)));
    });
    rows.sort_unstable_by(|a, b| b.cmp(a));
    let records: u64 = view.partitions().map(|p| p.tally.offsets()).sum();
    writeln!(out, "{elapsed_s:>5} s  {records} records visible; failed logins, last minute:")?;
    writeln!(out, "  {:<24} {:<16} {:>9} {:>9} {:>7}", "tenant", "region", "failed/s", "ok/s", "failed")?;
    for (failed, succeeded, tenant, region) in rows.into_iter().take(ROWS) {
        let share = 100.0 * failed as f64 / (failed + succeeded).max(1) as f64;
        let (failed_s, ok_s) = (failed as f64 / span_s, succeeded as f64 / span_s);
        let mark = if share > 80.0 && failed_s > 5.0 { "  <- attack" } else { "" };
        writeln!(out, "  {tenant:<24} {region:<16} {failed_s:>9.2} {ok_s:>9.2} {share:>6.1}%{mark}")?;
    }
    out.flush()
}

/// Waits until the last record is visible.
async fn drain(running: &Running, truth: &Truth) {
    let until_ns = now_ns() + DRAIN.as_nanos() as i64;
    while now_ns() < until_ns {
        let visible: i64 = {
            let durable = running.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
            durable.view.partitions().map(|p| p.visible_next).sum()
        };
        if visible >= truth.records as i64 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Series by metric name and labels in the order of their names.
type Series = BTreeMap<(String, Vec<String>), u64>;

/// Totals of the view, as the truth names them.
fn counted(view: &View) -> Series {
    let mut series = Series::new();
    view.scan(&[], |counted| {
        let def = counted.key.def;
        let [tenant, region, service] = [def.tenant, def.region, def.component].map(|name| view.name(name));
        for (code, count) in counted.counts.codes() {
            let CodeParts { kind, op, outcome, reason, .. } = code.parts();
            let (op, outcome, reason) = (op.as_str(), outcome.as_str(), reason.as_str());
            let (name, labels) = match kind {
                Kind::Login => ("larum_login_attempts_total", vec![outcome, reason, region, tenant]),
                Kind::Token => ("larum_token_requests_total", vec![op, outcome, reason, region, tenant]),
                Kind::Permission => ("larum_permission_decisions_total", vec![op, outcome, region, service, tenant]),
                Kind::Change => ("larum_change_events_total", vec![op, region, service]),
                Kind::Audit => ("larum_audit_records_total", vec![service, region]),
            };
            *series.entry((name.into(), labels.into_iter().map(String::from).collect())).or_default() += count;
        }
    });
    series
}

/// Compares, series by series; gives the number of differences.
fn summary(running: &Running, truth: &Truth, ages_ms: &Histogram<u64>) -> usize {
    let durable = running.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
    let got = counted(&durable.view);
    let want: Series = truth
        .series()
        .map(|(name, labels, count)| ((name.into(), labels.iter().map(|l| l.1.to_string()).collect()), count))
        .collect();
    let mut differences = 0;
    for series in want.keys().chain(got.keys().filter(|s| !want.contains_key(*s))) {
        let (sent, seen) = (want.get(series).unwrap_or(&0), got.get(series).unwrap_or(&0));
        if sent != seen {
            differences += 1;
            println!("  differs: {} {}: sent {sent}, counted {seen}", series.0, series.1.join(" "));
        }
    }
    let rejected: u64 = durable.view.partitions().map(|p| p.tally.rejected_total()).sum();
    let sent_bad: u64 = truth.rejected.values().sum();
    if rejected != sent_bad {
        differences += 1;
        println!("  differs: refused records: sent {sent_bad}, counted {rejected}");
    }
    println!(
        "\n{} records sent, {} series compared, {differences} differ; {sent_bad} malformed records, {rejected} refused",
        truth.records,
        want.len()
    );
    println!(
        "what was visible ended {} ms (median), {} ms (99 %) before the present",
        ages_ms.value_at_quantile(0.5),
        ages_ms.value_at_quantile(0.99)
    );
    differences
}
