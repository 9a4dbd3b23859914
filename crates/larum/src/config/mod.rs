//! Configuration: a YAML file and flags to one resolved, checked value; every problem at once, with its line.

mod alerts;
pub mod catalogue;
mod conditions;
mod kafka;
mod node;
mod otlp;
mod reader;
mod schema;
pub mod web;

pub use reader::duration;
pub use schema::schema;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larum_aggregate::Graces;
use larum_aggregate::time::{LONGEST_WINDOW_S, WINDOWS, Window};
use larum_event::{Limits, Records, parse_rfc3339_ns};
use larum_fold::{Budgets, SourcePolicy};
use larum_kafka::ClientSettings;

use crate::memory::{Needs, mib};
pub use alerts::{AlertsConfig, shipped};
pub use node::Problem;
use node::parse;
pub use otlp::OtlpConfig;
use reader::Reader;

/// Most reading threads unless told otherwise.
const WORKERS_DEFAULT_MAX: usize = 8;
/// Most consumer groups that are watched.
const WATCHED_GROUPS_MAX: usize = 64;

/// Where totals begin at the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the end of the log.
    End,
    /// At the beginning of the log.
    Earliest,
    /// At the first record appended at or after this time, Unix ns.
    Time(i64),
}

/// What happens when the outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Reading waits until the dead-letter topic takes records again.
    Block,
    /// Further refused records are counted and dropped.
    Drop,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// Its label text.
    pub name: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// How its records are read and judged.
    pub policy: SourcePolicy,
    /// Graces of its audit queues.
    pub grace: Graces,
}

/// A consumer group that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedGroup {
    /// Its name.
    pub group: String,
    /// Where it is watched.
    pub topics: Vec<String>,
    /// Up to this lag it is well.
    pub lag_floor: Duration,
}

/// What becomes of refused records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    /// Where they go; `None`: they are counted only.
    pub topic: Option<String>,
    /// Bytes of them that are kept until the topic has them.
    pub outbox_bytes_max: u64,
    /// What happens beyond that.
    pub when_full: WhenFull,
}

/// Everything `larum run` needs, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: ClientSettings,
    /// What is read.
    pub sources: Vec<SourceConfig>,
    /// Consumer groups that are watched.
    pub watched_groups: Vec<WatchedGroup>,
    /// Refused records.
    pub dead_letters: DeadLetterConfig,
    /// Where totals begin at the first start.
    pub start_at: StartAt,
    /// How far back windows are filled at the first start.
    pub warm_up: Duration,
    /// Directory of the store.
    pub state: PathBuf,
    /// Address of the HTTP endpoint.
    pub listen: SocketAddr,
    /// TLS and users of the HTTP endpoint.
    pub web_config: Option<PathBuf>,
    /// Where metrics are pushed.
    pub otlp: Option<OtlpConfig>,
    /// What is judged, and who is told.
    pub alerts: AlertsConfig,
    /// Reading threads.
    pub workers: usize,
    /// Time between commits.
    pub commit_interval: Duration,
    /// Windows that are exposed as gauges.
    pub windows: Vec<Window>,
    /// Slots for names and keys.
    pub budgets: Budgets,
    /// Bounds of decoding.
    pub limits: Limits,
    /// Most sample lines of keys that a scrape holds.
    pub series_max: u64,
    /// Memory that the process may take, bytes.
    pub memory_bytes_max: u64,
}

/// What the command line says; it overrides the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--brokers`
    pub brokers: Option<String>,
    /// `--topic`, each
    pub topics: Vec<String>,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--web-config`
    pub web_config: Option<PathBuf>,
    /// `--alertmanager`, each
    pub alertmanagers: Vec<String>,
    /// `--start-at`
    pub start_at: Option<String>,
    /// `--dead-letter-topic`
    pub dead_letter_topic: Option<String>,
}

/// Sample lines that a key must be able to show at least: what was counted of it, by two outcomes.
const LINES_PER_KEY_MIN: u64 = 2;

impl Config {
    /// Resolves a file's text (empty: none) and the command line.
    ///
    /// # Errors
    /// Every problem found, in the order of lines.
    pub fn resolve(text: &str, overrides: &Overrides) -> Result<Config, Vec<Problem>> {
        let root = parse(text).map_err(|problem| vec![problem])?;
        let mut reader = Reader::new(root.as_ref());
        let config = read(&mut reader, overrides);
        let mut problems = reader.finish();
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What only the whole can show.
    fn check(&self, problems: &mut Vec<Problem>) {
        let mut find = |text: String| problems.push(Problem { line: None, text });
        if self.kafka.brokers.is_empty() {
            find("kafka.brokers is missing: give it in the file or as --brokers host:port".into());
        }
        if self.sources.is_empty() {
            find("no source: give --topic NAME, or `sources:` with a name and topics in the file".into());
        }
        let mut seen = std::collections::HashMap::new();
        let mut names = std::collections::HashSet::new();
        for source in &self.sources {
            if !names.insert(&source.name) {
                find(format!("source {} is there twice; give each a name of its own", source.name));
            }
            for topic in &source.topics {
                if let Some(other) = seen.insert(topic, &source.name) {
                    find(format!(
                        "topic {topic} is in source {other} and in source {}; a topic belongs to one",
                        source.name
                    ));
                }
                if self.dead_letters.topic.as_ref() == Some(topic) {
                    find(format!("topic {topic} is read and is the dead-letter topic as well; that would loop"));
                }
            }
        }
        let needs = Needs::of(self);
        if needs.total_bytes() > self.memory_bytes_max {
            find(format!(
                "the budgets need {} of memory ({}), above limits.memory ({}): lower limits.keys or raise limits.memory",
                mib(needs.total_bytes()),
                needs.explained(),
                mib(self.memory_bytes_max)
            ));
        }
        let lines = self.budgets.keys as u64 * LINES_PER_KEY_MIN;
        if lines > self.series_max {
            find(format!(
                "{} keys need {lines} sample lines at least, above limits.series ({}): lower limits.keys or raise \
                 limits.series",
                self.budgets.keys, self.series_max
            ));
        }
    }
}

/// Reads every section; what is missing has its default. The reference is `config/larum.yaml`.
fn read(reader: &mut Reader<'_>, overrides: &Overrides) -> Config {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sources: Vec<SourceConfig> = Vec::new();
    for mut source in reader.list_of_maps("sources") {
        sources.push(read_source(&mut source));
        reader.close(source);
    }
    if !overrides.topics.is_empty() {
        let name = sources.first().map_or("default".to_string(), |s| s.name.clone());
        let (policy, grace) = sources.first().map(|s| (s.policy.clone(), s.grace.clone())).unwrap_or_default();
        sources = vec![SourceConfig { name, topics: overrides.topics.clone(), policy, grace }];
    }
    let all_topics: Vec<String> = sources.iter().flat_map(|s| s.topics.iter().cloned()).collect();
    let watched_groups = read_watched_groups(reader, &all_topics);
    let mut letters = reader.map("dead_letters");
    let topic = overrides.dead_letter_topic.clone().or(letters.optional_text("topic"));
    let dead_letters = DeadLetterConfig {
        topic,
        outbox_bytes_max: letters.bytes("outbox", 16 << 20, 1 << 20..=1 << 34),
        when_full: letters.choice("when_full", &[("block", WhenFull::Block), ("drop", WhenFull::Drop)]),
    };
    reader.close(letters);
    for (key, default) in [("start_at", "end"), ("listen", "127.0.0.1:9464")] {
        reader.shape(key, serde_json::json!({"type": ["string", "null"], "default": default}));
    }
    let start_at = match &overrides.start_at {
        Some(text) => reader.flag("--start-at", text, start_at),
        None => reader.parsed("start_at", "end", start_at),
    };
    let listen = match &overrides.listen {
        Some(text) => reader.flag("--listen", text, address),
        None => reader.parsed("listen", "127.0.0.1:9464", address),
    };
    let state = overrides.state.clone().unwrap_or_else(|| reader.text("state", "larum-state").into());
    let web_config = overrides.web_config.clone().or(reader.optional_text("web_config").map(PathBuf::from));
    if let Err(problems) = web::load(web_config.as_deref()) {
        problems.iter().for_each(|problem| reader.complain("web_config", &format!("cannot be used: {}", problem.text)));
    }
    let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9464)));
    let otlp = otlp::read(reader, listen.port());
    let alerts = alerts::read(reader, &overrides.alertmanagers, &listen.to_string());
    let mut limits = reader.map("limits");
    let budgets = Budgets {
        tenants: limits.number("tenants", 10_000, 2..=1_000_000) as usize,
        platform_names: limits.number("platform_names", 256, 2..=10_000) as usize,
        keys: limits.number("keys", 50_000, 2..=4_000_000) as usize,
        configured_tenants: limits.texts("known_tenants").into_iter().collect(),
    };
    let record_bytes_max = limits.bytes("record_size", 64 << 10, 1 << 10..=64 << 20) as usize;
    let memory_bytes_max = limits.bytes("memory", 2 << 30, 256 << 20..=1 << 44);
    let series_max = limits.number("series", 100_000, 1_000..=1_000_000_000);
    reader.close(limits);
    Config {
        kafka: kafka::read(reader, overrides),
        sources,
        watched_groups,
        dead_letters,
        start_at: start_at.unwrap_or(StartAt::End),
        warm_up: reader.duration("warm_up", "1h", Duration::ZERO..=Duration::from_secs(7 * 86_400)),
        state,
        listen,
        web_config,
        otlp,
        alerts,
        workers: reader.number("workers", cores.min(WORKERS_DEFAULT_MAX) as u64, 1..=256) as usize,
        commit_interval: reader.duration(
            "commit_interval",
            "250ms",
            Duration::from_millis(10)..=Duration::from_secs(10),
        ),
        windows: read_windows(reader),
        budgets,
        limits: Limits { record_bytes_max },
        series_max,
        memory_bytes_max,
    }
}

fn read_source(source: &mut Reader<'_>) -> SourceConfig {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let longest = Duration::from_secs(u64::from(LONGEST_WINDOW_S));
    let lateness = source.duration("lateness", "60s", Duration::ZERO..=longest);
    let skew = source.duration("skew", "60s", Duration::ZERO..=minutes(60));
    let delay = source.duration("delay", "0s", Duration::ZERO..=minutes(24 * 60));
    let records = [("one", Records::One), ("array", Records::Array), ("lines", Records::Lines)];
    let (name, topics) = (source.required_text("name"), source.texts("topics"));
    if topics.is_empty() {
        source.complain("topics", "needs at least one topic, as in `topics: [auth-events]`");
    }
    let mut audit = source.map("audit");
    let day = Duration::from_secs(86_400);
    let mut grace = Graces {
        default_s: audit.duration("grace", "60s", Duration::ZERO..=day).as_secs() as u32,
        ..Graces::default()
    };
    for mut queue in audit.list_of_maps("queues") {
        let (name, of_queue) = (queue.required_text("name"), queue.duration("grace", "60s", Duration::ZERO..=day));
        grace.by_queue.insert(name, of_queue.as_secs() as u32);
        audit.close(queue);
    }
    source.close(audit);
    SourceConfig {
        name,
        topics,
        grace,
        policy: SourcePolicy {
            records: source.choice("records", &records),
            region: source.optional_text("region").map(Arc::from),
            lateness_ns: lateness.as_nanos() as i64,
            skew_ns: skew.as_nanos() as i64,
            delay_s: delay.as_secs() as u32,
        },
    }
}

fn read_watched_groups(reader: &mut Reader<'_>, all_topics: &[String]) -> Vec<WatchedGroup> {
    let mut groups: Vec<WatchedGroup> = Vec::new();
    let floors = Duration::from_secs(1)..=Duration::from_secs(86_400);
    for mut watched in reader.list_of_maps("watched_groups") {
        let (group, mut topics) = (watched.required_text("group"), watched.texts("topics"));
        if topics.is_empty() {
            topics = all_topics.to_vec();
        }
        if groups.iter().any(|other| other.group == group) {
            watched.complain("group", &format!("{group} is there twice; list its topics in one place"));
        }
        groups.push(WatchedGroup { group, topics, lag_floor: watched.duration("lag_floor", "60s", floors.clone()) });
        reader.close(watched);
    }
    if groups.len() > WATCHED_GROUPS_MAX {
        reader.complain(
            "watched_groups",
            &format!("takes up to {WATCHED_GROUPS_MAX} groups: each has a client of its own"),
        );
    }
    groups
}

fn read_windows(reader: &mut Reader<'_>) -> Vec<Window> {
    let names = reader.texts("windows");
    if names.is_empty() {
        return vec![WINDOWS[1], WINDOWS[3]];
    }
    let mut windows = Vec::new();
    for name in names {
        match WINDOWS.iter().find(|w| w.name() == name) {
            Some(window) => windows.push(*window),
            None => {
                let all = WINDOWS.map(Window::name).join(", ");
                reader.complain("windows", &format!("knows {all}, not {name}"));
            }
        }
    }
    windows.sort_unstable();
    windows.dedup();
    windows
}

fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "end" => Ok(StartAt::End),
        "earliest" => Ok(StartAt::Earliest),
        time => parse_rfc3339_ns(time.as_bytes())
            .map(StartAt::Time)
            .ok_or_else(|| format!("takes end, earliest or a time such as 2026-03-14T09:20:00Z, not {time}")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("takes an address and port such as 127.0.0.1:9464, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let found = Config::resolve(text, &Overrides::default()).expect_err("no problem found");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_reference_configuration_is_the_defaults() {
        let text = include_str!("../../../../config/larum.yaml");
        let from_file = Config::resolve(text, &Overrides::default()).unwrap();
        let flags = Overrides {
            brokers: Some("localhost:9092".into()),
            topics: vec!["auth-events".into()],
            dead_letter_topic: Some("larum-dead-letters".into()),
            ..Overrides::default()
        };
        let mut from_flags = Config::resolve("", &flags).unwrap();
        from_flags.sources[0].name = "auth".into();
        from_flags.workers = from_file.workers;
        assert_eq!(from_file, from_flags);
    }

    #[test]
    fn every_problem_is_named_at_once_with_its_line() {
        let found = problems(
            "kafka:\n  broker: localhost:9092\nsources:\n  - name: a\n    topics: [t]\n    lateness: 5\nlisten: here\n\
             limits:\n  tenants: many\nwindows: [5m, 7m]\nstart_at: yesterday\n",
        );
        assert_eq!(
            found,
            [
                "line 2: kafka.broker is not known; did you mean brokers?",
                "line 6: sources[0].lateness takes a number and a unit (ms, s, m, h, d), as in 60s, not 5",
                "line 7: listen takes an address and port such as 127.0.0.1:9464, not here",
                "line 9: limits.tenants takes a whole number from 2 to 1000000, not many",
                "line 10: windows knows 1m, 5m, 30m, 1h, 6h, not 7m",
                "line 11: start_at takes end, earliest or a time such as 2026-03-14T09:20:00Z, not yesterday",
                "kafka.brokers is missing: give it in the file or as --brokers host:port",
            ]
        );
    }

    #[test]
    fn secrets_and_certificates_are_files_and_go_with_tls_only() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("password");
        std::fs::write(&secret, "x").unwrap();
        let with = |kafka: &str| {
            let text = format!("kafka: {{brokers: b, {kafka}}}\nsources: [{{name: a, topics: [t]}}]\n");
            let resolved = Config::resolve(&text, &Overrides::default());
            resolved
                .map(|c| c.kafka.security)
                .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        };
        let sasl = format!("sasl: {{user: larum, password_file: {}}}", secret.display());
        let security = with(&format!("protocol: SASL_SSL, {sasl}, client_options: {{client.rack: a}}")).unwrap();
        assert_eq!((security.protocol(), security.options.len()), ("SASL_SSL", 1));
        for (kafka, why) in [
            (format!("protocol: SSL, {sasl}"), "kafka.sasl needs protocol: SASL_SSL"),
            (sasl, "kafka.sasl needs protocol: SASL_SSL"),
            ("protocol: SASL_SSL".into(), "needs a section sasl"),
            ("tls: {ca: x}".into(), "kafka.tls needs protocol"),
            ("protocol: SSL, tls: {ca: /no/such/ca}".into(), "needs /no/such/ca, which cannot be read"),
            ("protocol: SSL, tls: {certificate: a}".into(), "belong together"),
            ("protocol: SASL_SSL, sasl: {mechanism: OAUTHBEARER, user: u}".into(), "takes token_file"),
            ("protocol: SASL_SSL, sasl: {password: hunter2}".into(), "kafka.sasl.password is not known"),
            ("client_options: {plugin.library.paths: evil}".into(), "not plugin.library.paths"),
            ("client_options: {enable.ssl.certificate.verification: false}".into(), "kafka.client_options takes"),
        ] {
            let found = with(&kafka).unwrap_err();
            assert!(found.contains(why), "{kafka}: {found}");
        }
    }

    #[test]
    fn groups_are_watched_where_told_or_everywhere() {
        let text = "sources: [{name: a, topics: [t, u]}]\nkafka: {brokers: b}\n\
                    watched_groups: [{group: g}, {group: h, topics: [v], lag_floor: 5s}]\n";
        let config = Config::resolve(text, &Overrides::default()).unwrap();
        let watched: Vec<_> =
            config.watched_groups.iter().map(|w| (w.topics.join(" "), w.lag_floor.as_secs())).collect();
        assert_eq!(watched, [("t u".to_string(), 60), ("v".to_string(), 5)]);
        let twice = text.replace("group: h", "group: g");
        let found = Config::resolve(&twice, &Overrides::default()).unwrap_err();
        assert_eq!(
            found[0].to_string(),
            "line 3: watched_groups[1].group g is there twice; list its topics in one place"
        );
    }

    #[test]
    fn what_only_the_whole_shows_is_found_too() {
        assert_eq!(problems("").len(), 2);
        let twice = "kafka: {brokers: b}\nsources:\n- {name: a, topics: [t]}\n- {name: a, topics: [t, d]}\n\
                     dead_letters: {topic: d}\nlimits: {keys: 4000000}\n";
        let found = problems(twice).join("\n");
        for part in
            ["source a is there twice", "topic t is in source a", "that would loop", "of memory", "sample lines"]
        {
            assert!(found.contains(part), "{part}\n{found}");
        }
        assert!(problems("kafka: {brokers: b}\nkafka: {}")[0].contains("line 2: kafka is there twice"));
        assert!(problems("a: [")[0].starts_with("line "));
    }
}
