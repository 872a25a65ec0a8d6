//! Lanes: a service without instances of the color.

use crate::rig::{Rig, with};
use weir_integration_tests::http::grpc;

const LANES: &str = "lanes: [{match: {authority: {exact: orders.test}}, colors: [base, blue]}]";

#[test]
fn strict_says_so() {
    let rig = Rig::section(&format!("lanes: {{mode: STRICT, {LANES}}}"));
    let gray =
        with(&[("x-weir-color", "gray"), (":authority", "orders.test"), (":path", "/closed")]);
    let response = rig.send("in", &gray);
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
    let first = rig.send("in", &with(&[("x-weir-color", "gray"), (":authority", "orders.test")]));
    assert_eq!(first.json()["upstream"], "base");
    assert_eq!(first.echoed("x-weir-color").as_deref(), Some("base"));
    let baggage = first.echoed("baggage").unwrap();
    assert_eq!(baggage, "x-color=gray");
    // The next hop goes by what baggage says, where the policy lets it win.
    rig.edit("", &format!("carry: {{in: [HEADER, BAGGAGE], winner: BAGGAGE}}, lanes: {{{LANES}}}"));
    let next = rig.color(&[("x-weir-color", "base"), ("baggage", &baggage)]);
    assert_eq!(next, "gray", "back in its lane");
    rig.await_metric(&["lanes_total", "outcome=.=fallback"], 1);
}
