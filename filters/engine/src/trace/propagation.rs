//! The section `propagation`: where a context comes from, and the forms in which it goes on.

use weir_protos::FieldError;
use weir_protos::v1::format::Value as Format;
use weir_protos::v1::{Propagation as Source, propagation::Mode};

use super::context::{Carried, SpanContext, SpanId, TraceId};
use super::formats::ot::Ot;
use super::formats::tracestate::{Own, TraceState};
use super::formats::{b3, datadog, jaeger, request_id, w3c, xray};
use super::threshold::Threshold;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;

/// What the tools that people run read and write, and nothing that has to be asked for.
const DEFAULT_EXTRACT: [Format; 3] = [Format::W3c, Format::B3Single, Format::B3Multi];

#[derive(Debug)]
pub struct Propagation {
    pub mode: Mode,
    pub server_timing: bool,
    extract: Vec<Format>,
    inject: Vec<Format>,
    strip: Vec<Format>,
}

/// What a request carries.
#[derive(Debug, Default)]
pub struct Found<'r> {
    pub carried: Carried,
    /// The form that it was read from.
    pub format: Option<Format>,
    /// Something was there and could not be used.
    pub is_broken: bool,
    /// Only beside a valid `traceparent`: without one it means nothing (W3C Trace Context section
    /// 3.3.1.4), and a broken one never counts against its `traceparent`.
    pub state: Option<TraceState<'r>>,
    /// It was remembered, and does not stand in the request.
    pub is_recalled: bool,
}

/// What the forms that came mean to those that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// They are of this trace.
    Continues,
    /// What is valid is left alone.
    Stays,
    /// They are of another trace, or a stranger's.
    Goes,
}

/// All that tells of a trace, but for the id that a request has of Envoy's.
const FOREIGN: [Format; 7] = [
    Format::W3c,
    Format::B3Single,
    Format::B3Multi,
    Format::Jaeger,
    Format::Xray,
    Format::Datadog,
    Format::Skywalking,
];

/// What becomes of the OpenTelemetry member of `tracestate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtChange {
    /// The decision that came along goes on as it came.
    #[default]
    Keep,
    /// A stranger's word on probabilities goes.
    Remove,
    /// Decided here: the threshold that was met, and a randomness where the trace id's own is not to
    /// be relied on.
    Write { threshold: Option<Threshold>, randomness: Option<u64> },
}

impl Propagation {
    #[cold]
    pub fn compile(source: &Source, path: &str) -> Result<Propagation, FieldError> {
        let or_default = |list: Vec<Format>, default: &[Format]| {
            if list.is_empty() { default.to_vec() } else { list }
        };
        let extract = formats(source.extract().collect(), &[Format::Skywalking], "extract", path)?;
        let carriers = [Format::Skywalking, Format::RequestId];
        let inject = formats(source.inject().collect(), &carriers, "inject", path)?;
        let mode = match source.mode() {
            Mode::Unspecified => Mode::Propagate,
            mode => mode,
        };
        if source.server_timing && mode != Mode::Restart {
            let remedy = "tells of a new trace; it goes with mode: RESTART";
            return Err(FieldError::value(format!("{path}.server_timing"), "true", remedy));
        }
        Ok(Propagation {
            mode,
            server_timing: source.server_timing,
            extract: or_default(extract, &DEFAULT_EXTRACT),
            inject: or_default(inject, &[Format::W3c]),
            strip: formats(source.strip().collect(), &[], "strip", path)?,
        })
    }

    /// The first form that holds a valid context. A decision without a trace counts where no form
    /// holds a trace.
    pub fn extract<'r>(&self, headers: &'r HeaderMap) -> Found<'r> {
        let mut found = Found::default();
        let mut decision = None;
        for format in &self.extract {
            match read(*format, headers) {
                Read::Absent => {}
                Read::Broken => found.is_broken = true,
                Read::Carried(carried) if carried.trace_id.is_some() => {
                    found.carried = carried;
                    found.format = Some(*format);
                    break;
                }
                Read::Carried(carried) => decision = decision.or(Some(carried)),
            }
        }
        if let (None, Some(decision)) = (found.format, decision) {
            found.carried = decision;
        }
        let is_of_this_trace = |other: Read| match other {
            Read::Carried(other) => other.trace_id == found.carried.trace_id,
            Read::Absent | Read::Broken => false,
        };
        let has_state = match found.format {
            Some(Format::W3c) => true,
            // Another form came first, beside a `traceparent` of the same trace.
            Some(_) => is_of_this_trace(read(Format::W3c, headers)),
            None => false,
        };
        if has_state {
            found.state = TraceState::parse(headers.all(b"tracestate"));
        }
        found
    }

    /// Removes the forms that are not to go on.
    pub fn strip(&self, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        for format in &self.strip {
            for name in names(*format) {
                if headers.get(name.as_bytes()).is_some() {
                    edits.push(HeaderEdit::Remove((*name).to_string()));
                }
            }
        }
    }

    /// Removes all forms that are not written anew: what a stranger says, or what another trace said,
    /// goes on in none of them.
    pub fn strip_foreign(&self, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        for format in FOREIGN.iter().filter(|format| !self.inject.contains(format)) {
            names(*format).iter().for_each(|name| remove(name, headers, edits));
        }
    }

    /// Writes the context in every form asked for.
    pub fn inject(
        &self,
        context: &SpanContext,
        found: &Found<'_>,
        ot: OtChange,
        before: Before,
        headers: &HeaderMap,
        edits: &mut Vec<HeaderEdit>,
    ) {
        for format in &self.inject {
            let is_there = || matches!(read(*format, headers), Read::Carried(_));
            if before == Before::Stays && !self.strip.contains(format) && is_there() {
                continue;
            }
            let foreign = before == Before::Goes;
            let mut set = |name: &str, value: String| replace(name, value, headers, edits);
            match format {
                Format::W3c => {
                    set("traceparent", w3c::write(context));
                    write_state(found, ot, headers, edits);
                }
                Format::B3Single => set("b3", b3::write_single(context)),
                Format::B3Multi => {
                    for name in ["x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"] {
                        remove(name, headers, edits);
                    }
                    for (name, value) in b3::write_multi(context) {
                        edits.push(HeaderEdit::Set(name.to_string(), value));
                    }
                }
                Format::Jaeger => set("uber-trace-id", jaeger::write(context)),
                Format::Xray => {
                    let incoming = headers.get(b"x-amzn-trace-id").filter(|_| !foreign);
                    set("x-amzn-trace-id", xray::write(context, incoming));
                }
                Format::Datadog => {
                    let tags = headers.get(b"x-datadog-tags").filter(|_| !foreign);
                    remove("x-datadog-tags", headers, edits);
                    if foreign {
                        remove("x-datadog-origin", headers, edits);
                    }
                    for (name, value) in datadog::write(context, tags) {
                        replace(name, value, headers, edits);
                    }
                }
                Format::RequestId | Format::Skywalking | Format::Unspecified => {}
            }
        }
    }
}

enum Read {
    Absent,
    Broken,
    Carried(Carried),
}

impl Read {
    fn of(carried: Option<Carried>) -> Read {
        carried.map_or(Read::Broken, Read::Carried)
    }
}

fn read(format: Format, headers: &HeaderMap) -> Read {
    match format {
        Format::W3c => one(headers, b"traceparent", w3c::parse),
        Format::B3Single => one(headers, b"b3", b3::parse_single),
        Format::Jaeger => one(headers, b"uber-trace-id", jaeger::parse),
        Format::Xray => one(headers, b"x-amzn-trace-id", xray::parse),
        Format::RequestId => one(headers, b"x-request-id", |line| {
            let trace_id = request_id::parse(line);
            trace_id.map(|id| Carried { trace_id: Some(id), ..Carried::default() })
        }),
        Format::B3Multi => {
            let multi = b3::Multi {
                trace_id: headers.get(b"x-b3-traceid"),
                span_id: headers.get(b"x-b3-spanid"),
                sampled: headers.get(b"x-b3-sampled"),
                flags: headers.get(b"x-b3-flags"),
            };
            let parts = [multi.trace_id, multi.span_id, multi.sampled, multi.flags];
            if parts.iter().all(Option::is_none) { Read::Absent } else { Read::of(multi.parse()) }
        }
        Format::Datadog => {
            let line = |name: &'static [u8]| headers.get(name);
            let trace_id = line(b"x-datadog-trace-id");
            if trace_id.is_none() {
                return Read::Absent;
            }
            let said = datadog::Headers {
                trace_id,
                parent_id: line(b"x-datadog-parent-id"),
                priority: line(b"x-datadog-sampling-priority"),
                tags: line(b"x-datadog-tags"),
            };
            Read::of(said.parse())
        }
        Format::Skywalking | Format::Unspecified => Read::Absent,
    }
}

/// A header that has to stand on one line: of two nobody knows which one counts.
fn one(headers: &HeaderMap, name: &[u8], parse: impl Fn(&[u8]) -> Option<Carried>) -> Read {
    let mut lines = headers.all(name);
    match (lines.next(), lines.next()) {
        (None, _) => Read::Absent,
        (Some(line), None) => Read::of(parse(line)),
        (Some(_), Some(_)) => Read::Broken,
    }
}

fn names(format: Format) -> &'static [&'static str] {
    match format {
        Format::W3c => &["traceparent", "tracestate"],
        Format::B3Single => &["b3"],
        Format::B3Multi => {
            &["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"]
        }
        Format::Jaeger => &["uber-trace-id"],
        Format::Xray => &["x-amzn-trace-id"],
        Format::Datadog => &[
            "x-datadog-trace-id",
            "x-datadog-parent-id",
            "x-datadog-sampling-priority",
            "x-datadog-origin",
            "x-datadog-tags",
        ],
        Format::RequestId => &["x-request-id"],
        Format::Skywalking => &["sw8", "sw8-x", "sw8-correlation"],
        Format::Unspecified => &[],
    }
}

fn write_state(
    found: &Found<'_>,
    change: OtChange,
    headers: &HeaderMap,
    edits: &mut Vec<HeaderEdit>,
) {
    let name = b"tracestate";
    let there = headers.all(name).count();
    let empty = TraceState::default();
    let state = found.state.as_ref().unwrap_or(&empty);
    let before = state.get(b"ot").map(Ot::parse);
    let text = match change {
        OtChange::Keep if found.is_recalled => state.write(Own::Keep),
        // As it came, on as many lines: unchanged is unchanged.
        OtChange::Keep if there == 0 || !state.is_empty() => return,
        OtChange::Keep => String::new(),
        OtChange::Remove if before.is_none() && (there == 0 || !state.is_empty()) => return,
        OtChange::Remove => state.write(Own::Remove("ot")),
        OtChange::Write { threshold, randomness } => {
            let mut ot = before.unwrap_or_default();
            ot.threshold = threshold;
            ot.randomness = randomness.or(ot.randomness);
            match ot.write() {
                Some(value) => state.write(Own::Set("ot", &value)),
                None if there == 0 => return,
                None => state.write(Own::Remove("ot")),
            }
        }
    };
    if text.is_empty() {
        remove("tracestate", headers, edits);
    } else {
        replace("tracestate", text, headers, edits);
    }
}

/// Writes one line in place of all that are there.
pub fn replace(name: &str, value: String, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
    if headers.all(name.as_bytes()).nth(1).is_some() {
        edits.push(HeaderEdit::Remove(name.to_string()));
    }
    edits.push(HeaderEdit::Set(name.to_string(), value));
}

pub fn remove(name: &str, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
    if headers.get(name.as_bytes()).is_some() {
        edits.push(HeaderEdit::Remove(name.to_string()));
    }
}

/// A fresh context under a fresh trace, or under the trace given.
pub fn fresh(trace_id: Option<TraceId>, random: &mut impl FnMut() -> u64) -> (TraceId, SpanId) {
    // Zero is no id; of 2^64 draws one has to be drawn again, and the host may lack randomness.
    let mut draw = || (0..4).map(|_| random()).find(|drawn| *drawn != 0).unwrap_or(1);
    let span_id = SpanId::new(draw());
    let trace_id = trace_id.or_else(|| {
        let high = u128::from(draw());
        TraceId::new((high << 64) | u128::from(draw()))
    });
    (trace_id.unwrap_or(TraceId::ONE), span_id.unwrap_or(SpanId::ONE))
}

#[cold]
fn formats(
    list: Vec<Format>,
    unfit: &[Format],
    field: &str,
    path: &str,
) -> Result<Vec<Format>, FieldError> {
    for (place, format) in list.iter().enumerate() {
        let path = format!("{path}.{field}[{place}]");
        if unfit.contains(format) {
            let remedy = format!("has no place in `{field}`; see the comments of `Format`");
            return Err(FieldError::value(path, format.as_str_name(), remedy));
        }
        if list.iter().take(place).any(|earlier| earlier == format) {
            return Err(FieldError::value(path, format.as_str_name(), "is given twice; keep one"));
        }
    }
    Ok(list)
}
