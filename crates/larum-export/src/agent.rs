//! An HTTP client with the certificates that files name; it may wait, so it is used from threads that may.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// Time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to trust, and what to show of oneself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM: who may sign the other's certificate; none: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// PEM: what Larum shows of itself.
    pub certificate: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

impl Trust {
    /// A client; connects to nothing yet.
    pub(crate) fn agent(&self, secured: bool) -> Result<ureq::Agent, String> {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(ATTEMPT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0);
        if secured {
            let pem = |text: String, path: &Path| {
                let all = ureq::tls::parse_pem(text.as_bytes()).filter_map(Result::ok);
                let certificates = all.filter_map(|item| match item {
                    ureq::tls::PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                });
                let certificates: Vec<_> = certificates.collect();
                let none = format!("{} holds no certificate", path.display());
                if certificates.is_empty() { Err(none) } else { Ok(certificates) }
            };
            let roots = match &self.ca {
                Some(path) => pem(read(path)?, path)?,
                None => (rustls_native_certs::load_native_certs().certs.iter())
                    .map(|certificate| ureq::tls::Certificate::from_der(certificate).to_owned())
                    .collect(),
            };
            let mut tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                .root_certs(RootCerts::from(roots));
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                let private = PrivateKey::from_pem(read(key)?.as_bytes());
                let private = private.map_err(|error| format!("{}: {error}", key.display()))?;
                let chain = pem(read(certificate)?, certificate)?;
                tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, private)));
            }
            config = config.tls_config(tls.build());
        }
        Ok(config.build().into())
    }
}
