//! Trace context: carried, translated and restored; deadlines; sampling; spans.

pub mod context;
pub mod formats;
pub mod spans;
