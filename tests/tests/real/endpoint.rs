//! The endpoint on a network: TLS, certificates of clients, users, judged by promtool and scraped by a real Prometheus.

use std::fs;
use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::process::wait_until;
use larum_tests::prometheus::{Prometheus, promtool_check_web_config};
use larum_tests::secured::{authority, certificate};

use crate::program::{Larum, binary};

/// The shipped example, with certificates that stand where it says; its password is "larum".
fn example() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (path, example) = (dir.path(), concat!(env!("CARGO_MANIFEST_DIR"), "/../config/web-config.yml"));
    authority(path, "ca").unwrap();
    for (name, from) in [("larum", "larum.crt"), ("prometheus", "prometheus.crt")] {
        certificate(path, name).unwrap();
        fs::rename(path.join(format!("{name}.pem")), path.join(from)).unwrap();
    }
    fs::copy(path.join("ca.pem"), path.join("clients-ca.crt")).unwrap();
    fs::copy(example, path.join("web-config.yml")).unwrap();
    dir
}

#[test]
fn prometheus_scrapes_the_shipped_web_configuration_and_certificates_rotate() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 1, &[]).unwrap();
    let dir = example();
    let file = |name: &str| dir.path().join(name);
    promtool_check_web_config(&file("web-config.yml")).unwrap();
    let web_config = file("web-config.yml").display().to_string();
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--web-config", &web_config]);
    let link = format!(
        "    scheme: https\n    tls_config: {{ca_file: {0}/ca.pem, cert_file: {0}/prometheus.crt, key_file: {0}/prometheus.key}}\n    \
         basic_auth: {{username: prometheus, password: larum}}\n",
        dir.path().display()
    );
    let target = format!("127.0.0.1:{}", larum.port);
    let prometheus = Prometheus::start_secured(&target, 500, &link).unwrap();
    prometheus.wait_for_target_up().unwrap();
    assert_eq!(larum.page("/metrics"), None, "in the clear there is nothing");
    let stranger = link.replace("password: larum", "password: other");
    let stranger = Prometheus::start_secured(&target, 500, &stranger).unwrap();
    assert!(stranger.wait_for_target_up().unwrap_err().to_string().contains("401"));

    // New certificates of a new authority on both sides, while it runs.
    let before = prometheus.query("up").unwrap();
    assert_eq!(before[0].1, 1.0);
    authority(dir.path(), "ca").unwrap();
    for name in ["larum", "prometheus"] {
        certificate(dir.path(), name).unwrap();
        fs::rename(file(&format!("{name}.pem")), file(&format!("{name}.crt"))).unwrap();
    }
    fs::copy(file("ca.pem"), file("clients-ca.crt")).unwrap();
    let read_again = || larum.log().contains("web configuration read again").then_some(());
    wait_until("the new certificate", Duration::from_secs(10), read_again).unwrap();
    let other = Prometheus::start_secured(&target, 500, &link).unwrap();
    other.wait_for_target_up().unwrap();

    // What cannot be read changes nothing.
    fs::write(file("larum.crt"), "spoiled").unwrap();
    let refused = || larum.log().contains("the one before stays").then_some(());
    wait_until("the refusal", Duration::from_secs(10), refused).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    other.wait_for_target_up().unwrap();
    assert!(!larum.log().contains("PRIVATE KEY"));
    assert_eq!(larum.terminate(), Some(0));

    // A start with it is refused before any port opens.
    let flags = ["--brokers", "127.0.0.1:1", "--topic", "t", "--web-config", &web_config];
    let refused = std::process::Command::new(binary()).arg("run").args(flags).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("web_config cannot be used") && said.contains("larum.crt holds no certificate"), "{said}");
}
