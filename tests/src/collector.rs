//! A real OpenTelemetry Collector that hands everything it receives to the test as JSON.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Child, free_port};
use crate::sink::{Received, listen};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running collector; dropping it kills it.
pub struct Collector {
    child: Child,
    config: TempDir,
    /// Port of its gRPC receiver.
    pub grpc: u16,
    /// Port of its HTTP receiver.
    pub http: u16,
    /// What it handed on.
    pub received: Received,
}

impl Collector {
    /// Starts a collector. `certificates`: a folder with `ca.pem`, `larum.crt` and `larum.key`; then both receivers speak
    /// TLS and ask clients for a certificate of that authority.
    pub fn start(certificates: Option<&Path>) -> anyhow::Result<Collector> {
        let config = tempfile::tempdir().context("no temporary folder for the collector")?;
        let received = Received::default();
        let sink = listen(received.clone())?;
        let (grpc, http) = (free_port(), free_port());
        let tls = certificates.map_or(String::new(), |folder| {
            let folder = folder.display();
            format!(
                "        tls: {{cert_file: {folder}/larum.crt, key_file: {folder}/larum.key, client_ca_file: {folder}/ca.pem}}\n"
            )
        });
        let text = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: 127.0.0.1:{grpc}\n{tls}      http:\n        \
             endpoint: 127.0.0.1:{http}\n{tls}exporters:\n  otlp_http:\n    endpoint: http://127.0.0.1:{sink}\n    \
             encoding: json\n    compression: none\nservice:\n  telemetry:\n    metrics: {{level: none}}\n  pipelines:\n    \
             metrics: {{receivers: [otlp], exporters: [otlp_http]}}\n    \
             logs: {{receivers: [otlp], exporters: [otlp_http]}}\n    traces: {{receivers: [otlp], exporters: [otlp_http]}}\n"
        );
        fs::write(config.path().join("config.yaml"), text).context("cannot write the collector's configuration")?;
        let child = spawn(&config)?;
        Ok(Collector { child, config, grpc, http, received })
    }

    /// Kills it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.child.kill_9()
    }

    /// Starts it again.
    pub fn again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.config)?;
        Ok(())
    }

    /// Everything that it handed on of one sort: `metrics`, `logs` or `traces`.
    pub fn bodies(&self, signal: &str) -> Vec<Value> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().filter(|(path, _)| path.ends_with(signal)).map(|(_, body)| body.clone()).collect()
    }
}

fn spawn(config: &TempDir) -> anyhow::Result<Child> {
    let program = process::services("collector")?.join("bin/otelcol");
    let mut child = Child::spawn(program, ["--config", &config.path().join("config.yaml").display().to_string()], &[])?;
    child.wait_ready(START_TIMEOUT, |child| child.log().contains("Everything is ready"))?;
    Ok(child)
}
