//! Trace context, restoring, deadlines and spans on real Envoys.

mod common;
mod deadlines;
mod restore;
mod spans;
