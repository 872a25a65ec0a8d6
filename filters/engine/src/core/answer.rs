//! What every local reply of weir has in common: why it was given, in a form for each reader, and the
//! answers that a policy may put in its place.

use std::collections::BTreeMap;

use weir_protos::FieldError;
use weir_protos::v1::{Degrade as Source, StaticAnswer};

use super::headers::{header_name, is_safe_value};
use super::ports::Nanos;
use super::reply::{LocalReply, Problem};

/// gRPC status codes.
pub const INVALID_ARGUMENT: i32 = 3;
pub const DEADLINE_EXCEEDED: i32 = 4;
pub const RESOURCE_EXHAUSTED: i32 = 8;
pub const UNAVAILABLE: i32 = 14;

const MAX_BODY: usize = 4096;
const MAX_HEADERS: usize = 16;

#[derive(Debug)]
pub struct Degrade {
    pub marker: String,
    pub way: DegradeWay,
}

#[derive(Debug)]
pub enum DegradeWay {
    RequestHeader(String, String),
    Answer { status: u16, body: String, headers: Vec<(String, String)> },
}

/// Who asks, which decides the form of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub is_grpc: bool,
    pub trace_id: Option<&'a str>,
}

/// The answer to a request without a part of its key; `what` has such keys, e.g. `rate limit`.
pub fn missing_key(what: &str, rule: &str, client: Client<'_>) -> LocalReply {
    let detail = format!("{what} {rule} needs a key that this request does not carry");
    let mut headers = reason_headers("missing_key", rule);
    let problem = Problem {
        kind: "about:blank",
        title: "Bad Request",
        status: 400,
        detail: &detail,
        reason: "missing_key",
        violated: &[],
        trace_id: client.trace_id,
    };
    let body = body(&mut headers, client, &problem);
    let details = format!("weir_missing_key{{{rule}}}");
    LocalReply {
        status: 400,
        details,
        headers,
        body,
        grpc_status: client.is_grpc.then_some(INVALID_ARGUMENT),
    }
}

/// A static answer in place of the upstream's.
pub fn degraded(
    rule: &str,
    degrade: &Degrade,
    grpc_status: i32,
    client: Client<'_>,
) -> Option<LocalReply> {
    let DegradeWay::Answer { status, body, headers } = &degrade.way else { return None };
    let mut headers = headers.clone();
    headers.push((degrade.marker.clone(), rule.to_string()));
    Some(LocalReply {
        status: *status,
        details: format!("weir_degraded{{{rule}}}"),
        headers,
        body: body.clone().into_bytes(),
        // gRPC has no static answers: a client reads the text beside the status.
        grpc_status: client.is_grpc.then_some(grpc_status),
    })
}

/// `x-envoy-ratelimited` keeps Envoys on the way from retrying the refusal.
pub fn reason_headers(reason: &str, rule: &str) -> Vec<(String, String)> {
    vec![
        ("x-weir-reason".into(), reason.into()),
        ("x-weir-rule".into(), rule.into()),
        ("x-envoy-ratelimited".into(), "true".into()),
    ]
}

/// A JSON body, or for gRPC a sentence: Envoy makes the body the `grpc-message`.
pub fn body(
    headers: &mut Vec<(String, String)>,
    client: Client<'_>,
    problem: &Problem<'_>,
) -> Vec<u8> {
    if client.is_grpc {
        return problem.detail.as_bytes().to_vec();
    }
    headers.push(("content-type".into(), "application/problem+json".into()));
    problem.to_json()
}

/// Whole seconds, rounded up, at least 1: a client that waits so long is never early.
pub fn seconds(wait: Nanos) -> u64 {
    wait.div_ceil(1_000_000_000).max(1)
}

// === checks ===

#[cold]
pub fn compile_degrade(source: &Source, path: &str) -> Result<Degrade, FieldError> {
    let marker = match source.marker.as_str() {
        "" => "x-weir-degraded".to_string(),
        name => checked_name(name, &format!("{path}.marker"))?,
    };
    let way = match (&source.request_header, &source.answer) {
        (Some(header), None) => {
            let path = format!("{path}.request_header");
            let name = checked_name(&header.name, &format!("{path}.name"))?;
            check_value(&header.value, &format!("{path}.value"))?;
            DegradeWay::RequestHeader(name, header.value.clone())
        }
        (None, Some(answer)) => compile_answer(answer, &format!("{path}.answer"))?,
        _ => return Err(FieldError::at(path, "must have one of: request_header, answer")),
    };
    Ok(Degrade { marker, way })
}

#[cold]
fn compile_answer(answer: &StaticAnswer, path: &str) -> Result<DegradeWay, FieldError> {
    check_body(&answer.body, &format!("{path}.body"))?;
    let mut headers = checked_headers(&answer.headers, &format!("{path}.headers"))?;
    let kind = content_type(&answer.content_type, &format!("{path}.content_type"))?;
    headers.push(("content-type".into(), kind));
    let status = status(answer.status, 200, 200, &format!("{path}.status"))?;
    Ok(DegradeWay::Answer { status, body: answer.body.clone(), headers })
}

#[cold]
pub fn status(given: Option<u32>, default: u16, least: u16, path: &str) -> Result<u16, FieldError> {
    let status = given.map_or(Some(default), |status| u16::try_from(status).ok());
    status.filter(|status| (least..=599).contains(status)).ok_or_else(|| {
        FieldError::value(
            path,
            given.unwrap_or(0),
            format!("must be an HTTP status from {least} to 599"),
        )
    })
}

#[cold]
pub fn check_body(body: &str, path: &str) -> Result<(), FieldError> {
    if body.len() > MAX_BODY {
        return Err(FieldError::value(
            path,
            format_args!("{} bytes:", body.len()),
            "must be at most 4096",
        ));
    }
    Ok(())
}

#[cold]
pub fn content_type(given: &str, path: &str) -> Result<String, FieldError> {
    if given.is_empty() {
        return Ok("text/plain".into());
    }
    check_value(given, path)?;
    Ok(given.into())
}

#[cold]
pub fn checked_headers(
    headers: &BTreeMap<String, String>,
    path: &str,
) -> Result<Vec<(String, String)>, FieldError> {
    if headers.len() > MAX_HEADERS {
        return Err(FieldError::value(path, headers.len(), "headers: must be at most 16"));
    }
    let each = headers.iter().map(|(name, value)| {
        let path = format!("{path}.{name}");
        check_value(value, &path)?;
        Ok((checked_name(name, &path)?, value.clone()))
    });
    each.collect()
}

#[cold]
pub fn checked_name(name: &str, path: &str) -> Result<String, FieldError> {
    const FRAMING: [&str; 6] =
        ["content-length", "transfer-encoding", "connection", "host", "upgrade", "content-type"];
    let checked = header_name(name).filter(|name| !FRAMING.contains(&name.as_str()));
    checked.ok_or_else(|| {
        let remedy =
            "must be a header name of letters, digits and `-`, and none that frames the message";
        FieldError::value(path, format_args!("{name:?}"), remedy)
    })
}

#[cold]
fn check_value(value: &str, path: &str) -> Result<(), FieldError> {
    if value.len() > 1024 || !is_safe_value(value.as_bytes()) {
        let remedy = "must be at most 1024 bytes without control characters";
        return Err(FieldError::value(path, format_args!("{value:?}"), remedy));
    }
    Ok(())
}
