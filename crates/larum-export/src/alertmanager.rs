//! What fires, told to Alertmanagers by their API v2: every instance of a list, each from a thread of its own, so that a dead
//! one delays nobody. What is told is always the whole of what holds, so what was not delivered is replaced by what is newer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::agent::{Trust, read};

/// Waits between attempts: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_600));
/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// Most alerts in one request.
const ALERTS_PER_REQUEST_MAX: usize = 256;

/// One alert as Alertmanager takes it. Its labels are its identity: no value stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who it is.
    pub labels: BTreeMap<&'static str, String>,
    /// What there is to say about it.
    pub annotations: BTreeMap<&'static str, String>,
    /// When it began, RFC 3339.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
    /// When it ended, or until when it is taken to go on without further word, RFC 3339.
    #[serde(rename = "endsAt")]
    pub ends_at: String,
    /// Where it comes from.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
}

/// How the sender shows who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// A token in this file.
    Bearer(PathBuf),
    /// A user, and a file with the password.
    Basic(String, PathBuf),
}

impl Credentials {
    /// The header's value; files are read anew each time, so that they can be replaced.
    fn header(&self) -> Result<Option<String>, String> {
        let secret = |path: &PathBuf| read(path).map(|text| text.trim_end_matches(['\r', '\n']).to_string());
        Ok(match self {
            Credentials::None => None,
            Credentials::Bearer(path) => Some(format!("Bearer {}", secret(path)?)),
            Credentials::Basic(user, path) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", secret(path)?))))
            }
        })
    }
}

/// Alertmanagers that are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// `http://` or `https://`, host and port, perhaps a path.
    pub urls: Vec<String>,
    /// Shown to all of them.
    pub credentials: Credentials,
    /// Trusted of all of them.
    pub trust: Trust,
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken.
    pub sent: AtomicU64,
    /// To be sent again, because there was no answer or a bad one.
    pub retried: AtomicU64,
    /// Refused; sending them again would help nobody.
    pub refused: AtomicU64,
    /// Replaced by newer ones before they were taken.
    pub replaced: AtomicU64,
    /// When one was taken last by anybody, as the sender's clock says, Unix ns; 0 for never.
    pub taken_ns: AtomicI64,
}

/// Requests on their way to one Alertmanager: the newest only.
#[derive(Default)]
struct Slot {
    bodies: Mutex<Option<(i64, Vec<Vec<u8>>)>>,
    filled: Condvar,
    closed: AtomicBool,
}

impl Slot {
    fn put(&self, at_ns: i64, bodies: Vec<Vec<u8>>, counts: &Counts) {
        let before = self.bodies.lock().unwrap_or_else(PoisonError::into_inner).replace((at_ns, bodies));
        if before.is_some() {
            counts.replaced.fetch_add(1, Ordering::Relaxed);
        }
        self.filled.notify_all();
    }

    fn has_newer(&self) -> bool {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits for requests; `None` once there will be no more.
    fn take(&self) -> Option<(i64, Vec<Vec<u8>>)> {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(taken) = bodies.take() {
                return Some(taken);
            }
            if self.closed.load(Ordering::Relaxed) {
                return None;
            }
            bodies = self.filled.wait(bodies).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Sends to all of them until it is dropped.
pub struct Sender {
    slots: Vec<Arc<Slot>>,
    /// What became of requests.
    pub counts: Arc<Counts>,
}

enum Answer {
    Taken,
    Again(String),
    Refused(String),
}

struct Link {
    agent: ureq::Agent,
    url: String,
    credentials: Credentials,
}

impl Link {
    fn post(&self, body: &[u8]) -> Answer {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        match self.credentials.header() {
            Ok(Some(value)) => request = request.header("authorization", value),
            Ok(None) => {}
            Err(why) => return Answer::Again(why),
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Answer::Again(error.to_string()),
        };
        let status = response.status();
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
        match status.as_u16() {
            200..300 => Answer::Taken,
            // Of a 400 the sound alerts may have been taken; the others will never be.
            429 | 500..=599 => Answer::Again(status.to_string()),
            _ => Answer::Refused(format!("{status}: {}", answer.chars().take(200).collect::<String>())),
        }
    }

    fn run(&self, slot: &Slot, counts: &Counts) {
        let mut is_well = true;
        while let Some((at_ns, bodies)) = slot.take() {
            let mut wait = RETRY.0;
            let mut left = bodies.iter();
            let mut next = left.next();
            while let Some(body) = next {
                match self.post(body) {
                    Answer::Taken => {
                        counts.sent.fetch_add(1, Ordering::Relaxed);
                        counts.taken_ns.fetch_max(at_ns, Ordering::Relaxed);
                        if !std::mem::replace(&mut is_well, true) {
                            tracing::info!("{} takes alerts again", self.url);
                        }
                        next = left.next();
                    }
                    Answer::Refused(why) => {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                        tracing::error!("{} refused alerts: {why}", self.url);
                        next = left.next();
                    }
                    Answer::Again(why) => {
                        counts.retried.fetch_add(1, Ordering::Relaxed);
                        if std::mem::replace(&mut is_well, false) {
                            tracing::warn!("{} does not take alerts: {why}; trying again", self.url);
                        }
                        if slot.has_newer() || slot.closed.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::sleep(wait);
                        wait = (wait * 2).min(RETRY.1);
                    }
                }
            }
        }
    }
}

impl Receivers {
    /// Starts to send: a thread for each.
    ///
    /// # Errors
    /// A file cannot be used, or there are no more threads.
    pub fn sender(&self) -> Result<Sender, String> {
        let counts = Arc::new(Counts::default());
        let mut slots = Vec::new();
        for url in &self.urls {
            self.credentials.header()?;
            let link = Link {
                agent: self.trust.agent(url.starts_with("https://"))?,
                url: format!("{}/api/v2/alerts", url.trim_end_matches('/')),
                credentials: self.credentials.clone(),
            };
            let (slot, of_thread) = (Arc::new(Slot::default()), counts.clone());
            slots.push(slot.clone());
            let thread = std::thread::Builder::new().name("alertmanager".into());
            thread.spawn(move || link.run(&slot, &of_thread)).map_err(|error| error.to_string())?;
        }
        Ok(Sender { slots, counts })
    }
}

impl Sender {
    /// Tells everything that holds, as of `now_ns`; what waits from before is replaced.
    pub fn tell(&self, now_ns: i64, messages: &[Message]) {
        // Writing to memory fails for no message.
        let body = |messages: &[Message]| serde_json::to_vec(messages).unwrap_or_default();
        let bodies: Vec<Vec<u8>> = messages.chunks(ALERTS_PER_REQUEST_MAX).map(body).collect();
        if bodies.is_empty() {
            return;
        }
        for slot in &self.slots {
            slot.put(now_ns, bodies.clone(), &self.counts);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.closed.store(true, Ordering::Relaxed);
            slot.filled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    fn message(name: &str) -> Message {
        Message {
            labels: [("alertname", name.to_string())].into(),
            annotations: BTreeMap::new(),
            starts_at: "2026-03-14T09:26:53Z".into(),
            ends_at: "2026-03-14T09:31:53Z".into(),
            generator_url: String::new(),
        }
    }

    /// Answers requests with these statuses, one after the other, and hands over what they were.
    fn receiver(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut text, mut part) = (String::new(), [0; 4096]);
                while !text.ends_with("}]") {
                    let read = stream.read(&mut part).unwrap();
                    text += std::str::from_utf8(&part[..read]).unwrap();
                }
                requests.push(text);
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        (url, thread)
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        for _ in 0..500 {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not come about");
    }

    #[test]
    fn it_is_tried_again_after_5xx_and_not_after_4xx() {
        let (url, thread) = receiver(&[503, 200, 400]);
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cret\n").unwrap();
        let credentials = Credentials::Basic("larum".into(), secret.path().into());
        let sender = Receivers { urls: vec![url], credentials, ..Receivers::default() }.sender().unwrap();
        sender.tell(7, &[message("A")]);
        wait_until(|| sender.counts.sent.load(Ordering::Relaxed) == 1);
        sender.tell(8, &[message("B")]);
        let requests = thread.join().unwrap();
        wait_until(|| sender.counts.refused.load(Ordering::Relaxed) == 1);
        assert!(requests[0].starts_with("POST /api/v2/alerts HTTP/1.1"));
        assert!(requests[0].contains("Basic bGFydW06czNjcmV0"), "{}", requests[0]);
        let body = |text: &str| text.split_once("\r\n\r\n").unwrap().1.to_string();
        assert_eq!(body(&requests[0]), body(&requests[1]), "the same bytes again");
        assert!(requests[2].contains("\"B\"") && requests[2].contains("\"startsAt\":\"2026-03-14T09:26:53Z\""));
        assert_eq!(sender.counts.taken_ns.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_dead_one_delays_nobody_and_what_is_newer_replaces_what_waits() {
        let (url, thread) = receiver(&[200]);
        let urls = vec!["http://127.0.0.1:1".into(), url];
        let sender = Receivers { urls, ..Receivers::default() }.sender().unwrap();
        sender.tell(1, &[message("A")]);
        assert!(thread.join().unwrap()[0].contains("\"A\""));
        for at_ns in 2..6 {
            sender.tell(at_ns, &[message("B")]);
        }
        wait_until(|| sender.counts.replaced.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn files_that_cannot_be_read_are_named_at_once() {
        let credentials = Credentials::Bearer("/no/such/file".into());
        let made = Receivers { urls: vec!["http://x".into()], credentials, ..Receivers::default() }.sender();
        assert!(made.err().unwrap().contains("/no/such/file"));
    }
}
