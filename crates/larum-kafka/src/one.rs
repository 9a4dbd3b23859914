//! One record, read by its place; joins no group and commits nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{Headers as _, Message as _, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{ClientSettings, ClientStats, Context, KafkaError};

/// Wait for one message.
const POLL: Duration = Duration::from_millis(100);

/// A record as the broker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneRecord {
    /// When it was appended, or made, Unix ms.
    pub timestamp_ms: Option<i64>,
    /// Whether that is the broker's time and not the producer's.
    pub is_append_time: bool,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names of its headers, with their values.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Reads the record at an offset. `None`: there is none there any more, or yet.
///
/// # Errors
/// The client cannot be made, or no broker answers within `timeout`.
pub fn record(
    settings: &ClientSettings,
    topic: &str,
    partition: i32,
    offset: i64,
    timeout: Duration,
) -> Result<Option<OneRecord>, KafkaError> {
    let what = || format!("reading {topic}/{partition}@{offset}");
    let failed = |error: ClientError| KafkaError::request(what(), error);
    let context = Context::new(settings, Arc::new(ClientStats::default()));
    let client: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&settings.reader(1)?, context)
        .map_err(|error| KafkaError::Setup(error.to_string()))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
    client.assign(&list).map_err(failed)?;
    let began = now();
    let mut why = "no broker answers".to_string();
    while now() - began < timeout {
        match client.poll(POLL) {
            Some(Ok(message)) if message.offset() == offset => {
                let headers = message.headers().map_or(Vec::new(), |headers| {
                    let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
                        (header.key.to_string(), header.value.unwrap_or_default().to_vec())
                    };
                    headers.iter().map(pair).collect()
                });
                return Ok(Some(OneRecord {
                    timestamp_ms: message.timestamp().to_millis(),
                    is_append_time: matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                }));
            }
            // The log begins later, or it was compacted away; or it has not come to the offset.
            Some(Ok(_)) | Some(Err(ClientError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => why = error.to_string(),
            None => {}
        }
    }
    Err(KafkaError::request(what(), why))
}

#[allow(clippy::disallowed_methods, reason = "a deadline of a command that somebody waits for")]
fn now() -> Instant {
    Instant::now()
}
