//! `scope: MESH`: one limit for many proxies, kept by an engine beside them.
//!
//! A process fetches hits ahead of need, and the engine counts them before any is spent: so whatever is
//! lost on the way, an answer, a worker or a write, no more passes than the engine granted. `lease` is what a
//! process holds of one key, as a state machine; `slots` how these lie in shared data; `desk` asks for one
//! worker, over a `line` that may be silent; `wire` is what is said to the engine and what it answers, `rule` what a policy's rule adds.

mod decide;
mod desk;
mod lease;
mod line;
mod rule;
mod settings;
mod slots;
mod wire;

pub use desk::{Answered, Desk, Query, Say};
pub use rule::MeshRule;
pub use settings::{CallCounts, Settings};
pub use wire::Entry;

/// For the fuzz target.
pub use wire::{Answer, Reset, answer};

#[cfg(test)]
mod granted_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testkit;
