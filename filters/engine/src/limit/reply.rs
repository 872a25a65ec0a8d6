//! What a client is told: refusals, degraded answers, quota headers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use weir_protos::FieldError;
use weir_protos::v1::at_limit::QuotaHeaders;
use weir_protos::v1::{RateLimitRule, StaticAnswer};

use super::gcra::Rate;
use crate::core::headers::{header_name, is_safe_value};
use crate::core::ports::Nanos;
use crate::core::reply::{LocalReply, Problem};

/// gRPC status codes.
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNAVAILABLE: i32 = 14;

/// Spreads clients that were refused together over a little time.
const DEFAULT_JITTER_PERCENT: u32 = 10;

const MAX_BODY: usize = 4096;
const MAX_HEADERS: usize = 16;

#[derive(Debug)]
pub struct AtLimit {
    status: u16,
    body: Option<(String, String)>,
    headers: Vec<(String, String)>,
    pub degrade: Option<Degrade>,
    pub quota_headers: QuotaHeaders,
    pub draft_03: bool,
    jitter_percent: u32,
}

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

impl AtLimit {
    pub fn compile(rule: &RateLimitRule, path: &str) -> Result<AtLimit, FieldError> {
        let path = format!("{path}.at_limit");
        let source = rule.at_limit.clone().unwrap_or_default();
        let jitter = source.retry_after_jitter_percent.unwrap_or(DEFAULT_JITTER_PERCENT);
        if jitter > 100 {
            let path = format!("{path}.retry_after_jitter_percent");
            return Err(FieldError::value(path, jitter, "must be from 0 to 100"));
        }
        if !source.content_type.is_empty() && source.body.is_none() {
            let remedy = "goes with `body` alone; remove it";
            return Err(FieldError::value(
                format!("{path}.content_type"),
                source.content_type,
                remedy,
            ));
        }
        let quota_headers = match source.quota_headers() {
            QuotaHeaders::Unspecified => QuotaHeaders::OnRefusal,
            given => given,
        };
        if source.draft_03_headers && quota_headers == QuotaHeaders::Never {
            let remedy = "goes with quota_headers ON_REFUSAL or ALWAYS";
            return Err(FieldError::value(format!("{path}.draft_03_headers"), true, remedy));
        }
        let body = source.body.map(|body| {
            check_body(&body, &format!("{path}.body"))?;
            Ok((body, content_type(&source.content_type, &format!("{path}.content_type"))?))
        });
        Ok(AtLimit {
            status: status(source.status, 429, 400, &format!("{path}.status"))?,
            body: body.transpose()?,
            headers: checked_headers(&source.headers, &format!("{path}.headers"))?,
            degrade: match &source.degrade {
                Some(degrade) => Some(compile_degrade(degrade, &format!("{path}.degrade"))?),
                None => None,
            },
            quota_headers,
            draft_03: source.draft_03_headers,
            jitter_percent: jitter,
        })
    }

    /// The refusal of `rule` when a token is there again after `wait`.
    pub fn refusal(
        &self,
        rule: &str,
        rate: Rate,
        wait: Nanos,
        client: Client<'_>,
        random: u64,
    ) -> LocalReply {
        let seconds = seconds(wait);
        let spread = seconds.saturating_mul(self.jitter_percent.into()) / 100;
        // Up to `spread` more, ends included.
        let jitter = random.checked_rem(spread.saturating_add(1)).unwrap_or(0);
        let retry_after = seconds.saturating_add(jitter);
        let mut headers = reason_headers("rate_limited", rule);
        headers.push(("retry-after".into(), retry_after.to_string()));
        if self.quota_headers != QuotaHeaders::Never {
            headers.push(("ratelimit-policy".into(), policy_item(rule, rate)));
            headers.push(("ratelimit".into(), limit_item(rule, 0, seconds)));
            if self.draft_03 {
                headers.extend(draft_03(rule, rate, 0, seconds));
            }
        }
        if client.is_grpc {
            let pushback = wait.div_ceil(1_000_000).max(1).to_string();
            headers.push(("grpc-retry-pushback-ms".into(), pushback));
        }
        for (name, value) in &self.headers {
            headers.retain(|(known, _)| known != name);
            headers.push((name.clone(), value.clone()));
        }
        let detail = format!("rate limit {rule} is used up; retry in {retry_after} s");
        let body = match &self.body {
            Some((body, kind)) => {
                if !client.is_grpc {
                    headers.push(("content-type".into(), kind.clone()));
                }
                body.clone().into_bytes()
            }
            None => body(
                &mut headers,
                client,
                &Problem {
                    kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
                    title: "Quota exceeded",
                    status: self.status,
                    detail: &detail,
                    reason: "rate_limited",
                    violated: &[rule],
                    trace_id: client.trace_id,
                },
            ),
        };
        LocalReply {
            status: self.status,
            details: format!("weir_rate_limited{{{rule}}}"),
            headers,
            body,
            grpc_status: client.is_grpc.then_some(RESOURCE_EXHAUSTED),
        }
    }
}

/// The answer to a request without a part of its key.
pub fn missing_key(rule: &str, client: Client<'_>) -> LocalReply {
    let detail = format!("rate limit {rule} needs a key that this request does not carry");
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

/// The answer when shared state could not be had and the rule says DENY.
pub fn state_unavailable(rule: &str, client: Client<'_>) -> LocalReply {
    let detail = format!("rate limit {rule} could not be decided; retry in 1 s");
    let mut headers = reason_headers("state_unavailable", rule);
    headers.push(("retry-after".into(), "1".into()));
    let problem = Problem {
        kind: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        title: "Temporarily reduced capacity",
        status: 503,
        detail: &detail,
        reason: "state_unavailable",
        violated: &[rule],
        trace_id: client.trace_id,
    };
    let body = body(&mut headers, client, &problem);
    let details = format!("weir_state_unavailable{{{rule}}}");
    LocalReply {
        status: 503,
        details,
        headers,
        body,
        grpc_status: client.is_grpc.then_some(UNAVAILABLE),
    }
}

/// A static answer in place of the upstream's.
pub fn degraded(rule: &str, degrade: &Degrade, client: Client<'_>) -> Option<LocalReply> {
    let DegradeWay::Answer { status, body, headers } = &degrade.way else { return None };
    let mut headers = headers.clone();
    headers.push((degrade.marker.clone(), rule.to_string()));
    Some(LocalReply {
        status: *status,
        details: format!("weir_degraded{{{rule}}}"),
        headers,
        body: body.clone().into_bytes(),
        // gRPC has no static answers: a client reads the text beside the status.
        grpc_status: client.is_grpc.then_some(RESOURCE_EXHAUSTED),
    })
}

/// `x-envoy-ratelimited` keeps Envoys on the way from retrying the refusal.
fn reason_headers(reason: &str, rule: &str) -> Vec<(String, String)> {
    vec![
        ("x-weir-reason".into(), reason.into()),
        ("x-weir-rule".into(), rule.into()),
        ("x-envoy-ratelimited".into(), "true".into()),
    ]
}

/// A JSON body, or for gRPC a sentence: Envoy makes the body the `grpc-message`.
fn body(headers: &mut Vec<(String, String)>, client: Client<'_>, problem: &Problem<'_>) -> Vec<u8> {
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

/// An item of `RateLimit-Policy`: the quota and the window in which it is restored
/// (draft-ietf-httpapi-ratelimit-headers-10, section 2.1).
pub fn policy_item(rule: &str, rate: Rate) -> String {
    format!("\"{rule}\";q={};w={}", rate.max, seconds(rate.fill_time()))
}

/// An item of `RateLimit` (same draft, section 2.2).
pub fn limit_item(rule: &str, remaining: u64, reset: u64) -> String {
    format!("\"{rule}\";r={remaining};t={reset}")
}

/// The three headers of draft-polli-ratelimit-headers-03, as Envoy's own limiters write them.
pub fn draft_03(rule: &str, rate: Rate, remaining: u64, reset: u64) -> [(String, String); 3] {
    let mut limit = rate.max.to_string();
    let _ = write!(limit, ", {};w={};name=\"{rule}\"", rate.max, seconds(rate.fill_time()));
    [
        ("x-ratelimit-limit".into(), limit),
        ("x-ratelimit-remaining".into(), remaining.to_string()),
        ("x-ratelimit-reset".into(), reset.to_string()),
    ]
}

// === checks ===

fn compile_degrade(source: &weir_protos::v1::Degrade, path: &str) -> Result<Degrade, FieldError> {
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

fn compile_answer(answer: &StaticAnswer, path: &str) -> Result<DegradeWay, FieldError> {
    check_body(&answer.body, &format!("{path}.body"))?;
    let mut headers = checked_headers(&answer.headers, &format!("{path}.headers"))?;
    let kind = content_type(&answer.content_type, &format!("{path}.content_type"))?;
    headers.push(("content-type".into(), kind));
    let status = status(answer.status, 200, 200, &format!("{path}.status"))?;
    Ok(DegradeWay::Answer { status, body: answer.body.clone(), headers })
}

fn status(given: Option<u32>, default: u16, least: u16, path: &str) -> Result<u16, FieldError> {
    let status = given.map_or(Some(default), |status| u16::try_from(status).ok());
    status.filter(|status| (least..=599).contains(status)).ok_or_else(|| {
        FieldError::value(
            path,
            given.unwrap_or(0),
            format!("must be an HTTP status from {least} to 599"),
        )
    })
}

fn check_body(body: &str, path: &str) -> Result<(), FieldError> {
    if body.len() > MAX_BODY {
        return Err(FieldError::value(
            path,
            format_args!("{} bytes:", body.len()),
            "must be at most 4096",
        ));
    }
    Ok(())
}

fn content_type(given: &str, path: &str) -> Result<String, FieldError> {
    if given.is_empty() {
        return Ok("text/plain".into());
    }
    check_value(given, path)?;
    Ok(given.into())
}

fn checked_headers(
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

fn checked_name(name: &str, path: &str) -> Result<String, FieldError> {
    const FRAMING: [&str; 5] =
        ["content-length", "transfer-encoding", "connection", "host", "upgrade"];
    let checked = header_name(name).filter(|name| !FRAMING.contains(&name.as_str()));
    checked.ok_or_else(|| {
        let remedy =
            "must be a header name of letters, digits and `-`, and none that frames the message";
        FieldError::value(path, format_args!("{name:?}"), remedy)
    })
}

fn check_value(value: &str, path: &str) -> Result<(), FieldError> {
    if value.len() > 1024 || !is_safe_value(value.as_bytes()) {
        let remedy = "must be at most 1024 bytes without control characters";
        return Err(FieldError::value(path, format_args!("{value:?}"), remedy));
    }
    Ok(())
}
