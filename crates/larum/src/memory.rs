//! Whether the budgets fit into the memory ceiling, and how much of it is left for what is counted.

use larum_aggregate::Entry;
use larum_alert::history::HISTORY_BYTES;
use larum_view::WAITING_MAX_BYTES;
use larum_view::memory::{KEY_BYTES_PLANNED, KEY_LOOKUP_BYTES, NAME_BYTES};

use crate::config::Config;
use crate::engine::OPEN_ENTRIES_MAX;

/// Program, threads, HTTP, the store's cache, Kafka clients without their queues, bytes.
const BASE_BYTES: u64 = 192 << 20;
/// A worker's open Delta, the one being committed, and what sealing makes of it.
const DELTAS: u64 = 3;
/// What was counted, and once more while a snapshot of it is written.
const SNAPSHOT: u64 = 2;
/// A sample line: in the buffers of three formats and of pushes, which may be half empty, in the few scrapes that may be on
/// their way at once, in the pushes that wait, and what it stands for, bytes.
const LINE_BYTES: u64 = 1500;

/// Regions that a tenant with objectives is served in.
const REGIONS_PLANNED: u64 = 12;

/// What the configuration needs, part by part, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    parts: [(&'static str, u64); 9],
}

impl Needs {
    /// Of a resolved configuration.
    pub fn of(config: &Config) -> Needs {
        let names = config.budgets.tenants as u64 + 4 * config.budgets.platform_names as u64;
        let (keys, workers) = (config.budgets.keys as u64, config.workers as u64);
        // Regions, and tenants with objectives of their own.
        let of_tenants =
            config.alerts.catalogue.objectives.iter().map(|objective| objective.tenants.len() as u64).sum::<u64>();
        let histories = config.budgets.platform_names as u64 + of_tenants * REGIONS_PLANNED;
        let open_bytes = (OPEN_ENTRIES_MAX * size_of::<Entry>()) as u64;
        Needs {
            parts: [
                ("the program", BASE_BYTES),
                ("kafka.queue_memory", config.kafka.queue_bytes),
                ("open Deltas of the workers", DELTAS * workers * open_bytes),
                ("dead_letters.outbox", config.dead_letters.outbox_bytes_max),
                ("scrapes of limits.series", config.series_max * LINE_BYTES),
                ("changes that wait for a scrape", config.sources.len() as u64 * WAITING_MAX_BYTES as u64),
                ("histories of regions", SNAPSHOT * histories * HISTORY_BYTES),
                ("names", SNAPSHOT * names * NAME_BYTES),
                ("keys", keys * (SNAPSHOT * KEY_BYTES_PLANNED + KEY_LOOKUP_BYTES * workers)),
            ],
        }
    }

    /// All together.
    pub fn total_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.1).sum()
    }

    /// What is left of `ceiling_bytes` for the counts of keys and names, once everything else has its part, and a snapshot
    /// of them.
    pub fn left_for_counts(&self, ceiling_bytes: u64) -> u64 {
        let others: u64 =
            self.parts.iter().filter(|part| !["names", "keys"].contains(&part.0)).map(|part| part.1).sum();
        ceiling_bytes.saturating_sub(others) / SNAPSHOT
    }

    /// The parts, for a message.
    pub fn explained(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(what, bytes)| format!("{what} {}", mib(*bytes))).collect();
        parts.join(", ")
    }
}

/// Bytes in whole MiB, rounded up.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
