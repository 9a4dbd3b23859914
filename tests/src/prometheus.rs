//! A real Prometheus that scrapes the program under test, and promtool as the judge of its pages and configurations.

use crate::process::{self, Child, free_port, run, wait_until};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Debian's 2.42 makes its first scrape 5 s after the start, whatever its flags say.
const UP_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// The labels of a series, its name under `__name__`.
pub type Labels = BTreeMap<String, String>;

/// A series over a time range: its labels, and its samples as pairs of seconds since 1970 and value.
pub type RangeSeries = (Labels, Vec<(f64, f64)>);

// === Prometheus ===

/// A running Prometheus with one target; dropping it kills it and removes its data.
pub struct Prometheus {
    child: Child,
    agent: ureq::Agent,
    url: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus, which scrapes `http://TARGET/metrics` (`target` is `host:port`) as job `larum` every
    /// `interval_ms`; installs it first when that is needed.
    pub fn start(target: &str, interval_ms: u64) -> anyhow::Result<Prometheus> {
        Prometheus::start_with(target, interval_ms, "exemplar-storage")
    }

    /// The same with features of Prometheus switched on, comma-separated.
    pub fn start_with(target: &str, interval_ms: u64, features: &str) -> anyhow::Result<Prometheus> {
        Prometheus::start_configured(&configuration(target, interval_ms), features)
    }

    /// The same with more lines about the job: how its target is reached.
    pub fn start_secured(target: &str, interval_ms: u64, link: &str) -> anyhow::Result<Prometheus> {
        Prometheus::start_configured(&(configuration(target, interval_ms) + link), "exemplar-storage")
    }

    /// The current Prometheus, which takes classic and native histograms together, exemplars and start times.
    pub fn start_upstream(target: &str, interval_ms: u64) -> anyhow::Result<Prometheus> {
        let program = process::services("upstream")?.join("upstream/prometheus");
        let both = "    scrape_native_histograms: true\n    always_scrape_classic_histograms: true\n";
        let features = "exemplar-storage,created-timestamp-zero-ingestion";
        Prometheus::start_program(&program, &(configuration(target, interval_ms) + both), features)
    }

    /// The same with rules, a file of Prometheus' own form.
    pub fn start_ruled(target: &str, interval_ms: u64, rules: &str) -> anyhow::Result<Prometheus> {
        let program = process::services("prometheus")?.join("bin/prometheus");
        let file = tempfile::NamedTempFile::new().context("no temporary file for rules")?;
        fs::write(file.path(), rules).context("cannot write rules")?;
        let with_rules = format!("{}rule_files: ['{}']\n", configuration(target, interval_ms), file.path().display());
        // They are read before it is ready.
        Prometheus::start_program(&program, &with_rules, "exemplar-storage")
    }

    fn start_configured(configuration: &str, features: &str) -> anyhow::Result<Prometheus> {
        let program = process::services("prometheus")?.join("bin/prometheus");
        Prometheus::start_program(&program, configuration, features)
    }

    fn start_program(program: &Path, configuration: &str, features: &str) -> anyhow::Result<Prometheus> {
        let dir = tempfile::tempdir().context("no temporary folder for Prometheus")?;
        let config = dir.path().join("prometheus.yml");
        fs::write(&config, configuration).context("cannot write prometheus.yml")?;
        let address = format!("127.0.0.1:{}", free_port());
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={address}"),
            "--log.level=warn".to_owned(),
            "--scrape.discovery-reload-interval=100ms".to_owned(),
            format!("--enable-feature={features}"),
        ];
        let mut child = Child::spawn(program, args, &[])?;
        let (agent, url) = (agent(), format!("http://{address}"));
        let ready = format!("{url}/-/ready");
        child.wait_ready(START_TIMEOUT, |_| {
            agent.get(ready.as_str()).call().is_ok_and(|response| response.status().is_success())
        })?;
        Ok(Prometheus { child, agent, url, _dir: dir })
    }

    /// The address of its pages and API, without a final slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process, to stop it or to look at its log.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The value of a query now: one entry per series, for a scalar one without labels. An error, a warning or a note
    /// of Prometheus, and a series that is a histogram, are errors; no data is an empty answer.
    pub fn query(&self, promql: &str) -> anyhow::Result<Vec<(Labels, f64)>> {
        let data = self.ask("query", &[("query", promql)])?;
        let result = &data["result"];
        match data["resultType"].as_str() {
            Some("vector") => {
                series(result)?.map(|series| Ok((labels(series)?, sample(&series["value"])?.1))).collect()
            }
            Some("scalar") => Ok(vec![(Labels::new(), sample(result)?.1)]),
            kind => bail!("the result of {promql} is of kind {kind:?}"),
        }
    }

    /// The values of a query at each step of a time range, given in seconds since 1970; errors as in
    /// [`Prometheus::query`].
    pub fn query_range(&self, promql: &str, start_s: f64, end_s: f64, step_s: f64) -> anyhow::Result<Vec<RangeSeries>> {
        let [start, end, step] = [start_s, end_s, step_s].map(|time| format!("{time:.3}"));
        let form = [("query", promql), ("start", &start), ("end", &end), ("step", &step)];
        let data = self.ask("query_range", &form)?;
        let samples = |series: &Value| {
            let values = series["values"].as_array().with_context(|| format!("no plain values in {series}"))?;
            values.iter().map(sample).collect::<anyhow::Result<Vec<_>>>()
        };
        series(&data["result"])?.map(|series| Ok((labels(series)?, samples(series)?))).collect()
    }

    /// Exemplars of the last hour of the series that a query names: labels of the exemplar, and its value.
    pub fn exemplars(&self, promql: &str) -> anyhow::Result<Vec<(Labels, f64)>> {
        let now_s = process::now_ms() / 1000;
        let (start, end) = ((now_s - 3600).to_string(), (now_s + 60).to_string());
        let data = self.ask("query_exemplars", &[("query", promql), ("start", &start), ("end", &end)])?;
        let mut found = Vec::new();
        for exemplar in series(&data)?.filter_map(|series| series["exemplars"].as_array()).flatten() {
            let labels = exemplar["labels"].as_object().with_context(|| format!("no labels in {exemplar}"))?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let value = exemplar["value"].as_str().and_then(|value| value.parse().ok());
            let value = value.with_context(|| format!("no value in {exemplar}"))?;
            found.push((labels.iter().map(|(name, value)| (name.clone(), text(value))).collect(), value));
        }
        Ok(found)
    }

    /// Waits until the last scrape of the target was a success; the error says what Prometheus held against it.
    pub fn wait_for_target_up(&self) -> anyhow::Result<()> {
        let up = || self.query("up{job=\"larum\"} == 1").is_ok_and(|result| !result.is_empty()).then_some(());
        wait_until("Prometheus to scrape its target", UP_TIMEOUT, up).with_context(|| match self.ask("targets", &[]) {
            Ok(data) => format!("the last scrape said: {}", data["activeTargets"][0]["lastError"]),
            Err(error) => format!("and Prometheus cannot say why: {error:#}"),
        })
    }

    /// Posts a form to a method of the API and returns the data of the answer.
    fn ask(&self, method: &str, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        let what = || format!("asking Prometheus for {method} {form:?}");
        let url = format!("{}/api/v1/{method}", self.url);
        let response = match form {
            [] => self.agent.get(url.as_str()).call(),
            _ => self.agent.post(url.as_str()).send_form(form.iter().copied()),
        };
        let mut response = response.with_context(what)?;
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().with_context(what)?;
        let mut answer: Value = serde_json::from_str(&text).with_context(what)?;
        ensure!(answer["status"] == "success", "{}: {}", what(), answer["error"]);
        for notes in ["warnings", "infos"] {
            ensure!(answer[notes].is_null(), "{}: {notes} {}", what(), answer[notes]);
        }
        Ok(answer["data"].take())
    }
}

fn configuration(target: &str, interval_ms: u64) -> String {
    format!(
        "global:
  scrape_interval: {interval_ms}ms
  scrape_timeout: {interval_ms}ms
  evaluation_interval: {interval_ms}ms
scrape_configs:
  - job_name: larum
    static_configs:
      - targets: ['{target}']
"
    )
}

/// A client that gives error pages as answers and goes through no proxy of the environment.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    ureq::Agent::new_with_config(config.timeout_global(Some(REQUEST_TIMEOUT)).build())
}

fn series(result: &Value) -> anyhow::Result<std::slice::Iter<'_, Value>> {
    Ok(result.as_array().with_context(|| format!("no list of series: {result}"))?.iter())
}

fn labels(series: &Value) -> anyhow::Result<Labels> {
    let labels = series["metric"].as_object().with_context(|| format!("a series without labels: {series}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(labels.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// A pair of time and value as the API writes it: `[1700000000.123, "NaN"]`.
fn sample(pair: &Value) -> anyhow::Result<(f64, f64)> {
    let time = pair[0].as_f64();
    let value = pair[1].as_str().and_then(|text| text.parse().ok());
    time.zip(value).with_context(|| format!("no plain sample: {pair}"))
}

// === judges ===

/// Reads `http://TARGET/metrics` in both text formats, packed and not, with the strict parsers of Prometheus' Python client;
/// returns what it found.
pub fn check_text_formats(target: &str) -> anyhow::Result<String> {
    let packages = process::services("python")?.join("python");
    let script = process::services_source().join("expositions.py");
    let path = format!("PYTHONPATH={}", packages.display());
    run("env", [path.as_str(), "python3", &script.display().to_string(), &format!("http://{target}/metrics")], "")
}

/// Gives a page in the text format to `promtool check metrics` and returns what it said; any complaint is an error.
pub fn promtool_check_metrics(text: &str) -> anyhow::Result<String> {
    promtool(["check", "metrics"], text)
}

/// Checks a Prometheus configuration and the rule files that it names; returns what promtool said.
pub fn promtool_check_config(path: &Path) -> anyhow::Result<String> {
    promtool(["check".as_ref(), "config".as_ref(), path.as_os_str()], "")
}

/// Checks a web configuration and the files that it names; returns what promtool said.
pub fn promtool_check_web_config(path: &Path) -> anyhow::Result<String> {
    promtool(["check".as_ref(), "web-config".as_ref(), path.as_os_str()], "")
}

fn promtool<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>, input: &str) -> anyhow::Result<String> {
    run(process::services("prometheus")?.join("bin/promtool"), args, input)
}
