//! What clients, logs and fallbacks get while the breaker is open.

use crate::common::{Rig, one_rule, shop};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::http::grpc;
use weir_integration_tests::{Request, Response, Script};

fn policy(fields: &str) -> String {
    one_rule(&format!("minimum_calls: 1, {fields}"))
}

/// What `weir explain` says of an open breaker is what the client got.
fn assert_explained(fields: &str, request: &Request, answer: &Response) {
    assert_fares(&policy(fields), "outbound", request, answer, &["--state", "r=open"]);
}

fn open(fields: &str) -> Rig {
    let rig = Rig::start(1, &policy(fields));
    rig.upstream.play(Script::Status(500, vec![]));
    assert_eq!(rig.envoy.client("h1").get("/first").status, 500);
    rig
}

#[test]
fn a_refusal_says_why() {
    let rig = open("open_duration: 30s");
    let traced = Request::get("/refused")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = rig.envoy.client("h1").send(&traced);
    assert_explained("open_duration: 30s", &traced, &answer);
    assert_eq!(answer.status, 503);
    for (name, value) in [
        ("x-weir-reason", "circuit_open"),
        ("x-weir-rule", "r"),
        ("x-envoy-ratelimited", "true"),
        ("content-type", "application/problem+json"),
    ] {
        assert_eq!(answer.header(name).as_deref(), Some(value), "{name}");
    }
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((28..=33).contains(&wait), "{wait}");
    let body = answer.json();
    assert_eq!(body["reason"], "circuit_open");
    assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        rig.await_access("/refused"),
        "/refused 503 weir_circuit_open{r} open rule=r reason=failure_rate"
    );
    rig.envoy.assert_healthy();
}

#[test]
fn grpc_gets_its_own() {
    let rig = open("open_duration: 30s");
    let reply = grpc::call(&mut rig.envoy.h2("h1"), "/shop.Orders/Get", &[]);
    assert_eq!((reply.status, reply.trailers_only), (Some(14), true));
    assert!(reply.message.starts_with("circuit breaker r is open"), "{}", reply.message);
    let pushback: u64 = reply.header("grpc-retry-pushback-ms").unwrap().parse().unwrap();
    assert!((28_000..=30_000).contains(&pushback), "{pushback}");
}

#[test]
fn a_static_answer_in_place_of_a_refusal() {
    let fields =
        "while_open: {fallback: {answer: {status: 200, body: stale, content_type: text/html}}}";
    let rig = open(fields);
    let answer = rig.envoy.client("h1").get("/");
    assert_explained(fields, &Request::get("/"), &answer);
    assert_eq!((answer.status, answer.text().as_str()), (200, "stale"));
    assert_eq!(answer.header("x-weir-degraded").as_deref(), Some("r"));
    assert_eq!(answer.header("content-type").as_deref(), Some("text/html"));
}

#[test]
fn a_fallback_cluster_by_route_re_selection() {
    let fields = "while_open: {fallback: {request_header: {name: x-to, value: spare}}}";
    let rig = open(fields);
    let seen = rig.upstream.seen();
    let mut client = rig.envoy.client("h1");
    for _ in 0..20 {
        let request = Request::get("/").header("x-test-status", "500");
        let answer = client.send(&request);
        let more = ["--state", "r=open", "--upstream", "500"];
        assert_fares(&policy(fields), "outbound", &request, &answer, &more);
        assert_eq!(answer.status, 500, "what the fallback answers counts nowhere");
        assert_eq!(answer.json()["upstream"], "spare");
        assert_eq!(answer.header("x-weir-degraded").as_deref(), Some("r"));
    }
    assert_eq!((rig.upstream.seen(), rig.spare.count("/")), (seen, 20));
    rig.await_metric(&["outcome=.=fallback"], 20);
    // The one that opened it, maybe counted by the other worker.
    rig.await_metric(&["failures_total"], 1);
}

#[test]
fn a_response_opens_for_as_long_as_it_says() {
    let fields = "{id: r, open_on_header: {header: retry-after}}";
    let rig = Rig::start(2, &shop(fields));
    let mut clients = rig.clients(8);
    rig.upstream.play(Script::Status(503, vec![("retry-after", "20")]));
    assert_eq!(clients[0].get("/").header("x-weir-reason"), None);
    std::thread::sleep(crate::common::SYNC);
    for client in &mut clients {
        let answer = client.get("/");
        assert_eq!(answer.header("x-weir-reason").as_deref(), Some("circuit_open"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((18..=22).contains(&wait), "{wait}");
    }
}
