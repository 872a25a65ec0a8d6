//! Lanes: a service without instances of the color.

use crate::rig::{Rig, color_of, policy, with};
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Route, paths, wait_until};

const LANES: &str = "lanes: [{match: {authority: {exact: orders.test}}, colors: [base, blue]}]";

#[test]
fn strict_says_so() {
    let rig = Rig::section(&format!("lanes: {{mode: STRICT, {LANES}}}"));
    let gray =
        with(&[("x-weir-color", "gray"), (":authority", "orders.test"), (":path", "/closed")]);
    let response = rig.send("in", &gray);
    rig.assert_explained(&gray, &response);
    assert_eq!(response.status, 503);
    assert_eq!(response.header("x-weir-reason").as_deref(), Some("lane_unavailable"));
    assert_eq!(response.json()["reason"], "lane_unavailable");
    assert!(rig.await_access("/closed").contains("weir_lane_unavailable{gray}"));
    assert_eq!(rig.color(&[("x-weir-color", "gray")]), "gray", "another service has it");
    assert_eq!(rig.color(&[("x-weir-color", "blue"), (":authority", "orders.test")]), "blue");
    let mut connection = rig.h2();
    let extra = [("x-weir-color", "gray")];
    rig.edit(
        "",
        "lanes: {mode: STRICT, lanes: [{match: {grpc: {service: shop.Orders}}, colors: [base]}]}",
    );
    let reply = grpc::call(&mut connection, "/shop.Orders/Get", &extra);
    assert_eq!((reply.status, reply.trailers_only), (Some(14), true));
    assert_eq!(grpc::call(&mut connection, "/shop.Carts/Get", &extra).status, Some(0));
    rig.envoy.assert_healthy();
}

#[test]
fn permissive_goes_to_the_base_and_keeps_the_color() {
    let rig = Rig::section(&format!("carry: {{in: [HEADER, BAGGAGE]}}, lanes: {{{LANES}}}"));
    let gray = with(&[("x-weir-color", "gray"), (":authority", "orders.test")]);
    let first = rig.send("in", &gray);
    rig.assert_explained(&gray, &first);
    assert_eq!(first.json()["upstream"], "base");
    assert_eq!(first.echoed("x-weir-color").as_deref(), Some("base"));
    let baggage = first.echoed("baggage").unwrap();
    assert_eq!(baggage, "x-color=gray");
    // The next hop goes by what baggage says.
    let next = rig.color(&[("x-weir-color", "base"), ("baggage", &baggage)]);
    assert_eq!(next, "gray", "back in its lane");
    rig.await_metric(&["lanes_total", "outcome=.=fallback"], 1);
    // Without lanes the header wins, unless the policy says otherwise.
    rig.edit("", "carry: {in: [HEADER, BAGGAGE]}");
    assert_eq!(rig.color(&[("x-weir-color", "base"), ("baggage", &baggage)]), "base");
    rig.edit("", "carry: {in: [HEADER, BAGGAGE], winner: BAGGAGE}");
    assert_eq!(rig.color(&[("x-weir-color", "base"), ("baggage", &baggage)]), "gray");
}

/// Two proxies in a row: the first service has no gray instances, the second has.
#[test]
fn the_next_hop_is_back_in_its_lane() {
    let carry = "carry: {in: [HEADER, BAGGAGE], winner: BAGGAGE}";
    let next = Rig::section(carry);
    let lanes = "lanes: {lanes: [{match: {path: {prefix: /}}, colors: [base, blue]}]}";
    let mut builder = Envoy::builder()
        .module(paths::module("traffic_color"))
        .policy(&policy("", &format!("{carry}, {lanes}")))
        .cluster(Cluster::h1("h1", next.envoy.address("in")))
        .cluster(Cluster::h2("h2", next.envoy.address("grpc")));
    for name in ["h1", "h2"] {
        let listener = Listener::outbound(name).filter(Filter::weir());
        builder = builder.listener(
            listener
                .route(Route::direct("/", 500).when_header("x-weir-color", "gray"))
                .route(Route::prefix("/", name)),
        );
    }
    let first = builder.start();
    for (color, version) in [("gray", "gray"), ("blue", "blue"), ("base", "base"), ("pink", "base")]
    {
        let request = with(&[("x-weir-color", color), (":path", "/http")]);
        assert_eq!(color_of(&first.client("h1").send(&request)), version, "{color}");
        let path = format!("/shop.Orders/{color}");
        let reply = grpc::call(&mut first.h2("h2"), &path, &[("x-weir-color", color)]);
        assert_eq!(reply.status, Some(0));
        assert_eq!(next.versions[version].count(&path), 1, "{color}");
    }
    wait_until("both fallbacks are counted", DEADLINE, || {
        first.metric_with(&["lanes_total", "outcome=.=fallback"]) == 2
    });
    first.assert_healthy();
    next.envoy.assert_healthy();
}
