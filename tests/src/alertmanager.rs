//! A real Alertmanager with the shipped configuration, whose receivers are the test itself.

use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Child, free_port, run};
use crate::sink::{Received, listen};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The shipped configuration.
pub fn shipped() -> PathBuf {
    process::services_source().join("../../config/alertmanager.yml")
}

/// A running Alertmanager; dropping it kills it.
pub struct Alertmanager {
    child: Child,
    args: Vec<String>,
    dir: TempDir,
    agent: ureq::Agent,
    /// Its address.
    pub url: String,
    /// Notifications by receiver (`/pager`, `/tickets`, `/watchdog`).
    pub received: Received,
}

impl Alertmanager {
    /// Starts it. Bundles wait no longer than a second, so that a test sees all there is to see.
    pub fn start() -> anyhow::Result<Alertmanager> {
        let (dir, received) =
            (tempfile::tempdir().context("no temporary folder for Alertmanager")?, Received::default());
        let sink = listen(received.clone())?;
        let text = fs::read_to_string(shipped()).context("cannot read the shipped configuration")?;
        let text = text.replace("localhost:5001", &format!("127.0.0.1:{sink}"));
        let text =
            text.replace("group_wait: 30s", "group_wait: 0s").replace("group_interval: 5m", "group_interval: 1s");
        let text = text.replace("group_interval: 1m", "group_interval: 1s");
        fs::write(dir.path().join("alertmanager.yml"), text).context("cannot write alertmanager.yml")?;
        let address = format!("127.0.0.1:{}", free_port());
        let args = vec![
            format!("--config.file={}", dir.path().join("alertmanager.yml").display()),
            format!("--storage.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_string(),
        ];
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).proxy(None).build().into();
        let child = spawn(&args)?;
        let mut alertmanager = Alertmanager { child, args, dir, agent, url: format!("http://{address}"), received };
        alertmanager.wait_ready()?;
        Ok(alertmanager)
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let (agent, ready) = (self.agent.clone(), format!("{}/-/ready", self.url));
        self.child
            .wait_ready(START_TIMEOUT, |_| agent.get(&ready).call().is_ok_and(|answer| answer.status().is_success()))
    }

    /// Kills it; its data stay.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.child.kill_9()
    }

    /// Starts it again.
    pub fn again(&mut self) -> anyhow::Result<()> {
        debug_assert!(self.dir.path().exists());
        self.child = spawn(&self.args)?;
        self.wait_ready()
    }

    /// The alerts that it holds as active, with a label of this value.
    pub fn alerts(&self, label: &str, value: &str) -> anyhow::Result<Vec<Value>> {
        let url = format!("{}/api/v2/alerts?active=true&filter={label}%3D%22{value}%22", self.url);
        let text = self.agent.get(url).call()?.body_mut().read_to_string()?;
        serde_json::from_str(&text).with_context(|| format!("no alerts in {text}"))
    }

    /// Tells it of alerts that fire now, as anybody may.
    pub fn post(&self, alerts: &Value) -> anyhow::Result<()> {
        let url = format!("{}/api/v2/alerts", self.url);
        self.agent.post(url).header("content-type", "application/json").send(alerts.to_string())?;
        Ok(())
    }

    /// Notifications that a receiver got, in which an alert of this name is.
    pub fn notifications(&self, receiver: &str, alert: &str) -> Vec<Value> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of = |body: &Value| {
            let alerts = body["alerts"].as_array().map_or(&[][..], Vec::as_slice);
            alerts.iter().any(|one| one["labels"]["alertname"] == alert)
        };
        received.iter().filter(|(path, body)| path == receiver && is_of(body)).map(|(_, body)| body.clone()).collect()
    }
}

fn spawn(args: &[String]) -> anyhow::Result<Child> {
    Child::spawn(process::services("alertmanager")?.join("bin/alertmanager"), args, &[])
}

/// What amtool says about a configuration; an error where it refuses.
pub fn amtool_check_config(path: &std::path::Path) -> anyhow::Result<String> {
    let amtool = process::services("alertmanager")?.join("bin/amtool");
    run(amtool, ["check-config", &path.display().to_string()], "")
}

/// The receivers to which amtool would route these labels.
pub fn amtool_routes(labels: &[&str]) -> anyhow::Result<String> {
    let amtool = process::services("alertmanager")?.join("bin/amtool");
    let config = format!("--config.file={}", shipped().display());
    let args = ["config", "routes", "test", &config].into_iter().chain(labels.iter().copied());
    let said = run(amtool, args, "")?;
    // Newer ones warn that there is no server to ask.
    Ok(said.lines().next().unwrap_or_default().trim().to_string())
}
