//! Changes of the platform and what became of alerts as log records, each with its own time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{Change, ChangePlace, SourceId};
use larum_alert::alerts::shown as shown_value;
use larum_alert::{Alerts, Became, Catalogue, Transition};
use larum_event::Code;
use larum_export::otlp::Told;
use larum_view::View;

use crate::annotate::rfc3339;

/// After a start, changes of the last so many seconds are told again: the end before may have come in between. Their place
/// in the topic tells that they are the same.
const AGAIN_S: u32 = 60;

/// Knows what was told.
#[derive(Debug, Default)]
pub struct Teller {
    told: BTreeMap<SourceId, BTreeSet<ChangePlace>>,
    /// Number of the next transition of an alert.
    next: u64,
}

impl Teller {
    /// Knows what the view held at start.
    pub fn new(view: &View, alerts: &Alerts) -> Teller {
        let mut told = BTreeMap::new();
        for source in view.sources() {
            let recent = source.tick.unwrap_or(0).saturating_sub(AGAIN_S);
            let old = source.changes.iter().filter(|change| change.tick < recent);
            told.insert(source.def.id, old.map(|change| change.place).collect());
        }
        let clock_s = view.sources().filter_map(|source| source.tick).min().unwrap_or(0);
        let old = alerts.transitions.iter().rev().find(|transition| transition.at_s + AGAIN_S < clock_s);
        Teller { told, next: old.map_or(0, |transition| transition.number + 1) }
    }

    /// What became of alerts since the last time, observed at `now_ns`; each with its own time, also while a backlog is read.
    pub fn transitions(&mut self, alerts: &Alerts, catalogue: &Catalogue, now_ns: i64) -> Vec<Told> {
        let new = alerts.transitions.iter().filter(|transition| transition.number >= self.next);
        let told = new.map(|transition| told_of_alert(transition, catalogue, now_ns)).collect();
        self.next = alerts.next_number();
        told
    }

    /// The changes that are new in the view, observed at `now_ns`.
    pub fn news(&mut self, view: &View, now_ns: i64) -> Vec<Told> {
        let mut news = Vec::new();
        for source in view.sources() {
            let told = self.told.entry(source.def.id).or_default();
            for change in source.changes.iter().filter(|change| !told.contains(&change.place)) {
                let topic = view.partition(change.place.partition).map(|p| (p.start.topic.as_str(), p.start.partition));
                news.push(told_of(change, &source.def.name, topic.unwrap_or_default(), now_ns));
            }
            *told = source.changes.iter().map(|change| change.place).collect();
        }
        news
    }
}

/// Texts of producers are shown where they look like names of things; others may be anybody's.
fn shown(text: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-+ ".contains(c);
    let is_thing = !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain);
    // With a port or the length of a network behind it, too.
    let is_address = text.parse::<IpAddr>().is_ok()
        || text.split([':', '/']).next().is_some_and(|first| first.parse::<std::net::Ipv4Addr>().is_ok());
    if is_thing && !is_address { text } else { "(not shown)" }
}

/// A change in plain words.
pub fn in_words(change: &Change) -> String {
    let op = Code(change.code).parts().op.as_str();
    let of = |text: &Option<String>| text.as_deref().map(shown).unwrap_or_default().to_string();
    let (subject, from, to) = (of(&change.subject), of(&change.from), of(&change.to));
    let what = if subject.is_empty() { change.service.clone() } else { subject };
    let moved = if from.is_empty() && to.is_empty() { String::new() } else { format!(": {from} -> {to}") };
    format!("{op} of {what} in {}{moved}", change.region)
}

fn told_of(change: &Change, source: &str, (topic, partition): (&str, i32), now_ns: i64) -> Told {
    let op = Code(change.code).parts().op.as_str();
    let of = |text: &Option<String>| text.as_deref().map(shown).unwrap_or_default().to_string();
    let (subject, from, to) = (of(&change.subject), of(&change.from), of(&change.to));
    let attributes = [
        ("larum.source", source.to_string()),
        ("larum.change.op", op.to_string()),
        ("larum.change.id", shown(&change.id).to_string()),
        ("larum.change.service", change.service.clone()),
        ("larum.change.region", change.region.clone()),
        ("larum.change.subject", subject),
        ("larum.change.from", from),
        ("larum.change.to", to),
        ("larum.change.record", format!("{topic}/{partition}@{}", change.place.offset)),
    ];
    Told {
        event: "larum.change",
        text: in_words(change),
        time_ns: change.place.at_ns,
        observed_ns: now_ns,
        trace: change.trace_id.map(|trace_id| (trace_id, change.span_id.unwrap_or_default())),
        attributes: attributes.into_iter().filter(|(_, text)| !text.is_empty()).collect(),
    }
}

fn told_of_alert(transition: &Transition, catalogue: &Catalogue, now_ns: i64) -> Told {
    let Transition { alert: name, became, at_s, instance, .. } = transition;
    let state = match became {
        Became::Firing => "firing",
        Became::Resolved => "resolved",
    };
    let (severity, owner) =
        catalogue.alert(name).map_or(("", ""), |alert| (alert.severity.as_str(), alert.owner.as_str()));
    let mut attributes = vec![
        ("larum.alert.name", name.clone()),
        ("larum.alert.state", state.to_string()),
        ("larum.alert.severity", severity.to_string()),
        ("larum.alert.owner", owner.to_string()),
        ("larum.alert.value", shown_value(instance.value, instance.unit)),
        ("larum.alert.since", rfc3339(i64::from(instance.since_s))),
        ("larum.source", instance.texts.source.clone()),
        ("larum.tenant", instance.texts.tenant.clone()),
        ("larum.region", instance.texts.region.clone()),
        ("larum.queue", instance.texts.queue.clone()),
    ];
    attributes.retain(|(_, text)| !text.is_empty());
    let of = [&instance.texts.tenant, &instance.texts.region, &instance.texts.queue];
    let of: Vec<&str> = of.into_iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    Told {
        event: "larum.alert",
        text: format!("{name} {state} {}", of.join(" ")).trim_end().to_string(),
        time_ns: i64::from(*at_s) * SECOND_NS,
        observed_ns: now_ns,
        trace: None,
        attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_name_of_somebody_is_not_shown() {
        for plain in ["token-issuer", "1.8.2", "eu-west-1/prod", "canary 5"] {
            assert_eq!(shown(plain), plain);
        }
        for other in [
            "",
            "j.doe@example.com",
            "a\nb",
            "key=sk_live",
            "üñ",
            "203.0.113.7",
            "203.0.113.7:443",
            "10.0.0.0/8",
            &"x".repeat(65),
        ] {
            assert_eq!(shown(other), "(not shown)");
        }
    }
}
