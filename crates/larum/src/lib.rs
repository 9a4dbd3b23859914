//! The Larum program as a library: configuration, wiring, command line. The binary is a thin `main`.
//!
//! Reading order: [`config`], [`keeper`] (commits), [`reader`] (a worker's thread), [`start`] (where partitions begin),
//! [`state`] (what a restart reads back), [`engine`] (the threads together), [`groups`] (watched consumer groups, judged
//! by [`progress`]), [`pages`] (what is served), then the commands.

mod alert_signals;
mod annotate;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dead_letters;
pub mod demo;
pub mod durable;
pub mod engine;
pub mod groups;
pub mod health;
pub mod inspect;
pub mod keeper;
pub mod load;
pub mod logging;
pub mod memory;
mod notify;
pub mod own;
pub mod pages;
pub mod progress;
pub mod push;
pub mod reader;
mod reload;
pub mod run;
pub mod shared;
pub mod start;
pub mod state;
mod tell;
pub mod watch;
