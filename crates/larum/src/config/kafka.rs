//! The section `kafka`: brokers, and how the link to them is secured.

use std::path::PathBuf;

use larum_kafka::ClientSettings;
use larum_kafka::security::{OPTIONS, Sasl, Security, Tls, Verify};

use super::Overrides;
use super::reader::Reader;

/// Kafka's names for what a link can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Plaintext,
    Ssl,
    SaslSsl,
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("PLAINTEXT", Protocol::Plaintext), ("SSL", Protocol::Ssl), ("SASL_SSL", Protocol::SaslSsl)];
/// How to say who we are; the last with a token, the others with a password.
const MECHANISMS: [(&str, &str); 4] = [
    ("SCRAM-SHA-512", "SCRAM-SHA-512"),
    ("SCRAM-SHA-256", "SCRAM-SHA-256"),
    ("PLAIN", "PLAIN"),
    (OAUTHBEARER, OAUTHBEARER),
];
const OAUTHBEARER: &str = "OAUTHBEARER";

/// Reads the section.
pub fn read(reader: &mut Reader<'_>, overrides: &Overrides) -> ClientSettings {
    let mut kafka = reader.map("kafka");
    let settings = ClientSettings {
        brokers: overrides.brokers.clone().unwrap_or(kafka.text("brokers", "")),
        group: kafka.text("group", "larum"),
        queue_bytes: kafka.bytes("queue_memory", 64 << 20, 1 << 20..=64 << 30),
        security: read_security(&mut kafka),
    };
    for file in settings.security.files() {
        if let Err(error) = std::fs::File::open(file) {
            kafka.complain("protocol", &format!("needs {}, which cannot be read: {error}", file.display()));
        }
    }
    reader.close(kafka);
    settings
}

fn read_security(kafka: &mut Reader<'_>) -> Security {
    let protocol = kafka.choice("protocol", &PROTOCOLS);
    let (said_tls, said_sasl) = (kafka.has("tls"), kafka.has("sasl"));
    let mut tls = kafka.map("tls");
    let path = |reader: &mut Reader<'_>, key| reader.optional_text(key).map(PathBuf::from);
    let of_tls = Tls {
        ca: path(&mut tls, "ca"),
        certificate: path(&mut tls, "certificate"),
        key: path(&mut tls, "key"),
        key_password: path(&mut tls, "key_password_file"),
        verify: tls
            .choice("verify", &[("full", Verify::Full), ("no_hostname", Verify::NoHostname), ("none", Verify::None)]),
    };
    if of_tls.certificate.is_some() != of_tls.key.is_some() {
        tls.complain("certificate", "and key belong together: give both or neither");
    }
    kafka.close(tls);
    let mut sasl = kafka.map("sasl");
    let mechanism = sasl.choice("mechanism", &MECHANISMS);
    let (user, password) = (sasl.optional_text("user"), path(&mut sasl, "password_file"));
    let token = path(&mut sasl, "token_file");
    let of_sasl = match (mechanism, user, password, token) {
        (OAUTHBEARER, None, None, Some(token)) => Some(Sasl::Token { token }),
        (OAUTHBEARER, ..) if said_sasl => {
            sasl.complain("mechanism", "OAUTHBEARER takes token_file, a file with a JSON Web Token, and nothing else");
            None
        }
        (mechanism, Some(user), Some(password), None) => Some(Sasl::Password { mechanism, user, password }),
        (mechanism, ..) if said_sasl => {
            sasl.complain("mechanism", &format!("{mechanism} takes user and password_file, a file with the password"));
            None
        }
        _ => None,
    };
    kafka.close(sasl);
    if said_tls && protocol == Protocol::Plaintext {
        kafka.complain("tls", "needs protocol: SSL or SASL_SSL");
    }
    if said_sasl && protocol != Protocol::SaslSsl {
        kafka.complain("sasl", "needs protocol: SASL_SSL; without TLS the secret would be open to all between");
    }
    if protocol == Protocol::SaslSsl && !said_sasl {
        kafka.complain("protocol", "SASL_SSL needs a section sasl with a mechanism");
    }
    Security {
        tls: (protocol != Protocol::Plaintext).then_some(of_tls),
        sasl: of_sasl.filter(|_| protocol == Protocol::SaslSsl),
        options: read_options(kafka),
    }
}

/// Further options of the client: an allow-list.
fn read_options(kafka: &mut Reader<'_>) -> Vec<(String, String)> {
    let scalar = serde_json::json!({"type": ["string", "number", "boolean"]});
    let all: serde_json::Map<_, _> = OPTIONS.iter().map(|key| (key.to_string(), scalar.clone())).collect();
    let shape = serde_json::json!({"type": ["object", "null"], "properties": all, "additionalProperties": false});
    kafka.shape("client_options", shape);
    let mut options = Vec::new();
    for (line, key, value) in kafka.pairs("client_options") {
        if OPTIONS.contains(&key.as_str()) {
            options.push((key, value));
        } else {
            let all = OPTIONS.join(", ");
            kafka.complain_at(line, &format!("client_options takes {all}, not {key}"));
        }
    }
    options
}
