//! Alerts: what is watched, whether it holds at a tick, and what became of it.
//!
//! Reading order: [`catalogue`] (alerts as they are written), [`judge`] (whether a condition holds), [`history`] (what
//! regions counted over days), [`lifecycle`] (pending, firing, resolved; storms), [`alerts`] (all of it, moved on by every
//! tick). No clock, no I/O: what is about Larum itself is judged by the same lifecycle, fed by the runtime.

pub mod alerts;
pub mod catalogue;
pub mod history;
pub mod judge;
pub mod lifecycle;

pub use alerts::{Alerts, RuntimeAlerts, Transition};
pub use catalogue::{Alert, Catalogue, Condition, Per, Severity};
pub use lifecycle::{Became, Instance, Texts};
