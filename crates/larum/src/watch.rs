//! A thread that asks the broker for ends and new partitions, and writes offsets for lag tools.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use larum_aggregate::time::SECOND_NS;
use larum_kafka::Watcher;

use crate::clock::now_ns;
use crate::config::Config;
use crate::durable::Durable;
use crate::own::OwnMetrics;
use crate::shared::PartShared;
use crate::start::{Plan, PlanError, plan};

/// Time between questions for ends: well below the 2 s for which an answer counts.
const ENDS_EVERY: Duration = Duration::from_millis(400);
/// A partition that answered within so long is asked first, ns.
const LATELY_NS: i64 = 10 * SECOND_NS;
/// Time between looks for new partitions, and between offsets written for lag tools, ns.
const LOOK_EVERY_NS: i64 = 5 * SECOND_NS;

/// What the thread works with.
pub struct Watch {
    /// Its client.
    pub watcher: Watcher,
    /// The configuration.
    pub config: Arc<Config>,
    /// The durable state.
    pub durable: Arc<RwLock<Durable>>,
    /// The partitions that are read.
    pub parts: Arc<RwLock<Vec<Arc<PartShared>>>>,
    /// For the lag.
    pub own: Arc<OwnMetrics>,
    /// Where new partitions are announced.
    pub found: Sender<Result<Plan, PlanError>>,
}

impl Watch {
    /// Runs until nobody listens any more.
    pub fn run(self) {
        let mut looked_ns = now_ns();
        loop {
            self.watcher.serve();
            self.ends();
            if now_ns() - looked_ns >= LOOK_EVERY_NS {
                looked_ns = now_ns();
                if !self.look() {
                    return;
                }
            }
            std::thread::sleep(ENDS_EVERY);
        }
    }

    fn parts(&self) -> Vec<Arc<PartShared>> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ends(&self) {
        let parts = self.parts();
        let places: Vec<(String, i32)> = parts.iter().map(|p| (p.topic.clone(), p.partition)).collect();
        let asked_ns = now_ns();
        match self.watcher.ends(&places) {
            Ok(ends) => {
                for (part, place) in parts.iter().zip(&places) {
                    if let Some(end) = ends.get(place) {
                        part.report_end(*end, asked_ns);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no common answer about ends of logs; asking one by one");
                self.ends_one_by_one(&parts);
            }
        }
    }

    /// One partition without a leader spoils the common answer: those that answered lately are asked first, one by one,
    /// and only a few of the others, so that the silent ones delay nobody.
    fn ends_one_by_one(&self, parts: &[Arc<PartShared>]) {
        let began_ns = now_ns();
        let lately = |part: &&Arc<PartShared>| part.end().is_some_and(|(_, at_ns)| began_ns - at_ns < LATELY_NS);
        let (first, mut others): (Vec<_>, Vec<_>) = parts.iter().partition(lately);
        if !others.is_empty() {
            let turn = (began_ns / SECOND_NS) as usize % others.len();
            others.rotate_left(turn);
            others.truncate(1);
        }
        for part in first.into_iter().chain(others) {
            let asked_ns = now_ns();
            if let Ok(ends) = self.watcher.ends_of(&part.topic, part.partition) {
                part.report_end(ends.end, asked_ns);
            }
        }
    }

    /// Looks for new partitions; says how far the store is. False when nobody listens any more.
    fn look(&self) -> bool {
        let outline = self.durable.read().unwrap_or_else(PoisonError::into_inner).view.outline();
        let parts = self.parts();
        let durable_next = |part: &Arc<PartShared>| {
            outline.partition(part.id).map(|view| (part.topic.clone(), part.partition, view.next))
        };
        let offsets: Vec<_> = parts.iter().filter_map(durable_next).collect();
        self.watcher.commit_for_lag_tools(&offsets);
        match plan(&self.config, &outline, &self.watcher, now_ns()) {
            Ok(plan) if plan.partitions.is_empty() => true,
            Err(PlanError::Kafka(error)) => {
                tracing::debug!(%error, "no answer about partitions");
                true
            }
            found => self.found.send(found).is_ok(),
        }
    }
}

/// Records between the durable offset and the end that the broker last reported, for every partition.
pub fn show_lag(durable: &Durable, parts: &[Arc<PartShared>], own: &OwnMetrics) {
    for part in parts {
        let Some(source) = durable.view.source(part.source) else { continue };
        let Some(view) = durable.view.partition(part.id) else { continue };
        let Some((end, _)) = part.end() else { continue };
        let number = part.partition.to_string();
        let labels = [source.def.name.as_str(), &part.topic, &number];
        own.lag.with_label_values(&labels).set((end - view.next).max(0));
    }
}
