//! Trace context on a real Envoy.

mod hostile;
mod neighbours;
mod policies;
mod responses;
mod rig;
mod sampling;
mod w3c;
