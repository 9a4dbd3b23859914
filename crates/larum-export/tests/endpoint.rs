//! The endpoint under bad manners: slow heads, bombs, floods, readers who do not read; and who it lets in.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larum_export::http::guard::{ClientAuth, Guard, Rules, TlsSettings, WebSettings};
use larum_export::http::{Pages, serve};
use larum_export::{Format, Page};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// More than any socket buffers.
const PAGE_BYTES: usize = 32 << 20;

#[derive(Default)]
struct Fixed {
    written: AtomicUsize,
    is_large: bool,
}

impl Pages for Fixed {
    fn metrics(&self, _: Format) -> Page {
        self.written.fetch_add(1, Ordering::Relaxed);
        let mut page = b"larum_build_info 1\n".to_vec();
        if self.is_large {
            page.resize(PAGE_BYTES, b'#');
        }
        page.into()
    }

    fn ready(&self) -> Result<(), String> {
        Err("not yet".to_string())
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }
}

async fn start(pages: Fixed, settings: &WebSettings) -> (u16, Arc<Fixed>, Arc<Guard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (pages, guard) = (Arc::new(pages), Guard::new(Rules::new(settings).unwrap()));
    tokio::spawn(serve(listener, pages.clone(), guard.clone()));
    (port, pages, guard)
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Says something, and gives the head of the answer.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    // An endpoint that has heard enough may hang up in mid-sentence.
    let _ = stream.write_all(request).await;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match timeout(Duration::from_secs(30), stream.read(&mut chunk)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: larum\r\nconnection: close\r\n{more}\r\n").into_bytes()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn each_request_gets_the_answer_that_belongs_to_it() {
    let (port, ..) = start(Fixed::default(), &WebSettings::default()).await;
    let bomb = |bytes: usize| get("/metrics", &format!("x: {}\r\n", "y".repeat(bytes)));
    let many: String = (0..500).map(|n| format!("x{n}: y\r\n")).collect();
    for (request, want) in [
        (get("/metrics", ""), 200),
        (get("/", ""), 200),
        (get("/-/healthy", ""), 200),
        (get("/-/ready", ""), 503),
        (get("/etc/passwd", ""), 404),
        (b"POST /-/ready HTTP/1.1\r\nhost: l\r\ncontent-length: 0\r\n\r\n".to_vec(), 405),
        (b"DELETE / HTTP/1.1\r\nhost: l\r\n\r\n".to_vec(), 405),
        (bomb(1 << 20), 431),
        (get("/metrics", &many), 431),
        (b"nonsense\r\n\r\n".to_vec(), 400),
    ] {
        let answer = say(connect(port).await, &request).await;
        let asked = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert_eq!(status(&answer), want, "{asked}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_timed_out_and_an_idle_connection_just_closed() {
    let (port, ..) = start(Fixed::default(), &WebSettings::default()).await;
    let answer = say(connect(port).await, b"GET /metrics HTTP/1.1\r\nx: ").await;
    assert_eq!(status(&answer), 408, "{answer}");
    let mut idle = connect(port).await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: l\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    idle.read_to_end(&mut all).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("</html>"), "{all}");
}

/// A scraper that keeps its connection is not cut off in the middle of an answer when the connection is old.
#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_between_answers() {
    let (port, ..) = start(Fixed::default(), &WebSettings::default()).await;
    let mut stream = connect(port).await;
    let (mut answers, mut chunk) = (0, [0; 4096]);
    loop {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: l\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"larum_build_info 1\n") {
            match stream.read(&mut chunk).await.unwrap_or(0) {
                0 => break,
                n => answer.extend_from_slice(&chunk[..n]),
            }
        }
        if answer.is_empty() {
            break;
        }
        assert!(answer.ends_with(b"larum_build_info 1\n"), "cut off");
        answers += 1;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!((20..=25).contains(&answers), "{answers} answers in two minutes, one every five seconds");
}

#[tokio::test]
async fn a_flood_is_answered_by_few_scrapes() {
    let (port, pages, _) = start(Fixed { is_large: true, ..Fixed::default() }, &WebSettings::default()).await;
    let ask = || async { status(&say(connect(port).await, &get("/metrics", "")).await) };
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let request = get("/metrics", "");
        asking.spawn(async move { status(&say(connect(port).await, &request).await) });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    let written = pages.written.load(Ordering::Relaxed);
    assert!(written < 50, "100 requests at a moment were written {written} times");
    assert_eq!(ask().await, 200);
}

/// Readers who do not read hold a page each; there are more of them than pages may be in memory.
#[tokio::test]
async fn stalled_readers_make_room_for_others() {
    let (port, ..) = start(Fixed { is_large: true, ..Fixed::default() }, &WebSettings::default()).await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(port).await;
        stream.write_all(&get("/metrics", "")).await.unwrap();
        stalled.push(stream);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut stream = connect(port).await;
        stream.write_all(&get("/metrics", "")).await.unwrap();
        let mut all = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.unwrap().unwrap();
        assert!(all.len() > PAGE_BYTES, "{}", String::from_utf8_lossy(&all[..all.len().min(200)]));
    }
}

#[tokio::test]
async fn ten_thousand_connections_come_and_go() {
    let (port, ..) = start(Fixed::default(), &WebSettings::default()).await;
    for at in 0..10_000 {
        let mut stream = connect(port).await;
        if at % 3 == 0 {
            stream.write_all(b"GET /metr").await.unwrap();
        }
    }
    let answer = say(connect(port).await, &get("/metrics", "")).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn slow_heads_on_every_place_do_not_keep_others_out() {
    let (port, ..) = start(Fixed::default(), &WebSettings::default()).await;
    let mut slow = Vec::new();
    for _ in 0..600 {
        let mut stream = connect(port).await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nx").await;
        slow.push(stream);
    }
    let turned_away = say(connect(port).await, &get("/metrics", "")).await;
    assert_eq!(status(&turned_away), 503, "{turned_away}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let answer = say(connect(port).await, &get("/metrics", "")).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

fn basic(user: &str, password: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn users_need_their_passwords_everywhere() {
    let hash = bcrypt::hash("hunter2", 4).unwrap();
    let users = [("prom".to_string(), hash)].into();
    let headers = vec![("X-Frame-Options".to_string(), "deny".to_string())];
    let settings = WebSettings { users, headers, ..WebSettings::default() };
    let (port, _, guard) = start(Fixed::default(), &settings).await;
    for (more, want) in [
        (String::new(), 401),
        (basic("prom", "hunter3"), 401),
        (basic("", ""), 401),
        ("authorization: Bearer abc\r\n".to_string(), 401),
        ("authorization: Basic !!!\r\n".to_string(), 401),
        (basic("prom", "hunter2"), 200),
        (basic("prom", "hunter2"), 200),
    ] {
        for path in ["/metrics", "/-/healthy"] {
            let answer = say(connect(port).await, &get(path, &more)).await;
            assert_eq!(status(&answer), want, "{more}{answer}");
            assert!(answer.contains("x-frame-options: deny"), "{answer}");
            assert_eq!(answer.contains("www-authenticate: Basic"), want == 401);
        }
    }
    // A changed hash counts from the next request on, whatever was remembered.
    let other = bcrypt::hash("hunter4", 4).unwrap();
    let changed = WebSettings { users: [("prom".to_string(), other)].into(), ..settings };
    guard.replace(Rules::new(&changed).unwrap());
    for (password, want) in [("hunter2", 401), ("hunter4", 200)] {
        let answer = say(connect(port).await, &get("/metrics", &basic("prom", password))).await;
        assert_eq!(status(&answer), want, "{answer}");
    }
}

/// Guesses from one place wait for each other, also when nobody waits for the answer; a known password does not.
#[tokio::test]
async fn guessing_is_slow_and_keeps_nobody_out() {
    let users = [("prom".to_string(), bcrypt::hash("hunter2", 8).unwrap())].into();
    let settings = WebSettings { users, ..WebSettings::default() };
    let (port, ..) = start(Fixed::default(), &settings).await;
    let right = get("/metrics", &basic("prom", "hunter2"));
    assert_eq!(status(&say(connect(port).await, &right).await), 200);
    let mut asking = tokio::task::JoinSet::new();
    for guess in 0..50 {
        let request = get("/metrics", &basic("prom", &format!("guess {guess}")));
        asking.spawn(async move { status(&say(connect(port).await, &request).await) });
        // Who asks and hangs up at once.
        connect(port).await.write_all(&get("/", &basic("prom", &format!("other {guess}")))).await.unwrap();
    }
    assert_eq!(status(&say(connect(port).await, &right).await), 200);
    let answers = asking.join_all().await;
    let count = |wanted| answers.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(401) + count(503), 50, "{answers:?}");
    assert!(count(503) > 30, "only a few wait at a time: {answers:?}");
}

/// An authority and certificates that it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// PEM of certificate and key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_string()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Says something over TLS as a client that trusts `authority`; `None` if there is no conversation.
async fn say_secured(
    port: u16,
    authority: &Authority,
    shown: Option<(String, String)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Option<String> {
    use rustls::pki_types::pem::PemObject as _;
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&authority.pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match &shown {
        None => builder.with_no_client_auth(),
        Some((pem, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(pem)], key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, connect(port).await).await.ok()?;
    Some(say(stream, &get("/metrics", "")).await).filter(|answer| !answer.is_empty())
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_of_clients_are_verified() {
    let both = &[&rustls::version::TLS12, &rustls::version::TLS13][..];
    let dir = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = servers.sign("localhost");
    let tls = TlsSettings {
        certificate: write(dir.path(), "larum.crt", &certificate),
        key: write(dir.path(), "larum.key", &key),
        client_auth: ClientAuth::Required,
        client_ca: Some(write(dir.path(), "clients.crt", &clients.pem)),
        tls12: true,
        tls13: true,
        ..TlsSettings::default()
    };
    let settings = |tls: &TlsSettings| WebSettings { tls: Some(tls.clone()), ..WebSettings::default() };
    let (port, _, guard) = start(Fixed::default(), &settings(&tls)).await;
    let (good, stranger) = (clients.sign("prometheus"), servers.sign("prometheus"));
    for versions in [both, &both[..1], &both[1..]] {
        let answer = say_secured(port, &servers, Some(good.clone()), versions).await;
        assert_eq!(answer.map(|answer| status(&answer)), Some(200));
    }
    assert_eq!(say_secured(port, &servers, None, both).await, None);
    assert_eq!(say_secured(port, &servers, Some(stranger), both).await, None);
    assert_eq!(say_secured(port, &clients, Some(good.clone()), both).await, None, "it is not that authority's");
    let in_the_clear = say(connect(port).await, &get("/metrics", "")).await;
    assert!(!in_the_clear.starts_with("HTTP"), "{in_the_clear}");

    // Rules change under way: another name only, then nobody needs one, and TLS 1.3 alone.
    let sans = TlsSettings { client_allowed_sans: vec!["grafana".to_string()], ..tls.clone() };
    guard.replace(Rules::new(&settings(&sans)).unwrap());
    assert_eq!(say_secured(port, &servers, Some(good), both).await, None);
    assert!(say_secured(port, &servers, Some(clients.sign("grafana")), both).await.is_some());
    let open = TlsSettings { client_auth: ClientAuth::None, client_ca: None, tls12: false, ..tls.clone() };
    guard.replace(Rules::new(&settings(&open)).unwrap());
    assert!(say_secured(port, &servers, None, both).await.is_some());
    assert_eq!(say_secured(port, &servers, None, &both[..1]).await, None);

    for (spoiled, why) in [
        (TlsSettings { key: dir.path().join("none.key"), ..tls.clone() }, "none.key"),
        (TlsSettings { key: write(dir.path(), "other.key", &servers.sign("x").1), ..tls.clone() }, "other.key"),
        (TlsSettings { certificate: dir.path().join("larum.key"), ..tls.clone() }, "holds no certificate"),
        (TlsSettings { client_ca: None, ..tls.clone() }, "client_ca_file"),
        (TlsSettings { client_auth: ClientAuth::None, ..tls.clone() }, "client_auth_type"),
        (TlsSettings { cipher_suites: vec!["TLS_RC4".to_string()], ..tls.clone() }, "TLS_AES_128_GCM_SHA256"),
        (TlsSettings { tls12: false, tls13: false, ..tls.clone() }, "versions"),
    ] {
        let error = Rules::new(&settings(&spoiled)).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}
