//! The `larum` program as its users run it: started, killed, scraped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larum_tests::process::{Child, free_port, wait_until};

use crate::scrape::Scrape;

/// Where the program is.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("LARUM_BIN").map(PathBuf::from);
    let path = path.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/larum"));
    assert!(path.exists(), "{} is missing: run tests/real-services, which builds it", path.display());
    path
}

/// A `larum run` that can be killed and started again on the same state.
pub struct Larum {
    pub args: Vec<String>,
    pub port: u16,
    pub state: tempfile::TempDir,
    child: Option<Child>,
    _config: Option<tempfile::NamedTempFile>,
}

impl Larum {
    /// Starts it on `topics`, with more flags as given.
    pub fn start(brokers: &str, topics: &[&str], more: &[&str]) -> Larum {
        let mut args = vec!["run".to_string(), "--brokers".into(), brokers.into()];
        for topic in topics {
            args.extend(["--topic".to_string(), topic.to_string()]);
        }
        Larum::with(args, more)
    }

    /// Starts it with a configuration file.
    pub fn configured(config: &Path, more: &[&str]) -> Larum {
        Larum::with(vec!["run".to_string(), "--config".into(), config.display().to_string()], more)
    }

    fn with(mut args: Vec<String>, more: &[&str]) -> Larum {
        let state = tempfile::tempdir().unwrap();
        let port = free_port();
        if !more.contains(&"--state") {
            args.extend(["--state".to_string(), state.path().display().to_string()]);
        }
        args.extend(["--listen".to_string(), format!("127.0.0.1:{port}")]);
        args.extend(more.iter().map(|m| m.to_string()));
        // Tests compare every series, so all of them are to be shown.
        let config = (!args.contains(&"--config".to_string())).then(|| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "limits: {series: 10000000, memory: 64GiB}\n").unwrap();
            args.extend(["--config".to_string(), file.path().display().to_string()]);
            file
        });
        let mut larum = Larum { args, port, state, child: None, _config: config };
        larum.again();
        larum
    }

    /// Starts it again.
    pub fn again(&mut self) {
        self.child = Some(Child::spawn(binary(), &self.args, &[]).unwrap());
    }

    /// SIGKILL.
    pub fn kill_9(&mut self) {
        self.child.as_mut().unwrap().kill_9().unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().pid()
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.child.as_mut().unwrap().terminate(Duration::from_secs(6))
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.as_mut().unwrap().exit_code()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.child.as_ref().map_or(String::new(), Child::log)
    }

    /// A page of its endpoint, if it answers.
    pub fn page(&self, path: &str) -> Option<String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).proxy(None).build().into();
        agent
            .get(format!("http://127.0.0.1:{}{path}", self.port))
            .call()
            .ok()?
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()
            .ok()
    }

    /// The bytes of a page in the format that is asked for.
    pub fn raw_page(&self, path: &str, accept: &str) -> Vec<u8> {
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut answer = agent.get(url).header("accept", accept).call().unwrap();
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
    }

    /// A scrape, if it answers.
    pub fn scrape(&self) -> Option<Scrape> {
        self.page("/metrics").map(|text| Scrape::parse(&text))
    }

    /// Waits until the scrape is as wished.
    pub fn wait_for(&self, what: &str, seconds: u64, wish: impl Fn(&Scrape) -> bool) -> Scrape {
        let done = wait_until(what, Duration::from_secs(seconds), || self.scrape().filter(|s| wish(s)));
        done.unwrap_or_else(|error| panic!("{error:#}\n{}", self.child.as_ref().map_or(String::new(), Child::log_tail)))
    }

    /// Waits until everything up to `ends` is visible.
    pub fn wait_visible(&self, ends: &[i64], seconds: u64) -> Scrape {
        let all = |s: &Scrape| ends.iter().enumerate().all(|(p, end)| s.next_offset(p as i32) == Some(*end));
        self.wait_for(&format!("visible up to {ends:?}"), seconds, all)
    }
}

/// Runs `larum load` to its end; gives the truth.
pub fn load(brokers: &str, topic: &str, args: &[&str]) -> larum_load::Truth {
    let mut load = Load::start(brokers, topic, args);
    load.finish(Duration::from_secs(300))
}

/// A `larum load` in the background.
pub struct Load {
    child: Child,
    truth: tempfile::NamedTempFile,
}

impl Load {
    pub fn start(brokers: &str, topic: &str, args: &[&str]) -> Load {
        let truth = tempfile::NamedTempFile::new().unwrap();
        let path = truth.path().display().to_string();
        let fixed = ["load", "--brokers", brokers, "--topic", topic, "--truth", &path];
        let child = Child::spawn(binary(), fixed.iter().chain(args), &[]).unwrap();
        Load { child, truth }
    }

    pub fn finish(&mut self, timeout: Duration) -> larum_load::Truth {
        let code = wait_until("the end of the load", timeout, || self.child.exit_code()).unwrap();
        assert_eq!(code, 0, "{}", self.child.log_tail());
        serde_json::from_slice(&std::fs::read(self.truth.path()).unwrap()).unwrap()
    }

    /// Waits until it ends without having done all; gives exit code and log. Its truth is to be empty then.
    pub fn give_up(&mut self, timeout: Duration) -> (i32, String) {
        let code = wait_until("the load to give up", timeout, || self.child.exit_code()).unwrap();
        assert!(std::fs::read(self.truth.path()).unwrap().is_empty(), "the truth of records that are lost");
        (code, self.child.log())
    }
}
