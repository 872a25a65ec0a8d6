//! Several rules on one request.

use crate::common::{direct, once, shop, statuses};
use weir_integration_tests::Request;

fn user(name: &str) -> Request {
    Request::get("/").header("x-user", name)
}

#[test]
fn every_matching_rule_must_admit_and_what_was_taken_is_given_back() {
    let envoy = direct(&shop(&format!(
        "{{id: all, {}}}, {{id: user, key: [{{header: x-user}}], {}}}",
        once(3),
        once(1)
    )));
    let mut client = envoy.client("in");

    assert_eq!(client.send(&user("ann")).status, 200);
    // Refused by the second rule: the first one gets its token back every time.
    for _ in 0..5 {
        let refused = client.send(&user("ann"));
        assert_eq!(refused.header("x-weir-rule").as_deref(), Some("user"));
    }
    assert_eq!(client.send(&user("bob")).status, 200);
    assert_eq!(client.send(&user("cid")).status, 200);
    let refused = client.send(&user("dan"));
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("all"));
    envoy.assert_healthy();
}

#[test]
fn the_order_of_rules_does_not_decide_who_keeps_tokens() {
    let envoy = direct(&shop(&format!(
        "{{id: user, key: [{{header: x-user}}], {}}}, {{id: all, {}}}",
        once(2),
        once(1)
    )));
    let mut client = envoy.client("in");

    assert_eq!(client.send(&user("ann")).status, 200);
    assert_eq!(client.send(&user("ann")).status, 429);
    assert_eq!(client.send(&user("bob")).status, 429);
    // A new id has a full bucket; the users' buckets were not charged for refusals by `all`.
    envoy
        .put_policy(&shop(&format!(
            "{{id: user, key: [{{header: x-user}}], {}}}, {{id: more, {}}}",
            once(2),
            once(100)
        )))
        .accepted();
    assert_eq!(statuses(&mut client, &user("ann"), 2), [200, 429]);
    assert_eq!(statuses(&mut client, &user("bob"), 3), [200, 200, 429]);
    envoy.assert_healthy();
}

#[test]
fn stop_makes_a_rule_the_last_one_looked_at() {
    let envoy = direct(&shop(&format!(
        "{{id: partners, match: {{headers: {{x-partner: {{present: true}}}}}}, on_match: STOP, {}}}, \
         {{id: rest, {}}}",
        once(4),
        once(1)
    )));
    let mut client = envoy.client("in");
    let partner = Request::get("/").header("x-partner", "p");

    assert_eq!(statuses(&mut client, &partner, 5), [200, 200, 200, 200, 429]);
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);
    envoy.await_metric("shop", "rest", "admitted", 1);
    envoy.await_metric("shop", "rest", "limited", 1);
    envoy.assert_healthy();
}

#[test]
fn a_rule_in_shadow_does_not_stand_in_the_way_of_the_next() {
    let envoy = direct(&shop(&format!(
        "{{id: tried, mode: SHADOW, {}}}, {{id: real, {}}}",
        once(1),
        once(2)
    )));
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/"), 3), [200, 200, 429]);
    envoy.await_metric("shop", "real", "limited", 1);
    envoy.assert_healthy();
}

#[test]
fn requests_that_no_rule_means_pass_untouched() {
    let envoy =
        direct(&shop(&format!("{{id: r, match: {{path: {{prefix: /limited}}}}, {}}}", once(1))));
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/free"), 5), [200; 5]);
    assert_eq!(envoy.await_access("in", "/free").weir, "-");
    assert_eq!(statuses(&mut client, &Request::get("/limited"), 2), [200, 429]);
    envoy.assert_healthy();
}
