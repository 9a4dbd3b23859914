//! The endpoint on a network: TLS, certificates of clients, users, judged by promtool and scraped by a real Prometheus.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larum_tests::kafka::Kafka;
use larum_tests::process::wait_until;
use larum_tests::prometheus::{Prometheus, promtool_check_web_config};
use larum_tests::secured::{authority, certificate};

use crate::groups::EndsWithTest;
use crate::program::{Larum, Load, binary};

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

/// Clients without manners, until `stop`: who do not read, who do not finish, who come and go, who say too much.
fn misbehave(port: u16, stop: &AtomicBool) -> usize {
    let connect = || TcpStream::connect(("127.0.0.1", port));
    let mut held = Vec::new();
    for _ in 0..50 {
        if let Ok(mut stream) = connect() {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: l\r\n\r\n");
            held.push(stream);
        }
    }
    for _ in 0..200 {
        if let Ok(mut stream) = connect() {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nx: ");
            held.push(stream);
        }
    }
    let bomb = [b"GET /metrics HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 1 << 20]].concat();
    let mut connections = held.len();
    while !stop.load(Ordering::Relaxed) && connections < 10_000 {
        for _ in 0..20 {
            drop(connect());
        }
        if let Ok(mut stream) = connect() {
            let _ = stream.write_all(&bomb);
        }
        connections += 21;
        std::thread::sleep(Duration::from_millis(20));
    }
    connections
}

/// While clients misbehave, records are read as they come and a normal scrape is answered.
#[test]
fn bad_manners_cost_neither_records_nor_scrapes() {
    let kafka = Kafka::start().unwrap();
    kafka.create_topic("auth", 2, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut larum = Larum::start(&kafka.brokers(), &["auth"], &["--start-at", "earliest"]);
    larum.wait_for("the first answer", 30, |_| true);
    for is_disturbed in [false, true] {
        let stop = AtomicBool::new(false);
        let mix = ["--rate", "10000", "--for", "10s", "--tenants", "50"];
        std::thread::scope(|scope| {
            let ends = EndsWithTest(&stop);
            let misbehaving = is_disturbed.then(|| scope.spawn(|| misbehave(larum.port, &stop)));
            let mut load = Load::start(&kafka.brokers(), "auth", &mix);
            for _ in 0..4 {
                std::thread::sleep(Duration::from_secs(2));
                assert!(larum.scrape().is_some(), "a normal scrape is answered");
            }
            load.finish(Duration::from_secs(60));
            let lag: f64 = larum.scrape().unwrap().of("larum_pipeline_lag_records").map(|sample| sample.1).sum();
            larum.wait_visible(&kafka.end_offsets("auth").unwrap(), 30);
            drop(ends);
            let connections = misbehaving.map_or(0, |thread| thread.join().unwrap());
            println!("{connections} bad connections; {lag} of 100,000 records behind at the end of the load");
        });
    }
    assert_eq!(larum.terminate(), Some(0));
}
