//! Limits of requests in flight: however a stream ends, its slot comes back.

mod common;

mod counts;
mod edits;
mod endings;
mod mixed;
