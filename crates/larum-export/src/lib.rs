//! Signals to Prometheus exposition, and the HTTP endpoint that serves it.
//!
//! [`TextWriter`] and [`ProtoWriter`] are [`larum_view::Sink`]s: they write samples as text format 0.0.4, as OpenMetrics 1.0
//! or as protobuf; [`Format`] says which a client gets. [`own`] makes Larum's own metrics from the signal list and shows
//! their registry to the same sink. [`http`] serves pages and changes nothing; [`otlp`] pushes the same to a collector, and
//! [`alertmanager`] tells what fires.

mod agent;
pub mod alertmanager;
mod format;
pub mod http;
pub mod otlp;
pub mod own;
mod page;
mod proto;
mod text;
mod wire;

pub use agent::Trust;
pub use format::Format;
pub use page::{Page, helpers, writers};
pub use proto::ProtoWriter;
pub use text::{Flavour, TextWriter};
