//! A thread per watched consumer group: looks at it every few seconds and shows what it sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use larum_aggregate::time::SECOND_NS;
use larum_kafka::{GroupReader, KafkaError, Oldest, Standing};

use crate::clock::now_ns;
use crate::config::WatchedGroup;
use crate::own::OwnMetrics;
use crate::progress::{Look, Progress};

/// Time between looks.
const EVERY: Duration = Duration::from_secs(5);
/// Time between questions for partitions, ns.
const PARTITIONS_EVERY_NS: i64 = 30 * SECOND_NS;
/// What was not seen for so long is shown no more, ns: no answer is no reason to show an old one for ever.
const FORGOTTEN_NS: i64 = 30 * SECOND_NS;

/// A partition of a topic.
type Place = (String, i32);

/// What the thread works with.
pub struct GroupWatch {
    /// Its client.
    pub reader: GroupReader,
    /// What is watched.
    pub watched: WatchedGroup,
    /// Names of the sources that read the topics, as far as one does.
    pub sources: BTreeMap<String, String>,
    /// Where it is shown.
    pub own: Arc<OwnMetrics>,
}

/// What is known so far.
#[derive(Default)]
struct Known {
    partitions: Vec<Place>,
    partitions_ns: i64,
    progress: BTreeMap<Place, Progress>,
    said: Option<String>,
}

impl GroupWatch {
    /// Runs until the other end of `closed` is gone.
    pub fn run(self, closed: &Receiver<()>) {
        let mut known = Known::default();
        loop {
            self.reader.watcher().serve();
            match self.look(&mut known) {
                Ok(()) => known.said = None,
                Err(error) => {
                    let error = error.to_string();
                    if known.said.as_ref() != Some(&error) {
                        tracing::warn!("watching group {}: {error}", self.watched.group);
                        known.said = Some(error);
                    }
                }
            }
            self.show(&mut known);
            if closed.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn look(&self, known: &mut Known) -> Result<(), KafkaError> {
        let mut missing = None;
        if known.partitions.is_empty() || now_ns() - known.partitions_ns > PARTITIONS_EVERY_NS {
            known.partitions_ns = now_ns();
            let mut partitions = Vec::new();
            for topic in &self.watched.topics {
                match self.reader.watcher().partitions(topic) {
                    Ok(found) => partitions.extend(found.into_iter().map(|p| (topic.clone(), p))),
                    Err(error) => missing = Some(error),
                }
            }
            known.partitions = partitions;
        }
        let standings = self.reader.standings(&known.partitions)?;
        let has_members = self.reader.has_members();
        for of_topic in standings.chunk_by(|a, b| a.topic == b.topic) {
            self.look_at(of_topic, has_members, &mut known.progress)?;
        }
        missing.map_or(Ok(()), Err)
    }

    /// Looks at the partitions of one topic.
    fn look_at(
        &self,
        standings: &[Standing],
        has_members: Option<bool>,
        progress: &mut BTreeMap<Place, Progress>,
    ) -> Result<(), KafkaError> {
        let Some(topic) = standings.first().map(|s| s.topic.clone()) else { return Ok(()) };
        // Where the group has not moved, the oldest record is known, unless there was none.
        let before = |s: &Standing, progress: &BTreeMap<Place, Progress>| {
            let last = progress.get(&(s.topic.clone(), s.partition)).and_then(Progress::last);
            last.filter(|last| last.next == s.next).and_then(|last| last.oldest_ns)
        };
        let is_open = |s: &&Standing| s.next < s.end && before(s, progress).is_none();
        let asked: Vec<_> = standings.iter().filter(is_open).map(|s| (s.partition, s.next)).collect();
        let found = if asked.is_empty() { BTreeMap::new() } else { self.reader.oldest(&topic, &asked)? };
        let at_ns = now_ns();
        for s in standings {
            let oldest_ns = match (s.next < s.end, found.get(&s.partition), before(s, progress)) {
                (false, ..) | (true, Some(Oldest::Nothing), _) => None,
                (true, Some(Oldest::Record(Some(ms))), _) => Some(ms.saturating_mul(1_000_000)),
                (true, None, Some(ns)) => Some(ns),
                // No answer, or a record without a time: nothing is said rather than something wrong.
                (true, ..) => continue,
            };
            let look = Look { at_ns, next: s.next, end: s.end, oldest_ns, has_members };
            progress.entry((s.topic.clone(), s.partition)).or_default().look(look);
        }
        Ok(())
    }

    fn show(&self, known: &mut Known) {
        let (now_ns, group) = (now_ns(), self.watched.group.as_str());
        let floor_ns = self.watched.lag_floor.as_nanos() as i64;
        known.progress.retain(|(topic, partition), progress| {
            let number = partition.to_string();
            let source = self.sources.get(topic).map_or("", String::as_str);
            let labels = [source, group, topic, &number];
            let Some(last) = progress.last().filter(|last| now_ns - last.at_ns <= FORGOTTEN_NS) else {
                self.own.forget_group(&labels);
                return false;
            };
            self.own.group_backlog.with_label_values(&labels).set(last.backlog());
            let lag_s = last.lag_ns() as f64 / SECOND_NS as f64;
            self.own.group_lag.with_label_values(&labels).set(lag_s);
            if let Some(state) = progress.verdict(floor_ns) {
                self.own.group_state.with_label_values(&labels).set(state as i64);
            }
            true
        });
    }
}
