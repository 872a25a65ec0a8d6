//! Shadow first: OFF, SHADOW and ENFORCE at every level, and the enforced share.

use crate::common::{direct, once, shop, statuses};
use std::collections::BTreeSet;
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Client, Envoy, Request};

/// A policy with this mode at one of three levels; the bucket holds one token.
fn with_mode(level: &str, mode: &str) -> String {
    let at = |this: &str| if this == level { mode } else { "ENFORCE" };
    format!(
        "{{name: shop, mode: {}, rate_limit: {{mode: {}, rules: [{{id: r, mode: {}, {}}}]}}}}",
        at("policy"),
        at("section"),
        at("rule"),
        once(1)
    )
}

#[test]
fn shadow_decides_counts_and_lets_pass() {
    for level in ["policy", "section", "rule"] {
        let policy = with_mode(level, "SHADOW");
        let envoy = direct(&policy);
        let mut client = envoy.client("in");

        assert_eq!(client.get("/first").status, 200, "{level}");
        let over = Request::get("/over");
        let passed = client.send(&over);
        assert_fares(&policy, "inbound", &over, &passed, &["--state", "r=0"]);
        assert_eq!(passed.status, 200, "{level}");
        assert_eq!(passed.header("x-weir-rule"), None, "{level}");
        assert_eq!(client.get("/over").status, 200, "{level}");

        envoy.await_metric("shop", "r", "admitted", 1);
        envoy.await_metric("shop", "r", "shadow_limited", 2);
        assert_eq!(envoy.await_access("in", "/over").weir, "shadow rule=r", "{level}");
        assert_eq!(envoy.await_access("in", "/first").weir, "-", "{level}");
        assert_eq!(envoy.metric("shop", "r", "limited"), 0, "{level}");
        envoy.assert_healthy();
    }
}

#[test]
fn off_takes_and_counts_nothing() {
    for level in ["policy", "section", "rule"] {
        let envoy = direct(&with_mode(level, "OFF"));
        let mut client = envoy.client("in");

        assert_eq!(statuses(&mut client, &Request::get("/"), 3), [200; 3], "{level}");
        // The bucket is still full once the mode is turned on.
        envoy.put_policy(&with_mode(level, "ENFORCE")).accepted();
        assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429], "{level}");
        envoy.await_metric("shop", "r", "limited", 1);
        envoy.await_metric("shop", "r", "admitted", 1);
        envoy.assert_healthy();
    }
}

#[test]
fn the_kill_switch_opens_at_once() {
    let envoy = direct(&with_mode("policy", "ENFORCE"));
    let mut client = envoy.client("in");
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);

    envoy.put_policy(&with_mode("policy", "OFF")).accepted();

    assert_eq!(statuses(&mut client, &Request::get("/"), 5), [200; 5]);
    envoy.assert_healthy();
}

const USERS: u32 = 400;

/// The users whose over-limit requests are refused.
fn refused_users(client: &mut Client) -> BTreeSet<u32> {
    let refused = |user: &u32| {
        let request = Request::get("/").header("x-user", format!("user-{user}"));
        client.send(&request).status == 429
    };
    (0..USERS).filter(refused).collect()
}

fn enforce(envoy: &Envoy, percent: &str) {
    let rule =
        format!("{{id: r, enforced_percent: {percent}, key: [{{header: x-user}}], {}}}", once(1));
    envoy.put_policy(&shop(&rule)).accepted();
}

#[test]
fn the_enforced_share_is_sticky_by_key() {
    let envoy = direct("{name: shop}");
    let mut client = envoy.client("in");
    enforce(&envoy, "100");
    assert_eq!(refused_users(&mut client).len(), 0, "each user has a token");
    assert_eq!(refused_users(&mut client).len(), USERS as usize);

    enforce(&envoy, "0");
    assert_eq!(refused_users(&mut client).len(), 0);

    enforce(&envoy, "30");
    let third = refused_users(&mut client);
    // 400 draws at 0.3: four standard deviations are 37.
    assert!((83..=157).contains(&third.len()), "{}", third.len());
    assert_eq!(refused_users(&mut client), third, "the same users again");

    enforce(&envoy, "60");
    let more = refused_users(&mut client);
    assert!(third.is_subset(&more), "a larger share keeps those of the smaller");
    assert!((200..=280).contains(&more.len()), "{}", more.len());
    envoy.assert_healthy();
}
