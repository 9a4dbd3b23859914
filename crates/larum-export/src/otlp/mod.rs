//! Metrics pushed to an OpenTelemetry collector: encoded once an interval, sent from a bounded queue, the same bytes again
//! where the collector asks for it. Beside them Larum's own traces and log records, which OpenTelemetry's SDK sends.

mod encode;
mod gone;
mod send;
mod telemetry;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::Notify;

pub use encode::OtlpWriter;
pub use send::{Answer, Client, Link, Protocol};
pub use telemetry::{Telemetry, Told};

/// The body of one export request.
pub type Body = Bytes;

/// Most pushes that wait; the oldest goes first: what it said, the next says too.
const WAITING_MAX: usize = 4;
/// Waits before attempts after the first, unless the collector says another.
const BACK_OFF: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600)];
/// Longest wait that a collector may ask for.
const AFTER_MAX: Duration = Duration::from_secs(60);

/// What became of pushes.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that the collector took.
    pub sent: AtomicU64,
    /// Attempts that were made again.
    pub retried: AtomicU64,
    /// Requests that were given up.
    pub failed: AtomicU64,
    /// Requests that were not sent, because newer ones came.
    pub dropped: AtomicU64,
    /// Points that it took a request without.
    pub rejected: AtomicU64,
}

/// Pushes on their way, each a few requests.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<VecDeque<Vec<Bytes>>>,
    arrived: Notify,
    /// What became of them.
    pub counts: Counts,
}

impl Queue {
    /// Adds a push; never waits.
    pub fn push(&self, requests: Vec<Bytes>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(requests);
        while waiting.len() > WAITING_MAX {
            let dropped = waiting.pop_front().map_or(0, |requests| requests.len());
            self.counts.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        self.arrived.notify_one();
    }

    async fn next(&self) -> Vec<Bytes> {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(requests) => return requests,
                None => self.arrived.notified().await,
            }
        }
    }

    /// Sends what arrives, one request after the other, until the runtime ends.
    pub async fn deliver(&self, client: &Client) {
        loop {
            for request in self.next().await {
                self.send(client, request).await;
            }
        }
    }

    /// Sends what waits now, each request once: the process is ending.
    pub async fn drain(&self, client: &Client) {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(requests) = next else { return };
            for request in requests {
                self.note(client.send(request).await);
            }
        }
    }

    async fn send(&self, client: &Client, request: Bytes) {
        for back_off in BACK_OFF {
            match client.send(request.clone()).await {
                Answer::Again { after, why } => {
                    tracing::debug!(why, "the collector does not take a push; it is sent again");
                    self.counts.retried.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(after.map_or(back_off, |after| after.min(AFTER_MAX))).await;
                }
                answer => return self.note(answer),
            }
        }
        self.note(client.send(request).await);
    }

    fn note(&self, answer: Answer) {
        match answer {
            Answer::Taken { rejected, message } => {
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                self.counts.rejected.fetch_add(rejected, Ordering::Relaxed);
                if rejected > 0 || !message.is_empty() {
                    tracing::warn!(rejected, message, "the collector took a push, but not all of it");
                }
            }
            Answer::Again { why, .. } | Answer::Refused(why) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(why, "the collector does not take pushes; the next one says it all again");
            }
        }
    }
}
