//! The circuit breaker on a real Envoy.

mod answers;
mod common;
mod cost;
mod edits;
mod failures;
mod keys;
mod order;
mod policies;
mod reaction;
mod states;
mod streams;
