//! Runs weir's modules in a real Envoy and talks to it the way clients do.
//!
//! A test starts [`Upstream`]s and an [`Envoy`], sends requests with one of the clients in
//! [`http`], edits the policy with [`Envoy::put_policy`], and compares what the clients saw with
//! Envoy's statistics. Nothing sleeps where a condition can be awaited ([`wait`]).
//!
//! Everything panics with a sentence that says what to do: it is test code.

pub mod app;
pub mod chain;
pub mod clock;
pub mod collector;
pub mod command;
pub mod crowd;
pub mod envoy;
pub mod explained;
pub mod host_calls;
pub mod http;
pub mod jwt;
pub mod load;
pub mod paths;
pub mod pki;
pub mod policy;
pub mod random;
pub mod refusals;
pub mod rls;
pub mod schema;
pub mod scripted;
mod serving;
pub mod traceparent;
pub mod upstream;
pub mod variant;
pub mod wait;
pub mod whole;
pub mod xds;

pub use app::{Account, App, Calls, Forward, Manner, Think};
pub use chain::Chain;
pub use collector::{Collector, Collects};
pub use crowd::Crowd;
pub use envoy::{Cluster, Envoy, Filter, Listener, Route};
pub use http::{Client, H1Conn, H2Conn, Request, Response};
pub use load::Load;
pub use rls::{Answers, Keeps, Redis, Rls};
pub use scripted::{Script, Scripted};
pub use upstream::Upstream;
pub use wait::wait_until;
