//! Beside the rate limiter, in either order.

use crate::common::{Rig, is_open, one_rule};
use serde_json::json;
use weir_integration_tests::{Filter, Script, paths};

/// The limiter with a policy in place: one request, ever.
fn limiter() -> Filter {
    let policy = "{\"name\":\"shop\",\"rate_limit\":{\"rules\":[{\"id\":\"once\",\
                  \"match\":{\"direction\":\"ANY\",\"path\":{\"prefix\":\"/limited\"}},\
                  \"max_tokens\":1,\"fill_interval\":\"3600s\"}]}}";
    Filter::inline(
        "weir.limiter",
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "weir.limiter",
                "root_id": "weir_rate_limit",
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": paths::module("rate_limit")}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy,
                },
            },
        }),
    )
}

fn refused_requests_do_not_count(filters: fn() -> Vec<Filter>, reach_the_breaker: bool) {
    // Any failure would open it, and so would a single 429 or 503 that counted.
    let fields = "minimum_calls: 1, failure_rate_percent: 1, open_duration: 1s, \
                  half_open_probes: 1, failures: {http_statuses: ['400-599']}";
    let rig = Rig::with_filters(2, &one_rule(fields), filters);
    let mut client = rig.envoy.client("h1");
    assert_eq!(client.get("/limited").status, 200);
    for _ in 0..100 {
        assert_eq!(client.get("/limited").status, 429);
    }
    assert_eq!(rig.upstream.seen(), 1);
    assert!(!is_open(&mut client, "/"));
    assert_eq!(rig.metric(&["failures_total"]), 0);
    let admitted = if reach_the_breaker { 102 } else { 2 };
    rig.await_metric(&["circuit_breaker", "outcome=.=admitted"], admitted);

    // As probes they neither close nor open it, and their permit comes back.
    rig.upstream.play(Script::Status(500, vec![]));
    rig.until_open(&mut rig.clients(1));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    rig.upstream.play(Script::Ok);
    for _ in 0..20 {
        assert_eq!(client.get("/limited").status, 429);
    }
    assert_eq!(rig.metric(&["from=.=half_open"]), 0);
    assert_eq!(client.get("/").status, 200);
    rig.await_metric(&["from=.=half_open", "to=.=closed"], 1);
    rig.envoy.assert_healthy();
}

#[test]
fn the_limiter_before_the_breaker() {
    refused_requests_do_not_count(|| vec![limiter(), Filter::weir()], false);
}

#[test]
fn the_breaker_before_the_limiter() {
    refused_requests_do_not_count(|| vec![Filter::weir(), limiter()], true);
}
