//! The alert catalogue: YAML to checked alerts, and whether each has all that the person who is paged needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use larum_alert::catalogue::{Alert, Catalogue, Condition, Mute, Objective, Override, Per, Severity};
use larum_event::parse_rfc3339_ns;

use super::conditions::{check_whole, conditions, measure, number};
use super::node::{Problem, parse};
use super::reader::Reader;

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

/// Labels that an alert may be grouped by.
const GROUP_BY: [&str; 9] =
    ["alertname", "severity", "source", "region", "tenant", "queue", "group", "topic", "partition"];
/// One incident, one notification: what concerns an alert in a region.
const GROUP_BY_DEFAULT: [&str; 3] = ["alertname", "source", "region"];

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
    let group_by = group_by(reader);
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
        group_by,
        tenants,
        overrides,
        mutes,
    }
}

fn group_by(reader: &mut Reader<'_>) -> Vec<String> {
    let labels = reader.texts("group_by");
    if labels.iter().any(|label| !GROUP_BY.contains(&label.as_str())) {
        reader.complain("group_by", &format!("takes some of {}", GROUP_BY.join(", ")));
    }
    if labels.is_empty() { GROUP_BY_DEFAULT.map(String::from).to_vec() } else { labels }
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

    #[test]
    fn the_shipped_alertmanager_configuration_groups_as_the_catalogue_says() {
        let text = include_str!("../../../../config/alertmanager.yml");
        let said: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("group_by: ")).collect();
        for alert in &read(SHIPPED, None).unwrap().alerts {
            assert_eq!(said, [format!("[{}]", alert.group_by.join(", "))], "{}", alert.name);
        }
    }

    #[test]
    fn what_the_clock_of_the_data_judges_has_a_scenario_of_the_load_generator() {
        let scenario = |line: &str| line.trim().strip_prefix("scenario: ").map(str::to_string);
        let named: Vec<String> = SHIPPED.lines().filter_map(scenario).collect();
        let alerts = read(SHIPPED, None).unwrap().alerts;
        assert_eq!(named.len(), alerts.len());
        for (alert, name) in alerts.iter().zip(named).filter(|(alert, _)| !alert.per.is_of_runtime()) {
            assert!(name.parse::<larum_load::Scenario>().is_ok(), "{}: {name}", alert.name);
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
            ("rate: {of: login, window: 5m, above: 3}\n    group_by: [account]", "group_by takes some of alertname,"),
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
