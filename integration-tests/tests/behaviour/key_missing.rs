//! A key part that a request does not have.

use crate::common::{direct, once, shop, statuses};
use weir_integration_tests::Request;
use weir_integration_tests::explained::assert_fares;

fn keyed(on_missing: &str) -> String {
    shop(&format!("{{id: r, key: [{{header: x-user{on_missing}}}], {}}}", once(1)))
}

#[test]
fn by_default_the_rule_does_not_apply() {
    for on_missing in ["", ", on_missing: SKIP_RULE"] {
        let policy = keyed(on_missing);
        let envoy = direct(&policy);
        let mut client = envoy.client("in");

        assert_eq!(statuses(&mut client, &Request::get("/"), 3), [200; 3]);
        envoy.await_metric("shop", "r", "skipped", 3);
        let answer = client.get("/");
        assert_fares(&policy, "inbound", &Request::get("/"), &answer, &[]);
        envoy.assert_healthy();
    }
}

#[test]
fn empty_lets_all_such_requests_share_a_key() {
    let envoy = direct(&keyed(", on_missing: EMPTY"));
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);
    let named = Request::get("/").header("x-user", "ann");
    assert_eq!(statuses(&mut client, &named, 2), [200, 429]);
    envoy.assert_healthy();
}

#[test]
fn reject_refuses_with_its_own_reason() {
    let policy = keyed(", on_missing: REJECT");
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    let rejected = client.get("/rejected");
    assert_fares(&policy, "inbound", &Request::get("/rejected"), &rejected, &[]);

    assert_eq!(rejected.status, 400);
    assert_eq!(rejected.header("x-weir-reason").as_deref(), Some("missing_key"));
    assert_eq!(rejected.header("x-weir-rule").as_deref(), Some("r"));
    assert_eq!(rejected.json()["reason"], "missing_key");
    envoy.await_metric("shop", "r", "rejected", 1);
    let named = Request::get("/").header("x-user", "ann");
    assert_eq!(statuses(&mut client, &named, 2), [200, 429]);
    envoy.assert_healthy();
}

#[test]
fn one_missing_part_of_several_is_enough() {
    let envoy = direct(&shop(&format!(
        "{{id: r, key: [{{method: true}}, {{query: q, on_missing: REJECT}}], {}}}",
        once(1)
    )));
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [400, 400]);
    assert_eq!(statuses(&mut client, &Request::get("/?q=1"), 2), [200, 429]);
    envoy.assert_healthy();
}
