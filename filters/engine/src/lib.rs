//! All policy logic of weir: pure, and deterministic given its ports.
//!
//! `core` is what the filters share; each filter has a folder of its own, and these do not import
//! each other. `sim` is a host for tests: several workers as real threads on one simulated store.

pub mod breaker;
pub mod color;
pub mod core;
pub mod limit;
#[cfg(test)]
mod refusals;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod trace;
