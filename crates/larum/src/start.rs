//! Where partitions begin: fixed once, before the first poll, and committed.

use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{Cover, PartitionId, PartitionStart, SourceDef, SourceId};
use larum_kafka::{KafkaError, Watcher};
use larum_view::View;

use crate::config::{Config, StartAt};

const MINUTE_NS: i64 = 60 * SECOND_NS;

/// What a commit must fix before anything is read.
#[derive(Debug, Default)]
pub struct Plan {
    /// Sources that appear or change.
    pub sources: Vec<SourceDef>,
    /// Partitions that appear.
    pub partitions: Vec<PartitionStart>,
}

/// Why Larum must not go on with this store.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The broker did not answer; worth asking again.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The topic under this name is another than the one in the store.
    #[error(
        "topic {topic} is not the one that the store has counted: its id was {was}, now it is {now}. It was made anew: \
         use another --state, or start a new epoch with --reset-state"
    )]
    OtherTopic {
        /// The topic.
        topic: String,
        /// Id in the store.
        was: String,
        /// Id on the broker.
        now: String,
    },
}

/// Ids of the configured sources: those that the view knows by name, then new ones.
pub fn source_ids(config: &Config, view: &View) -> Vec<SourceId> {
    let mut next = view.sources().map(|s| s.def.id.0 + 1).max().unwrap_or(0);
    let mut ids = Vec::new();
    for source in &config.sources {
        let known = view.sources().find(|s| s.def.name == source.name).map(|s| s.def.id);
        ids.push(known.unwrap_or_else(|| {
            next += 1;
            SourceId(next - 1)
        }));
    }
    ids
}

/// Compares the configuration and the broker with the view.
///
/// # Errors
/// The broker does not answer, or a topic is not the one in the store.
pub fn plan(config: &Config, view: &View, watcher: &Watcher, now_ns: i64) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut next_id = view.partitions().map(|p| p.start.id.0 + 1).max().unwrap_or(0);
    for (source, id) in config.sources.iter().zip(source_ids(config, view)) {
        let (name, topics) = (source.name.clone(), source.topics.clone());
        let (delay_s, grace) = (source.policy.delay_s, source.grace.clone());
        let def = SourceDef { id, name, delay_s, topics, grace };
        if view.source(id).is_none_or(|s| s.def != def) {
            plan.sources.push(def);
        }
        let topic_ids = watcher.topic_ids(&source.topics);
        for topic in &source.topics {
            let topic_id = topic_ids.get(topic).cloned();
            let known: Vec<&PartitionStart> =
                view.partitions_of(id).map(|p| &p.start).filter(|p| p.topic == *topic).collect();
            for before in &known {
                if let (Some(was), Some(now)) = (&before.topic_id, &topic_id)
                    && was != now
                {
                    return Err(PlanError::OtherTopic { topic: topic.clone(), was: was.clone(), now: now.clone() });
                }
            }
            let mut found = watcher.partitions(topic)?;
            found.retain(|partition| known.iter().all(|k| k.partition != *partition));
            let starts = if known.is_empty() {
                first_start(config, topic, &found, watcher, now_ns)?
            } else {
                joined(topic, &found, watcher)?
            };
            for (partition, (start, origin, cover)) in found.into_iter().zip(starts) {
                let (id, source) = (PartitionId(next_id), id);
                next_id += 1;
                let (topic, topic_id) = (topic.clone(), topic_id.clone());
                let began_ns = now_ns;
                plan.partitions.push(PartitionStart {
                    id,
                    source,
                    topic,
                    topic_id,
                    partition,
                    start,
                    origin,
                    cover,
                    began_ns,
                });
            }
        }
    }
    let gone = |def: &&SourceDef| config.sources.iter().all(|source| source.name != def.name) && !def.topics.is_empty();
    let gone = view.sources().map(|source| &source.def).filter(gone);
    plan.sources.extend(gone.map(|def| SourceDef { topics: Vec::new(), ..def.clone() }));
    Ok(plan)
}

/// Start, origin and cover of a partition.
type Start = (i64, i64, Cover);

/// New partitions of a topic that is already read begin at their beginning.
fn joined(topic: &str, partitions: &[i32], watcher: &Watcher) -> Result<Vec<Start>, KafkaError> {
    let mut starts = Vec::new();
    for partition in partitions {
        let first = watcher.ends_of(topic, *partition)?.first;
        starts.push((first, first, Cover::Always));
    }
    Ok(starts)
}

/// A topic that was never read begins where the configuration says, with windows filled from before.
fn first_start(
    config: &Config,
    topic: &str,
    partitions: &[i32],
    watcher: &Watcher,
    now_ns: i64,
) -> Result<Vec<Start>, KafkaError> {
    let places: Vec<(String, i32)> = partitions.iter().map(|p| (topic.to_string(), *p)).collect();
    // A little more than asked for, in whole minutes: then a window as long as the warm-up is whole from the first tick on.
    let back_to = |time_ns: i64| {
        let exact_ns = time_ns - config.warm_up.as_nanos() as i64;
        if config.warm_up.is_zero() { exact_ns } else { (exact_ns - 10 * SECOND_NS).div_euclid(MINUTE_NS) * MINUTE_NS }
    };
    let at = |time_ns: i64| watcher.at_time(&places, time_ns.div_euclid(1_000_000));
    let mut starts = Vec::new();
    let (origins, since_ns) = match config.start_at {
        StartAt::Earliest => (None, None),
        StartAt::End => (None, Some(back_to(now_ns))),
        StartAt::Time(time_ns) => (Some(at(time_ns)?), Some(back_to(time_ns))),
    };
    let warm = since_ns.map(at).transpose()?;
    for place in &places {
        let ends = watcher.ends_of(topic, place.1)?;
        let Some((since_ns, warm)) = since_ns.zip(warm.as_ref()) else {
            let cover = if ends.first == 0 { Cover::Birth } else { Cover::FirstRecord };
            starts.push((ends.first, ends.first, cover));
            continue;
        };
        let found = |offsets: &std::collections::HashMap<(String, i32), Option<i64>>| {
            offsets.get(place).copied().flatten().unwrap_or(ends.end).clamp(ends.first, ends.end)
        };
        let origin = origins.as_ref().map_or(ends.end, found);
        let start = found(warm).min(origin);
        // At the log's beginning nobody can tell what was deleted before it.
        let deleted = start == ends.first && ends.first > 0;
        starts.push((start, origin, if deleted { Cover::FirstRecord } else { Cover::Since(since_ns) }));
    }
    Ok(starts)
}
