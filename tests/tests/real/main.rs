//! The suite against a real Apache Kafka and Prometheus, started by the tests themselves. Run: tests/real-services

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "tests wait for real programs, so they read the real clock")]

#[path = "../../../crates/larum-event/tests/model/mod.rs"]
#[allow(missing_docs)]
mod model;

mod alerts;
mod audit;
mod endpoint;
mod exactness;
mod faults;
mod groups;
mod oracle;
mod otlp;
mod program;
mod prometheus;
mod scrape;
mod secured;
mod soak;
