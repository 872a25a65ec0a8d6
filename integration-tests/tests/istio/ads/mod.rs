//! A real Envoy under a control plane that hands it what istiod and the agent would make of our manifests.

mod agent;
mod istiod;
pub mod jsonpb;
mod mesh;
mod order;
mod pulls;
mod state;
mod updates;
