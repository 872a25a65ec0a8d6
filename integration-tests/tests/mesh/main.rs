//! `scope: MESH` on a real Envoy: what a request waits for, and what an engine may do to it. Every test runs
//! over each kind of engine.

mod answers;
mod common;
mod in_the_suite;
mod silence;
