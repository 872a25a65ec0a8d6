//! Token-bucket rate limiting.
//!
//! `gcra` is the arithmetic of one bucket, `calendar` that of quotas, `slots` how buckets lie in shared data, `lease` what a
//! worker holds of them, `bucket` a decision over the three,
//! `flight` what is in flight, `rule`, `overrides`,
//! `cost`, `priority` and `limiter` the policy.

// Time and counts saturate: an overflow must not change sides.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bucket;
pub mod calendar;
mod cost;
mod crew;
mod flight;
pub mod gcra;
mod lease;
mod limiter;
mod metrics;
mod overrides;
mod priority;
mod reply;
mod rule;
pub mod slots;
mod table;
mod worker;

pub use limiter::{Decision, Limiter, Quota, ResponsePlan};
pub use metrics::Outcome;
pub use worker::{LocalStore, Worker};

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod workers_tests;
