//! What a client gets at the limit.

use crate::common::{direct, number, once, refusal, shop, statuses};
use weir_integration_tests::Request;
use weir_integration_tests::explained::assert_fares;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_refusal_says_why_to_programs_and_to_people() {
    let policy = shop("{id: orders, max_tokens: 2, tokens_per_fill: 2, fill_interval: 60s}");
    let envoy = direct(&policy);
    let mut client = envoy.client("in");
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 200]);
    let traced = Request::get("/refused")
        .header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));

    let refused = client.send(&traced);

    assert_eq!(refused.status, 429);
    assert_fares(&policy, "inbound", &traced, &refused, &["--state", "orders=0"]);
    let header = |name: &str| refused.header(name).unwrap_or_default();
    assert_eq!(header("x-weir-reason"), "rate_limited");
    assert_eq!(header("x-weir-rule"), "orders");
    assert_eq!(header("x-envoy-ratelimited"), "true");
    assert_eq!(header("content-type"), "application/problem+json");
    // A token every 30 s, stretched by 10 % at most.
    let retry_after = number(&refused, "retry-after");
    assert!((29..=33).contains(&retry_after), "{retry_after}");
    assert_eq!(header("ratelimit-policy"), r#""orders";q=2;w=60"#);
    let left = header("ratelimit");
    assert!(left.starts_with(r#""orders";r=0;t="#), "{left}");

    let problem = refused.json();
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"][0], "orders");
    assert_eq!(problem["reason"], "rate_limited");
    assert_eq!(problem["trace_id"], TRACE_ID);
    for member in ["type", "title", "detail"] {
        let text = problem[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{member} in {problem}");
    }

    let entry = envoy.await_access("in", "/refused");
    assert_eq!(entry.status, 429);
    assert_eq!(entry.details, "weir_rate_limited{orders}");
    assert_eq!(entry.weir, "limited rule=orders");
    envoy.assert_healthy();
}

#[test]
fn the_trace_id_is_left_out_when_there_is_no_valid_one() {
    let policy = shop(&format!("{{id: r, {}}}", once(1)));
    let envoy = direct(&policy);
    let mut client = envoy.client("in");
    client.get("/");

    for invalid in [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "rubbish\"}",
    ] {
        let request = Request::get("/").header("traceparent", invalid);
        let refused = client.send(&request);
        assert_fares(&policy, "inbound", &request, &refused, &["--state", "r=0"]);
        assert_eq!(refused.json().get("trace_id"), None, "{invalid}");
    }
    assert_eq!(client.get("/").json().get("trace_id"), None);
    envoy.assert_healthy();
}

#[test]
fn status_body_and_headers_are_the_policys_to_choose() {
    let envoy = direct(&shop(&format!(
        "{{id: r, {}, at_limit: {{status: 503, body: 'come back later', \
         content_type: text/markdown, headers: {{x-shop: closed, X-Upper: 'a b'}}}}}}",
        once(1)
    )));
    let mut client = envoy.client("in");

    let refused = refusal(&mut client, &Request::get("/"));

    assert_eq!(refused.status, 503);
    assert_eq!(refused.text(), "come back later");
    assert_eq!(refused.header("content-type").as_deref(), Some("text/markdown"));
    assert_eq!(refused.header("x-shop").as_deref(), Some("closed"));
    assert_eq!(refused.header("x-upper").as_deref(), Some("a b"));
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("r"));
    assert_eq!(refused.header("x-envoy-ratelimited").as_deref(), Some("true"));
    envoy.assert_healthy();
}

#[test]
fn head_gets_the_headers_and_no_body() {
    let envoy = direct(&shop(&format!("{{id: r, {}}}", once(1))));
    let mut client = envoy.client("in");
    let head = Request::new("HEAD", "/");

    assert_eq!(client.send(&head).status, 200);
    let refused = client.send(&head);
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("r"));
    assert!(number(&refused, "content-length") > 0);
    // The connection is still in step: a body would have been read as the next answer.
    assert_eq!(client.send(&Request::new("HEAD", "/healthz")).status, 200);
    envoy.assert_healthy();
}

#[test]
fn an_upload_that_is_refused_does_not_break_the_next_request() {
    let envoy = direct(&shop(&format!("{{id: r, {}}}", once(1))));
    let mut client = envoy.client("in");
    let upload = Request::new("POST", "/").body(vec![b'x'; 200_000]);

    assert_eq!(statuses(&mut client, &upload, 3), [200, 429, 429]);
    assert_eq!(client.get("/healthz").status, 200);
    envoy.assert_healthy();
}
