//! The traffic generator: realistic tenants, attacks, degradations, and the truth about them.
