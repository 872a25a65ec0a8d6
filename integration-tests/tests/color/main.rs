//! Traffic coloring on real Envoys.

mod cookies;
mod groups;
mod guard;
mod journey;
mod lanes;
mod policies;
mod rig;
mod rules;
mod schedule;
mod shares;
mod switches;
mod trust;
