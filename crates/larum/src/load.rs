//! `larum load`: generated events into a topic, paced by the wall clock or as fast as the broker takes them.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use larum_aggregate::time::SECOND_NS;
use larum_kafka::{ClientSettings, DELIVERY_TIMEOUT_S, LoadProducer, producer};
use larum_load::{Generator, Profile, Scenario, Truth};

use crate::check;
use crate::cli::LoadArgs;
use crate::clock::now_ns;
use crate::config::{Overrides, Problem};

/// Wait when the client's queue is full, or the next event is not due.
const WAIT: Duration = Duration::from_millis(1);
/// Time for the last records to be acknowledged.
const FLUSH: Duration = Duration::from_secs(60);
/// Records between looks at the clock.
const STRIDE: u64 = 64;

/// The generator's figures from the command line; `start_ns` is when the first event is due.
fn profile(args: &LoadArgs, start_ns: i64) -> Profile {
    Profile {
        seed: args.seed,
        tenants: args.tenants,
        regions: args.regions,
        events_per_second: args.rate,
        start_ns,
        late_share: args.late,
        skewed_share: args.skewed,
        malformed_share: args.malformed,
        diurnal: args.diurnal,
        scenarios: args.scenarios.clone(),
        ..Profile::default()
    }
}

/// How to reach Kafka: as the file says, if there is one.
fn settings(args: &LoadArgs) -> anyhow::Result<ClientSettings> {
    let group = "larum-load".to_string();
    let Some(path) = &args.config else {
        let (brokers, security) = (args.brokers.clone(), Default::default());
        return Ok(ClientSettings { brokers, group, queue_bytes: 64 << 20, security });
    };
    let problems = |found: Vec<Problem>| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let config = check::resolve(Some(path), &Overrides::default()).map_err(|found| anyhow::anyhow!(problems(found)))?;
    Ok(ClientSettings { group, ..config.kafka })
}

/// What `--list` says of the everyday shape that is no scenario.
const DIURNAL: &str = "Any of them can be had on a day that waxes and wanes: --diurnal lets each region follow its local \
                       day, trough to peak 1 to 5; otherwise traffic is level.\n";

/// Runs the command.
///
/// # Errors
/// The figures are out of range, the broker refuses, records were not delivered, or the file cannot be written.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    if args.list {
        let explained = Scenario::ALL.iter().map(|s| format!("{}\n    {}\n\n", s.name(), s.explain()));
        let text = explained.collect::<String>() + DIURNAL;
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let settings = settings(args)?;
    producer::create_topic(&settings, &args.topic, args.partitions)?;
    let producer = LoadProducer::new(&settings, &args.topic, Default::default())?;
    // Fast and of a known size: the events lie in the past and end now, so that a reader catches up with them.
    let span_ns = match args.events.filter(|_| args.fast) {
        Some(events) => (events as f64 / args.rate * SECOND_NS as f64) as i64,
        None => 0,
    };
    let began_ns = now_ns();
    let mut generator = Generator::new(profile(args, began_ns - span_ns)).context("these figures do not fit")?;
    let sent = send(args, &producer, &mut generator, began_ns)?;
    producer.flush(FLUSH)?;
    let seconds = (now_ns() - began_ns) as f64 / SECOND_NS as f64;
    eprintln!("\nsent {sent} records in {seconds:.1} s, {:.0} a second", sent as f64 / seconds);
    check_deliveries(producer.failed())?;
    if let Some(path) = &args.truth {
        write_truth(path, &generator.truth())?;
    }
    Ok(())
}

fn write_truth(path: &std::path::Path, truth: &Truth) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(truth)?;
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// Refuses to go on once a record was given up.
fn check_deliveries(failed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        failed == 0,
        "{failed} records were not delivered, each tried for up to {DELIVERY_TIMEOUT_S} s; the truth file would be wrong \
         and is not written"
    );
    Ok(())
}

fn send(args: &LoadArgs, producer: &LoadProducer, generator: &mut Generator, began_ns: i64) -> anyhow::Result<u64> {
    let (mut sent, mut now, mut shown_ns) = (0u64, began_ns, began_ns);
    let until_ns = args.length.map_or(i64::MAX, |length| began_ns.saturating_add(length.as_nanos() as i64));
    while args.events.is_none_or(|events| sent < events) {
        if sent.is_multiple_of(STRIDE) {
            now = now_ns();
            if now - shown_ns >= SECOND_NS {
                shown_ns = now;
                eprint!("\r{sent} records, {} not acknowledged yet   ", producer.in_flight());
                std::io::stderr().flush()?;
            }
        }
        if now >= until_ns {
            break;
        }
        let record = generator.next_record();
        while !args.fast && record.due_ns > now {
            std::thread::sleep(Duration::from_nanos((record.due_ns - now).clamp(0, 20_000_000) as u64));
            now = now_ns();
        }
        let time_ms = Some(record.due_ns / 1_000_000);
        loop {
            // What was lost makes the truth file wrong: whoever waits for it need not wait to the end, or for a full queue.
            check_deliveries(producer.failed())?;
            if producer.send(None, record.key, record.bytes, time_ms)? {
                break;
            }
            std::thread::sleep(WAIT);
        }
        sent += 1;
    }
    Ok(sent)
}
