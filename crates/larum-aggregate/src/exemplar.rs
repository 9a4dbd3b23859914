//! Exemplars: traces of single slow or failed requests.

use serde::{Deserialize, Serialize};

use crate::choice::Chosen;
use crate::delta::{KeyId, SourceId};

/// One request that can be looked at. It names no account, no address and no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exemplar {
    /// The source that it comes from.
    pub source: SourceId,
    /// The tick of its record.
    pub tick: u32,
    /// The key that it is counted in.
    pub key: KeyId,
    /// The histogram of the key that it is measured in; opaque here.
    pub histogram: u16,
    /// Keyed hash of its ids: the lowest is chosen.
    pub hash: u64,
    /// W3C trace id.
    pub trace_id: [u8; 16],
    /// W3C span id, where there is one.
    pub span_id: Option<[u8; 8]>,
    /// How long it took, ns.
    pub latency_ns: u64,
    /// When it happened, or when its record was appended if that was before, Unix ns.
    pub time_ns: i64,
}

impl Chosen for Exemplar {
    type Series = (KeyId, u16);

    fn source(&self) -> SourceId {
        self.source
    }

    fn tick(&self) -> u32 {
        self.tick
    }

    fn series(&self) -> (KeyId, u16) {
        (self.key, self.histogram)
    }

    fn hash(&self) -> u64 {
        self.hash
    }
}
