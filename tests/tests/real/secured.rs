//! Links secured as in production: SCRAM over TLS, mutual TLS, tokens over TLS; and what must not work.

use std::fs;
use std::path::PathBuf;

use larum_tests::process::run;
use larum_tests::secured::Secured;

use crate::oracle::Oracle;
use crate::program::{Larum, binary};

const PASSWORD: &str = "canary-7f3a-password";

/// A configuration file whose section `kafka` goes on with `link`.
fn config(secured: &Secured, name: &str, brokers: &str, link: &str) -> PathBuf {
    let path = secured.file(&format!("{name}.yaml"));
    let text = format!(
        "kafka:\n  brokers: {brokers}\n  {link}\nsources:\n- name: auth\n  topics: [{name}]\nstart_at: earliest\n\
         dead_letters: {{topic: letters}}\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Writes and reads over one link; everything is counted, and no secret is shown.
fn goes_through(secured: &Secured, name: &str, brokers: &str, link: &str) {
    let config = config(secured, name, brokers, link);
    secured.kafka.create_topic(name, 2, &[]).unwrap();
    let flags = ["--topic", name, "--fast", "--events", "3000", "--tenants", "5", "--malformed", "0.01"];
    let config_text = config.display().to_string();
    run(binary(), ["load", "--config", &config_text].iter().chain(&flags), "").unwrap();
    let mut larum = Larum::configured(&config, &[]);
    let scrape = larum.wait_visible(&secured.kafka.end_offsets(name).unwrap(), 60);
    Oracle::of(&secured.kafka, name).check_totals(&scrape);
    let shown = larum.log() + &larum.page("/metrics").unwrap();
    for canary in ["canary", "eyJ", "PRIVATE KEY"] {
        assert!(!shown.contains(canary), "{name} shows {canary}");
    }
    assert_eq!(larum.terminate(), Some(0));
}

/// An unsigned token, as Kafka's own test mode takes it.
fn token(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"larum","iat":{now},"exp":{}}}"#, now + seconds);
    let base64 =
        |text: &str| run("sh", ["-c", "base64 -w0 | tr '+/' '-_' | tr -d ="], text).unwrap().trim().to_string();
    format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(&claims))
}

#[test]
fn every_way_to_secure_the_link_goes_through() {
    let secured = Secured::start("larum", PASSWORD).unwrap();
    secured.kafka.create_topic("letters", 1, &[]).unwrap();
    let path = |name: &str| secured.file(name).display().to_string();
    fs::write(secured.file("password"), format!("{PASSWORD}\n")).unwrap();
    let tls = format!("tls: {{ca: {}}}", path("ca.pem"));
    let scram = format!(
        "protocol: SASL_SSL\n  {tls}\n  sasl: {{mechanism: SCRAM-SHA-512, user: larum, password_file: {}}}",
        path("password")
    );
    goes_through(&secured, "scram", &secured.scram, &scram);
    let mutual = format!(
        "protocol: SSL\n  tls: {{ca: {}, certificate: {}, key: {}}}",
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    goes_through(&secured, "mutual", &secured.mutual, &mutual);
    // It ends while Larum runs: the client asks for another before that.
    fs::write(secured.file("token"), token(3600)).unwrap();
    let oauth =
        format!("protocol: SASL_SSL\n  {tls}\n  sasl: {{mechanism: OAUTHBEARER, token_file: {}}}", path("token"));
    goes_through(&secured, "oauth", &secured.oauth, &oauth);

    // What must not work, and is said: another authority, a wrong password, no certificate.
    fs::write(secured.file("wrong"), "canary-wrong\n").unwrap();
    for (name, brokers, link) in [
        ("untrusted", &secured.scram, scram.replace("ca.pem", "other-ca.pem")),
        ("refused", &secured.scram, scram.replace("/password}", "/wrong}")),
        ("nameless", &secured.mutual, format!("protocol: SSL\n  {tls}")),
    ] {
        let larum = Larum::configured(&config(&secured, name, brokers, &link), &[]);
        larum_tests::process::wait_until(name, std::time::Duration::from_secs(30), || {
            (larum.log().contains("kafka client reports an error") && larum.log().contains("asking until"))
                .then_some(())
        })
        .unwrap();
        assert!(!larum.log().contains("canary"), "{}", larum.log());
        assert!(larum.page("/-/ready").is_none(), "{name} must not be ready");
    }
}
