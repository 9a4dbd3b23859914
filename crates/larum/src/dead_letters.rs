//! A thread that carries refused records from the durable outbox to the dead-letter topic, until the broker has them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{DeadLetter, PartitionId};
use larum_event::Reject;
use larum_kafka::{Outgoing, Producer};

use crate::clock::now_ns;
use crate::own::OwnMetrics;
use crate::shared::PartShared;

/// Wait before a record that failed is sent again, ns.
const RETRY_NS: i64 = SECOND_NS;
/// Wait for deliveries while nothing else is to do.
const POLL: Duration = Duration::from_millis(20);
/// Records handed to the client and not reported yet.
const IN_FLIGHT_MAX: usize = 10_000;

/// Headers of a dead letter: where it was, why it was refused, how large it was.
fn headers(letter: &DeadLetter, part: &PartShared) -> Vec<(&'static str, String)> {
    let reason = Reject::ALL.get(usize::from(letter.reason)).map_or("other", |r| r.as_str());
    let mut headers = vec![
        ("larum.source.topic", part.topic.clone()),
        ("larum.source.partition", part.partition.to_string()),
        ("larum.source.offset", letter.offset.to_string()),
        ("larum.reason", reason.to_string()),
        ("larum.size_bytes", letter.size_bytes.to_string()),
    ];
    if (letter.payload.len() as u64) < letter.size_bytes {
        headers.push(("larum.cut_to_bytes", letter.payload.len().to_string()));
    }
    headers
}

/// Sends letters and tells which the broker has.
pub struct Carrier {
    producer: Producer,
    inbox: Receiver<(DeadLetter, Arc<PartShared>)>,
    delivered: Sender<(PartitionId, i64)>,
    own: Arc<OwnMetrics>,
    waiting: VecDeque<(i64, DeadLetter, Arc<PartShared>)>,
    in_flight: HashMap<u64, (DeadLetter, Arc<PartShared>)>,
    tickets: u64,
}

impl Carrier {
    /// A carrier between the two channels.
    pub fn new(
        producer: Producer,
        inbox: Receiver<(DeadLetter, Arc<PartShared>)>,
        delivered: Sender<(PartitionId, i64)>,
        own: Arc<OwnMetrics>,
    ) -> Self {
        let (waiting, in_flight) = (VecDeque::new(), HashMap::new());
        Carrier { producer, inbox, delivered, own, waiting, in_flight, tickets: 0 }
    }

    /// Runs until nobody sends letters any more.
    pub fn run(mut self) {
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok((letter, part)) => self.waiting.push_back((0, letter, part)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.send();
            if !self.take_deliveries() {
                return;
            }
        }
    }

    fn send(&mut self) {
        let now_ns = now_ns();
        while let Some((due_ns, letter, part)) = self.waiting.pop_front() {
            if due_ns > now_ns || self.in_flight.len() >= IN_FLIGHT_MAX {
                self.waiting.push_front((due_ns, letter, part));
                return;
            }
            self.tickets += 1;
            let headers = headers(&letter, &part);
            let outgoing = Outgoing { ticket: self.tickets, value: &letter.payload, headers: &headers };
            match self.producer.send(&outgoing) {
                Ok(true) => {
                    self.in_flight.insert(self.tickets, (letter, part));
                }
                Ok(false) => self.waiting.push_back((now_ns + RETRY_NS / 10, letter, part)),
                Err(error) => {
                    tracing::warn!(%error, "a dead letter cannot be sent; it stays in the outbox");
                    self.waiting.push_back((now_ns + RETRY_NS, letter, part));
                }
            }
        }
    }

    /// False when nobody listens any more.
    fn take_deliveries(&mut self) -> bool {
        for delivery in self.producer.deliveries(POLL) {
            let Some((mut letter, part)) = self.in_flight.remove(&delivery.ticket) else { continue };
            let Some(error) = delivery.error else {
                self.own.dead_letters.with_label_values(&["delivered"]).inc();
                if self.delivered.send((letter.partition, letter.offset)).is_err() {
                    return false;
                }
                continue;
            };
            let failed = self.own.dead_letters.with_label_values(&["failed"]);
            failed.inc();
            if delivery.too_large {
                letter.payload.truncate(letter.payload.len() / 2);
            } else if failed.get() % 100 == 1 {
                tracing::warn!(error, "the dead-letter topic does not take records; they stay in the outbox");
            }
            self.waiting.push_back((now_ns() + RETRY_NS, letter, part));
        }
        true
    }
}
