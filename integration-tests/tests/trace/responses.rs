//! What a response says of its trace: always, when something went wrong, and on gRPC.

use crate::rig::{Rig, TRACE, parent};
use std::time::Duration;
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::http::grpc;
use weir_integration_tests::{Request, Response, Script};

const ALL: &str = "response: {trace_id_header: x-trace-id, error_context: true, envelope: true}, \
                   deadline: {default: 1s}";

fn error_context(response: &Response) -> [Option<String>; 4] {
    ["x-trace-id", "x-span-id", "x-retry-count", "x-weir-reason"].map(|name| response.header(name))
}

#[test]
fn every_response_carries_the_trace_id_that_the_upstream_saw() {
    let rig = Rig::section(ALL);
    let response = rig.get("in", &[]);
    let seen = response.echoed("traceparent").unwrap();
    assert_eq!(response.header("x-trace-id").unwrap(), seen[3..35]);
    assert_eq!(error_context(&response)[1..], [None, None, None], "nothing went wrong");
    let response = rig.get("in", &[("traceparent", &parent("01"))]);
    assert_eq!(response.header("x-trace-id").unwrap(), TRACE);
    let response = rig.ask("in", "/direct", &[("traceparent", &parent("01"))]);
    assert_eq!((response.status, response.header("x-trace-id").as_deref()), (404, Some(TRACE)));
}

#[test]
fn upstream_errors_keep_status_and_body() {
    let rig = Rig::section(ALL);
    for status in [418, 500, 503] {
        rig.scripted.play(Script::Status(status, vec![("x-own", "stays")]));
        let response = rig.ask("in", "/script", &[("traceparent", &parent("01"))]);
        assert_eq!((response.status, response.text().as_str()), (status, "ok\n"));
        let request = Request::get("/script").header("traceparent", parent("01"));
        let policy = format!("{{name: shop, trace_context: {{{ALL}}}}}");
        let upstream = status.to_string();
        assert_fares(&policy, "inbound", &request, &response, &["--upstream", &upstream]);
        assert_eq!(response.header("x-own").as_deref(), Some("stays"));
        let [trace, span, retries, reason] = error_context(&response);
        assert_eq!(trace.as_deref(), Some(TRACE));
        if status < 500 {
            assert_eq!((span, retries, reason), (None, None, None), "the client's own affair");
        } else {
            assert_eq!(span.map(|span| span.len()), Some(16));
            assert_eq!(
                (retries.as_deref(), reason.as_deref()),
                (Some("0"), Some("upstream_error"))
            );
        }
    }
    let response = rig.ask("in", "/script/retried", &[]);
    assert_eq!(error_context(&response)[2].as_deref(), Some("2"), "attempts less one");
    rig.envoy.assert_healthy();
}

/// Envoy's own replies become JSON under the same status, and the access log still tells why.
#[test]
fn envoys_own_errors_say_it_as_json() {
    let rig = Rig::section(ALL);
    let headers = [("traceparent", parent("01"))];
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    for (script, path, status, reason, details) in [
        (None, "/nobody/a", 503, "upstream_unreachable", "upstream_reset_before_response_started"),
        (
            Some(Script::ResetBeforeHeaders),
            "/script/b",
            503,
            "upstream_reset",
            "upstream_reset_before_response_started",
        ),
        (Some(Script::Hang), "/script/c", 504, "upstream_timeout", "response_timeout"),
    ] {
        if let Some(script) = script {
            rig.scripted.play(script);
        }
        let response = rig.ask("in", path, &headers);
        assert_eq!(response.status, status, "{path}: {}", response.text());
        assert_eq!(response.header("content-type").as_deref(), Some("application/problem+json"));
        let [trace, span, retries, said] = error_context(&response);
        let json = response.json();
        assert_eq!((trace.as_deref(), said.as_deref()), (Some(TRACE), Some(reason)), "{path}");
        assert_eq!(json["trace_id"], TRACE);
        assert_eq!(json["span_id"].as_str(), span.as_deref());
        assert_eq!(json["retry_count"].as_str(), retries.as_deref());
        assert_eq!(
            (json["status"].as_u64(), json["reason"].as_str()),
            (Some(status.into()), Some(reason))
        );
        let access = rig.await_access("in", path);
        assert!(access.contains(details), "{access}");
    }
    // What is no failure of the upstream's stays as it is.
    let response = rig.ask("in", "/direct", &headers);
    assert_eq!((response.status, response.text().as_str()), (404, "direct"));
    assert_eq!(response.header("x-weir-reason").as_deref(), Some("direct_response"));
    rig.envoy.assert_healthy();
}

#[test]
fn grpc_errors_say_it_in_their_message() {
    let rig = Rig::section(&ALL.replace("1s", "0.5s"));
    let traceparent = parent("01");
    let mut connection = rig.envoy.h2("grpc");
    rig.scripted.play(Script::Hang);
    let extra = [("traceparent", traceparent.as_str()), ("grpc-timeout", "300m")];
    let reply = grpc::call(&mut connection, "/script.Orders/Get", &extra);
    assert_eq!(
        reply.status,
        Some(4),
        "DEADLINE_EXCEEDED, where Envoy alone would say 14: {reply:?}"
    );
    assert!(
        reply.message.contains("upstream_timeout") && reply.message.contains(TRACE),
        "{}",
        reply.message
    );
    assert_eq!(reply.header("x-trace-id").as_deref(), Some(TRACE));
    assert_eq!(reply.header("x-retry-count").as_deref(), Some("0"));
    rig.scripted.play(Script::GrpcTrailersOnly(13));
    let reply = grpc::call(&mut connection, "/script.Orders/Get", &[("traceparent", &traceparent)]);
    assert_eq!((reply.status, reply.header("x-trace-id").as_deref()), (Some(13), Some(TRACE)));
    rig.envoy.assert_healthy();
}

/// With no deadline on the request, an upstream that takes longer than the default is given up on.
#[test]
fn a_default_deadline_ends_in_an_envelope() {
    let rig = Rig::section(&ALL.replace("1s", "3s"));
    rig.scripted.play(Script::Slow(Duration::from_secs(8)));
    let begun = std::time::Instant::now();
    let response = rig.ask("in", "/script", &[]);
    let took = begun.elapsed();
    assert_eq!(
        (response.status, response.json()["reason"].as_str()),
        (504, Some("upstream_timeout"))
    );
    assert!(took >= Duration::from_millis(2950) && took < Duration::from_secs(6), "{took:?}");
}
