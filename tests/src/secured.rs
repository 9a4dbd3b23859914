//! A real Kafka broker whose links are secured the ways that production's are, with certificates made on the spot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::kafka::Kafka;
use crate::process::{free_port, run};

/// A broker with a listener for each way, besides the open one of [`Kafka`].
pub struct Secured {
    /// The broker; its own tools use the open listener.
    pub kafka: Kafka,
    /// Address of the listener for SASL_SSL with SCRAM-SHA-512.
    pub scram: String,
    /// Address of the listener for mutual TLS.
    pub mutual: String,
    /// Address of the listener for SASL_SSL with OAUTHBEARER.
    pub oauth: String,
    /// Certificates and keys: ca.pem, client.pem, client.key, other-ca.pem.
    pub files: TempDir,
}

impl Secured {
    /// Starts it; `user` may come with `password`.
    pub fn start(user: &str, password: &str) -> anyhow::Result<Secured> {
        let files = tempfile::tempdir().context("no temporary folder for certificates")?;
        for name in ["ca", "other-ca"] {
            authority(files.path(), name)?;
        }
        for name in ["server", "client"] {
            certificate(files.path(), name)?;
        }
        let path = |name: &str| files.path().join(name);
        let key_store = [path("server.key"), path("server.pem")].map(fs::read_to_string);
        let [key, chain] = key_store;
        fs::write(path("server-store.pem"), key? + &chain?)?;
        let [scram, mutual, oauth] = [0; 3].map(|_| format!("127.0.0.1:{}", free_port()));
        let listeners = format!(",SCRAM://{scram},MUTUAL://{mutual},OAUTH://{oauth}");
        let modules = "org.apache.kafka.common.security";
        let settings = format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL,OAUTH:SASL_SSL
             inter.broker.listener.name=PLAINTEXT
             ssl.keystore.type=PEM
             ssl.keystore.location={}
             ssl.truststore.type=PEM
             ssl.truststore.location={}
             listener.name.mutual.ssl.client.auth=required
             listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
             listener.name.scram.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
             listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
             listener.name.oauth.oauthbearer.sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required;\n",
            path("server-store.pem").display(),
            path("ca.pem").display()
        );
        let settings: String = settings.lines().map(|line| line.trim_start().to_string() + "\n").collect();
        let add = format!("SCRAM-SHA-512=[name={user},password={password}]");
        let jvm = vec!["-Xmx256m".to_owned(), "-XX:TieredStopAtLevel=1".to_owned()];
        let dir = tempfile::tempdir().context("no temporary folder for Kafka")?;
        let kafka = Kafka::start_in(dir, jvm, &listeners, &settings, &["--add-scram", &add])?;
        Ok(Secured { kafka, scram, mutual, oauth, files })
    }

    /// The path of a file of [`Secured::files`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

fn openssl(dir: &Path, args: &str) -> anyhow::Result<()> {
    let script = format!("cd '{}' && openssl {args} 2>&1", dir.display());
    run("sh", ["-c", &script], "").context("openssl makes the certificates; it comes with the package openssl")?;
    Ok(())
}

/// An authority of its own.
pub fn authority(dir: &Path, name: &str) -> anyhow::Result<()> {
    openssl(
        dir,
        &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
    )
}

/// A key, and a certificate for this machine that `ca` signed.
pub fn certificate(dir: &Path, name: &str) -> anyhow::Result<()> {
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
    openssl(dir, &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"))?;
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
        ),
    )
}
