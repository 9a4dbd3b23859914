//! Durable Deltas to panes, sliding windows and signals.
//!
//! [`View::apply`] takes one committed Delta after the other; ticks come out of it in order, and what is visible is the
//! state after the last applied tick. The same Deltas give the same view, bit for bit. [`Reading`] shows one cut of it
//! as samples of the [`signals`], to whichever [`Sink`] writes them out.
//!
//! Reading order: [`view`] (Deltas), `tick` (ticks), `ledger` (totals) and `panes` (windows) of a source, [`measure`] and `sums`
//! (what rules look at, kept from tick to tick), `key` and `distinct`
//! (who was seen), `audit` (sequences of audit queues), [`exemplars`] and [`samples`] (single
//! requests), `scan` (one pass over all of it into `counts`), `recent` and `shown` (what scrapes show, kept from one to the next), [`exposure`] (how much of each key is shown), [`signals`] (the list), [`reading`] and `per_key` (state to samples).

mod audit;
mod counts;
mod distinct;
pub mod exemplars;
pub mod exposure;
mod key;
mod ledger;
pub mod measure;
pub mod memory;
mod panes;
mod per_key;
mod places;
pub mod reading;
mod recent;
pub mod samples;
mod scan;
mod shown;
pub mod signals;
mod slots;
mod sums;
mod tick;
pub mod view;

pub use audit::{AuditCounts, AuditQueue, AuditState};
pub use counts::{KeyCounts, Wanted, WindowSums};
pub use distinct::Counter;
pub use exemplars::Exemplars;
pub use exposure::Exposure;
pub use key::{KeyView, Logins};
pub use measure::Measure;
pub use reading::{ClassicRead, Family, Helpers, HistogramRead, Label, LabelSet, Reading, Sink, Value};
pub use recent::WAITING_MAX_BYTES;
pub use samples::Samples;
pub use scan::Counted;
pub use shown::Shown;
pub use signals::{SIGNALS, Signal};
pub use sums::{Added, Looks, place_of};
pub use tick::{TickRead, TickWatcher};
pub use view::{PartitionView, SourceView, View};
