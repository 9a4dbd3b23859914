//! Who may see the endpoint: TLS, certificates of clients, users with passwords; as Prometheus' exporters have it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

/// Costlier hashes are refused: each check would take seconds of a core.
const BCRYPT_COST_MAX: u32 = 14;
/// Checked passwords that are remembered, right and wrong ones.
const REMEMBERED_MAX: usize = 256;
/// After a check nobody else's begins for so many times its length: guessing costs a tenth of a core at most.
const REST: u32 = 9;
/// Checks that one address may have waiting: guesses from one place keep nobody else out.
const WAITING_MAX: usize = 4;
/// The hash of a password that nobody has: unknown users are checked against it, so that they take as long as known ones.
const NOBODY: &str = "$2b$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; what they show is verified.
    IfGiven,
    /// They have to.
    Required,
}

/// TLS of the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// PEM: who may sign theirs.
    pub client_ca: Option<PathBuf>,
    /// Names or addresses, of which a client's certificate must have one; none: any will do.
    pub client_allowed_sans: Vec<String>,
    /// Whether TLS 1.2 is taken.
    pub tls12: bool,
    /// Whether TLS 1.3 is taken.
    pub tls13: bool,
    /// Names of cipher suites; none: those of the library.
    pub cipher_suites: Vec<String>,
}

/// The web configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSettings {
    /// None: in the clear.
    pub tls: Option<TlsSettings>,
    /// bcrypt hashes by user; none: no password is asked.
    pub users: BTreeMap<String, String>,
    /// Headers that every answer has.
    pub headers: Vec<(String, String)>,
}

impl WebSettings {
    /// The files that it rests on.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.iter().flat_map(|tls| {
            [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()].into_iter().flatten().map(PathBuf::as_path)
        })
    }
}

/// The web configuration, ready for use.
pub struct Rules {
    /// Does the handshakes.
    pub tls: Option<TlsAcceptor>,
    allowed_sans: Vec<ServerName<'static>>,
    users: BTreeMap<String, String>,
    /// Headers that every answer has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Rules {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// What is wrong, in plain words.
    pub fn new(settings: &WebSettings) -> Result<Rules, String> {
        for (user, hash) in &settings.users {
            let parts: bcrypt::HashParts = hash
                .parse()
                .map_err(|_| format!("the password of {user} is no bcrypt hash, as htpasswd -nBC 10 '' makes them"))?;
            if parts.get_cost() > BCRYPT_COST_MAX {
                return Err(format!("the hash of {user} has cost {}, above {BCRYPT_COST_MAX}", parts.get_cost()));
            }
        }
        let header = |(name, value): &(String, String)| {
            let parsed = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
            parsed.ok_or_else(|| format!("{name} with this value is no HTTP header"))
        };
        let sans = settings.tls.iter().flat_map(|tls| &tls.client_allowed_sans);
        let name = |san: &String| {
            ServerName::try_from(san.clone())
                .map_err(|_| format!("client_allowed_sans: {san} is no name and no address"))
        };
        Ok(Rules {
            tls: settings.tls.as_ref().map(acceptor).transpose()?,
            allowed_sans: sans.map(name).collect::<Result<_, _>>()?,
            users: settings.users.clone(),
            headers: settings.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a client with these certificates may go on.
    pub fn admits(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(first) = certificates.and_then(<[_]>::first) else { return self.allowed_sans.is_empty() };
        let Ok(certificate) = webpki::EndEntityCert::try_from(first) else { return false };
        let is_named = |name| certificate.verify_is_valid_for_subject_name(name).is_ok();
        self.allowed_sans.is_empty() || self.allowed_sans.iter().any(is_named)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| format!("{}: {error}", path.display()))?;
    if certificates.is_empty() { Err(format!("{} holds no certificate", path.display())) } else { Ok(certificates) }
}

fn acceptor(tls: &TlsSettings) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(provider(&tls.cipher_suites)?);
    let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
    versions.extend(tls.tls12.then_some(&version::TLS12));
    versions.extend(tls.tls13.then_some(&version::TLS13));
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions);
    let builder = builder.map_err(|error| format!("TLS versions and cipher suites do not fit: {error}"))?;
    let builder = match (tls.client_auth, &tls.client_ca) {
        (ClientAuth::None, None) => builder.with_no_client_auth(),
        // Whoever names an authority means it to be asked.
        (ClientAuth::None, Some(_)) => return Err("client_ca_file needs a client_auth_type that uses it".to_string()),
        (_, None) => return Err("certificates of clients need client_ca_file".to_string()),
        (client_auth, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if client_auth == ClientAuth::Required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| format!("{}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| format!("{}: {error}", tls.key.display()))?;
    let mut config = builder
        .with_single_cert(certificates(&tls.certificate)?, key)
        .map_err(|error| format!("{} and {}: {error}", tls.certificate.display(), tls.key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn provider(names: &[String]) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    // As Go names them: without what the version says anyway.
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
    if let Some(unknown) = names.iter().find(|wanted| !known.contains(wanted)) {
        return Err(format!("cipher_suites knows {}, not {unknown}", known.join(", ")));
    }
    provider.cipher_suites.retain(|suite| names.contains(&name(suite)));
    Ok(provider)
}

/// The rules now in force, and which passwords were checked under them.
pub struct Guard {
    rules: RwLock<Arc<Rules>>,
    /// By a digest of user, hash and password.
    checked: Mutex<HashMap<[u8; 32], bool>>,
    /// How many checks each address has waiting.
    waiting: Mutex<HashMap<IpAddr, usize>>,
    turn: tokio::sync::Mutex<()>,
}

impl Guard {
    /// Under these rules.
    pub fn new(rules: Rules) -> Arc<Guard> {
        Arc::new(Guard {
            rules: RwLock::new(Arc::new(rules)),
            checked: Mutex::default(),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// From the next connection on under these.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The rules now in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self, digest: &[u8; 32]) -> Option<bool> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    /// Whether a request from `address` with this `Authorization` may be answered; `Err` when too much waits to be found out.
    pub async fn lets_in(self: &Arc<Self>, address: IpAddr, authorization: Option<&HeaderValue>) -> Result<bool, ()> {
        let rules = self.rules();
        if rules.users.is_empty() {
            return Ok(true);
        }
        let Some((user, password)) = authorization.and_then(credentials) else { return Ok(false) };
        let hash = rules.users.get(&user).map_or(NOBODY, String::as_str).to_string();
        let digest = digest(&[user.as_bytes(), hash.as_bytes(), password.as_bytes()]);
        if let Some(is_right) = self.known(&digest) {
            return Ok(is_right);
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let of_address = waiting.entry(address).or_default();
            if *of_address >= WAITING_MAX {
                return Err(());
            }
            *of_address += 1;
        }
        let is_user = rules.users.contains_key(&user);
        let (told, answer) = oneshot::channel();
        // In a task of its own: who goes away before the answer does not make the next check begin earlier.
        tokio::spawn(self.clone().check(address, digest, hash, password, is_user, told));
        answer.await.map_err(drop)
    }

    /// Checks a password in its turn, tells, and rests.
    async fn check(
        self: Arc<Self>,
        address: IpAddr,
        digest: [u8; 32],
        hash: String,
        password: String,
        is_user: bool,
        told: oneshot::Sender<bool>,
    ) {
        let turn = self.turn.lock().await;
        let began = Instant::now();
        let (is_right, is_news) = match self.known(&digest) {
            Some(is_right) => (is_right, false),
            None => {
                let check = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
                (check.await.unwrap_or(false) && is_user, true)
            }
        };
        if is_news {
            self.remember(digest, is_right);
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(of_address) = waiting.get_mut(&address) {
                *of_address -= 1;
                if *of_address == 0 {
                    waiting.remove(&address);
                }
            }
        }
        // Nobody may wait for it any more.
        let _ = told.send(is_right);
        if is_news && !is_right {
            sleep(began.elapsed() * REST).await;
        }
        drop(turn);
    }

    fn remember(&self, digest: [u8; 32], is_right: bool) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= REMEMBERED_MAX {
            // Guesses go first.
            checked.retain(|_, is_right| *is_right);
        }
        if checked.len() < REMEMBERED_MAX {
            checked.insert(digest, is_right);
        }
    }
}

/// User and password of `Basic` credentials.
fn credentials(authorization: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_string(), password.to_string()))
}

/// SHA-256 of texts, told apart by their lengths.
fn digest(texts: &[&[u8]]) -> [u8; 32] {
    let mut context = ::ring::digest::Context::new(&::ring::digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
