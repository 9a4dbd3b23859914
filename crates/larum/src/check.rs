//! `larum check`: every problem of a configuration at once, without touching anything.

use larum_alert::Severity;
use larum_kafka::security::Verify;

use crate::config::{Config, Overrides, Problem};
use crate::memory::{Needs, mib};

/// Exit code of a bad configuration (`EX_USAGE`).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// Reads and resolves; a file that cannot be read is a problem like others.
///
/// # Errors
/// Every problem found.
pub fn resolve(path: Option<&std::path::Path>, overrides: &Overrides) -> Result<Config, Vec<Problem>> {
    let text = match path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            vec![Problem { line: None, text: format!("{} cannot be read: {error}", path.display()) }]
        })?,
    };
    Config::resolve(&text, overrides)
}

/// What a configuration amounts to, in plain words.
pub fn describe(config: &Config) -> String {
    let mut text =
        format!("reads {} from {} by {}\n", topics(config), config.kafka.brokers, config.kafka.security.protocol());
    text += &match &config.dead_letters.topic {
        Some(topic) => format!("refused records go to {topic}\n"),
        None => "refused records are counted only, their bytes are lost: set dead_letters.topic\n".to_string(),
    };
    text += &format!("keeps its state in {}, ", config.state.display());
    text += &match &config.web_config {
        Some(path) => format!("serves {}/metrics under the rules of {}\n", config.listen, path.display()),
        None => format!("serves http://{}/metrics to everybody who reaches it\n", config.listen),
    };
    if let Some(otlp) = &config.otlp {
        text += &format!("pushes metrics to {} every {:?} as {}\n", otlp.link.endpoint, otlp.interval, otlp.instance);
    }
    text += &alerts(config);
    for watched in &config.watched_groups {
        text += &format!("watches group {} in {}\n", watched.group, watched.topics.join(", "));
    }
    text += &format!(
        "holds at most {} tenants and {} keys, shows them in at most {} sample lines, and is planned with {} of memory \
         out of {}\n",
        config.budgets.tenants,
        config.budgets.keys,
        config.series_max,
        mib(Needs::of(config).total_bytes()),
        mib(config.memory_bytes_max)
    );
    text += match &config.kafka.security.tls {
        None => "warning: PLAINTEXT lets anybody between here and the brokers read and alter the events\n",
        Some(tls) if tls.verify == Verify::None => "warning: tls.verify: none trusts whoever answers as a broker\n",
        Some(_) => "",
    };
    text + "advice: set message.timestamp.type=LogAppendTime on the topics; a catch-up under CreateTime cannot clamp a \
            producer's false clock\n"
}

fn alerts(config: &Config) -> String {
    let catalogue = &config.alerts.catalogue;
    let of = |severity: Severity| catalogue.alerts.iter().filter(|alert| alert.severity == severity).count();
    let told = match &config.alerts.receivers.urls[..] {
        [] => "nobody: set alerts.alertmanagers".to_string(),
        urls => urls.join(", "),
    };
    format!(
        "judges {} alerts, {} of which page and {} of which are tickets, {} by a tested scenario, and tells {told}\n",
        catalogue.alerts.len(),
        of(Severity::Page),
        of(Severity::Ticket),
        catalogue.proven.len(),
    )
}

fn topics(config: &Config) -> String {
    let one = |s: &crate::config::SourceConfig| format!("{} (source {})", s.topics.join(", "), s.name);
    config.sources.iter().map(one).collect::<Vec<_>>().join("; ")
}
