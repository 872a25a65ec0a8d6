//! Hostile input on raw sockets: whatever a client sends, the answer is the one that the same
//! listener gives without the filter, no VM traps, and no error is ours.
//!
//! Three listeners of one Envoy: `plain` without the filter, `open` and `shut` with it. The policy
//! reads every part of a request that it can read; on `open` it admits all, on `shut` it refuses
//! all, so that every path to a reply is walked as well.

mod http1;
mod http2;
mod setup;
