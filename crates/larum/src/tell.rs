//! Changes of the platform as log records, each with its own time and trace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use larum_aggregate::{Change, ChangePlace, SourceId};
use larum_event::Code;
use larum_export::otlp::Told;
use larum_view::View;

/// After a start, changes of the last so many seconds are told again: the end before may have come in between. Their place
/// in the topic tells that they are the same.
const AGAIN_S: u32 = 60;

/// Knows which changes were told.
#[derive(Debug, Default)]
pub struct Teller {
    told: BTreeMap<SourceId, BTreeSet<ChangePlace>>,
}

impl Teller {
    /// Knows what the view held at start.
    pub fn new(view: &View) -> Teller {
        let mut told = BTreeMap::new();
        for source in view.sources() {
            let recent = source.tick.unwrap_or(0).saturating_sub(AGAIN_S);
            let old = source.changes.iter().filter(|change| change.tick < recent);
            told.insert(source.def.id, old.map(|change| change.place).collect());
        }
        Teller { told }
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
    if is_thing && text.parse::<IpAddr>().is_err() { text } else { "(not shown)" }
}

fn told_of(change: &Change, source: &str, (topic, partition): (&str, i32), now_ns: i64) -> Told {
    let op = Code(change.code).parts().op.as_str();
    let of = |text: &Option<String>| text.as_deref().map(shown).unwrap_or_default().to_string();
    let (subject, from, to) = (of(&change.subject), of(&change.from), of(&change.to));
    let what = if subject.is_empty() { change.service.clone() } else { subject.clone() };
    let moved = if from.is_empty() && to.is_empty() { String::new() } else { format!(": {from} -> {to}") };
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
        text: format!("{op} of {what} in {}{moved}", change.region),
        time_ns: change.place.at_ns,
        observed_ns: now_ns,
        trace: change.trace_id.map(|trace_id| (trace_id, change.span_id.unwrap_or_default())),
        attributes: attributes.into_iter().filter(|(_, text)| !text.is_empty()).collect(),
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
        for other in ["", "j.doe@example.com", "a\nb", "key=sk_live", "üñ", "203.0.113.7", &"x".repeat(65)] {
            assert_eq!(shown(other), "(not shown)");
        }
    }
}
