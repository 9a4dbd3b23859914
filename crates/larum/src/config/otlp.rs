//! The section `otlp`: where metrics are pushed, and how.

use std::path::PathBuf;
use std::time::Duration;

use larum_export::otlp::{Link, Protocol};

use super::reader::Reader;

/// Pushes to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpConfig {
    /// The link to it.
    pub link: Link,
    /// Time between pushes.
    pub interval: Duration,
    /// Share of Larum's own traces that is sent, 0 to 1.
    pub trace_share: f64,
    /// Tells this Larum from others, and stays the same over restarts.
    pub instance: String,
}

/// Reads the section; without an endpoint nothing is pushed.
pub fn read(reader: &mut Reader<'_>, port: u16) -> Option<OtlpConfig> {
    let mut otlp = reader.map("otlp");
    let endpoint = otlp.optional_text("endpoint");
    let path = |reader: &mut Reader<'_>, key| reader.optional_text(key).map(PathBuf::from);
    let protocol = otlp.choice("protocol", &[("grpc", Protocol::Grpc), ("http", Protocol::Http)]);
    let gzip = otlp.choice("compression", &[("gzip", true), ("none", false)]);
    let headers_file = path(&mut otlp, "headers_file");
    let interval = otlp.duration("interval", "15s", Duration::from_secs(1)..=Duration::from_secs(3600));
    let instance = otlp.optional_text("instance");
    let trace_share = otlp.parsed("trace_share", "0.1", share);
    otlp.shape(
        "trace_share",
        serde_json::json!({"type": ["number", "null"], "minimum": 0, "maximum": 1, "default": 0.1}),
    );
    let mut tls = otlp.map("tls");
    let (ca, certificate, key) = (path(&mut tls, "ca"), path(&mut tls, "certificate"), path(&mut tls, "key"));
    if certificate.is_some() != key.is_some() {
        tls.complain("certificate", "and key belong together: give both or neither");
    }
    otlp.close(tls);
    if let Some(endpoint) = &endpoint
        && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
    {
        otlp.complain("endpoint", &format!("takes a URL such as http://localhost:4317, not {endpoint}"));
    }
    let mut is_readable = true;
    for file in [&headers_file, &ca, &certificate, &key].into_iter().flatten() {
        if let Err(error) = std::fs::File::open(file) {
            is_readable = false;
            otlp.complain("endpoint", &format!("needs {}, which cannot be read: {error}", file.display()));
        }
    }
    let link = endpoint.map(|endpoint| Link { endpoint, protocol, gzip, headers_file, ca, certificate, key });
    if let Some(Err(why)) = link.as_ref().filter(|_| is_readable).map(try_out) {
        otlp.complain("endpoint", &format!("cannot be used: {why}"));
    }
    reader.close(otlp);
    let link = link?;
    let instance = instance.unwrap_or_else(|| format!("{}:{port}", host()));
    Some(OtlpConfig { link, interval, instance, trace_share: trace_share.unwrap_or(0.1) })
}

/// Makes a client, which reads the files and connects to nothing.
fn try_out(link: &Link) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let _entered = runtime.enter();
    link.client().map(drop)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("takes a share from 0 to 1, not {text}"))
}

/// This machine's name.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.map_or_else(|_| "localhost".to_string(), |name| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    #[test]
    fn a_link_is_checked_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let (headers, pem) = (dir.path().join("headers"), dir.path().join("ca.pem"));
        std::fs::write(&headers, "authorization canary\n").unwrap();
        std::fs::write(&pem, "no certificate").unwrap();
        let with = |otlp: &str| {
            let text = format!("kafka: {{brokers: b}}\nsources: [{{name: a, topics: [t]}}]\notlp: {{{otlp}}}\n");
            let found = Config::resolve(&text, &Overrides::default()).err().unwrap_or_default();
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(with("endpoint: 'http://localhost:4317', trace_share: 0.5"), "");
        for (otlp, why) in [
            ("endpoint: localhost".to_string(), "line 3: otlp.endpoint takes a URL"),
            ("trace_share: 2".to_string(), "otlp.trace_share takes a share from 0 to 1, not 2"),
            (format!("endpoint: 'http://l:1', headers_file: {}", headers.display()), "line 1 is not of the form"),
            (
                format!("endpoint: 'https://l:1', protocol: http, tls: {{ca: {}}}", pem.display()),
                "holds no certificate",
            ),
            ("endpoint: 'http://l:1', headers_file: /no/such".to_string(), "needs /no/such, which cannot be read"),
            ("endpoint: 'https://l:1', tls: {key: a}".to_string(), "belong together"),
        ] {
            let found = with(&otlp);
            assert!(found.contains(why) && !found.contains("canary"), "{otlp}: {found}");
        }
    }
}
