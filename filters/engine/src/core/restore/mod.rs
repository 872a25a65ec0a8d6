//! What a proxy remembers of a request that came in, for the calls that its application then makes.
//!
//! An inbound listener records under a correlation id; an outbound one of the same Envoy looks the
//! id up. They run in other VMs, and mostly in other workers, so records lie in shared data: a
//! fixed number of values, each a set of a few records, written under compare-and-set.

mod memory;
mod note;
mod record;
mod set;
mod size;
mod store;

pub use memory::{Comer, Key, Memory, Recall, baggage_key};
pub use note::{NOTE, Note};
pub use record::{MAX_RECORD, Record, Trace};
pub use set::{Set, State, WAYS, Way};
pub use store::{Found, Lost, Outcome, Records, Scope, fingerprint, is_usable};

#[cfg(test)]
mod races_tests;
#[cfg(test)]
mod store_tests;
