//! Whole days, whole regions, and logs read again: what pages, what does not, and that it is always the same.

use std::collections::{BTreeMap, BTreeSet};

use larum::config::shipped;
use larum_alert::{Became, Severity};
use larum_load::{Generator, Profile, Scenario};

use crate::drill::{Event, Pipeline, S, drive, nothing, profile, run};

/// What fired, by severity: (alert, region), with how often.
fn fired(events: &[Event]) -> BTreeMap<Severity, BTreeMap<(String, String), usize>> {
    let catalogue = shipped();
    let mut fired: BTreeMap<Severity, BTreeMap<(String, String), usize>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.became == Became::Firing) {
        let severity = catalogue.alert(&event.alert).unwrap().severity;
        let group = (event.alert.clone(), event.texts.region.clone());
        *fired.entry(severity).or_default().entry(group).or_default() += 1;
    }
    fired
}

/// Twenty-four hours of 5,000 tenants with their daily peak, nightly trickle and usual failures.
#[test]
fn a_quiet_day_pages_nobody() {
    let profile = Profile { seed: 3, tenants: 5_000, regions: 4, diurnal: true, ..profile(60.0, None) };
    let events = run(&profile, 86_400, &nothing, shipped());
    let fired = fired(&events);
    for event in events.iter().filter(|event| event.became == Became::Firing) {
        println!("{} s: {} {:?}", event.at_s, event.alert, event.texts);
    }
    assert_eq!(fired.get(&Severity::Page), None, "pages");
    let tickets: usize = fired.get(&Severity::Ticket).map_or(0, |groups| groups.values().sum());
    println!("a quiet day: no page, {tickets} tickets");
    assert!(tickets <= 6, "{fired:?}");
}

fn login(second: i64, tenant: &str, count: u32, outcome: &str, reason: &str) -> String {
    let time = (1_773_480_000 + second) * 1_000;
    let reason = if reason.is_empty() { "null".to_string() } else { format!("\"{reason}\"") };
    format!(
        r#"{{"kind":"login","time":{time},"tenant":"{tenant}","region":"eu-west-9","count":{count},"outcome":"{outcome}","reason":{reason},"latency_ms":20}}"#
    )
}

/// Each of 2,000 tenants has more than two logins a second, told of in bundles of seventy; from an hour on they fail.
fn outage(second: i64, reason: &str) -> Vec<String> {
    let one = |tenant: i64| {
        let fails = (4_000..5_200).contains(&second);
        let (outcome, reason) = if fails { ("failure", reason) } else { ("success", "") };
        login(second, &format!("t-{tenant}"), 70, outcome, reason)
    };
    (0..2_000).filter(|tenant| (tenant * 7 + second) % 30 == 0).map(one).collect()
}

#[test]
fn a_regional_outage_over_2000_tenants_is_one_page() {
    for reason in ["upstream_error", "bad_credentials"] {
        let events = run(&profile(1.0, None), 7_500, &|second| outage(second, reason), shipped());
        let fired = fired(&events);
        let pages = &fired[&Severity::Page];
        println!("{reason}: pages {pages:?}, tickets {:?}", fired.get(&Severity::Ticket));
        // Of two names for one attack, Alertmanager's inhibition leaves the one that came first.
        let notified: BTreeSet<&(String, String)> =
            pages.keys().filter(|(alert, _)| alert != "LoginFailures" || pages.len() == 1).collect();
        assert_eq!(notified.len(), 1, "{pages:?}");
        assert!(pages.values().all(|times| *times == 1), "single tenants are held back: {pages:?}");
        let resolved = events.iter().filter(|event| event.became == Became::Resolved).count();
        assert_eq!(resolved, events.len() - resolved, "all of it is over at the end");
    }
}

#[test]
fn three_failures_of_four_at_night_are_silent_and_ninety_percent_for_hours_are_not() {
    let night = |second: i64| match second % 1_800 {
        0 | 400 | 800 => vec![login(second, "sleepy", 1, "failure", "bad_credentials")],
        1_200 => vec![login(second, "sleepy", 1, "success", "")],
        _ => Vec::new(),
    };
    let events = run(&profile(1.0, None), 6 * 3_600, &night, shipped());
    assert!(events.iter().all(|event| event.texts.tenant != "sleepy"), "{events:?}");
    let failing = |second: i64| match second % 20 {
        0 => vec![login(second, "broken", 1, "success", "")],
        n if n % 2 == 0 => vec![login(second, "broken", 1, "failure", "bad_credentials")],
        _ => Vec::new(),
    };
    let events = run(&profile(1.0, None), 3 * 3_600, &failing, shipped());
    let of_it: Vec<&Event> = events.iter().filter(|event| event.texts.tenant == "broken").collect();
    println!("90 % at 0.5/s: {} at {} s", of_it[0].alert, of_it[0].at_s);
    assert_eq!((of_it[0].alert.as_str(), of_it[0].became), ("LoginFailures", Became::Firing));
    assert!(of_it.iter().all(|event| event.became == Became::Firing), "for as long as it lasts: {of_it:?}");
}

/// Reads a log from behind with commits at these instants; gives all transitions.
fn read_again(log: &[(Vec<u8>, i64)], mut is_commit: impl FnMut(usize) -> bool) -> Vec<larum_alert::Transition> {
    let mut pipeline = Pipeline::new(shipped());
    for (at, (bytes, append_ns)) in log.iter().enumerate() {
        pipeline.record(bytes, *append_ns);
        if is_commit(at) {
            pipeline.commit(None);
        }
    }
    pipeline.commit(None);
    pipeline.durable.alerts.transitions.into_iter().collect()
}

#[test]
fn a_backlog_of_two_hours_gives_the_same_alerts_at_the_same_ticks() {
    let profile = profile(60.0, Some((Scenario::DegradedIam, 3_900.0, 600.0)));
    let mut generator = Generator::new(profile.clone()).unwrap();
    let mut log = Vec::new();
    let mut next = || {
        let record = generator.next_record();
        (record.bytes.to_vec(), record.due_ns)
    };
    while log.last().is_none_or(|(_, due_ns)| *due_ns < profile.start_ns + 7_200 * S) {
        log.push(next());
    }
    let often = read_again(&log, |at| at % 17 == 0);
    let mut rng = fastrand::Rng::with_seed(5);
    let seldom = read_again(&log, |_| rng.usize(..20_000) == 0);
    assert!(often.len() > 4, "{often:?}");
    assert_eq!(often, seldom, "whatever the commits");
    // Live, the clock is never far from the newest record.
    let mut live = Pipeline::new(shipped());
    drive(&profile, 7_200, &nothing, &mut live, &mut |_| {});
    let live: Vec<_> = live.durable.alerts.transitions.iter().collect();
    assert_eq!(live.len(), often.len(), "{live:?}");
    for (live, again) in live.iter().zip(&often) {
        assert_eq!((&live.alert, live.became), (&again.alert, again.became));
        assert!(live.at_s.abs_diff(again.at_s) <= 2, "{live:?} {again:?}");
    }
    println!("{} transitions, the same at the same ticks; live within 2 s", often.len());
}

#[test]
fn a_restart_in_the_middle_of_an_episode_changes_nothing() {
    let profile = profile(60.0, Some((Scenario::DegradedIam, 3_900.0, 600.0)));
    let mut whole = Pipeline::recording(shipped());
    drive(&profile, 5_400, &nothing, &mut whole, &mut |_| {});
    let deltas = whole.deltas.take().unwrap();
    let firing = |durable: &larum::durable::Durable| durable.alerts.transitions.len();
    for cut in [3_000, 4_050, 4_300, 5_000] {
        let before = larum::durable::Durable::recover(None, &deltas[..cut], &shipped()).unwrap();
        let snapshot = before.encode();
        let after = larum::durable::Durable::recover(Some(&snapshot), &deltas[cut..], &shipped()).unwrap();
        assert_eq!(after.alerts, whole.durable.alerts, "killed after {cut} commits, with {} told", firing(&before));
    }
}
