//! Kafka: consumer, broker ends and identities, producers, embedded broker. Knows nothing of windows or signals.
//!
//! Reading order: [`client`] (settings and what the client reports), [`security`] (TLS and who we are), [`consumer`]
//! (records of assigned partitions), [`watch`] (ends, discovery, identities), [`groups`] (where others stand),
//! [`one`] (a single record),
//! [`producer`] (dead letters, generated load), [`embedded`] (the demo's broker). `native` is the only module of Larum with unsafe code.

pub mod client;
pub mod consumer;
pub mod embedded;
pub mod groups;
#[allow(unsafe_code)]
mod native;
pub mod one;
pub mod producer;
pub mod security;
pub mod watch;

pub use client::{ClientSettings, ClientStats, KafkaError};
pub use consumer::{Consumer, Fetched};
pub use embedded::EmbeddedBroker;
pub use groups::{GroupReader, Oldest, Standing};
pub use producer::{DELIVERY_TIMEOUT_S, Delivery, LoadProducer, Outgoing, Producer};
pub use watch::{PartitionEnds, Watcher};
