//! The circuit breaker on a real Envoy.

mod answers;
mod common;
mod edits;
mod failures;
mod keys;
mod order;
mod policies;
mod reaction;
mod states;
mod streams;
