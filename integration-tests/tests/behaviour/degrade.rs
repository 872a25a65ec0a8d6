//! Something else than a refusal: another route, or an answer that says it is not the real one.

use crate::common::{direct, once, shop};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream};

fn with_fallback(policy: &str) -> (Envoy, Upstream, Upstream) {
    let (main, spare) = (Upstream::start("main"), Upstream::start("spare"));
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("main", main.address))
        .cluster(Cluster::h1("spare", spare.address))
        .listener(
            Listener::inbound("in")
                .filter(Filter::weir())
                .route(Route::prefix("/", "spare").when_header("x-lane", "spare"))
                .route(Route::prefix("/", "main")),
        )
        .policy(policy)
        .start();
    (envoy, main, spare)
}

#[test]
fn a_request_header_leads_to_the_fallback() {
    let policy = shop(&format!(
        "{{id: r, {}, at_limit: {{degrade: {{request_header: {{name: x-lane, value: spare}}}}}}}}",
        once(2)
    ));
    let (envoy, main, spare) = with_fallback(&policy);
    let mut client = envoy.client("in");

    for _ in 0..2 {
        let full = client.get("/full");
        assert_fares(&policy, "inbound", &Request::get("/full"), &full, &[]);
        assert_eq!(full.json()["upstream"], "main");
        assert_eq!(full.header("x-weir-degraded"), None);
        assert_eq!(full.echoed("x-lane"), None);
    }
    for _ in 0..3 {
        let degraded = client.get("/degraded");
        let empty = ["--state", "r=0"];
        assert_fares(&policy, "inbound", &Request::get("/degraded"), &degraded, &empty);
        assert_eq!(degraded.status, 200);
        assert_eq!(degraded.json()["upstream"], "spare");
        assert_eq!(degraded.header("x-weir-degraded").as_deref(), Some("r"));
        assert_eq!(degraded.echoed("x-lane").as_deref(), Some("spare"));
    }
    assert_eq!((main.count("/"), spare.count("/")), (2, 3));
    let entry = envoy.await_access("in", "/degraded");
    assert_eq!(entry.weir, "degraded rule=r");
    envoy.await_metric("shop", "r", "admitted", 2);
    envoy.await_metric("shop", "r", "degraded", 3);
    envoy.assert_healthy();
}

#[test]
fn the_marker_can_have_another_name() {
    let (envoy, _main, _spare) = with_fallback(&shop(&format!(
        "{{id: r, {}, at_limit: {{degrade: {{marker: x-lite, \
         request_header: {{name: x-lane, value: spare}}}}}}}}",
        once(1)
    )));
    let mut client = envoy.client("in");

    client.get("/");
    let degraded = client.get("/");
    assert_eq!(degraded.header("x-lite").as_deref(), Some("r"));
    assert_eq!(degraded.header("x-weir-degraded"), None);
    envoy.assert_healthy();
}

#[test]
fn a_static_answer_carries_the_marker() {
    let policy = shop(&format!(
        "{{id: r, {}, at_limit: {{degrade: {{answer: {{status: 203, body: '[]', \
         content_type: application/json, headers: {{x-from: cache}}}}}}}}}}",
        once(1)
    ));
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    assert_eq!(client.get("/").text(), "direct");
    let degraded = client.get("/answered");
    let empty = ["--state", "r=0"];
    assert_fares(&policy, "inbound", &Request::get("/answered"), &degraded, &empty);
    assert_eq!((degraded.status, degraded.text().as_str()), (203, "[]"));
    assert_eq!(degraded.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(degraded.header("x-from").as_deref(), Some("cache"));
    assert_eq!(degraded.header("x-weir-degraded").as_deref(), Some("r"));
    assert_eq!(envoy.await_access("in", "/answered").weir, "degraded rule=r");
    envoy.await_metric("shop", "r", "degraded", 1);
    envoy.assert_healthy();
}
