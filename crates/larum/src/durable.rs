//! Everything that a restart goes on from: the view, and refused records that the dead-letter topic has not taken yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use larum_aggregate::{DeadLetter, Delta, DeltaError, PartitionId};
use larum_alert::{Alerts, Catalogue};
use larum_fold::PartitionState;
use larum_view::{Exemplars, PartitionView, Samples, View};
use serde::{Deserialize, Serialize};

/// Refused records on their way out, by where they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    letters: BTreeMap<(PartitionId, i64), DeadLetter>,
}

impl Outbox {
    /// What the records in it cost, bytes.
    pub fn bytes(&self) -> u64 {
        self.letters.values().map(DeadLetter::cost_bytes).sum()
    }

    /// What one record in it costs, bytes.
    pub fn bytes_of(&self, place: &(PartitionId, i64)) -> Option<u64> {
        self.letters.get(place).map(DeadLetter::cost_bytes)
    }

    /// The records in it.
    pub fn letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values()
    }
}

/// The durable state, a pure function of the committed Deltas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// Events.
    pub view: View,
    /// Refused records.
    pub outbox: Outbox,
    /// Traces of single requests. What version 2 of the wire form wrote ends before them.
    pub exemplars: Exemplars,
    /// Where records of single requests stand. What version 3 wrote ends before them.
    pub samples: Samples,
    /// States of alerts.
    pub alerts: Alerts,
}

impl Durable {
    /// From a snapshot (none: nothing yet) and the commits since.
    ///
    /// # Errors
    /// Written by another version, or damaged.
    pub fn recover(
        snapshot: Option<&[u8]>,
        commits: &[Vec<u8>],
        catalogue: &Arc<Catalogue>,
    ) -> Result<Durable, DeltaError> {
        let mut durable: Durable = match snapshot {
            Some(bytes) => larum_aggregate::delta::decode_versioned(bytes)?,
            None => Durable::default(),
        };
        durable.view.recovered();
        durable.alerts.keep(catalogue);
        for commit in commits {
            durable.apply(Delta::decode(commit)?, catalogue);
        }
        Ok(durable)
    }

    /// The snapshot form.
    pub fn encode(&self) -> Vec<u8> {
        // In memory of about its size: growing by doubling would take three times as much.
        let size = self.view.size_bytes() + self.outbox.bytes() as usize;
        larum_aggregate::delta::encode_versioned_in(self, Vec::with_capacity(size))
    }

    /// Takes in a committed Delta, and judges every tick that it lets pass.
    pub fn apply(&mut self, mut delta: Delta, catalogue: &Arc<Catalogue>) {
        for letter in std::mem::take(&mut delta.dead_letters) {
            self.outbox.letters.insert((letter.partition, letter.offset), letter);
        }
        for place in std::mem::take(&mut delta.delivered) {
            self.outbox.letters.remove(&place);
        }
        self.exemplars.wait(std::mem::take(&mut delta.exemplars), &self.view);
        self.samples.wait(std::mem::take(&mut delta.samples), &self.view);
        self.view.apply_watched(delta, &mut self.alerts.watcher(catalogue));
        self.exemplars.show(&self.view);
        self.samples.show(&self.view);
    }
}

/// Where a worker goes on with a partition.
pub fn resume(partition: &PartitionView) -> PartitionState {
    PartitionState {
        start: partition.start.clone(),
        next: partition.next,
        watermark_ns: partition.watermark_ns,
        first_append_ns: partition.first_append_ns,
        current_ns: partition.current_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_versions_before_are_read() {
        let durable = Durable::default();
        let bytes = durable.encode();
        // Of exemplars, samples and alerts there are none, and that is five zeros.
        for (version, added) in [(3, 4), (2, 5)] {
            let (mut before, zeros) = (bytes.clone(), vec![0; added]);
            assert_eq!(before.split_off(bytes.len() - added), zeros);
            before[0] = version;
            assert_eq!(Durable::recover(Some(&before), &[], &Arc::default()), Ok(durable.clone()));
        }
    }
}
