//! Signals to Prometheus exposition, and the HTTP endpoint that serves it.
//!
//! [`TextWriter`] is a [`larum_view::Sink`]: it writes samples as text format 0.0.4. [`own`] makes Larum's own metrics
//! from the signal list and walks their registry into the same text. [`http`] serves pages and changes nothing.

pub mod http;
pub mod own;
mod text;

pub use text::TextWriter;
