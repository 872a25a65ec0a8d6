//! The section `response`: what a response says of its trace, and of what went wrong.

use weir_protos::FieldError;
use weir_protos::v1::TraceResponse as Source;

use super::context::SpanContext;
use super::formats::w3c;
use crate::core::answer::{DEADLINE_EXCEEDED, UNAVAILABLE, checked_name};
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::{HeaderMap, is_safe_value};
use crate::core::ports::Attributes;
use crate::core::reply::{LocalReply, Problem};

#[derive(Debug)]
pub struct ResponseRules {
    trace_id_header: Option<String>,
    error_context: bool,
    envelope: bool,
}

/// The stream as a response sees it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// None where nothing goes on and nothing came.
    pub context: Option<&'a SpanContext>,
    pub is_grpc: bool,
    /// Envoy was told to end the request at its deadline.
    pub is_timed: bool,
    /// Tells the caller of the trace that was started in place of its own.
    pub links: bool,
}

impl ResponseRules {
    #[cold]
    pub fn compile(source: Option<&Source>, path: &str) -> Result<ResponseRules, FieldError> {
        let empty = Source::default();
        let source = source.unwrap_or(&empty);
        let trace_id_header = match source.trace_id_header.as_str() {
            "" => None,
            name => Some(checked_name(name, &format!("{path}.trace_id_header"))?),
        };
        Ok(ResponseRules {
            trace_id_header,
            error_context: source.error_context,
            envelope: source.envelope,
        })
    }

    /// Whether there is anything to do on a response.
    pub fn acts(&self, stream: Answered<'_>) -> bool {
        let says = self.trace_id_header.is_some() || stream.links;
        says && stream.context.is_some() || self.reads(stream)
    }

    /// Whether what came has to be looked at.
    pub fn reads(&self, stream: Answered<'_>) -> bool {
        self.error_context || self.envelope || (stream.is_grpc && stream.is_timed)
    }

    pub fn on_response(
        &self,
        stream: Answered<'_>,
        response: &HeaderMap,
        attributes: &mut impl Attributes,
    ) -> Effects {
        let mut edits = Vec::new();
        let mut set = |name: &str, value: String| edits.push(HeaderEdit::Set(name.into(), value));
        if let (Some(name), Some(context)) = (&self.trace_id_header, stream.context) {
            set(name, context.trace_id.to_string());
        }
        if let (true, Some(context)) = (stream.links, stream.context) {
            let link = format!("trace;desc={}", w3c::write(context));
            edits.push(HeaderEdit::Add("server-timing".into(), link));
        }
        let failure =
            if self.reads(stream) { Failure::of(stream, response, attributes) } else { None };
        let Some(failure) = failure else { return edits.into() };
        if failure.is_our_timeout {
            edits.push(HeaderEdit::Set("grpc-status".into(), DEADLINE_EXCEEDED.to_string()));
        }
        if self.error_context {
            self.tell(&failure, stream.context, &mut edits);
        }
        if self.envelope && failure.is_envoys {
            if stream.is_grpc {
                edits
                    .push(HeaderEdit::Set("grpc-message".into(), failure.sentence(stream.context)));
            } else {
                let mut headers: Vec<(String, String)> = Vec::new();
                for edit in edits {
                    if let HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value) = edit {
                        headers.push((name, value));
                    }
                }
                for name in KEPT {
                    let value = response.get(name.as_bytes()).filter(|value| is_safe_value(value));
                    let value = value.and_then(|value| std::str::from_utf8(value).ok());
                    headers.extend(value.map(|value| (name.to_string(), value.to_string())));
                }
                let reply = Some(failure.envelope(stream.context, headers));
                return Effects { reply, ..Effects::default() };
            }
        }
        edits.into()
    }

    fn tell(&self, failure: &Failure, context: Option<&SpanContext>, edits: &mut Vec<HeaderEdit>) {
        let mut set = |name: &str, value: String| edits.push(HeaderEdit::Set(name.into(), value));
        if let Some(context) = context {
            if self.trace_id_header.is_none() {
                set("x-trace-id", context.trace_id.to_string());
            }
            set("x-span-id", context.span_id.to_string());
        }
        set("x-retry-count", failure.retries.to_string());
        if !failure.has_reason {
            set("x-weir-reason", failure.reason.to_string());
        }
    }
}

/// An answer that is none.
#[derive(Debug)]
struct Failure {
    status: u16,
    reason: &'static str,
    /// The reason stands there already: another filter of weir's gave the answer.
    has_reason: bool,
    /// Envoy answered in the upstream's place.
    is_envoys: bool,
    is_our_timeout: bool,
    retries: u64,
    details: String,
}

/// What Envoy says of its own replies, what we call it, and whether its router said it about an
/// upstream: filters answer for themselves. The first that fits counts.
const REASONS: [(&[u8], &str, bool); 14] = [
    (b"via_upstream", "upstream_error", false),
    (b"response_timeout", "upstream_timeout", true),
    (b"upstream_per_try_timeout", "upstream_timeout", true),
    (b"max_duration_timeout", "upstream_timeout", true),
    (b"stream_idle_timeout", "idle_timeout", true),
    (
        b"upstream_reset_before_response_started{remote_connection_failure",
        "upstream_unreachable",
        true,
    ),
    (b"upstream_reset_before_response_started{delayed_connect_error", "upstream_unreachable", true),
    (b"upstream_reset_before_response_started{overflow", "upstream_overloaded", true),
    (b"upstream_reset", "upstream_reset", true),
    (b"no_healthy_upstream", "no_healthy_upstream", true),
    (b"route_not_found", "no_route", true),
    (b"cluster_not_found", "no_cluster", true),
    (b"rbac_access_denied", "access_denied", false),
    (b"direct_response", "direct_response", false),
];

/// What Envoy tells the client beside its own replies.
const KEPT: [&str; 3] = ["retry-after", "x-envoy-overloaded", "x-envoy-ratelimited"];

impl Failure {
    fn of(
        stream: Answered<'_>,
        response: &HeaderMap,
        attributes: &mut impl Attributes,
    ) -> Option<Failure> {
        let text = |name: &[u8]| std::str::from_utf8(response.get(name)?).ok();
        let status: u16 = text(b":status")?.parse().ok()?;
        let grpc: Option<i32> = text(b"grpc-status").and_then(|code| code.parse().ok());
        let grpc = grpc.filter(|code| stream.is_grpc && *code != 0);
        if status < 400 && grpc.is_none() {
            return None;
        }
        let details = attributes.attribute(b"response\0code_details").unwrap_or_default();
        let is_upstreams = details == b"via_upstream";
        // What a client did wrong is between it and the upstream.
        if is_upstreams && status < 500 && grpc.is_none() {
            return None;
        }
        let known = REASONS.iter().find(|(start, ..)| details.starts_with(start));
        let attempts = attributes.integer(b"upstream\0request_attempt_count").unwrap_or(0);
        let is_timeout = details == b"response_timeout";
        Some(Failure {
            status,
            reason: known.map_or("local_reply", |(_, reason, _)| reason),
            has_reason: response.get(b"x-weir-reason").is_some(),
            is_envoys: known.is_some_and(|(.., is_routers)| *is_routers),
            is_our_timeout: is_timeout && stream.is_timed && grpc == Some(UNAVAILABLE),
            retries: attempts.saturating_sub(1),
            details: String::from_utf8_lossy(&details).into_owned(),
        })
    }

    /// One sentence, of bytes that need no encoding in `grpc-message`.
    fn sentence(&self, context: Option<&SpanContext>) -> String {
        let mut text =
            format!("{}: {} after {} retries", self.status_text(), self.reason, self.retries);
        if let Some(context) = context {
            text.push_str(&format!(", trace {} span {}", context.trace_id, context.span_id));
        }
        text
    }

    fn status_text(&self) -> &'static str {
        match self.status {
            404 => "Not Found",
            408 => "Request Timeout",
            500 => "Internal Server Error",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            _ => "Request Failed",
        }
    }

    /// The same status with a JSON body.
    fn envelope(
        &self,
        context: Option<&SpanContext>,
        mut headers: Vec<(String, String)>,
    ) -> LocalReply {
        let (trace_id, span_id) = (
            context.map(|context| context.trace_id.to_string()),
            context.map(|context| context.span_id.to_string()),
        );
        let problem = Problem {
            kind: "about:blank",
            title: self.status_text(),
            status: self.status,
            detail: &format!("Envoy answered in the upstream's place: {}", self.reason),
            reason: self.reason,
            violated: &[],
            trace_id: trace_id.as_deref(),
        };
        let retries = self.retries.to_string();
        let more = [("span_id", span_id.as_deref()), ("retry_count", Some(&retries))];
        headers.push(("content-type".into(), "application/problem+json".into()));
        LocalReply {
            status: self.status,
            // As it was: the access log tells what happened, not who wrote the body.
            details: self.details.clone(),
            headers,
            body: problem.to_json_with(&more),
            grpc_status: None,
        }
    }
}
