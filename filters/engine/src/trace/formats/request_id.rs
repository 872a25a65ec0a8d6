//! stub
use crate::trace::context::TraceId;
pub fn parse(_: &[u8]) -> Option<TraceId> { None }
pub fn uuid(_: u128) -> String { String::new() }
