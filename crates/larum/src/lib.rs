//! The Larum program: configuration, wiring, command line.
