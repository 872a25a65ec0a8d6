//! Trace context.
//!
//! `formats` is the wire, one parser a file; `context` what they all say. `propagation` picks what
//! came and writes what goes on, `baggage` goes along; `deadline` is the time that is left;
//! `sampling` decides on a trace, by `threshold`s, `scoring` and the `pace` of floors and ceilings;
//! `restoring` remembers a request for the calls that are made for it; `response` tells of the trace,
//! `hop` makes this hop's span and `spans` exports it. `section` is the policy at work, `call` one
//! request on its way, `worker` what a VM keeps over edits.

mod baggage;
mod call;
pub mod context;
mod deadline;
pub mod formats;
mod hop;
mod metrics;
mod pace;
mod propagation;
mod response;
mod restoring;
mod sampling;
mod scoring;
mod section;
pub mod spans;
pub mod threshold;
mod worker;

pub use call::Call;
pub use section::{Decision, Tracer};
pub use worker::Worker;

#[cfg(test)]
mod deadline_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod restoring_tests;
#[cfg(test)]
mod section_tests;
#[cfg(test)]
mod strangers_tests;
#[cfg(test)]
mod testkit;
