//! The durable log of Deltas: opaque blobs, appended one at a time with one fsync each, and snapshots that bound it.
//!
//! The embedded store is redb: one file, atomic commits with checksums, its own recovery after a torn write, a lock
//! against a second process. On top of it every blob carries a CRC and a sequence number without gaps, so that a damaged
//! last commit is cut and damage anywhere before it is an error. Nothing here knows what the blobs mean.

mod blob;
mod error;
mod store;

pub use error::StoreError;
pub use redb::{Builder, Database, DatabaseError, StorageBackend};
pub use store::{Recovered, Store, StoreLimits, configure};
