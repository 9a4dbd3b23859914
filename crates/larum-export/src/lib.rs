//! Signals to Prometheus exposition, and the HTTP endpoint.
