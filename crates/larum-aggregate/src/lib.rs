//! Event time, panes, series keys, mergeable aggregates and the Delta.
//!
//! A [`Delta`] is the one unit that everything is built on: what was read since the last commit, as offset ranges and
//! as integer aggregates per (tick, pane, key, slot), a slot being a code and a latency bucket. Adding is exact, in any order. Nothing here knows what an
//! event looks like, where it came from, or what time it is.
//!
//! Reading order: [`time`] (panes, ticks, windows), [`histogram`] (the one bucket layout), [`buckets`] (counts in it), [`entry`] (what the fold
//! writes), [`run`] (what becomes of it, packed), [`distinct`] and [`sequence`] (the same for accounts and sources, and for audit
//! sequence numbers), [`change`] and [`exemplar`] (changes of the platform, and traces of
//! single requests), [`delta`] (the durable unit and its wire form).

pub mod buckets;
pub mod change;
pub mod choice;
pub mod delta;
pub mod distinct;
pub mod entry;
pub mod exemplar;
pub mod histogram;
pub mod run;
pub mod sample;
pub mod sequence;
pub mod time;

pub use buckets::{BucketSets, Buckets};
pub use change::{Change, ChangePlace};
pub use delta::{
    Cover, DeadLetter, Delta, DeltaError, Graces, Group, KeyDef, KeyId, Mark, NameDef, NameId, NameKind, PartCut,
    PartitionId, PartitionStart, SourceCut, SourceDef, SourceId, Tally,
};
pub use distinct::{Distinct, Sighting, SightingGroup, SightingRow, Sketch, seal_sightings};
pub use entry::{Entry, seal};
pub use exemplar::Exemplar;
pub use run::{Cell, Run, Slot};
pub use sample::Sample;
pub use sequence::{Numbered, SeqMark, SeqRange, SequenceGroup, SequenceId, SequenceRow, seal_sequences};
