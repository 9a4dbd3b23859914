//! How the link to Kafka is secured: TLS, who we are, and which client options may be set. Secrets stay in their files
//! until a client is made, and in no value that could be printed.

use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use rdkafka::client::OAuthToken;

use crate::client::KafkaError;

/// What certificates of the broker are checked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// That a trusted authority signed it, and that it names the host.
    #[default]
    Full,
    /// That a trusted authority signed it.
    NoHostname,
    /// Nothing: anybody between may read and alter everything.
    None,
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// File of trusted authorities, PEM; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// File of our certificate and its chain, PEM.
    pub certificate: Option<PathBuf>,
    /// File of its key, PEM.
    pub key: Option<PathBuf>,
    /// File of the key's password.
    pub key_password: Option<PathBuf>,
    /// What is checked.
    pub verify: Verify,
}

/// Who we are, where the certificate does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// A user and a password.
    Password {
        /// `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`.
        mechanism: &'static str,
        /// The user.
        user: String,
        /// File of the password.
        password: PathBuf,
    },
    /// OAUTHBEARER.
    Token {
        /// File of a JSON Web Token, read again before it expires: somebody else keeps it fresh.
        token: PathBuf,
    },
}

/// How the link is secured. The default is not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Needs TLS: without, secrets would go over the wire as they are.
    pub sasl: Option<Sasl>,
    /// Further options of librdkafka, of [`OPTIONS`] only.
    pub options: Vec<(String, String)>,
}

/// Options of librdkafka that may be set. Others could load code, print secrets, turn checks off, or lose records.
pub const OPTIONS: &[&str] = &[
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
];

/// A file's text without the line's end, for a secret.
fn secret(path: &Path) -> Result<String, KafkaError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| KafkaError::Setup(format!("{} cannot be read: {error}", path.display())))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(KafkaError::Setup(format!("{} is empty; it should hold a secret", path.display())));
    }
    Ok(text.to_string())
}

impl Security {
    /// The files that it needs.
    pub fn files(&self) -> Vec<&Path> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key, &tls.key_password]);
        let sasl = self.sasl.iter().map(|sasl| match sasl {
            Sasl::Password { password, .. } => password,
            Sasl::Token { token } => token,
        });
        tls.flatten().chain(sasl).map(PathBuf::as_path).collect()
    }

    /// The file of the token, if that is who we are.
    pub(crate) fn token_file(&self) -> Option<PathBuf> {
        match &self.sasl {
            Some(Sasl::Token { token }) => Some(token.clone()),
            _ => None,
        }
    }

    /// Writes it into a client's settings.
    ///
    /// # Errors
    /// A secret's file cannot be read.
    pub(crate) fn apply(&self, config: &mut ClientConfig) -> Result<(), KafkaError> {
        for (key, value) in self.options.iter().filter(|(key, _)| OPTIONS.contains(&key.as_str())) {
            config.set(key, value);
        }
        config.set("security.protocol", self.protocol());
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ];
            for (key, path) in files {
                if let Some(path) = path {
                    config.set(key, path.display().to_string());
                }
            }
            if let Some(path) = &tls.key_password {
                config.set("ssl.key.password", secret(path)?);
            }
            config.set("enable.ssl.certificate.verification", (tls.verify != Verify::None).to_string());
            let named = if tls.verify == Verify::Full { "https" } else { "none" };
            config.set("ssl.endpoint.identification.algorithm", named);
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Password { mechanism, user, password }) => {
                config.set("sasl.mechanism", *mechanism).set("sasl.username", user);
                config.set("sasl.password", secret(password)?);
            }
            Some(Sasl::Token { .. }) => {
                config.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        Ok(())
    }

    /// Kafka's name for it.
    pub fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, _) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }
}

/// What a token says of itself.
#[derive(serde::Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

/// Reads a token and what it says of itself; the errors never show it.
pub(crate) fn token(path: &Path) -> Result<OAuthToken, KafkaError> {
    use base64::Engine as _;
    let token = secret(path)?;
    let wrong = |what: &str| KafkaError::Setup(format!("{} holds no JSON Web Token: {what}", path.display()));
    let claims = token.split('.').nth(1).ok_or_else(|| wrong("it has no dots"))?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims.trim_end_matches('='))
        .map_err(|_| wrong("its second part is not base64url"))?;
    let claims: Claims =
        serde_json::from_slice(&claims).map_err(|_| wrong("its claims are no JSON with a sub and an exp"))?;
    Ok(OAuthToken { token, principal_name: claims.sub, lifetime_ms: (claims.exp * 1000.0) as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_no_printed_value() {
        let dir = tempfile::tempdir().unwrap();
        let (password, token_file) = (dir.path().join("password"), dir.path().join("token"));
        std::fs::write(&password, "hunter2-canary\n").unwrap();
        std::fs::write(&token_file, "canary.not-base64!.x").unwrap();
        let sasl = Some(Sasl::Password { mechanism: "SCRAM-SHA-512", user: "larum".into(), password });
        let security = Security { tls: Some(Tls::default()), sasl, options: Vec::new() };
        assert!(!format!("{security:?}").contains("canary"));
        let mut config = ClientConfig::new();
        security.apply(&mut config).unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2-canary"));
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("enable.ssl.certificate.verification"), Some("true"));
        assert_eq!(config.get("ssl.endpoint.identification.algorithm"), Some("https"));
        let error = token(&token_file).map(|_| ()).unwrap_err();
        assert!(!error.to_string().contains("canary") && error.to_string().contains("base64url"), "{error}");
    }

    #[test]
    fn a_token_says_who_it_is_and_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        // {"alg":"none"} . {"sub":"larum","exp":1900000000}
        std::fs::write(&file, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJsYXJ1bSIsImV4cCI6MTkwMDAwMDAwMH0.\n").unwrap();
        let token = token(&file).unwrap();
        assert_eq!((token.principal_name.as_str(), token.lifetime_ms), ("larum", 1_900_000_000_000));
    }
}
