//! The durable log of Deltas.
