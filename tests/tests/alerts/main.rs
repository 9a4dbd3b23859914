//! Every alert of the shipped catalogue that is judged on the data's clock: it fires, comes near and stays silent, and ends.
//! Those on the wall clock are tested where they are judged, in `crates/larum/src/health.rs`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod days;
mod drill;

use std::sync::Arc;

use drill::{Drill, nothing, profile};
use larum::config::shipped;
use larum_alert::Catalogue;
use larum_load::Scenario;

/// Scenarios begin when an hour is there to compare with.
const BEGIN: i64 = 3_900;

fn drill(alert: &'static str, rate: f64, scenario: Scenario, bad: i64, within_s: i64, over_s: i64) -> Drill {
    let (begin, length) = (BEGIN as f64, bad as f64);
    Drill {
        alert,
        profile: profile(rate, Some((scenario, begin, length))),
        bad_s: (BEGIN, BEGIN + bad),
        within_s,
        over_s,
        // The same for a few seconds only.
        near: (profile(rate, Some((scenario, begin, 4.0))), nothing),
        catalogue: shipped(),
    }
}

/// Event time at `second`, ms.
fn at_ms(second: i64) -> i64 {
    (1_773_480_000 + second) * 1_000
}

fn is_bad(second: i64) -> bool {
    (BEGIN..BEGIN + 600).contains(&second)
}

#[test]
fn login_failures() {
    drill("LoginFailures", 30.0, Scenario::BruteForce, 900, 420, 2_500).run();
}

#[test]
fn login_failure_spike() {
    drill("LoginFailureSpike", 60.0, Scenario::CredentialStuffing, 600, 30, 900).run();
}

#[test]
fn availability_burn() {
    drill("AvailabilityBurn", 60.0, Scenario::DegradedIam, 600, 90, 8_000).run();
}

#[test]
fn availability_burn_slow() {
    drill("AvailabilityBurnSlow", 10.0, Scenario::DegradedIam, 6_000, 6_000, 24_000).run();
}

#[test]
fn tenant_availability_burn() {
    let mut catalogue = Catalogue::clone(&shipped());
    let stems = ["acme", "bluefin", "cobalt", "dune", "ember", "fjord", "granite", "harbor"];
    let tenants: Vec<String> = (0..12).map(|rank| format!("{}-{rank:04}", stems[rank / 2])).collect();
    catalogue.objectives.iter_mut().for_each(|objective| objective.tenants.extend(tenants.clone()));
    let catalogue = Arc::new(catalogue);
    Drill { catalogue, ..drill("TenantAvailabilityBurn", 60.0, Scenario::DegradedIam, 600, 120, 8_000) }.run();
}

#[test]
fn several_regions_failing() {
    let mut drill = drill("SeveralRegionsFailing", 60.0, Scenario::DegradedIam, 600, 120, 1_200);
    // The second of its sort hits the next region.
    let second = drill.profile.scenarios[0];
    let near = std::mem::replace(&mut drill.near.0, drill.profile.clone());
    drill.profile.scenarios.push(second);
    assert_eq!(near.scenarios.len(), 1, "one region alone comes near");
    drill.run();
}

#[test]
fn token_issue_slow() {
    drill("TokenIssueSlow", 60.0, Scenario::DegradedIam, 600, 300, 900).run();
}

#[test]
fn token_refresh_slow() {
    drill("TokenRefreshSlow", 60.0, Scenario::RefreshOverload, 600, 300, 900).run();
}

#[test]
fn latency_burn() {
    let drill = drill("LatencyBurn", 60.0, Scenario::SlowTokens, 600, 180, 8_000);
    // Six times as slow is not slow enough.
    let near =
        (profile(60.0, Some((Scenario::RefreshOverload, BEGIN as f64, 600.0))), nothing as fn(i64) -> Vec<String>);
    Drill { near, ..drill }.run();
}

#[test]
fn refresh_slows_under_load() {
    drill("RefreshSlowsUnderLoad", 60.0, Scenario::RefreshOverload, 600, 300, 1_500).run();
}

#[test]
fn limiter_pressure() {
    drill("LimiterPressure", 150.0, Scenario::RateLimiter, 600, 240, 900).run();
}

#[test]
fn permission_assignments_failing() {
    /// One service alone has a defect of its own.
    fn of_one_service(second: i64) -> Vec<String> {
        let one = |service: &&str| {
            let outcome = if is_bad(second) && *service == "scim-bridge" { "failure" } else { "success" };
            let time = at_ms(second);
            format!(
                r#"{{"kind":"permission","op":"assign","time":{time},"tenant":"acme","region":"eu-west-1","service":"{service}","outcome":"{outcome}","latency_ms":9}}"#
            )
        };
        ["role-service", "group-service", "scim-bridge"].iter().map(one).collect()
    }
    let drill = drill("PermissionAssignmentsFailing", 60.0, Scenario::AssignmentsFailing, 600, 180, 900);
    Drill { near: (profile(20.0, None), of_one_service), ..drill }.run();
}

#[test]
fn escalation_slow() {
    /// A second is what people bear.
    fn less_slow(second: i64) -> Vec<String> {
        let one = |hop: &&str| {
            let (time, ms) = (at_ms(second), if is_bad(second) && *hop == "evaluator" { 900 } else { 9 });
            format!(
                r#"{{"kind":"permission","op":"escalate","hop":"{hop}","time":{time},"tenant":"acme","region":"eu-west-1","service":"role","outcome":"success","latency_ms":{ms}}}"#
            )
        };
        ["gateway", "evaluator", "enforcer"].iter().map(one).collect()
    }
    let drill = drill("EscalationSlow", 60.0, Scenario::SlowEscalation, 600, 240, 900);
    Drill { near: (profile(20.0, None), less_slow), ..drill }.run();
}

#[test]
fn escalation_denied() {
    drill("EscalationDenied", 60.0, Scenario::EscalationChain, 600, 240, 900).run();
}

#[test]
fn change_followed_by_shift() {
    drill("ChangeFollowedByShift", 60.0, Scenario::BadDeploy, 600, 120, 1_800).run();
}

#[test]
fn region_silent() {
    drill("RegionSilent", 60.0, Scenario::RegionLost, 600, 150, 300).run();
}

#[test]
fn tenant_silent() {
    let begin = 22_500;
    let planned = |length| profile(8.0, Some((Scenario::TenantSilent, begin as f64, length)));
    Drill {
        profile: planned(3_600.0),
        bad_s: (begin, begin + 3_600),
        // A quarter of an hour is nothing.
        near: (planned(900.0), nothing),
        ..drill("TenantSilent", 8.0, Scenario::TenantSilent, 0, 2_000, 600)
    }
    .run();
}

#[test]
fn audit_records_missing() {
    let drill = drill("AuditRecordsMissing", 60.0, Scenario::AuditGaps, 600, 150, 600);
    // Within the queue's grace of a minute nothing is missing.
    let near = (profile(60.0, Some((Scenario::AuditGaps, BEGIN as f64, 50.0))), nothing as fn(i64) -> Vec<String>);
    Drill { near, ..drill }.run();
}

#[test]
fn audit_delivery_delayed() {
    drill("AuditDeliveryDelayed", 60.0, Scenario::AuditStall, 600, 120, 900).run();
}

#[test]
fn audit_backlog_growing() {
    drill("AuditBacklogGrowing", 150.0, Scenario::AuditStall, 600, 420, 900).run();
}

#[test]
fn every_alert_of_the_catalogue_has_a_scenario_here_or_in_health() {
    let source = include_str!("main.rs");
    let health = include_str!("../../../crates/larum/src/health.rs");
    for alert in &shipped().alerts {
        let tested = if alert.per.is_of_runtime() { health } else { source };
        assert!(tested.contains(&format!("\"{}\"", alert.name)), "{} has no scenario", alert.name);
    }
}
