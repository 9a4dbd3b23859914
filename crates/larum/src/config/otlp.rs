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
    for file in [&headers_file, &ca, &certificate, &key].into_iter().flatten() {
        if let Err(error) = std::fs::File::open(file) {
            otlp.complain("endpoint", &format!("needs {}, which cannot be read: {error}", file.display()));
        }
    }
    reader.close(otlp);
    let link = Link { endpoint: endpoint?, protocol, gzip, headers_file, ca, certificate, key };
    let instance = instance.unwrap_or_else(|| format!("{}:{port}", host()));
    Some(OtlpConfig { link, interval, instance, trace_share: trace_share.unwrap_or(0.1) })
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
