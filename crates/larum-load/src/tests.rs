//! The generator against the real decoder: what is counted is what is in the bytes.

use std::collections::BTreeMap;

use larum_event::{Decoder, Kind, Limits, Op};

use crate::profile::SECOND_NS;
use crate::{Generator, Planned, Profile, Scenario, Truth};

fn generator(profile: Profile) -> Generator {
    Generator::new(profile).expect("a profile within its ranges")
}

fn scenario(scenario: Scenario, start_s: f64, duration_s: f64) -> Vec<Planned> {
    vec![Planned { scenario, start_s, duration_s }]
}

/// Runs until the nominal time is `seconds` after the start.
fn run(profile: Profile, seconds: i64) -> Truth {
    let end_ns = profile.start_ns + seconds * SECOND_NS;
    let mut generator = generator(profile);
    while generator.next_record().due_ns < end_ns {}
    generator.truth()
}

/// Logins by outcome, for the tenants and regions that `of` takes.
fn outcomes(truth: &Truth, of: impl Fn(&str, &str) -> bool) -> BTreeMap<&str, u64> {
    let mut outcomes = BTreeMap::new();
    for (key, count) in truth.logins.iter().filter(|(key, _)| of(&key.tenant, &key.region)) {
        *outcomes.entry(key.outcome.as_str()).or_default() += count;
    }
    outcomes
}

fn near(value: f64, want: f64, tolerance: f64) {
    assert!((value / want - 1.0).abs() < tolerance, "{value} is not {want}");
}

#[test]
fn a_recount_by_the_decoder_is_the_truth() {
    let at =
        |(at, scenario): (usize, &Scenario)| Planned { scenario: *scenario, start_s: at as f64 * 0.4, duration_s: 3.0 };
    let scenarios: Vec<Planned> = Scenario::ALL.iter().enumerate().map(at).collect();
    let profile = Profile { malformed_share: 0.01, scenarios, ..Profile::default() };
    let mut generator = generator(profile);
    let mut decoder = Decoder::new(Limits::default());
    let (mut recount, mut due_before) = (Truth::default(), i64::MIN);
    for _ in 0..100_000 {
        let record = generator.next_record();
        assert!(record.due_ns >= due_before);
        due_before = record.due_ns;
        recount.records += 1;
        recount.bytes += record.bytes.len() as u64;
        match decoder.decode(record.bytes) {
            Err(reject) => *recount.rejected.entry(reject.to_string()).or_default() += 1,
            Ok(event) => {
                assert!(event.tenant().as_bytes() == record.key || event.kind() == Kind::Change, "{event:?}");
                *recount.events.entry(event.kind().as_str().to_string()).or_default() += 1;
                let ahead_ms = (event.time_ns() - record.due_ns).div_euclid(1_000_000);
                match ahead_ms {
                    7_200_000.. => recount.skewed += 1,
                    ..=-200_000 => recount.late += 1,
                    _ => assert!((-2_301..=0).contains(&ahead_ms), "{ahead_ms}"),
                }
                let (op, region, service) = (event.op(), event.region().unwrap(), event.service().unwrap());
                if event.kind() == Kind::Change {
                    let (region, service, op) = (region.into(), service.into(), op.as_str().into());
                    *recount.changes.entry(crate::truth::ChangeKey { region, service, op }).or_default() += 1;
                }
                if let Some(audit) = event.audit().filter(|_| op == Op::Deliver) {
                    let (queue, region) = (audit.queue.into(), region.into());
                    *recount.audits.entry(crate::truth::AuditKey { queue, region }).or_default() += 1;
                }
                let Some(outcome) = event.outcome() else { continue };
                let op = if event.kind() == Kind::Login { Op::Other } else { op };
                let count = u64::from(event.count());
                recount.add((event.tenant(), region, service), (event.kind(), op), (outcome, event.reason()), count);
            }
        }
    }
    let truth = generator.truth();
    // Up to 300 ms back, nobody can tell out of order from late delivery.
    recount.out_of_order = truth.out_of_order;
    recount.scenarios.clone_from(&truth.scenarios);
    assert_eq!(truth, recount);
    assert_eq!(truth.rejected.len(), 19, "{:?}", truth.rejected);
    assert_eq!(truth.scenarios.len(), Scenario::ALL.len());
}

#[test]
fn each_malformed_record_is_refused_for_its_reason() {
    let mut generator = generator(Profile { malformed_share: 1.0, ..Profile::default() });
    let mut decoder = Decoder::new(Limits::default());
    for at in 0..19 * 200 {
        let record = generator.next_record();
        let text = String::from_utf8_lossy(record.bytes).into_owned();
        assert_eq!(decoder.decode(record.bytes).err(), Some(crate::flaw::FLAWS[at % 19]), "{text}");
    }
}

#[test]
fn same_seed_same_bytes() {
    let scenarios = scenario(Scenario::BruteForce, 0.1, 0.2);
    let profile = |seed| Profile { seed, scenarios: scenarios.clone(), ..Profile::default() };
    let bytes = |seed| {
        let mut generator = generator(profile(seed));
        let mut all = Vec::new();
        for _ in 0..5_000 {
            let record = generator.next_record();
            all.extend_from_slice(record.bytes);
            all.extend_from_slice(record.key);
            all.extend_from_slice(&record.due_ns.to_le_bytes());
        }
        all
    };
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn the_mix_is_as_documented() {
    let profile = Profile::default();
    let truth = run(profile.clone(), 20);
    let records = truth.records as f64;
    near(records, profile.events_per_second * 20.0, 0.001);
    near(truth.bytes as f64 / records, 400.0, 0.03);
    let events: u64 = truth.events.values().sum();
    let rejected: u64 = truth.rejected.values().sum();
    assert_eq!(events + rejected, truth.records);
    near(rejected as f64 / records, profile.malformed_share, 0.2);
    for (kind, share) in [("login", 0.2), ("token", 0.68), ("permission", 0.1), ("audit", 0.019), ("change", 0.001)] {
        near(truth.events[kind] as f64 / events as f64, share, if share < 0.01 { 0.2 } else { 0.05 });
    }
    near(truth.late as f64 / events as f64, profile.late_share, 0.05);
    near(truth.out_of_order as f64 / events as f64, profile.out_of_order_share, 0.02);
    near(truth.skewed as f64 / events as f64, profile.skewed_share, 0.2);

    for (parity, failure_ratio) in [("02468", 0.1), ("13579", 0.5)] {
        let outcomes = outcomes(&truth, |tenant, _| tenant.ends_with(|digit| parity.contains(digit)));
        let (failed, done) = (outcomes["failure"] as f64, outcomes["success"] as f64);
        near(failed / (failed + done), failure_ratio, 0.1);
        assert!(outcomes["challenge"] > 0 && outcomes["denied"] > 0, "{outcomes:?}");
    }
}

#[test]
fn brute_force_adds_failures_and_nothing_else() {
    let profile = Profile { scenarios: scenario(Scenario::BruteForce, 2.0, 6.0), ..Profile::default() };
    let calm = run(Profile { scenarios: Vec::new(), ..profile.clone() }, 10);
    let truth = run(profile.clone(), 10);
    let hit = &truth.scenarios[0];
    let tenant = hit.tenant.as_deref().expect("an attack hits a tenant");
    assert_eq!((hit.name.as_str(), hit.region.as_deref(), tenant), ("brute-force", None, "cobalt-0100"));
    let at = |seconds| profile.start_ns + seconds * SECOND_NS;
    assert_eq!((hit.start_ns, hit.end_ns), (at(2), Some(at(8))));

    let added = (truth.records - calm.records) as f64;
    near(added / (added + profile.events_per_second * 6.0), 0.3, 0.01);
    assert_eq!(truth.tokens, calm.tokens);
    let others = |truth: &Truth| {
        let mut logins = truth.logins.clone();
        logins.retain(|key, _| key.tenant != tenant);
        logins
    };
    assert_eq!(others(&truth), others(&calm));
    let (mut before, mut after) =
        (outcomes(&calm, |name, _| name == tenant), outcomes(&truth, |name, _| name == tenant));
    let (failed_before, failed_after) = (before.remove("failure").unwrap_or(0), after.remove("failure").unwrap_or(0));
    assert_eq!(before, after);
    assert_eq!((failed_after - failed_before) as f64, added);
    let unknown = |truth: &Truth| -> u64 {
        let keys = truth.logins.iter().filter(|(key, _)| key.tenant == tenant && key.reason == "unknown_account");
        keys.map(|(_, count)| count).sum()
    };
    near((unknown(&truth) - unknown(&calm)) as f64 / added, 0.1, 0.1);
}

#[test]
fn degradation_breaks_one_region() {
    let profile = Profile { scenarios: scenario(Scenario::DegradedIam, 0.0, 10.0), ..Profile::default() };
    let calm = run(Profile { scenarios: Vec::new(), ..profile.clone() }, 10);
    let truth = run(profile, 10);
    assert_eq!((truth.records, &truth.events), (calm.records, &calm.events));
    assert_eq!(truth.scenarios[0].region.as_deref(), Some("eu-west-1"));
    let broken = |truth: &Truth, hit: bool| {
        let (mut broken, mut all) = (0, 0);
        for (_, labels, count) in truth.series() {
            let of = |name| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
            // Permissions and changes say no reason.
            if of("reason").is_some() && (of("region") == Some("eu-west-1")) == hit {
                all += count;
                broken += if matches!(of("reason"), Some("upstream_error" | "timeout")) { count } else { 0 };
            }
        }
        broken as f64 / all as f64
    };
    near(broken(&truth, true), 0.3, 0.05);
    assert!(broken(&truth, false) < 0.01);
    let done = |truth: &Truth| outcomes(truth, |_, region| region == "eu-west-1")["success"] as f64;
    near(done(&truth) / done(&calm), 0.7, 0.05);
}

#[test]
fn degradation_takes_eight_times_as_long() {
    let median_ms = |scenarios| {
        let mut generator = generator(Profile { regions: 1, scenarios, ..Profile::default() });
        let mut decoder = Decoder::new(Limits::default());
        let mut refreshes = Vec::new();
        for _ in 0..20_000 {
            let record = generator.next_record();
            let Ok(event) = decoder.decode(record.bytes) else { continue };
            if event.op() == Op::Refresh {
                refreshes.extend(event.latency_ns());
            }
        }
        refreshes.sort_unstable();
        refreshes[refreshes.len() / 2] as f64 / 1e6
    };
    near(median_ms(Vec::new()), 15.0, 0.1);
    near(median_ms(scenario(Scenario::DegradedIam, 0.0, 1e6)), 120.0, 0.1);
}

#[test]
fn a_scenario_is_told_once_it_has_begun() {
    let profile = Profile { scenarios: scenario(Scenario::DegradedIam, 2.0, 2.0), ..Profile::default() };
    assert_eq!(run(profile.clone(), 1).scenarios, []);
    assert_eq!(run(profile.clone(), 3).scenarios[0].end_ns, None);
    assert!(run(profile, 5).scenarios[0].end_ns.is_some());
}

#[test]
fn truth_goes_through_json_and_names_its_series() {
    let truth = run(Profile::default(), 1);
    let json = serde_json::to_string(&truth).expect("no map has a structured key");
    assert_eq!(serde_json::from_str::<Truth>(&json).expect("reads what it wrote"), truth);
    let total: u64 = truth.series().map(|(_, _, count)| count).sum();
    let decided = truth.permissions.values().chain(truth.changes.values()).chain(truth.audits.values());
    assert_eq!(total, truth.logins.values().chain(truth.tokens.values()).chain(decided).sum::<u64>());
    for (metric, labels, _) in truth.series() {
        assert!(labels.is_sorted(), "{labels:?}");
        let expected = match metric {
            "larum_login_attempts_total" => 4,
            "larum_change_events_total" => 3,
            "larum_audit_records_total" => 2,
            _ => 5,
        };
        assert_eq!(labels.len(), expected, "{metric}");
    }
}

#[test]
fn scenarios_are_found_by_name_and_explained_in_two_sentences() {
    for scenario in Scenario::ALL {
        assert_eq!(scenario.name().parse(), Ok(*scenario));
        assert_eq!(scenario.explain().matches(". ").count(), 1, "{scenario}");
    }
    let error = "flood".parse::<Scenario>().expect_err("no such scenario");
    assert_eq!(
        error.to_string(),
        "no scenario \"flood\", there are: brute-force, password-spraying, credential-stuffing, rate-limiter, degraded-iam, \
         refresh-overload, bad-deploy, region-lost, tenant-silent, audit-stall, escalation-chain, slow-tokens, \
         assignments-failing, slow-escalation, audit-gaps"
    );
}
