//! The alert catalogue: YAML to checked alerts, and whether each has all that the person who is paged needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use larum_aggregate::Distinct;
use larum_aggregate::time::{DISTINCT_WINDOW, HISTOGRAM_WINDOW_S, WINDOWS, Window};
use larum_alert::catalogue::{Alert, AuditWhat, BurnPair, Catalogue, Health, Mute, Objective, Override, Per, Severity};
use larum_alert::catalogue::{At, Condition};
use larum_alert::history::SPANS_S;
use larum_event::{Kind, Op, parse_rfc3339_ns};
use larum_view::Measure;

use super::node::{Problem, parse};
use super::reader::{Reader, duration};

/// The catalogue that is used unless another one is configured.
pub const SHIPPED: &str = include_str!("../../../../config/alerts.yaml");
/// Most alerts of a catalogue.
const ALERTS_MAX: usize = 256;
/// What a runbook has to say, as headings.
pub const RUNBOOK_PARTS: [&str; 9] = [
    "Owner",
    "Severity",
    "Dashboard",
    "Meaning",
    "Impact",
    "Diagnosis",
    "Mitigation",
    "Escalation",
    "How it was tested",
];

/// Tenants by the name of their tier.
type Tiers = Vec<(String, BTreeSet<String>)>;

/// Reads a catalogue. With `runbooks`, the directory beside it, every alert must have a complete one there.
///
/// # Errors
/// Every problem found, in the order of lines.
pub fn read(text: &str, runbooks: Option<&Path>) -> Result<Catalogue, Vec<Problem>> {
    let root = parse(text).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(root.as_ref());
    let mut catalogue = Catalogue::default();
    let mut tiers = Tiers::new();
    for mut tier in reader.list_of_maps("tiers") {
        let name = tier.required_text("name");
        tiers.push((name, tier.texts("tenants").into_iter().collect()));
        reader.close(tier);
    }
    for mut objective in reader.list_of_maps("objectives") {
        catalogue.objectives.extend(read_objective(&mut objective, &tiers));
        reader.close(objective);
    }
    let alerts = reader.list_of_maps("alerts");
    if alerts.is_empty() || alerts.len() > ALERTS_MAX {
        reader.complain("alerts", &format!("takes 1 to {ALERTS_MAX} alerts"));
    }
    let mut names = BTreeSet::new();
    for mut one in alerts {
        let alert = read_alert(&mut one, &catalogue.objectives, &tiers, runbooks);
        if !names.insert(alert.name.clone()) {
            one.complain("name", &format!("{} is there twice", alert.name));
        }
        if one.optional_text("scenario").is_some() {
            catalogue.proven.insert(alert.name.clone());
        }
        catalogue.alerts.push(alert);
        reader.close(one);
    }
    let problems = reader.finish();
    if problems.is_empty() { Ok(catalogue) } else { Err(problems) }
}

fn read_objective(reader: &mut Reader<'_>, tiers: &Tiers) -> Option<Objective> {
    let name = reader.required_text("name");
    let (all, bad) = (measure(reader, "all"), measure(reader, "bad"));
    let target = reader.parsed("target", "0.999", |text| number(text, 0.5..=0.999_999));
    Some(Objective { name, all: all?, bad: bad?, target: target?, tenants: tenants(reader, tiers).unwrap_or_default() })
}

/// What `tenants` and `tier` say; `None`: all.
fn tenants(reader: &mut Reader<'_>, tiers: &Tiers) -> Option<BTreeSet<String>> {
    let listed = reader.has("tenants").then(|| reader.texts("tenants").into_iter().collect());
    let Some(tier) = reader.optional_text("tier") else { return listed };
    match tiers.iter().find(|(name, _)| *name == tier) {
        Some((_, tenants)) => Some(listed.unwrap_or_default().union(tenants).cloned().collect()),
        None => {
            reader.complain("tier", &format!("{tier} is not among the tiers"));
            listed
        }
    }
}

fn read_alert(reader: &mut Reader<'_>, objectives: &[Objective], tiers: &Tiers, runbooks: Option<&Path>) -> Alert {
    let name = reader.required_text("name");
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_plain || name.len() > 64 {
        reader.complain("name", "takes letters, digits and _, 64 at most");
    }
    let severities = [("page", Severity::Page), ("ticket", Severity::Ticket), ("none", Severity::None)];
    let pers = [
        ("tenant", Per::Tenant),
        ("region", Per::Region),
        ("queue", Per::Queue),
        ("source", Per::Source),
        ("consumer", Per::Consumer),
        ("feed", Per::Feed),
        ("larum", Per::Larum),
    ];
    for key in ["severity", "per"] {
        if !reader.has(key) {
            reader.complain(key, "is missing");
        }
    }
    let severity = reader.choice("severity", &severities);
    let (owner, summary) = (reader.required_text("owner"), reader.required_text("summary"));
    let dashboard = reader.required_text("dashboard");
    let per = reader.choice("per", &pers);
    let tenants = tenants(reader, tiers);
    if tenants.is_some() && per != Per::Tenant {
        reader.complain("per", "must be tenant where tenants are listed");
    }
    let (when, unless) = (conditions(reader, "when", per, objectives), conditions(reader, "unless", per, objectives));
    if when.is_empty() {
        reader.complain("when", "needs at least one condition");
    }
    let a_day = Duration::ZERO..=Duration::from_secs(86_400);
    let for_s = reader.duration("for", "0s", a_day.clone()).as_secs() as u32;
    let keep_firing_for_s = reader.duration("keep_firing_for", "1m", a_day).as_secs() as u32;
    let (overrides, mutes) = (read_overrides(reader), read_mutes(reader));
    let has_limit = |condition: &Condition| {
        use Condition::{Any, Different, Rate, Ratio, Rise, Silent};
        matches!(condition, Any(_) | Different { .. } | Rate { .. } | Ratio { .. } | Rise { .. } | Silent { .. })
    };
    if !overrides.is_empty() && (per != Per::Tenant || !when.first().is_some_and(has_limit)) {
        reader.complain("overrides", "are for alerts of tenants, whose first condition has a limit of its own");
    }
    check_whole(reader, per, when.iter().chain(&unless));
    if let Some(directory) = runbooks
        && let Err(why) = check_runbook(directory, &name)
    {
        reader.complain("name", &format!("{name} {why}"));
    }
    Alert {
        name,
        severity,
        owner,
        summary,
        dashboard,
        per,
        when,
        unless,
        for_s,
        keep_firing_for_s,
        tenants,
        overrides,
        mutes,
    }
}

/// What can be read and never hold.
fn check_whole<'c>(reader: &mut Reader<'_>, per: Per, conditions: impl Iterator<Item = &'c Condition>) {
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

fn read_overrides(reader: &mut Reader<'_>) -> Vec<Override> {
    let mut overrides = Vec::new();
    for mut one in reader.list_of_maps("overrides") {
        let tenant = one.required_text("tenant");
        let above = one.parsed("above", "", |text| number(text, 0.0..=f64::MAX));
        overrides.extend(above.map(|above| Override { tenant, above }));
        reader.close(one);
    }
    overrides
}

fn read_mutes(reader: &mut Reader<'_>) -> Vec<Mute> {
    let mut mutes = Vec::new();
    for mut one in reader.list_of_maps("mutes") {
        let (tenant, region, queue) =
            (one.optional_text("tenant"), one.optional_text("region"), one.optional_text("queue"));
        let why = one.required_text("why");
        let until = one.parsed("until", "", |text| {
            parse_rfc3339_ns(text.as_bytes())
                .ok_or_else(|| "needs a time such as 2026-12-01T00:00:00Z: a mute ends".into())
        });
        mutes.extend(until.map(|ns| Mute { tenant, region, queue, until_s: Mute::until_s(ns), why }));
        reader.close(one);
    }
    mutes
}

/// Whether the runbook of an alert is there and says all that it has to.
fn check_runbook(directory: &Path, name: &str) -> Result<(), String> {
    let path = directory.join(format!("{name}.md"));
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("needs a runbook: {}: {error}", path.display()))?;
    let missing = missing_parts(&text);
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("has a runbook that says nothing about {}: {}", missing.join(", "), path.display()))
}

/// Parts of a runbook that are missing or empty.
pub fn missing_parts(text: &str) -> Vec<&'static str> {
    let says = |part: &str| {
        let mut lines = text.lines().skip_while(|line| line.trim() != format!("## {part}")).skip(1);
        let first = lines.find(|line| !line.trim().is_empty());
        first.is_some_and(|line| !line.starts_with('#'))
    };
    RUNBOOK_PARTS.into_iter().filter(|part| !says(part)).collect()
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| match text {
        "" => "is missing: a number".to_string(),
        _ => format!("takes a number from {} to {}, not {text}", range.start(), range.end()),
    })
}

fn any_number(reader: &mut Reader<'_>, key: &'static str, default: &str) -> f64 {
    reader.parsed(key, default, |text| number(text, 0.0..=1e15)).unwrap_or(0.0)
}

fn measure(reader: &mut Reader<'_>, key: &'static str) -> Option<Measure> {
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

fn conditions(reader: &mut Reader<'_>, key: &'static str, per: Per, objectives: &[Objective]) -> Vec<Condition> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        read(text, None).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_shipped_catalogue_is_sound_and_has_its_runbooks() {
        let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/runbooks");
        let catalogue = read(SHIPPED, Some(&runbooks)).unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(catalogue.alerts.len() >= 25);
        let names: BTreeSet<String> = catalogue.alerts.iter().map(|alert| format!("{}.md", alert.name)).collect();
        for file in std::fs::read_dir(runbooks).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(names.contains(&name), "{name} is of no alert");
        }
    }

    const SOUND: &str = "alerts:\n  - name: A\n    severity: page\n    owner: me\n    summary: s\n    dashboard: d\n    per: tenant\n    when:\n      - rate: {of: login, window: 5m, above: 3}\n";

    #[test]
    fn what_an_alert_lacks_is_named_with_its_line() {
        assert!(read(SOUND, None).is_ok());
        for (line, what) in
            [("    severity: page\n", "severity"), ("    owner: me\n", "owner"), ("    dashboard: d\n", "dashboard")]
        {
            let found = problems(&SOUND.replace(line, ""));
            assert!(found[0].contains(&format!("alerts[0].{what} is missing")), "{found:?}");
        }
        assert!(problems("alerts:\n").concat().contains("takes 1 to"));
        let runbooks = std::env::temp_dir();
        let found = read(&SOUND.replace("name: A", "name: NoSuchRunbook"), Some(&runbooks)).unwrap_err();
        assert_eq!(found[0].line, Some(2));
        assert!(found[0].text.contains("needs a runbook"), "{found:?}");
    }

    #[test]
    fn conditions_that_cannot_be_judged_are_refused() {
        let with = |condition: &str| problems(&SOUND.replace("rate: {of: login, window: 5m, above: 3}", condition));
        for (condition, says) in [
            (
                "rate: {of: logins, window: 5m, above: 3}",
                "line 9: alerts[0].when[0].rate.of takes one or some of login,",
            ),
            ("rate: {of: login, window: 7m, above: 3}", "window takes 1m, 5m, 30m, 1h, 6h, not 7m"),
            ("rate: {of: login, window: 5m}", "above is missing"),
            ("rate: {of: token_slow, window: 5m, above: 1}", "token_slow is not kept of tenants"),
            ("quantile: {op: refresh, above: 1, floor: 1}", "does not go with `per`"),
            ("burn: {objective: x, floor: 1}", "x is not among the objectives"),
            ("nonsense: {}", "single kind of condition"),
        ] {
            let found = with(condition);
            assert!(found.iter().any(|problem| problem.contains(says)), "{condition}: {found:?}");
        }
    }

    #[test]
    fn parts_of_runbooks_that_say_nothing_are_missing() {
        let whole: String = RUNBOOK_PARTS.iter().map(|part| format!("## {part}\n\nwords\n\n")).collect();
        assert_eq!(missing_parts(&whole), Vec::<&str>::new());
        assert_eq!(missing_parts(&whole.replace("## Impact\n\nwords", "## Impact\n")), ["Impact"]);
    }
}
