//! What a request asks of the host, counted: the finished module in an interpreter, under a host
//! that answers like Envoy and counts.
//!
//! Times are noisy, these counts are exact: the same module and the same requests give the same
//! figures on every machine. `docs/performance/host-calls.md` holds them; a test compares.

mod calls;
mod host;
mod report;
mod scenarios;
mod vm;

pub use host::Counts;
pub use report::{Figures, counts_of, fuel_of, render};
pub use scenarios::{REQUESTS, Scenario, all, measure};
pub use vm::{Answer, Vm};

use std::path::PathBuf;

/// Where the counts are kept.
pub fn committed() -> PathBuf {
    crate::paths::root().join("docs/performance/host-calls.md")
}
