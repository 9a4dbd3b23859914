//! Alerts as they reach a real Alertmanager, and who is told by it.

use std::path::Path;
use std::time::Duration;

use larum_tests::alertmanager::{Alertmanager, amtool_check_config, amtool_routes, shipped};
use larum_tests::kafka::Kafka;
use larum_tests::process::{now_ms, wait_until};
use serde_json::Value;

use crate::program::Larum;

/// Failing logins of one tenant fire at once, as far as Larum's clock allows.
const CATALOGUE: &str = r#"
alerts:
  - name: LoginFailures
    severity: page
    owner: identity-security
    dashboard: larum-tenant
    summary: "{value} of the logins of {tenant} in {region} fail"
    per: tenant
    when:
      - ratio: {of: login_failure, to: [login_success, login_failure], window: 1m, above: 0.8, floor: 0.5}
    for: 0s
    keep_firing_for: 2s
"#;

/// A configuration with this catalogue, and its runbooks beside it.
fn configuration(dir: &Path, alertmanagers: &[&str]) -> std::path::PathBuf {
    let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/runbooks/LoginFailures.md");
    std::fs::create_dir_all(dir.join("runbooks")).unwrap();
    std::fs::copy(runbooks, dir.join("runbooks/LoginFailures.md")).unwrap();
    std::fs::write(dir.join("alerts.yaml"), CATALOGUE).unwrap();
    let path = dir.join("larum.yaml");
    let catalogue = dir.join("alerts.yaml");
    let text = format!(
        "alerts:\n  catalogue: {}\n  alertmanagers: [{}]\n  resend: 1s\n",
        catalogue.display(),
        alertmanagers.join(", ")
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn larum(kafka: &Kafka, config: &Path) -> Larum {
    let config = config.display().to_string();
    Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest", "--config", &config])
}

fn topic(kafka: &Kafka, timestamps: &str) {
    kafka.create_topic("auth", 1, &[("message.timestamp.type", timestamps)]).unwrap();
}

fn logins(kafka: &Kafka, tenant: &str, outcome: &str, count: usize, at_ms: impl Fn(usize) -> i64) {
    let producer = kafka.producer().unwrap();
    for n in 0..count {
        let (time, reason) = (at_ms(n), if outcome == "failure" { "\"bad_credentials\"" } else { "null" });
        let json = format!(
            r#"{{"kind":"login","op":"password","time":{time},"tenant":"{tenant}","region":"eu-west-1","outcome":"{outcome}","reason":{reason},"actor":{{"id":"canary-person"}},"latency_ms":12}}"#
        );
        producer.produce("auth", None, None, Some(json.as_bytes()), Some(time)).unwrap();
    }
    producer.flush().unwrap();
}

fn listed(alertmanager: &Alertmanager, tenant: &str) -> Option<Value> {
    alertmanager.alerts("tenant", tenant).ok()?.pop()
}

fn states(notifications: &[Value]) -> Vec<String> {
    notifications.iter().map(|one| one["status"].as_str().unwrap_or_default().to_string()).collect()
}

/// One page when it begins, none for a kill in the middle, one word when it is over.
#[test]
fn an_episode_is_one_page_whatever_is_killed() {
    let (kafka, mut alertmanager) = (Kafka::start().unwrap(), Alertmanager::start().unwrap());
    topic(&kafka, "LogAppendTime");
    let dir = tempfile::tempdir().unwrap();
    // The second is dead all the time, and nobody minds.
    let config = configuration(dir.path(), &[&alertmanager.url.clone(), "http://127.0.0.1:9"]);
    let mut larum = larum(&kafka, &config);
    logins(&kafka, "acme", "success", 10, |_| now_ms());
    larum.wait_for("the first logins", 30, |s| s.of("larum_login_attempts_total").count() > 0);
    let began_ms = now_ms();
    logins(&kafka, "acme", "failure", 100, |_| now_ms());
    let alert = wait_until("the alert", Duration::from_secs(10), || listed(&alertmanager, "acme")).unwrap();
    println!("listed {} ms after the first failure was made", now_ms() - began_ms);
    let labels = alert["labels"].as_object().unwrap();
    let mut names: Vec<&str> = labels.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alertname", "region", "scope", "severity", "source", "team", "tenant"]);
    let said = |key: &str| alert["annotations"][key].as_str().unwrap_or_default().to_string();
    assert!(said("summary").contains("of the logins of acme in eu-west-1 fail"), "{}", said("summary"));
    assert!(said("reasons").contains("login bad_credentials 100 %"), "{}", said("reasons"));
    assert!(said("samples").starts_with("auth/0@"), "{}", said("samples"));
    assert!(said("dashboard_url").contains("/d/larum-tenant?var-tenant=acme&var-region=eu-west-1&from="));
    assert_eq!(said("runbook_url"), "config/runbooks/LoginFailures.md");
    assert!(!alert.to_string().contains("canary-person"), "{alert}");
    let firing = || (!alertmanager.notifications("/pager", "LoginFailures").is_empty()).then_some(());
    wait_until("the page", Duration::from_secs(10), firing).unwrap();
    larum.kill_9();
    larum.again();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(listed(&alertmanager, "acme").unwrap()["startsAt"], alert["startsAt"], "the same episode");
    assert_eq!(states(&alertmanager.notifications("/pager", "LoginFailures")), ["firing"], "nobody is paged twice");
    // A record is looked at.
    let place = said("samples").split(',').next().unwrap().to_string();
    let shown = std::process::Command::new(crate::program::binary())
        .args(["inspect", &place, "--brokers", &kafka.brokers()])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("login") && shown.contains("bad_credentials"), "{shown}");
    logins(&kafka, "acme", "success", 400, |_| now_ms());
    let over = || (alertmanager.notifications("/pager", "LoginFailures").len() == 2).then_some(());
    wait_until("the end", Duration::from_secs(30), over).unwrap();
    assert_eq!(states(&alertmanager.notifications("/pager", "LoginFailures")), ["firing", "resolved"]);
    let scrape = larum.scrape().unwrap();
    assert!(scrape.of("larum_alertmanager_requests_total").map(|s| s.1).sum::<f64>() > 0.0);
    alertmanager.kill_9().unwrap();
    assert_eq!(larum.terminate(), Some(0));
}

/// Down for ten of its intervals, and told once when it is back.
#[test]
fn a_dead_alertmanager_hears_of_it_once_it_is_back() {
    let (kafka, mut alertmanager) = (Kafka::start().unwrap(), Alertmanager::start().unwrap());
    topic(&kafka, "LogAppendTime");
    let dir = tempfile::tempdir().unwrap();
    let larum = larum(&kafka, &configuration(dir.path(), &[&alertmanager.url.clone()]));
    alertmanager.kill_9().unwrap();
    logins(&kafka, "acme", "failure", 100, |_| now_ms());
    larum.wait_for("the alert to fire", 30, |s| s.of("larum_alert_state").any(|s| s.1 == 2.0));
    std::thread::sleep(Duration::from_secs(10));
    alertmanager.again().unwrap();
    wait_until("the alert", Duration::from_secs(10), || listed(&alertmanager, "acme")).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(states(&alertmanager.notifications("/pager", "LoginFailures")), ["firing"]);
}

/// Two that read the same topic say the same, so that there is one page; one of them may die.
#[test]
fn two_larums_are_one_page() {
    let (kafka, alertmanager) = (Kafka::start().unwrap(), Alertmanager::start().unwrap());
    topic(&kafka, "LogAppendTime");
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &[&alertmanager.url.clone()]);
    let (mut first, second) = (larum(&kafka, &config), larum(&kafka, &config));
    logins(&kafka, "acme", "failure", 100, |_| now_ms());
    for larum in [&first, &second] {
        larum.wait_for("the alert to fire", 30, |s| s.of("larum_alert_state").any(|s| s.1 == 2.0));
    }
    first.kill_9();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(alertmanager.alerts("tenant", "acme").unwrap().len(), 1);
    assert_eq!(states(&alertmanager.notifications("/pager", "LoginFailures")), ["firing"]);
}

/// What began and ended in a backlog is history; what still holds at its end fires.
#[test]
fn a_backlog_pages_nobody_for_what_is_over() {
    let (kafka, alertmanager) = (Kafka::start().unwrap(), Alertmanager::start().unwrap());
    topic(&kafka, "CreateTime");
    let now = now_ms();
    let minutes_ago = |minutes: i64| move |n: usize| now - minutes * 60_000 + n as i64 * 100;
    logins(&kafka, "past", "failure", 200, minutes_ago(120));
    logins(&kafka, "past", "success", 2_000, minutes_ago(110));
    logins(&kafka, "other", "success", 200, minutes_ago(60));
    logins(&kafka, "present", "failure", 200, |n| now - 20_000 + n as i64 * 100);
    let dir = tempfile::tempdir().unwrap();
    let larum = larum(&kafka, &configuration(dir.path(), &[&alertmanager.url.clone()]));
    wait_until("the alert", Duration::from_secs(30), || listed(&alertmanager, "present")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(listed(&alertmanager, "past").is_none());
    let told: Vec<String> =
        alertmanager.notifications("/pager", "LoginFailures").iter().map(Value::to_string).collect();
    assert!(!told.is_empty() && told.iter().all(|text| !text.contains("\"past\"")), "{told:?}");
    drop(larum);
}

#[test]
fn the_shipped_alertmanager_configuration_is_valid_and_routes_as_it_says() {
    amtool_check_config(&shipped()).unwrap();
    for (labels, receiver) in [
        (vec!["alertname=LoginFailures", "severity=page"], "pager"),
        (vec!["alertname=TenantSilent", "severity=ticket"], "tickets"),
        (vec!["alertname=Watchdog", "severity=none"], "watchdog"),
    ] {
        assert_eq!(amtool_routes(&labels).unwrap(), receiver);
    }
}

/// One cause is one page: what another alert explains is held back, and the same elsewhere is not.
#[test]
fn what_another_alert_explains_is_held_back() {
    let alertmanager = Alertmanager::start().unwrap();
    let labels = |name: &str, more: &str| -> Value {
        let mut labels = serde_json::json!({"alertname": name, "source": "auth", "severity": "page"});
        for (key, value) in more.split(',').filter_map(|one| one.split_once('=')) {
            labels[key] = value.into();
        }
        labels
    };
    // What explains, what it explains, and what is like it and stands for itself.
    let rules = [
        ("LoginFailures", "scope=region,region=a", "LoginFailures", "scope=tenant,region=a,tenant=t", "region=a2"),
        ("SeveralRegionsFailing", "", "AvailabilityBurn", "region=b", "source=other"),
        ("AvailabilityBurn", "region=c", "LimiterPressure", "region=c,tenant=t", "region=c2"),
        ("LoginFailureSpike", "region=d,tenant=t", "LoginFailures", "region=d,tenant=t,scope=tenant", "tenant=t2"),
        ("PipelineBehind", "", "RegionSilent", "region=e", "source=other"),
    ];
    let causes: Vec<Value> = rules.iter().map(|rule| serde_json::json!({"labels": labels(rule.0, rule.1)})).collect();
    alertmanager.post(&causes.into()).unwrap();
    wait_until("the causes", Duration::from_secs(10), || {
        (!alertmanager.notifications("/pager", "PipelineBehind").is_empty()).then_some(())
    })
    .unwrap();
    let wait_for = |name: &str, more: &str, state: &str| {
        let labels = labels(name, more);
        alertmanager.post(&serde_json::json!([{"labels": labels}])).unwrap();
        let what = format!("{labels} to be {state}");
        wait_until(&what, Duration::from_secs(10), || {
            let all = alertmanager.alerts("alertname", name).unwrap();
            let one = all.into_iter().find(|one| one["labels"] == labels)?;
            (one["status"]["state"] == state).then_some(())
        })
        .unwrap();
        labels
    };
    for (_, _, name, of, elsewhere) in rules {
        let held_back = wait_for(name, of, "suppressed");
        wait_for(name, &format!("{of},{elsewhere}"), "active");
        let told = alertmanager.notifications("/pager", name);
        let alerts = |one: &Value| one["alerts"].as_array().cloned().unwrap_or_default();
        assert!(told.iter().flat_map(alerts).all(|one| one["labels"] != held_back), "{held_back}");
    }
    // Where nothing is committed any more, silence says nothing anywhere.
    alertmanager.post(&serde_json::json!([{"labels": labels("CommitsFailing", "")}])).unwrap();
    wait_for("RegionSilent", "region=e,source=other", "suppressed");
}
