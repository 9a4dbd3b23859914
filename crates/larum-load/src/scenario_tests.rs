//! Each scenario shows what its explanation says, as the decoder reads it.

use std::collections::{BTreeMap, BTreeSet};

use larum_event::{Decoder, Hop, Kind, Limits, Op, Outcome, Reason};

use crate::profile::SECOND_NS;
use crate::{Generator, Planned, Profile, Scenario};

/// Trace, span and the span before.
type Step = ([u8; 16], [u8; 8], Option<[u8; 8]>);

/// What is looked at of an event.
#[derive(Clone, Debug)]
struct Seen {
    /// Seconds after the start at which it was due.
    at_s: f64,
    kind: Kind,
    op: Op,
    tenant: String,
    region: String,
    outcome: Option<Outcome>,
    reason: Reason,
    actor: String,
    ip: String,
    ms: f64,
    hop: Option<Hop>,
    service: String,
    trace: Option<Step>,
    audit: Option<(String, u64, i64)>,
}

/// 20 s of 2,000 events a second; the scenario is on from second 5 to 15.
fn events(scenario: Option<Scenario>) -> Vec<Seen> {
    let scenarios = scenario.map(|scenario| Planned { scenario, start_s: 5.0, duration_s: 10.0 });
    let scenarios = scenarios.into_iter().collect();
    let profile = Profile { events_per_second: 2_000.0, tenants: 20, zipf: 0.5, scenarios, ..Profile::default() };
    let start_ns = profile.start_ns;
    let mut generator = Generator::new(profile).expect("a profile within its ranges");
    let (mut decoder, mut seen) = (Decoder::new(Limits::default()), Vec::new());
    loop {
        let record = generator.next_record();
        let at_s = (record.due_ns - start_ns) as f64 / SECOND_NS as f64;
        if at_s >= 20.0 {
            return seen;
        }
        let Ok(event) = decoder.decode(record.bytes) else { continue };
        let text = |text: Option<&str>| text.unwrap_or_default().to_string();
        seen.push(Seen {
            at_s,
            kind: event.kind(),
            op: event.op(),
            tenant: event.tenant().to_string(),
            region: text(event.region()),
            outcome: event.outcome(),
            reason: event.reason(),
            actor: text(event.actor_id()),
            ip: text(event.source_ip()),
            ms: event.latency_ns().unwrap_or(0) as f64 / 1e6,
            hop: event.hop(),
            service: text(event.service()),
            trace: event.trace_id().zip(event.span_id()).map(|(t, s)| (t, s, event.parent_span_id())),
            audit: event.audit().map(|a| {
                let enqueued_ns = a.enqueued_time_ns.unwrap_or(event.time_ns());
                (text(a.producer), a.seq.unwrap_or(0), enqueued_ns)
            }),
        });
    }
}

/// While the scenario is on.
fn on(event: &&Seen) -> bool {
    (5.0..15.0).contains(&event.at_s)
}

fn count(events: &[Seen], wanted: impl Fn(&Seen) -> bool) -> f64 {
    events.iter().filter(on).filter(|event| wanted(event)).count() as f64
}

fn median_ms(events: &[Seen], wanted: impl Fn(&Seen) -> bool) -> f64 {
    let mut ms: Vec<f64> = events.iter().filter(on).filter(|e| wanted(e)).map(|e| e.ms).collect();
    ms.sort_by(f64::total_cmp);
    ms[ms.len() / 2]
}

/// Distinct accounts and addresses of the tenant that attacks hit.
fn distinct(events: &[Seen]) -> (f64, f64) {
    let of = |field: fn(&Seen) -> &String| -> BTreeSet<&String> {
        let logins = events.iter().filter(on).filter(|e| e.kind == Kind::Login && e.tenant == HIT);
        logins.map(field).collect()
    };
    (of(|e| &e.actor).len() as f64, of(|e| &e.ip).len() as f64)
}

/// The tenant of middling popularity, and the first region.
const HIT: &str = "fjord-0010";
const REGION: &str = "eu-west-1";

#[test]
fn spraying_and_stuffing_differ_in_their_sources() {
    let (calm, spraying, stuffing) =
        (events(None), events(Some(Scenario::PasswordSpraying)), events(Some(Scenario::CredentialStuffing)));
    assert!(calm.iter().any(|e| e.tenant == HIT));
    let (accounts, sources) = distinct(&calm);
    let (sprayed, from) = distinct(&spraying);
    assert!(sprayed > accounts + 900.0 && from <= sources + 12.0, "{accounts} {sources} {sprayed} {from}");
    let (stuffed, from) = distinct(&stuffing);
    assert!(stuffed > accounts + 5_000.0 && from > sources + 4_000.0, "{accounts} {sources} {stuffed} {from}");
    let unknown = |events: &[Seen]| count(events, |e| e.tenant == HIT && e.reason == Reason::UnknownAccount);
    assert!(unknown(&stuffing) > unknown(&calm) + 4_000.0);
    assert!(unknown(&spraying) < unknown(&calm) + 20.0);
}

#[test]
fn a_tight_limiter_denies_and_makes_faster() {
    let (calm, limited) = (events(None), events(Some(Scenario::RateLimiter)));
    let denied = |events: &[Seen]| {
        let of_tenant = |e: &Seen| e.tenant == HIT && matches!(e.kind, Kind::Login | Kind::Token);
        let limited = |e: &Seen| of_tenant(e) && e.reason == Reason::RateLimited && e.outcome == Some(Outcome::Denied);
        count(events, limited) / count(events, of_tenant)
    };
    assert!(denied(&calm) < 0.05 && (0.5..0.7).contains(&denied(&limited)), "{}", denied(&limited));
    let refresh_ms = |events: &[Seen]| median_ms(events, |e| e.tenant == HIT && e.op == Op::Refresh);
    assert!(refresh_ms(&limited) < refresh_ms(&calm));
}

#[test]
fn overload_is_slow_without_errors_and_a_bad_deploy_is_not() {
    let (calm, overload, deploy) =
        (events(None), events(Some(Scenario::RefreshOverload)), events(Some(Scenario::BadDeploy)));
    let refresh = |e: &Seen| e.op == Op::Refresh && e.region == REGION;
    let broken = |events: &[Seen], kind: Kind| {
        let of_region = |e: &Seen| e.kind == kind && e.region == REGION;
        count(events, |e| of_region(e) && e.reason == Reason::UpstreamError) / count(events, of_region)
    };
    let (before_ms, overload_ms) = (median_ms(&calm, refresh), median_ms(&overload, refresh));
    assert!((5.0..7.0).contains(&(overload_ms / before_ms)), "{before_ms} {overload_ms}");
    assert!(broken(&overload, Kind::Token) < 0.01);
    assert!((9_000.0..11_000.0).contains(&(count(&overload, |_| true) - count(&calm, |_| true))));
    assert!((0.17..0.23).contains(&broken(&deploy, Kind::Token)) && broken(&deploy, Kind::Login) < 0.01);
    let of_release = |e: &&Seen| e.kind == Kind::Change && matches!(e.op, Op::Deploy | Op::Rollback);
    let near = |at_s: f64, op: Op| {
        deploy.iter().filter(of_release).any(|e| e.op == op && (e.at_s - at_s).abs() < 0.01 && e.region == REGION)
    };
    assert!(near(5.0, Op::Deploy) && near(15.0, Op::Rollback));
}

#[test]
fn lost_regions_and_silent_tenants_tell_nothing() {
    let (lost, silent) = (events(Some(Scenario::RegionLost)), events(Some(Scenario::TenantSilent)));
    assert_eq!(count(&lost, |e| e.region == REGION), 0.0);
    assert_eq!(count(&silent, |e| e.tenant == HIT), 0.0);
    assert!(count(&lost, |e| e.tenant == HIT) > 0.0 && count(&silent, |e| e.region == REGION) > 0.0);
    assert!(lost.iter().any(|e| e.region == REGION && e.at_s > 15.0));
    assert!(silent.iter().any(|e| e.tenant == HIT && e.at_s > 15.0));
}

#[test]
fn a_stalled_queue_goes_on_and_has_lost_some() {
    let events = events(Some(Scenario::AuditStall));
    assert_eq!(count(&events, |e| e.kind == Kind::Audit && e.op == Op::Deliver), 0.0);
    let numbers = |op: Op| -> BTreeSet<(String, u64)> {
        let of_op = events.iter().filter(|e| e.op == op);
        of_op.filter_map(|e| e.audit.clone()).map(|(producer, seq, _)| (producer, seq)).collect()
    };
    let (put_in, came_out) = (numbers(Op::Enqueue), numbers(Op::Deliver));
    let lost = put_in.difference(&came_out).count() as f64 / put_in.len() as f64;
    assert!(put_in.len() > 300 && (0.02..0.08).contains(&lost), "{lost} of {}", put_in.len());
    // What was held tells when it was put in.
    let waited = events.iter().filter(|e| e.at_s >= 15.0 && e.op == Op::Deliver).filter_map(|e| e.audit.as_ref());
    let mut by_number: BTreeMap<(&str, u64), i64> = BTreeMap::new();
    waited.for_each(|(producer, seq, ns)| {
        by_number.insert((producer, *seq), *ns);
    });
    for (producer, seq, ns) in events.iter().filter(|e| e.op == Op::Enqueue).filter_map(|e| e.audit.as_ref()) {
        let out_ns = by_number.get(&(producer.as_str(), *seq));
        assert!(out_ns.is_none_or(|out_ns| (out_ns - ns).abs() < SECOND_NS), "{producer} {seq}");
    }
}

#[test]
fn escalations_are_chains_with_one_trace() {
    let events = events(Some(Scenario::EscalationChain));
    let steps: Vec<&Seen> = events.iter().filter(|e| e.op == Op::Escalate).collect();
    assert!(steps.len() > 150 && steps.iter().all(|e| e.tenant == HIT), "{}", steps.len());
    let (mut denied, mut evaluated) = (0.0, 0.0);
    for (at, step) in steps.iter().enumerate() {
        let (trace, _, parent) = step.trace.expect("every step has a trace");
        match step.hop.expect("every step has a hop") {
            Hop::Gateway => assert_eq!(parent, None),
            hop => {
                let (before, span, _) = steps[at - 1].trace.expect("every step has a trace");
                assert_eq!((trace, parent), (before, Some(span)));
                assert_eq!(steps[at - 1].outcome, Some(Outcome::Success));
                if hop == Hop::Evaluator {
                    evaluated += 1.0;
                    denied += f64::from(u8::from(step.outcome == Some(Outcome::Denied)));
                }
            }
        }
    }
    assert!((0.5..0.9).contains(&(denied / evaluated)), "{denied} of {evaluated}");
}

#[test]
fn a_slow_token_service_fails_nobody() {
    let (calm, slow) = (events(None), events(Some(Scenario::SlowTokens)));
    let tokens = |e: &Seen| e.kind == Kind::Token && e.region == REGION;
    let share =
        |events: &[Seen], wanted: fn(&Seen) -> bool| count(events, |e| tokens(e) && wanted(e)) / count(events, tokens);
    let is_slow = |e: &Seen| e.ms > 500.0;
    assert!(share(&calm, is_slow) < 0.001 && share(&slow, is_slow) > 0.5, "{}", share(&slow, is_slow));
    let is_done = |e: &Seen| e.outcome == Some(Outcome::Success);
    assert_eq!(share(&calm, is_done), share(&slow, is_done));
    let elsewhere = |e: &Seen| e.kind == Kind::Login || e.region != REGION;
    assert_eq!(median_ms(&calm, elsewhere), median_ms(&slow, elsewhere));
}

#[test]
fn assignments_fail_in_several_services() {
    let (calm, failing) = (events(None), events(Some(Scenario::AssignmentsFailing)));
    let assigned = |e: &Seen| e.op == Op::Assign;
    assert_eq!(count(&calm, assigned), 0.0);
    for service in crate::trouble::ASSIGNING {
        let of_service = |e: &Seen| assigned(e) && e.service == service && e.region == REGION;
        let failed = count(&failing, |e| of_service(e) && e.outcome == Some(Outcome::Failure));
        let share = failed / count(&failing, of_service);
        assert!((0.45..0.75).contains(&share), "{service}: {share}");
    }
}

#[test]
fn slow_escalations_wait_at_one_hop() {
    let slow = events(Some(Scenario::SlowEscalation));
    let escalated = |e: &Seen| e.op == Op::Escalate;
    assert_eq!(count(&slow, |e| escalated(e) && e.outcome != Some(Outcome::Success)), 0.0);
    let at = |hop: Hop| median_ms(&slow, |e| escalated(e) && e.hop == Some(hop));
    assert!(at(Hop::Evaluator) > 1_500.0 && at(Hop::Gateway) < 10.0 && at(Hop::Enforcer) < 10.0);
    let tenants: BTreeSet<&str> = slow.iter().filter(|e| escalated(e)).map(|e| e.tenant.as_str()).collect();
    assert_eq!(tenants.len(), 20);
}

#[test]
fn gaps_of_the_audit_queue_are_filled_after_the_end() {
    let events = events(Some(Scenario::AuditGaps));
    let delivered = |until_s: f64| -> BTreeMap<String, BTreeSet<u64>> {
        let mut numbers: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (producer, seq, _) in events.iter().filter(|e| e.at_s < until_s).filter_map(|e| e.audit.clone()) {
            numbers.entry(producer).or_default().insert(seq);
        }
        numbers
    };
    let gaps = |numbers: &BTreeMap<String, BTreeSet<u64>>| -> u64 {
        let holes = |seen: &BTreeSet<u64>| seen.last().unwrap() + 1 - seen.first().unwrap() - seen.len() as u64;
        numbers.values().map(holes).sum()
    };
    let (at_end, later) = (gaps(&delivered(15.0)), gaps(&delivered(20.0)));
    assert!(at_end > 20 && later == 0, "{at_end} {later}");
}
