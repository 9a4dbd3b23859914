//! Event time, panes, series keys, mergeable aggregates and the Delta.
