//! `RateLimit` of draft 10 and `X-RateLimit` of draft 03.

use crate::common::{direct, number, once, proxied, refusal, shop};
use weir_integration_tests::Request;
use weir_integration_tests::explained::assert_fares;

#[test]
fn by_default_only_refusals_carry_them() {
    let envoy = direct(&shop(&format!("{{id: r, {}}}", once(1))));
    let mut client = envoy.client("in");

    let admitted = client.get("/");
    assert_eq!(admitted.header("ratelimit"), None);
    assert_eq!(admitted.header("ratelimit-policy"), None);
    let refused = refusal(&mut client, &Request::get("/"));
    assert!(refused.header("ratelimit").is_some());
    assert_eq!(refused.header("x-ratelimit-limit"), None, "draft 03 is asked for");
    envoy.assert_healthy();
}

#[test]
fn always_puts_them_on_every_response_of_a_matching_request() {
    let policy = shop(&format!(
        "{{id: r, match: {{path: {{prefix: /a}}}}, {}, at_limit: {{quota_headers: ALWAYS}}}}",
        once(3)
    ));
    let (envoy, _upstream) = proxied(&policy);
    let mut client = envoy.client("in");

    for left in [2, 1, 0] {
        let admitted = client.get("/a");
        assert_eq!(admitted.status, 200);
        let state = format!("r={}", left + 1);
        assert_fares(&policy, "inbound", &Request::get("/a"), &admitted, &["--state", &state]);
        let ratelimit = admitted.header("ratelimit").unwrap_or_default();
        let expected = format!(r#""r";r={left};t="#);
        assert!(ratelimit.starts_with(&expected), "{ratelimit}, not {expected}");
        let policy = admitted.header("ratelimit-policy").unwrap_or_default();
        assert!(policy.starts_with(r#""r";q=3;w="#), "{policy}");
    }
    assert_eq!(client.get("/a").status, 429);
    let unmatched = client.get("/b");
    assert_eq!((unmatched.status, unmatched.header("ratelimit")), (200, None));
    envoy.assert_healthy();
}

#[test]
fn never_leaves_them_out_but_keeps_retry_after() {
    let envoy =
        direct(&shop(&format!("{{id: r, {}, at_limit: {{quota_headers: NEVER}}}}", once(1))));
    let refused = refusal(&mut envoy.client("in"), &Request::get("/"));

    for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit"] {
        assert_eq!(refused.header(name), None, "{name}");
    }
    assert!(number(&refused, "retry-after") >= 1);
    envoy.assert_healthy();
}

#[test]
fn draft_03_on_request() {
    let policy = shop(
        "{id: r, max_tokens: 2, tokens_per_fill: 2, fill_interval: 60s, \
         at_limit: {draft_03_headers: true, quota_headers: ALWAYS}}",
    );
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    let admitted = client.get("/");
    let limit = admitted.header("x-ratelimit-limit").unwrap_or_default();
    assert!(limit.starts_with('2'), "{limit}");
    assert_eq!(admitted.header("x-ratelimit-remaining").as_deref(), Some("1"));
    let refused = refusal(&mut client, &Request::get("/"));
    assert_fares(&policy, "inbound", &Request::get("/"), &admitted, &[]);
    assert_fares(&policy, "inbound", &Request::get("/"), &refused, &["--state", "r=0"]);
    assert_eq!(refused.header("x-ratelimit-remaining").as_deref(), Some("0"));
    assert!((1..=60).contains(&number(&refused, "x-ratelimit-reset")));
    envoy.assert_healthy();
}

#[test]
fn what_an_upstream_said_that_is_stricter_stays() {
    let (envoy, _upstream) =
        proxied(&shop(&format!("{{id: r, {}, at_limit: {{quota_headers: ALWAYS}}}}", once(100))));
    let marked = Request::get("/").header("x-test-answer-header", r#"ratelimit="up";r=0;t=9"#);

    let answer = envoy.client("in").send(&marked);

    let lines = answer.lines("ratelimit").join(", ");
    assert!(lines.contains(r#""up";r=0;t=9"#), "{lines}");
    envoy.assert_healthy();
}
