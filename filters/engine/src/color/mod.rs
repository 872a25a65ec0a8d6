//! Traffic coloring.
//!
//! `hash` puts a key into one of 10 000 buckets and `share` a bucket to a color; `schedule` and `auto`
//! move a share, by the clock and by the rate; `guard` compares a color with the base. `carry` is the
//! wire, `cookie` and `session` what clients are given, `lanes` who has instances. `rule` and `section`
//! are the policy at work, `call` one request on its way.

pub mod auto;
mod call;
mod carry;
pub mod cookie;
pub mod guard;
pub mod hash;
mod lanes;
mod latency;
mod metrics;
mod rule;
pub mod schedule;
mod section;
mod session;
mod share;
mod worker;

pub use call::Call;
pub use section::{Decision, Painter};
#[cfg(any(test, feature = "sim"))]
pub use section::{Look, Share};
pub use worker::Worker;

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod section_tests;
