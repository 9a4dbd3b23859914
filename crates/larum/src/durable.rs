//! Everything that a restart goes on from: the view, and refused records that the dead-letter topic has not taken yet.

use std::collections::BTreeMap;

use larum_aggregate::{DeadLetter, Delta, DeltaError, PartitionId};
use larum_fold::PartitionState;
use larum_view::{Exemplars, PartitionView, View};
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
}

impl Durable {
    /// From a snapshot (none: nothing yet) and the commits since.
    ///
    /// # Errors
    /// Written by another version, or damaged.
    pub fn recover(snapshot: Option<&[u8]>, commits: &[Vec<u8>]) -> Result<Durable, DeltaError> {
        let mut durable: Durable = match snapshot {
            Some(bytes) => larum_aggregate::delta::decode_versioned(bytes)?,
            None => Durable::default(),
        };
        durable.view.recovered();
        for commit in commits {
            durable.apply(Delta::decode(commit)?);
        }
        Ok(durable)
    }

    /// The snapshot form.
    pub fn encode(&self) -> Vec<u8> {
        // In memory of about its size: growing by doubling would take three times as much.
        let size = self.view.size_bytes() + self.outbox.bytes() as usize;
        larum_aggregate::delta::encode_versioned_in(self, Vec::with_capacity(size))
    }

    /// Takes in a committed Delta.
    pub fn apply(&mut self, mut delta: Delta) {
        for letter in std::mem::take(&mut delta.dead_letters) {
            self.outbox.letters.insert((letter.partition, letter.offset), letter);
        }
        for place in std::mem::take(&mut delta.delivered) {
            self.outbox.letters.remove(&place);
        }
        self.exemplars.wait(std::mem::take(&mut delta.exemplars), &self.view);
        self.view.apply(delta);
        self.exemplars.show(&self.view);
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
    fn a_snapshot_of_the_version_before_is_read() {
        let durable = Durable::default();
        let mut bytes = durable.encode();
        assert_eq!(bytes.pop(), Some(0), "exemplars stand at the end, and there are none");
        bytes[0] -= 1;
        assert_eq!(Durable::recover(Some(&bytes), &[]), Ok(durable));
    }
}
