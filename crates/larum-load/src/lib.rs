//! The traffic generator: realistic tenants, attacks, degradations, and the truth about them.
//!
//! A [`Generator`] turns a [`Profile`] into an endless sequence of Kafka records of Larum's own schema, each with the
//! instant at which it should be appended, and keeps count of what a reader of all of them must find: the [`Truth`].
//! Nothing here knows Kafka, threads or a clock: the caller sends, waits and stops. The same profile gives the same
//! bytes (on machines of the same word size).
//!
//! What it sends, in shares of everyday records (`mix` holds the tables):
//!
//! | share | what |
//! |---|---|
//! | 20 % | logins; of those that succeed or fail, 10 % fail at workforce tenants (even index), 50 % at consumer ones |
//! | 45 % | token refreshes |
//! | 20 % | tokens issued to services (client credentials) |
//! | 3 % | tokens exchanged, introspected, revoked |
//! | 10 % | permission checks |
//! | 1.9 % | audit records delivered, in sequence per producer |
//! | 0.1 % | changes of the platform, without a tenant |
//!
//! Tenants follow Zipf's law, their index is their popularity rank; regions are drawn apart from tenants. Attacks come
//! on top of the everyday records and leave these as they are, so two profiles that differ only in an attack agree in
//! everything but the attack.
//!
//! Reading order: `profile` and `scenario` (what can be asked for), `dice` (randomness), `pace` and `timing` (when),
//! `popularity` and `mix` (who and what), `json`, `stamp`, `scribe`, `flaw` (how it is written), `trouble`, `campaign`
//! and `stage` (scenarios at work), `tally` and `truth` (what was sent), `generator` (all of it together).

mod campaign;
mod dice;
mod flaw;
mod generator;
mod json;
mod mix;
mod pace;
mod popularity;
mod profile;
mod scenario;
#[cfg(test)]
mod scenario_tests;
mod scribe;
mod stage;
mod stamp;
mod tally;
#[cfg(test)]
mod tests;
mod timing;
mod trouble;
mod truth;

pub use generator::{Generated, Generator};
pub use profile::{Profile, ProfileError};
pub use scenario::{Planned, Scenario, UnknownScenario};
pub use truth::{LoginKey, ScenarioTruth, TokenKey, Truth};
