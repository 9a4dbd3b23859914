//! Samples: where records of single failed, refused or slow requests stand in their topic, so that somebody can look at
//! them.

use serde::{Deserialize, Serialize};

use crate::choice::Chosen;
use crate::delta::{KeyId, PartitionId, SourceId};

/// A record that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sample {
    /// The source that it comes from.
    pub source: SourceId,
    /// The tick of its record.
    pub tick: u32,
    /// The key that it is counted in.
    pub key: KeyId,
    /// What it is counted as; opaque here.
    pub code: u16,
    /// Where its record was read.
    pub partition: PartitionId,
    /// Its record's offset there.
    pub offset: i64,
}

impl Chosen for Sample {
    type Series = (KeyId, u16);

    fn source(&self) -> SourceId {
        self.source
    }

    fn tick(&self) -> u32 {
        self.tick
    }

    fn series(&self) -> (KeyId, u16) {
        (self.key, self.code)
    }

    /// Mixed, so that no partition is preferred; offsets come from the broker, so nobody can choose them.
    fn hash(&self) -> u64 {
        hash(self.partition, self.offset)
    }
}

/// The hash of a place in a topic (the finisher of splitmix64).
#[inline]
pub fn hash(partition: PartitionId, offset: i64) -> u64 {
    let mut mixed = (u64::from(partition.0) << 48) ^ offset as u64;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
