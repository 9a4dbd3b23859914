//! Durable Deltas to panes, sliding windows and signals.
