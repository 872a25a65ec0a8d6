//! Circuit breaking.
//!
//! `window` holds the calls that count, `cell` is one breaker and its states, `settings` the numbers
//! by which it goes and `adaptive` those of the mode without states; `slots` is how breakers lie in
//! shared data, `shared` how they change there and `size` how a table outlives an edit of its size, `table` what a worker keeps of them; `verdict` says
//! what became of a call, and `call` follows it there; `rule` and `section` are the policy.

mod adaptive;
mod call;
pub mod cell;
mod metrics;
mod reply;
mod rule;
mod section;
mod settings;
mod shared;
mod size;
pub mod slots;
mod table;
mod verdict;
mod window;
mod worker;

pub use call::Call;
#[cfg(any(test, feature = "sim"))]
pub use metrics::Outcome;
#[cfg(any(test, feature = "sim"))]
pub use section::Look;
pub use section::{Breaker, Decision};
#[cfg(any(test, feature = "sim"))]
pub use verdict::flag;
pub use worker::Worker;

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod section_tests;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod trace_tests;
#[cfg(test)]
mod workers_tests;
