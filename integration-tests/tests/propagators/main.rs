//! For the formats that OpenTelemetry's propagators read, ours reads the same.
//!
//! Each file holds one format against the official Rust propagator. Where theirs leaves the
//! specification, a [`Row`] says which sentence it leaves and what it does instead. The property is
//! that theirs reads any text exactly as ours does once all rows are applied: so there is no
//! difference but these, and [`Table::rows_are_needed`] shows that each of them is one.

mod b3;
mod baggage;
mod common;
mod tracestate;
mod w3c;
mod xray;
