//! Token-bucket rate limiting.
//!
//! `gcra` is the arithmetic of one bucket, `calendar` the clock of quotas, `overdraft` what an edit leaves
//! of one, `slots` how buckets lie in shared data, `lease` what a worker holds of them, `bucket` a decision over these, `flight` what is in
//! flight. `rule`, `overrides`, `cost` and `priority` are the policy; `decide` asks its rules, `plan` is
//! what the response and the end of the stream need, `limiter` the section as a whole.

// Time and counts saturate: an overflow must not change sides.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bucket;
pub mod calendar;
mod carried;
mod cost;
mod crew;
mod decide;
mod flight;
pub mod gcra;
mod lease;
mod limiter;
pub mod mesh;
mod metrics;
mod overdraft;
mod overrides;
mod plan;
mod priority;
mod reply;
mod rule;
pub mod slots;
mod table;
mod worker;

pub use limiter::Limiter;
#[cfg(any(test, feature = "sim"))]
pub use limiter::{Level, Look};
pub use metrics::Outcome;
pub use plan::{Decision, Quota, ResponsePlan};
pub use worker::{LocalStore, Worker};

#[cfg(test)]
mod edits_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod workers_tests;
