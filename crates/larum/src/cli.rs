//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use larum_load::{Planned, Scenario};

use crate::config::{Overrides, duration};
use crate::inspect::RecordPlace;
use crate::logging::LogFormat;

/// Reads authentication events from Kafka and serves exact golden signals to Prometheus.
///
/// Nothing that is visible is lost or counted twice, whatever is killed when: what a scrape shows is durable first.
///
/// Try it without anything else:      larum demo
/// Against your Kafka:                larum run --brokers localhost:9092 --topic auth-events
/// Is my configuration right?         larum check --config config/larum.yaml
#[derive(Debug, Parser)]
#[command(name = "larum", version, verbatim_doc_comment)]
pub struct Cli {
    /// How lines on stderr look.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read, count and serve until SIGTERM (then one last commit, exit code 0).
    Run(RunArgs),
    /// Show it all on this machine: a broker inside the process, realistic load, an attack, and the pipeline on it.
    Demo(DemoArgs),
    /// Write realistic load into a topic, and the truth about it into a file.
    Load(LoadArgs),
    /// Name every problem of a configuration and its alert catalogue at once; exit code 64 if there is one.
    Check(ConfigArgs),
    /// Show one record of a topic, what is understood of it, and where it counts: alerts name such records.
    Inspect(InspectArgs),
}

/// Where the configuration comes from; flags override the file.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Configuration file; config/larum.yaml is the commented reference.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, value_name = "HOST:PORT,...")]
    pub brokers: Option<String>,
    /// Topic to read; may come several times.
    #[arg(long = "topic", value_name = "NAME")]
    pub topics: Vec<String>,
    /// Directory of the store, one per process.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address of /metrics, /-/ready and /-/healthy.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// TLS and users of that address, a file as Prometheus' exporters have it.
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Alertmanager to tell, scheme, host and port; may come several times.
    #[arg(long = "alertmanager", value_name = "URL")]
    pub alertmanagers: Vec<String>,
    /// First start only: where totals begin: end, earliest, or a time such as 2026-03-14T09:20:00Z.
    #[arg(long, value_name = "WHERE")]
    pub start_at: Option<String>,
    /// Topic for records that do not decode.
    #[arg(long, value_name = "NAME")]
    pub dead_letter_topic: Option<String>,
}

impl ConfigArgs {
    /// The flags as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            brokers: self.brokers.clone(),
            topics: self.topics.clone(),
            state: self.state.clone(),
            listen: self.listen.clone(),
            web_config: self.web_config.clone(),
            alertmanagers: self.alertmanagers.clone(),
            start_at: self.start_at.clone(),
            dead_letter_topic: self.dead_letter_topic.clone(),
        }
    }
}

/// `larum run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Begin a new epoch: put the store aside, count from the start position again, with new start times.
    #[arg(long)]
    pub reset_state: bool,
}

/// `larum inspect`
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The record, as in auth-events/0@4711. It is shown whole, with whatever it says about people.
    #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
    pub place: RecordPlace,
    /// How to reach Kafka, and how the topic is read.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|d| if d.is_zero() { Err("must be above 0".into()) } else { Ok(d) })
}

/// Reads `brute-force@20s+60s`: name, begin, length.
fn planned(text: &str) -> Result<Planned, String> {
    let (name, times) = text.split_once('@').unwrap_or((text, "20s+60s"));
    let (start, length) = times.split_once('+').unwrap_or((times, "60s"));
    let scenario: Scenario = name.parse().map_err(|e: larum_load::UnknownScenario| e.to_string())?;
    let (start_s, duration_s) = (duration(start)?.as_secs_f64(), positive_duration(length)?.as_secs_f64());
    Ok(Planned { scenario, start_s, duration_s })
}

/// `larum demo`
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// End by itself after so long, with a summary; exit code 1 if the pipeline's counts differ from the truth.
    #[arg(long = "for", value_name = "TIME", value_parser = positive_duration)]
    pub length: Option<Duration>,
    /// Everyday events per second.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// Seed of the load.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Address of /metrics.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464")]
    pub listen: String,
}

/// `larum load`
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// Explain the scenarios and end.
    #[arg(long)]
    pub list: bool,
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, value_name = "HOST:PORT,...", default_value = "localhost:9092")]
    pub brokers: String,
    /// Reach Kafka as this file's section `kafka` says, in place of --brokers.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Topic to write to; created if it is not there.
    #[arg(long, default_value = "auth-events")]
    pub topic: String,
    /// Partitions of a topic that has to be created.
    #[arg(long, default_value_t = 4)]
    pub partitions: i32,
    /// Stop after so many records.
    #[arg(long)]
    pub events: Option<u64>,
    /// Stop after so long.
    #[arg(long = "for", value_name = "TIME", value_parser = positive_duration)]
    pub length: Option<Duration>,
    /// Everyday events per second of event time.
    #[arg(long, default_value_t = 10_000.0)]
    pub rate: f64,
    /// Do not wait for the wall clock: write as fast as the broker takes it.
    #[arg(long)]
    pub fast: bool,
    /// Seed: the same seed and figures give the same events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Tenants, by Zipf's law.
    #[arg(long, default_value_t = 200)]
    pub tenants: usize,
    /// Regions, 1 to 12.
    #[arg(long, default_value_t = 4)]
    pub regions: usize,
    /// Share of events 200 to 600 s late.
    #[arg(long, default_value_t = 0.05)]
    pub late: f64,
    /// Share of events 2 to 24 h ahead.
    #[arg(long, default_value_t = 0.001)]
    pub skewed: f64,
    /// Share of records that break the contract.
    #[arg(long, default_value_t = 0.001)]
    pub malformed: f64,
    /// Follow each region's day, trough to peak 1 to 5.
    #[arg(long)]
    pub diurnal: bool,
    /// Something that goes wrong, as in brute-force@20s+60s (name, begin, length); see --list. May come several times.
    #[arg(long = "scenario", value_name = "NAME@BEGIN+LENGTH", value_parser = planned)]
    pub scenarios: Vec<Planned>,
    /// File for the truth: exact counts per series, scenarios with their times, as JSON.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn scenarios_are_read_with_their_times() {
        let plan = planned("degraded-iam@5s+2m").unwrap();
        assert_eq!((plan.scenario, plan.start_s, plan.duration_s), (Scenario::DegradedIam, 5.0, 120.0));
        assert!(planned("nonsense").unwrap_err().contains("brute-force"));
        assert!(planned("brute-force@5").is_err());
    }
}
