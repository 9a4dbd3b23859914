//! Conditions of the alert catalogue: YAML to what can be judged, of whom it is asked.

use std::time::Duration;

use larum_aggregate::Distinct;
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, WINDOWS, Window};
use larum_alert::catalogue::{At, AuditWhat, BurnPair, Condition, Health, Objective, Per};
use larum_alert::history::SPANS_S;
use larum_event::{Kind, Op};
use larum_view::Measure;

use super::reader::{Reader, duration};

pub(super) fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| match text {
        "" => "is missing: a number".to_string(),
        _ => format!("takes a number from {} to {}, not {text}", range.start(), range.end()),
    })
}

fn any_number(reader: &mut Reader<'_>, key: &'static str, default: &str) -> f64 {
    reader.parsed(key, default, |text| number(text, 0.0..=1e15)).unwrap_or(0.0)
}

pub(super) fn measure(reader: &mut Reader<'_>, key: &'static str) -> Option<Measure> {
    let name = reader.required_text(key);
    let found = Measure::named(&name);
    if found.is_none() && !name.is_empty() {
        let all: Vec<&str> = Measure::ALL.iter().map(|measure| measure.as_str()).collect();
        reader.complain(key, &format!("takes one of {}, not {name}", all.join(", ")));
    }
    found
}

fn measures(reader: &mut Reader<'_>, key: &'static str) -> Vec<Measure> {
    let names = reader.texts(key);
    let found: Vec<Measure> = names.iter().filter_map(|name| Measure::named(name)).collect();
    if found.len() < names.len() || names.is_empty() {
        let all: Vec<&str> = Measure::ALL.iter().map(|measure| measure.as_str()).collect();
        reader.complain(key, &format!("takes one or some of {}", all.join(", ")));
    }
    found
}

/// A span that there is for what is judged.
fn span(reader: &mut Reader<'_>, key: &'static str, default: &str, spans_s: &[u32]) -> u32 {
    let parse = |text: &str| {
        let span_s = duration(text)?.as_secs() as u32;
        let known = spans_s.contains(&span_s).then_some(span_s);
        known.ok_or_else(|| {
            let all: Vec<String> = spans_s.iter().map(|span_s| Window { span_s: *span_s }.name()).collect();
            format!("takes {}, not {text}", all.join(", "))
        })
    };
    reader.parsed(key, default, parse).unwrap_or(300)
}

const KINDS: [&str; 14] = [
    "all",
    "any",
    "rate",
    "ratio",
    "rise",
    "silent",
    "different",
    "burn",
    "quantile",
    "audit",
    "changed",
    "regions",
    "services",
    "health",
];

pub(super) fn conditions(
    reader: &mut Reader<'_>,
    key: &'static str,
    per: Per,
    objectives: &[Objective],
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for mut one in reader.list_of_maps(key) {
        conditions.extend(condition(&mut one, per, objectives));
        reader.close(one);
    }
    conditions
}

/// One condition: a map with a single key, its kind.
fn condition(reader: &mut Reader<'_>, per: Per, objectives: &[Objective]) -> Option<Condition> {
    let kinds: Vec<&'static str> =
        KINDS.into_iter().chain(["consumer", "always"]).filter(|kind| reader.has(kind)).collect();
    let [kind] = kinds[..] else {
        reader.complain("all", &format!("or another single kind of condition is wanted: {}", KINDS.join(", ")));
        return None;
    };
    match kind {
        "all" => return Some(Condition::All(conditions(reader, "all", per, objectives))),
        "any" => return Some(Condition::Any(conditions(reader, "any", per, objectives))),
        "always" => {
            let inner = reader.map("always");
            reader.close(inner);
            return Some(Condition::Always);
        }
        _ => {}
    }
    let mut inner = reader.map(kind);
    let condition = match kind {
        "health" | "consumer" => of_runtime(&mut inner, kind),
        "regions" | "services" => across(&mut inner, kind, objectives),
        "audit" | "changed" => of_platform(&mut inner, kind),
        _ => of_windows(&mut inner, kind, per, objectives),
    };
    check_fits(&mut inner, kind, per);
    reader.close(inner);
    condition
}

/// Not everything can be asked of everybody.
fn check_fits(inner: &mut Reader<'_>, kind: &str, per: Per) {
    let fits = match kind {
        "health" => matches!(per, Per::Feed | Per::Larum),
        "consumer" => per == Per::Consumer,
        "audit" => per == Per::Queue,
        "different" => per == Per::Tenant,
        "regions" => per == Per::Source,
        "services" | "quantile" => per == Per::Region,
        "burn" => matches!(per, Per::Tenant | Per::Region),
        "changed" => matches!(per, Per::Region | Per::Tenant),
        _ => matches!(per, Per::Tenant | Per::Region | Per::Source),
    };
    let at_region = inner.optional_text("at").as_deref() == Some("region");
    if at_region && per == Per::Source {
        inner.complain("at", "a source has no region of its own");
    }
    if !fits {
        inner.complain("at", &format!("cannot be asked here: `{kind}` does not go with `per` of this alert"));
    }
}

fn of_runtime(reader: &mut Reader<'_>, kind: &str) -> Option<Condition> {
    if kind == "consumer" {
        let states = [("stall", 2), ("warn", 1), ("stop", 3), ("rewind", 4)];
        return Some(Condition::Consumer { at_least: reader.choice("at_least", &states) });
    }
    let what = reader.required_text("what");
    let found = Health::ALL.iter().find(|(name, _)| *name == what).map(|(_, health)| *health);
    if found.is_none() {
        let all: Vec<&str> = Health::ALL.iter().map(|(name, _)| *name).collect();
        reader.complain("what", &format!("takes one of {}", all.join(", ")));
    }
    Some(Condition::Health { what: found?, above: any_number(reader, "above", "") })
}

fn across(reader: &mut Reader<'_>, kind: &str, objectives: &[Objective]) -> Option<Condition> {
    let at_least = reader.number("at_least", 2, 1..=1_000) as usize;
    let of = Box::new(Condition::All(conditions(reader, "of", Per::Region, objectives)));
    Some(match kind {
        "regions" => Condition::Regions { at_least, of },
        _ => Condition::Services { at_least, of },
    })
}

fn of_platform(reader: &mut Reader<'_>, kind: &str) -> Option<Condition> {
    if kind == "changed" {
        let within = reader.duration("within", "30m", Duration::from_secs(60)..=Duration::from_secs(86_400));
        return Some(Condition::Changed { within_s: within.as_secs() as u32 });
    }
    let words = [
        ("lag", AuditWhat::Lag),
        ("backlog", AuditWhat::Backlog),
        ("growth", AuditWhat::Growth),
        ("missing", AuditWhat::Missing),
    ];
    Some(Condition::Audit { what: reader.choice("what", &words), above: any_number(reader, "above", "") })
}

fn of_windows(reader: &mut Reader<'_>, kind: &str, per: Per, objectives: &[Objective]) -> Option<Condition> {
    let at = reader.choice("at", &[("own", At::Own), ("region", At::Region)]);
    let windows_s = WINDOWS.map(|window| window.span_s);
    let is_of_tenant = per == Per::Tenant && at == At::Own;
    let spans_s: &[u32] = if is_of_tenant { &windows_s } else { &SPANS_S };
    let condition = match kind {
        "burn" => burn(reader, objectives),
        "different" => {
            let what = reader.choice("what", &[("accounts", Distinct::Accounts), ("sources", Distinct::Sources)]);
            let short_s: Vec<u32> = windows_s.into_iter().filter(|s| *s <= DISTINCT_WINDOW.span_s).collect();
            let window = Window { span_s: span(reader, "window", "5m", &short_s) };
            Some(Condition::Different { what, window, above: any_number(reader, "above", "") })
        }
        "quantile" => quantile(reader, &windows_s),
        "ratio" => {
            let (of, to) = (measure(reader, "of"), measures(reader, "to"));
            let usual = reader.has("usual").then(|| span(reader, "usual", "1h", spans_s));
            let factor = any_number(reader, "factor", "1");
            Some(Condition::Ratio {
                of: of?,
                to,
                window_s: span(reader, "window", "5m", spans_s),
                above: any_number(reader, "above", ""),
                floor: any_number(reader, "floor", ""),
                usual: usual.map(|span_s| (span_s, factor)),
                at,
            })
        }
        _ => {
            let of = measures(reader, "of");
            let window_s = span(reader, "window", "5m", spans_s);
            Some(match kind {
                "rate" => Condition::Rate { of, window_s, above: any_number(reader, "above", ""), at },
                "rise" => Condition::Rise {
                    of,
                    window_s,
                    usual_s: span(reader, "usual", "1h", spans_s),
                    factor: any_number(reader, "factor", ""),
                    floor: any_number(reader, "floor", ""),
                    at,
                },
                _ => Condition::Silent {
                    of,
                    window_s,
                    usual_s: span(reader, "usual", "6h", spans_s),
                    floor: any_number(reader, "floor", ""),
                    at,
                },
            })
        }
    };
    if is_of_tenant && let Some(condition) = &condition {
        check_measures(reader, condition);
    }
    condition
}

/// Of a tenant only some measures are kept.
fn check_measures(reader: &mut Reader<'_>, condition: &Condition) {
    let used: Vec<Measure> = match condition {
        Condition::Rate { of, .. } | Condition::Rise { of, .. } | Condition::Silent { of, .. } => of.clone(),
        Condition::Ratio { of, to, .. } => to.iter().copied().chain([*of]).collect(),
        _ => Vec::new(),
    };
    if let Some(other) = used.iter().find(|measure| !measure.is_of_tenants()) {
        reader.complain("of", &format!("{} is not kept of tenants; give `at: region`", other.as_str()));
    }
}

fn burn(reader: &mut Reader<'_>, objectives: &[Objective]) -> Option<Condition> {
    let name = reader.required_text("objective");
    let objective = objectives.iter().position(|objective| objective.name == name);
    if objective.is_none() {
        reader.complain("objective", &format!("{name} is not among the objectives"));
    }
    let (mut pairs, floor) = (Vec::new(), any_number(reader, "floor", ""));
    for mut pair in reader.list_of_maps("pairs") {
        pairs.push(BurnPair {
            long_s: span(&mut pair, "long", "", &SPANS_S),
            short_s: span(&mut pair, "short", "", &SPANS_S),
            factor: any_number(&mut pair, "factor", ""),
            floor: any_number(&mut pair, "floor", &floor.to_string()),
        });
        reader.close(pair);
    }
    if pairs.is_empty() {
        reader.complain("pairs", "needs at least one, as in `{long: 1h, short: 5m, factor: 14.4}`");
    }
    Some(Condition::Burn { objective: objective?, pairs })
}

fn quantile(reader: &mut Reader<'_>, windows_s: &[u32]) -> Option<Condition> {
    let with_histograms: Vec<u32> = windows_s.iter().copied().filter(|s| *s <= HISTOGRAM_WINDOW_S).collect();
    let words: Vec<(&str, Op)> = Op::listed(Kind::Token).iter().map(|op| (op.as_str(), *op)).collect();
    let usual = reader.has("usual").then(|| Window { span_s: span(reader, "usual", "1h", &with_histograms) });
    let factor = any_number(reader, "factor", "1");
    Some(Condition::Quantile {
        op: reader.choice("op", &words),
        quantile: reader.parsed("quantile", "0.95", |text| number(text, 0.01..=0.999))?,
        window: Window { span_s: span(reader, "window", "5m", &with_histograms) },
        above: any_number(reader, "above", ""),
        floor: any_number(reader, "floor", ""),
        usual: usual.map(|window| (window, factor)),
    })
}

/// What can be read and never hold.
pub(super) fn check_whole<'c>(reader: &mut Reader<'_>, per: Per, conditions: impl Iterator<Item = &'c Condition>) {
    let mut wrong = None;
    for condition in conditions {
        condition.visit(&mut |one| match one {
            Condition::All(inner) | Condition::Any(inner) if inner.is_empty() => wrong = Some("holds an empty list"),
            Condition::Health { what, .. } if what.is_of_feed() != (per == Per::Feed) => {
                wrong = Some("asks for the health of a feed `per: larum`, or of Larum `per: feed`");
            }
            Condition::Services { of, .. } if !is_of_services(of) => {
                wrong = Some("asks services for something else than a ratio of assign and assign_failure up to 6h");
            }
            _ => {}
        });
    }
    if let Some(wrong) = wrong {
        reader.complain("when", wrong);
    }
}

fn is_of_services(of: &Condition) -> bool {
    let known = |measure: &Measure| matches!(measure, Measure::Assign | Measure::AssignFailure);
    let mut is_so = true;
    of.visit(&mut |one| {
        is_so &= match one {
            Condition::All(_) | Condition::Any(_) => true,
            Condition::Ratio { of, to, window_s, at: At::Own, usual: None, .. } => {
                known(of) && to.iter().all(known) && WINDOWS.iter().any(|window| window.span_s == *window_s)
            }
            _ => false,
        };
    });
    is_so
}
