//! Worker state: watermarks, key admission, event to Delta; and the clock of a source.
//!
//! A [`Worker`] owns its partitions and folds their records into an open Delta; nothing is shared per event. What
//! workers share is the [`Registry`] of admitted names, asked once per new name and worker. [`SourceClock`] decides, at
//! each commit, how far a source has come. No I/O, no clock, no randomness: time and keys are passed in.
//!
//! Reading order: [`worker`] (record in, entries out), `partition` (watermark and tick), `intern` and [`registry`]
//! (names to slots), [`clock`].

pub mod clock;
mod fold;
mod intern;
mod names;
mod partition;
pub mod registry;
pub mod worker;

pub use clock::{PartStatus, SourceClock};
pub use fold::SLOW_NS;
pub use names::shown_name;
pub use partition::{PartitionState, Timing};
pub use registry::{Budgets, Registry};
pub use worker::{Counted, Cut, DeadLetters, Record, SourcePolicy, Worker, no_header};
