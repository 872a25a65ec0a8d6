//! Zipkin's B3, in one header (`b3`) and in several (`x-b3-…`): openzipkin/b3-propagation.
//!
//! Strict about case, as the specification is ("lower-hex characters") and as the OpenTelemetry
//! propagators of Go and Rust are.

use super::{lower_hex, lower_hex_64};
use crate::trace::context::{Carried, SpanContext, SpanId, TraceId};

/// Reads `{trace id}-{span id}[-{state}[-{parent span id}]]`, or a state alone.
pub fn parse_single(value: &[u8]) -> Option<Carried> {
    if let Some(decision) = state(value) {
        return Some(decision);
    }
    let mut fields = value.split(|byte| *byte == b'-');
    let trace_id = Some(trace_id(fields.next()?)?);
    let span_id = Some(span_id(fields.next()?)?);
    // Absence of the state defers the decision; a state without a letter is malformed.
    let decision = fields.next().map_or(Some(Carried::default()), state)?;
    // The parent is the caller's caller: of no use here, but not to be garbage either.
    if let Some(parent) = fields.next() {
        let _ = self::span_id(parent)?;
    }
    fields.next().is_none().then_some(Carried { trace_id, span_id, ..decision })
}

/// The values of `x-b3-traceid`, `-spanid`, `-sampled` and `-flags`: of each the first line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Multi<'a> {
    pub trace_id: Option<&'a [u8]>,
    pub span_id: Option<&'a [u8]>,
    pub sampled: Option<&'a [u8]>,
    pub flags: Option<&'a [u8]>,
}

impl Multi<'_> {
    /// Ids and a decision, or a decision alone; an id without the other is malformed.
    pub fn parse(&self) -> Option<Carried> {
        let sampled = match self.sampled {
            None => None,
            // "a lenient implementation may accept them" (Sampling State): some tracers older than
            // the specification write words.
            Some(b"1" | b"true") => Some(true),
            Some(b"0" | b"false") => Some(false),
            Some(_) => return None,
        };
        // Flags other than 1 never meant anything.
        let is_debug = self.flags == Some(b"1");
        let sampled = if is_debug { Some(true) } else { sampled };
        let (trace_id, span_id) = match (self.trace_id, self.span_id) {
            (None, None) => (None, None),
            (Some(trace), Some(span)) => (Some(trace_id(trace)?), Some(span_id(span)?)),
            _ => return None,
        };
        let says_something = trace_id.is_some() || sampled.is_some();
        says_something.then_some(Carried { trace_id, span_id, sampled, is_debug, is_random: false })
    }
}

pub fn write_single(context: &SpanContext) -> String {
    let state = match (context.is_debug, context.sampled) {
        (true, _) => 'd',
        (false, true) => '1',
        (false, false) => '0',
    };
    format!("{}-{}-{state}", context.trace_id, context.span_id)
}

/// Never `x-b3-parentspanid`: this hop does not share the caller's span, as B3 hops once did.
pub fn write_multi(context: &SpanContext) -> Vec<(&'static str, String)> {
    // "Debug implies an accept decision, so don't also send the X-B3-Sampled header".
    let (name, value) = match (context.is_debug, context.sampled) {
        (true, _) => ("x-b3-flags", "1"),
        (false, true) => ("x-b3-sampled", "1"),
        (false, false) => ("x-b3-sampled", "0"),
    };
    vec![
        ("x-b3-traceid", context.trace_id.to_string()),
        ("x-b3-spanid", context.span_id.to_string()),
        (name, value.to_string()),
    ]
}

fn state(text: &[u8]) -> Option<Carried> {
    let (sampled, is_debug) = match text {
        b"0" => (false, false),
        b"1" => (true, false),
        b"d" => (true, true),
        _ => return None,
    };
    Some(Carried { sampled: Some(sampled), is_debug, ..Carried::default() })
}

/// 64 bits are padded on the left, as W3C Trace Context asks of who translates them.
fn trace_id(digits: &[u8]) -> Option<TraceId> {
    matches!(digits.len(), 16 | 32).then(|| lower_hex(digits)).flatten().and_then(TraceId::new)
}

fn span_id(digits: &[u8]) -> Option<SpanId> {
    lower_hex_64(digits).and_then(SpanId::new)
}

#[cfg(test)]
#[path = "b3_tests.rs"]
mod tests;
