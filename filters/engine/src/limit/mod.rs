//! Token-bucket rate limiting.
//!
//! `gcra` is the arithmetic of one bucket, `slots` how buckets lie in shared data, `lease` what a
//! worker holds of them, `bucket` a decision over the three, `rule` and `limiter` the policy.

// Time and counts saturate: an overflow must not change sides.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bucket;
mod crew;
pub mod gcra;
mod lease;
mod limiter;
mod metrics;
mod reply;
mod rule;
pub mod slots;
mod table;
mod worker;

pub use limiter::{Decision, Limiter, Quota, ResponsePlan};
#[cfg(any(test, feature = "sim"))]
pub use limiter::{Level, Look};
pub use metrics::Outcome;
pub use worker::{LocalStore, Worker};

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod workers_tests;
