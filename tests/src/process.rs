//! Programs that tests run beside themselves: start, wait, stop, and where the fetched services are.
#![allow(clippy::disallowed_methods, reason = "tests wait for real programs, so they read the real clock")]

use anyhow::{Context, bail, ensure};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;

/// Below the ports that Linux gives to outgoing connections: no client takes the port of a server that restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running program whose output goes to a file; dropping it kills the program.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    dir: TempDir,
}

impl Child {
    /// Starts `program` with `args` and, beside the environment of the test, `env`.
    pub fn spawn<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Child> {
        let program = Path::new(program.as_ref());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let dir = tempfile::tempdir().context("no temporary folder for a program's log")?;
        let log = File::create(dir.path().join("log")).context("cannot create a program's log")?;
        let process = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a program's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Child { name, process, dir })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How the program ended, or `None` while it runs: its exit code, or 128 + the signal that killed it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.try_wait().ok().flatten().map(exit_code)
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`...); nothing happens when the program has ended.
    pub fn signal(&mut self, name: &str) -> anyhow::Result<()> {
        if self.exit_code().is_some() {
            return Ok(());
        }
        let pid = self.pid().to_string();
        let status = Command::new("kill").arg(format!("-{name}")).arg(&pid).status();
        let status = status.context("cannot run the program kill (Debian: package procps)")?;
        ensure!(status.success(), "kill -{name} {pid} ({}) failed: {status}", self.name);
        Ok(())
    }

    /// Ends the program with SIGKILL, as a crash of its machine would, and waits until it is gone.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.process.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.process.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks the program to end with SIGTERM. Returns its exit code (128 + signal when a signal ended it), or `None`
    /// when it could not be asked or was not gone after `timeout` and had to be killed.
    pub fn terminate(&mut self, timeout: Duration) -> Option<i32> {
        let asked = self.signal("TERM");
        let ended = asked.and_then(|()| wait_until("the end of a program", timeout, || self.exit_code()));
        if ended.is_err() {
            // An error here means that it ended just now.
            let _ = self.kill_9();
        }
        ended.ok()
    }

    /// Everything the program wrote to stdout and stderr so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of the log under a heading, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("--- last {} lines of {} (process {}) ---\n{}", tail.len(), self.name, self.pid(), tail.join("\n"))
    }

    /// Waits until `ready` says yes; an early end of the program or the time limit is an error with the log's end.
    pub fn wait_ready(&mut self, timeout: Duration, mut ready: impl FnMut(&Child) -> bool) -> anyhow::Result<()> {
        let what = format!("{} to be ready", self.name);
        let ended = wait_until(&what, timeout, || match self.exit_code() {
            Some(code) => Some(Some(code)),
            None => ready(self).then_some(None),
        });
        match ended.with_context(|| self.log_tail())? {
            Some(code) => bail!("{} ended with code {code} before it was ready\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.kill_9();
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs `program` to its end with `input` on stdin; returns what it wrote, which is part of the error when it fails.
pub fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
    input: &str,
) -> anyhow::Result<String> {
    let name = Path::new(program.as_ref()).display();
    let mut command = Command::new(program.as_ref());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    // A program that stops reading says why in its output, which is the better error.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{name} ended with {}:\n{text}", output.status);
    written.with_context(|| format!("{name} did not read its input"))?;
    Ok(text)
}

/// Calls `poll` every 20 ms until it gives a value; after `timeout` the error names `what` was awaited.
pub fn wait_until<T>(what: &str, timeout: Duration, mut poll: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return Ok(value);
        }
        ensure!(start.elapsed() < timeout, "waited {timeout:?} in vain for {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// A loopback port on which nobody listens; no two calls in one process give the same.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = std::iter::repeat_with(|| fastrand::u16(PORTS))
        .take(PORTS.len())
        .find(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of thousands of loopback ports is free");
    given.push(port);
    port
}

/// The folder of this crate's services: the script that fetches them and their settings.
pub fn services_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services")
}

/// Runs `tests/services/fetch PART` once per process and returns the folder it fills (`LARUM_SERVICES`, by default
/// `.cache/services` in the repository).
pub fn services(part: &str) -> anyhow::Result<PathBuf> {
    static FETCHED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let source = services_source();
    let folder = match std::env::var_os("LARUM_SERVICES") {
        Some(folder) => PathBuf::from(folder),
        None => source.join("../../.cache/services"),
    };
    let mut fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if !fetched.iter().any(|name| name == part) {
        let advice =
            || format!("this test needs {part}; `tests/services/fetch {part}` gets it or says what is missing");
        run(source.join("fetch"), [part], "").with_context(advice)?;
        fetched.push(part.to_owned());
    }
    fs::canonicalize(&folder).with_context(|| format!("no folder {}", folder.display()))
}

/// Wall clock, Unix ms.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64)
}
