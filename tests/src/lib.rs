//! Shared harness of the whole-system tests: real services, child processes.

pub mod alertmanager;
pub mod audit;
pub mod collector;
pub mod kafka;
pub mod process;
pub mod prometheus;
pub mod recount;
pub mod secured;
pub mod sink;
