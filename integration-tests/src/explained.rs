//! The same request by `weir explain`, to be held against what a real Envoy did with it.
//!
//! Tables whose outcome follows from the request, the policy and a state that `--state` names run through both. Not so:
//! what follows from time and history (windows, probes, guards, `auto` shares, records of `restore`), from chance
//! (minted ids, sampling by percent, new cookies), from how an upstream ends a call past its status, and what Envoy's
//! codecs refuse before a filter sees it. The propagators' tables run without an Envoy.

use crate::http::{Request, Response};
use crate::{jwt, paths::TempDir};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use weir_cli::{Cli, Verdict};

/// What the command says of a request under a policy, as JSON. `more` are further arguments. What
/// Envoy makes of a request before our filter sees it is made of it here: the client's address from
/// `x-forwarded-for`, and a verified token's claims.
pub fn explain(policy: &str, direction: &str, request: &Request, more: &[&str]) -> Value {
    let folder = TempDir::new();
    let file = folder.join("policy.yaml");
    std::fs::write(&file, policy).expect("writable");
    let line = [&request.method[..], b" ", &request.target].concat();
    let mut args: Vec<OsString> =
        ["weir", "explain", "--format", "json", "--direction", direction].map(Into::into).into();
    args.extend([file.into_os_string(), "--request".into(), OsString::from_vec(line)]);
    for (name, value) in &request.headers {
        args.extend(["-H".into(), OsString::from_vec([name, &b": "[..], value].concat())]);
    }
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value);
        match name.to_ascii_lowercase().as_slice() {
            b"x-forwarded-for" => {
                let last = value.rsplit(',').next().unwrap_or_default().trim().to_owned();
                args.extend(["--source".into(), last.into()]);
            }
            b"authorization" => args.extend(claims(&value)),
            _ => {}
        }
    }
    args.extend(more.iter().map(Into::into));
    let mut out = Vec::new();
    let cli = Cli::read(args.clone()).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    let verdict = weir_cli::run(&cli, &mut out).unwrap_or_else(|e| panic!("{args:?}: {e:#}"));
    let text = String::from_utf8_lossy(&out);
    assert_eq!(verdict, Verdict::Good, "{policy}\n{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// As attributes, which is how Envoy's jwt_authn hands them on.
fn claims(bearer: &str) -> Vec<OsString> {
    let payload = bearer.split('.').nth(1).expect("a token");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("a payload");
    let payload: Value = serde_json::from_slice(&payload).expect("claims");
    let filter = "envoy%2Efilters%2Ehttp%2Ejwt_authn";
    let each = payload.as_object().into_iter().flatten().filter_map(|(claim, value)| {
        let path = format!("metadata.filter_metadata.{filter}.{}.{claim}", jwt::PAYLOAD);
        Some(["--attribute".into(), format!("{path}={}", value.as_str()?).into()])
    });
    each.flatten().collect()
}

/// A header of what would go on to the upstream, lines joined with a comma.
pub fn upstream(explained: &Value, name: &str) -> Option<String> {
    header(&explained["upstream"], name)
}

/// A header of what the client would get.
pub fn answer(explained: &Value, name: &str) -> Option<String> {
    header(&explained["answer"]["headers"], name)
}

fn header(pairs: &Value, name: &str) -> Option<String> {
    let pairs = pairs.as_array()?.iter();
    let named = pairs.filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str());
    let lines: Vec<_> = named.collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Panics where `weir explain` says otherwise than a real answer and its upstream.
pub fn assert_fares(
    policy: &str,
    direction: &str,
    request: &Request,
    got: &Response,
    more: &[&str],
) {
    let told = explain(policy, direction, request, more);
    let wrong = differences(request, got, &told);
    assert!(wrong.is_empty(), "{request:?} {more:?}, as explained:\n{}", wrong.join("\n"));
}

/// What a client may see of weir's work.
const ANSWER: [&str; 17] = [
    "content-type",
    "grpc-message",
    "grpc-status",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "vary",
    "x-color",
    "x-envoy-ratelimited",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-retry-count",
    "x-trace-id",
    "x-weir-degraded",
    "x-weir-reason",
    "x-weir-rule",
    "x-ratelimit-reset",
];

/// What an upstream may.
const UPSTREAM: [&str; 6] =
    ["b3", "baggage", "tracestate", "x-lane", "x-weir-color", "x-weir-deadline-ms"];

/// Where a real answer, and what an upstream that echoes saw, are not as explained. Ids that are made at random, and
/// headers that are not of weir's making, are passed over.
pub fn differences(request: &Request, got: &Response, told: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, got: Option<String>, told: Option<String>| {
        if !is_same(what, got.as_deref(), told.as_deref()) {
            wrong.push(format!("{what}: {got:?}, explained as {told:?}"));
        }
    };
    let status = told["answer"]["status"].as_u64().map(|status| status.to_string());
    same("status", Some(got.status.to_string()), status);
    let is_upstreams = told["answer"]["by"].is_null();
    for header in ANSWER {
        // The upstream has a content type of its own.
        if !(is_upstreams && header == "content-type") {
            let lines = got.lines(header);
            let line = (!lines.is_empty()).then(|| lines.join(","));
            same(header, line, answer(told, header));
        }
    }
    if is_upstreams && is_echo(got) {
        for header in UPSTREAM {
            same(header, got.echoed(header), upstream(told, header));
        }
        // Envoy's router takes the one and tells the upstream by the other.
        let timeout = upstream(told, "x-envoy-upstream-rq-timeout-ms");
        if timeout.is_some() {
            same("timeout", got.echoed("x-envoy-expected-rq-timeout-ms"), timeout);
        }
        // Another span at each hop; and where no trace came, another trace as well.
        let came =
            request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"traceparent"));
        let came = came.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let trace = |text: Option<String>| {
            let trace = text?.get(3..35)?.to_owned();
            Some(if came.as_ref().is_some_and(|came| came.contains(&trace)) {
                trace
            } else {
                "another".into()
            })
        };
        same("trace", trace(got.echoed("traceparent")), trace(upstream(told, "traceparent")));
    } else if !is_upstreams && request.method != b"HEAD" {
        same("body", Some(got.text()), told["answer"]["body"].as_str().map(str::to_owned));
    }
    wrong
}

/// To the byte; but what tells a time may be that of a machine that stood still for a while, and what tells clients to
/// come back is stretched at random by up to a tenth.
fn is_same(what: &str, got: Option<&str>, told: Option<&str>) -> bool {
    let (slack, jitter) = match what {
        "retry-after" | "body" => (60, 10),
        "ratelimit" | "x-ratelimit-reset" => (60, 0),
        "timeout" | "x-weir-deadline-ms" => (2000, 0),
        _ => (0, 0),
    };
    let (Some(got), Some(told)) = (got, told) else { return got == told };
    let words = |text: &str| -> Vec<String> {
        text.replace(|c: char| !c.is_ascii_digit(), " ")
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let rest = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let near = |(got, told): (&String, &String)| {
        let numbers = got.parse::<u64>().ok().zip(told.parse::<u64>().ok());
        let is_near = |(got, told): (u64, u64)| {
            got.abs_diff(told) <= slack + got.min(told).saturating_mul(jitter) / 100
        };
        got == told || numbers.is_some_and(is_near)
    };
    let (got_words, told_words) = (words(got), words(told));
    rest(got) == rest(told)
        && got_words.len() == told_words.len()
        && got_words.iter().zip(&told_words).all(near)
}

/// Whether an upstream that echoes has answered.
fn is_echo(response: &Response) -> bool {
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    body.is_some_and(|body| body["headers"].is_object())
}
