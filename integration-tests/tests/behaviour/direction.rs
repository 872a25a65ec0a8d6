//! One policy on an inbound and an outbound listener, as a WasmPlugin puts it on a sidecar.

use crate::common::{once, statuses};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route};

fn sidecar(policy: &str) -> Envoy {
    let with_filter = |l: Listener| l.filter(Filter::weir()).route(Route::direct("/", 200));
    Envoy::builder()
        .listener(with_filter(Listener::inbound("in")))
        .listener(with_filter(Listener::outbound("out")))
        .policy(policy)
        .start()
}

fn policy(zone: &str, matches: &str) -> String {
    format!(
        "{{name: shop, zone: {zone}, rate_limit: {{rules: [{{id: r, match: {matches}, {}}}]}}}}",
        once(2)
    )
}

/// Statuses of three requests out, then of three requests in.
fn out_then_in(policy: &str) -> (Vec<u16>, Vec<u16>) {
    let envoy = sidecar(policy);
    let request = Request::get("/");
    let out = statuses(&mut envoy.client("out"), &request, 3);
    let inward = statuses(&mut envoy.client("in"), &request, 3);
    // Empty as the bucket is by now, the rule refuses where it applies, and `weir explain` says so too.
    for (listener, direction) in [("out", "outbound"), ("in", "inbound")] {
        let answer = envoy.client(listener).send(&request);
        assert_fares(policy, direction, &request, &answer, &["--state", "r=0"]);
    }
    envoy.assert_healthy();
    (out, inward)
}

#[test]
fn a_pods_own_calls_do_not_drain_its_inbound_limit() {
    let (out, inward) = out_then_in(&policy("MESH", "{}"));
    assert_eq!(out, [200, 200, 200]);
    assert_eq!(inward, [200, 200, 429]);
}

#[test]
fn a_rule_can_be_about_outbound_calls() {
    let (out, inward) = out_then_in(&policy("MESH", "{direction: OUTBOUND}"));
    assert_eq!(out, [200, 200, 429]);
    assert_eq!(inward, [200, 200, 200]);
}

#[test]
fn a_rule_can_be_about_both() {
    let (out, inward) = out_then_in(&policy("MESH", "{direction: ANY}"));
    assert_eq!(out, [200, 200, 429]);
    assert_eq!(inward, [429, 429, 429], "the two directions share the bucket");
}

#[test]
fn at_the_edge_both_is_the_default() {
    // A gateway's listeners are outbound.
    let (out, inward) = out_then_in(&policy("EDGE", "{}"));
    assert_eq!(out, [200, 200, 429]);
    assert_eq!(inward, [429, 429, 429]);
}
