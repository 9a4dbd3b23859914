//! What an alert says to the person who is paged: in plain words, with what came just before, records to look at, and links.
//! No account, address or token: names of tenants, regions and services only, as they are shown everywhere.

use std::collections::{BTreeMap, BTreeSet};

use larum_aggregate::time::{SECOND_NS, WINDOWS};
use larum_aggregate::{KeyId, NameId, SourceId};
use larum_alert::alerts::shown;
use larum_alert::judge::EVERYWHERE;
use larum_alert::lifecycle::Number;
use larum_alert::{Alert, Instance};
use larum_event::{Code, CodeParts, Kind, Outcome};
use larum_view::{KeyView, Samples, View};

use crate::config::AlertsConfig;
use crate::tell;

/// A change that came before by no more than this may be the cause, seconds.
const CHANGE_BEFORE_S: i64 = 1_800;
/// Most reasons, records and tenants that are named.
const REASONS_MAX: usize = 3;
const SAMPLES_MAX: usize = 3;
/// Most tenants that a region's alert names.
pub const WORST_MAX: usize = 5;
/// Time before and after that a dashboard shows, seconds.
const AROUND_S: u32 = 1_800;

/// What stands behind an alert, looked up when it begins to fire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    reasons: Vec<(String, u64)>,
    samples: Vec<String>,
    change: Option<String>,
}

/// Of whom facts are wanted, by what they are told with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The source's name.
    pub source: String,
    /// The tenant's, or none for all of a region.
    pub tenant: String,
    /// The region's, or none for all.
    pub region: String,
    /// When it began to hold, Unix seconds.
    pub since_s: u32,
    /// The kinds of events that it is about; none: nobody's requests.
    pub kinds: BTreeSet<Kind>,
}

/// Looks facts up for several at once: what happened is read once.
pub fn facts(view: &View, samples: &Samples, wanted: &[Wanted]) -> Vec<Facts> {
    let mut facts = vec![Facts::default(); wanted.len()];
    let mut reasons: Vec<BTreeMap<Code, u64>> = vec![BTreeMap::new(); wanted.len()];
    let mut keys: Vec<Vec<(SourceId, KeyId)>> = vec![Vec::new(); wanted.len()];
    let source_of = |key: &KeyView| view.source(key.def.source).map_or("", |source| source.def.name.as_str());
    let is_of = |key: &KeyView, wanted: &Wanted| {
        let is = |text: &str, id: NameId| text.is_empty() || text == view.name(id);
        let is_there = is(&wanted.tenant, key.def.tenant) && is(&wanted.region, key.def.region);
        is_there && key.def.tenant != NameId::NONE && !wanted.kinds.is_empty() && wanted.source == source_of(key)
    };
    let is_wanted = |key: &KeyView| match wanted.iter().any(|wanted| is_of(key, wanted)) {
        true => larum_view::Wanted::Windows,
        false => larum_view::Wanted::Nothing,
    };
    // Five minutes.
    view.scan_some(&WINDOWS[1..2], is_wanted, |counted| {
        for at in (0..wanted.len()).filter(|at| is_of(counted.key, &wanted[*at])) {
            keys[at].push((counted.key.def.source, counted.key.def.id));
            for (code, count) in counted.counts.windows().iter().flat_map(|window| &window.codes) {
                let CodeParts { kind, outcome, .. } = code.parts();
                if wanted[at].kinds.contains(&kind) && matches!(outcome, Outcome::Failure | Outcome::Denied) {
                    *reasons[at].entry(*code).or_default() += count;
                }
            }
        }
    });
    for (at, wanted) in wanted.iter().enumerate() {
        facts[at].reasons = top_reasons(&reasons[at]);
        facts[at].samples = places(view, samples, &keys[at], &wanted.kinds);
        facts[at].change = change_before(view, wanted);
    }
    facts
}

fn top_reasons(by_code: &BTreeMap<Code, u64>) -> Vec<(String, u64)> {
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    for (code, count) in by_code {
        let CodeParts { kind, op, outcome, reason, .. } = code.parts();
        // Reasons of permissions are not counted.
        let why = if kind == Kind::Permission { outcome.as_str() } else { reason.as_str() };
        let what = if kind == Kind::Login { kind.as_str() } else { op.as_str() };
        *by_reason.entry(format!("{what} {why}")).or_default() += count;
    }
    let all: u64 = by_reason.values().sum();
    let mut top: Vec<_> = by_reason.into_iter().collect();
    top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    top.truncate(REASONS_MAX);
    top.into_iter().map(|(reason, count)| (reason, (count * 100 + all / 2) / all.max(1))).collect()
}

/// The newest records of these keys, each as `topic/partition@offset`.
fn places(view: &View, samples: &Samples, keys: &[(SourceId, KeyId)], kinds: &BTreeSet<Kind>) -> Vec<String> {
    let is_of = |sample: &&larum_aggregate::Sample| kinds.contains(&Code(sample.code).parts().kind);
    let of_key = |(source, key): &(SourceId, KeyId)| samples.of(*source, *key).filter(is_of).take(SAMPLES_MAX);
    let mut newest: Vec<_> = keys.iter().flat_map(of_key).collect();
    newest.sort_by_key(|sample| (std::cmp::Reverse(sample.tick), sample.partition, sample.offset));
    let place = |sample: &&larum_aggregate::Sample| {
        let start = &view.partition(sample.partition)?.start;
        Some(format!("{}/{}@{}", start.topic, start.partition, sample.offset))
    };
    newest.iter().take(SAMPLES_MAX).filter_map(place).collect()
}

/// The newest change of the platform before it began, there or everywhere.
fn change_before(view: &View, wanted: &Wanted) -> Option<String> {
    let source = view.sources().find(|source| source.def.name == wanted.source)?;
    let at_s = |ns: i64| ns / SECOND_NS;
    let since_s = i64::from(wanted.since_s);
    let is_it = |change: &&larum_aggregate::Change| {
        let before_s = since_s - at_s(change.place.at_ns);
        let is_there = wanted.region.is_empty() || change.region == wanted.region || change.region == EVERYWHERE;
        (0..=CHANGE_BEFORE_S).contains(&before_s) && is_there
    };
    let change = source.changes.iter().rev().find(is_it)?;
    Some(format!("{} at {}", tell::in_words(change), time(at_s(change.place.at_ns))))
}

/// A time as people read it.
pub fn time(unix_s: i64) -> String {
    let text = rfc3339(unix_s);
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// A time, RFC 3339.
pub fn rfc3339(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Days since the 1st of March of year 0: a year ends with its leap day.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Text in a URL's query.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    // From left to right, so that nothing in a value is taken for a place to be filled.
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        let found =
            values.iter().find(|(name, _)| rest[1..].starts_with(name) && rest[1 + name.len()..].starts_with('}'));
        match found {
            Some((name, value)) => {
                text.push_str(value);
                rest = &rest[name.len() + 2..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text + rest
}

/// What is said about an instance; a region's storm names its `worst` tenants.
pub fn annotations(
    alert: &Alert,
    instance: &Instance,
    worst: &[(String, Number)],
    facts: &Facts,
    config: &AlertsConfig,
) -> BTreeMap<&'static str, String> {
    let texts = &instance.texts;
    let (value, usual) =
        (shown(instance.value, instance.unit), instance.usual.map(|usual| shown(usual, instance.unit)));
    let usual_text = usual.clone().unwrap_or_else(|| "unknown".into());
    let values = [
        ("tenant", texts.tenant.as_str()),
        ("region", &texts.region),
        ("source", &texts.source),
        ("queue", &texts.queue),
        ("group", &texts.group),
        ("topic", &texts.topic),
        ("partition", &texts.partition),
        ("value", &value),
        ("usual", &usual_text),
    ];
    let mut said = BTreeMap::new();
    let summary = match instance.tenants {
        0 => filled(&alert.summary, &values),
        tenants => format!("{} for {tenants} tenants of {} at once", alert.name, texts.region),
    };
    said.insert("summary", summary);
    let mut description = format!("Since {} (time of the events).", time(i64::from(instance.since_s)));
    if instance.tenants == 0 {
        description += &format!(" Now {value}.");
        if let Some(usual) = &usual {
            description += &format!(" Usually {usual}.");
        }
    }
    if !worst.is_empty() {
        let names: Vec<String> = worst.iter().map(|(tenant, _)| tenant.clone()).collect();
        description += &format!(" Worst: {}. Single tenants are held back meanwhile.", names.join(", "));
    }
    said.insert("description", description);
    if !facts.reasons.is_empty() {
        let reasons: Vec<String> = facts.reasons.iter().map(|(reason, share)| format!("{reason} {share} %")).collect();
        said.insert("reasons", format!("What failed or was refused in the last 5 minutes: {}", reasons.join(", ")));
    }
    if let Some(change) = &facts.change {
        said.insert("change", change.clone());
    }
    if !facts.samples.is_empty() {
        said.insert("samples", facts.samples.join(", "));
    }
    let from_ms = format!("{}000", instance.since_s.saturating_sub(AROUND_S));
    let to_ms = format!("{}000", instance.held_s.saturating_add(AROUND_S));
    let (dashboard, name) = (encoded(&alert.dashboard), encoded(&alert.name));
    let (tenant, region) = (encoded(&texts.tenant), encoded(&texts.region));
    let places = [
        ("dashboard", dashboard.as_str()),
        ("alert", &name),
        ("tenant", &tenant),
        ("region", &region),
        ("from_ms", &from_ms),
        ("to_ms", &to_ms),
    ];
    said.insert("dashboard_url", filled(&config.dashboard_url, &places));
    said.insert("runbook_url", filled(&config.runbook_url, &places));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back() {
        for unix_s in [946_684_800, 951_782_399, 951_782_400, 1_773_480_413, 4_102_444_800, 1_077_926_400] {
            let text = rfc3339(unix_s);
            assert_eq!(larum_event::parse_rfc3339_ns(text.as_bytes()), Some(unix_s * SECOND_NS), "{text}");
        }
        assert_eq!(time(1_773_480_413), "2026-03-14 09:26:53 UTC");
    }

    #[test]
    fn nothing_in_a_value_is_filled_again() {
        let values = [("tenant", "{region}&x=1"), ("region", "eu")];
        assert_eq!(filled("{tenant} in {region} {other} {", &values), "{region}&x=1 in eu {other} {");
        assert_eq!(encoded("a b&c=\"\n"), "a%20b%26c%3D%22%0A");
    }
}
