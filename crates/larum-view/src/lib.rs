//! Durable Deltas to panes, sliding windows and signals.
//!
//! [`View::apply`] takes one committed Delta after the other; ticks come out of it in order, and what is visible is the
//! state after the last applied tick. The same Deltas give the same view, bit for bit. [`Reading`] shows one cut of it
//! as samples of the [`signals`], to whichever [`Sink`] writes them out.
//!
//! Reading order: [`view`] (Deltas and ticks), `key` and `totals` (totals of a key), `tiers` and `packed` (its panes and windows), `audit` (sequences of audit queues), `slots` (what
//! both count), [`signals`] (the list), [`reading`] and
//! `platform` (state to samples).

mod audit;
mod distinct;
mod key;
mod packed;
mod platform;
pub mod reading;
pub mod signals;
mod slots;
mod tiers;
mod totals;
pub mod view;

pub use audit::{AuditCounts, AuditQueue, AuditState};
pub use key::KeyView;
pub use reading::{HistogramRead, Label, Reading, Sink, Value};
pub use signals::{SIGNALS, Signal};
pub use view::{PartitionView, SourceView, View};
