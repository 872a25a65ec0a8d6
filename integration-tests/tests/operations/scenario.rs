//! What a reader of the compose file tries, tried: in containers by `compose_up.rs`, and here on the same
//! files without any, so that a machine without Docker tries them too.

use crate::shipped::{self, SetUp};
use std::net::SocketAddr;
use std::path::Path;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Client, Request, wait_until};

#[test]
fn the_set_up_works_without_containers() {
    let (base, gray) = (shipped::upstream("base"), shipped::upstream("gray"));
    let set_up = SetUp::new()
        .cluster("orders-base", base.address("orders"))
        .cluster("orders-gray", gray.address("orders"));
    let policies = set_up.policies();
    let envoy = set_up.start();

    play(envoy.address("ingress"), envoy.address("look"), &policies);
    envoy.assert_healthy();
}

/// `look` is the listener that may be looked at, `policies` the folder of discovery files.
pub fn play(front: SocketAddr, look: SocketAddr, policies: &Path) {
    all_modules_have_their_policy(look);
    colors_lead_to_their_version(front);
    the_limit_holds(front, "per-client");
    an_edit_goes_live(front, policies);
    a_bad_edit_changes_nothing(front, look, policies);
    the_breaker_opens(front, policies);
    only_looking_is_allowed(look);
}

fn all_modules_have_their_policy(look: SocketAddr) {
    let mut client = Client::new(look);
    wait_until("each module has its policy", DEADLINE, || {
        let stats = client.get("/stats").text();
        ["rate_limit", "circuit_breaker", "trace_context", "traffic_color"]
            .iter()
            .all(|module| stats.contains(&format!("weir.{module}.update_success: 1")))
    });
}

fn colors_lead_to_their_version(front: SocketAddr) {
    let ask = |headers: &[(&str, &str)]| {
        let request = Request::get("/orders");
        let request = headers.iter().fold(request, |r, (name, value)| r.header(name, value));
        let answer = Client::new(front).send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-trace-id").map(|id| id.len()), Some(32));
        let echo = answer.json();
        assert_eq!(echo["color"], echo["version"], "routed by the color");
        let left = echo["deadline_ms"].as_str().and_then(|left| left.parse::<u32>().ok());
        assert!(left.is_some_and(|left| (1..=3000).contains(&left)), "{echo}");
        echo["version"].as_str().expect("it says who it is").to_owned()
    };
    assert_eq!(ask(&[("x-staff", "yes")]), "gray");
    // A client's own color is not believed; user 1 is none of the 5 %.
    assert_eq!(ask(&[("x-weir-color", "gray"), ("x-user", "1")]), "base");
}

/// Sends until the rule named refuses.
fn the_limit_holds(front: SocketAddr, rule: &str) {
    let mut client = Client::new(front);
    wait_until(&format!("{rule} refuses"), DEADLINE, || {
        let answer = client.send(&Request::get("/orders").header("x-user", "1"));
        let says = answer.header("x-weir-rule");
        if answer.status == 429 {
            assert_eq!(answer.header("x-weir-reason").as_deref(), Some("rate_limited"));
        }
        answer.status == 429 && says.as_deref() == Some(rule)
    });
}

fn an_edit_goes_live(front: SocketAddr, policies: &Path) {
    shipped::edit(policies, "rate-limit.yaml", |text| text.replace("per-client", "edited"));
    the_limit_holds(front, "edited");
}

fn a_bad_edit_changes_nothing(front: SocketAddr, look: SocketAddr, policies: &Path) {
    shipped::edit(policies, "rate-limit.yaml", |text| {
        text.replace("\"max_tokens\": 10,", "\"max_tokens\": 0,").replace("edited", "broken")
    });
    let mut client = Client::new(look);
    wait_until("the bad policy is refused", DEADLINE, || {
        client.get("/stats").text().contains("weir.rate_limit.update_rejected: 1")
    });
    the_limit_holds(front, "edited");
}

/// With the limiter out of the way: gray fails, and base is none the worse.
fn the_breaker_opens(front: SocketAddr, policies: &Path) {
    shipped::put_policy(policies, "rate-limit.yaml", "{name: shop, mode: OFF}");
    let mut client = Client::new(front);
    let failing = Request::get("/fail").header("x-staff", "yes");
    wait_until("the breaker of gray opens", DEADLINE, || {
        client.send(&failing).header("x-weir-reason").as_deref() == Some("circuit_open")
    });
    let base = client.send(&Request::get("/orders").header("x-user", "1"));
    assert_eq!(base.status, 200, "{}", base.text());
}

fn only_looking_is_allowed(look: SocketAddr) {
    let mut client = Client::new(look);
    wait_until("the limiter's metrics are there", DEADLINE, || {
        let metrics = client.get("/stats/prometheus");
        assert_eq!(metrics.status, 200);
        metrics.text().contains("weir_rate_limit_requests_total{policy=\"shop\",")
    });
    for request in [
        Request::new("POST", "/quitquitquitquit"),
        Request::new("POST", "/stats"),
        Request::get("/quitquitquitquit"),
        Request::get("/stats/../quitquitquitquit"),
        Request::get("/stats/%2e%2e/quitquitquitquit"),
        Request::get("/heap_dump"),
        Request::get("/"),
    ] {
        assert_eq!(client.send(&request).status, 403, "{request:?}");
    }
    assert_eq!(client.get("/ready").status, 200);
}
