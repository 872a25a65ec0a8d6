//! Trace context on a real Envoy.

mod common;
mod deadlines;
mod hostile;
mod neighbours;
mod policies;
mod responses;
mod restore;
mod rig;
mod sampling;
mod spans;
mod w3c;
