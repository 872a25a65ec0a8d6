//! stub
use crate::trace::context::{Carried, SpanContext};
pub fn parse(_: &[u8]) -> Option<Carried> { None }
pub fn write(_: &SpanContext) -> String { String::new() }
