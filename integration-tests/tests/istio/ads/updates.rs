//! First configuration, edits, and edits that are refused.

use super::istiod::Names;
use super::mesh::{Api, Mesh, rendered};
use std::io::ErrorKind;
use std::net::TcpStream;
use weir_integration_tests::Request;

fn limit(of: &str) -> String {
    format!("name: shop\nrate_limit: {{ rules: [{{ id: all, {of} }}] }}\n")
}

fn first_resource_opens_the_port(api: Api) {
    let manifests = rendered(&limit("max_tokens: 1, fill_interval: 3600s"), "istio");
    let mesh = Mesh::start_with(&manifests, Names::UpTo1_29, api, |plane, address| {
        let name = "extensions.istio.io/wasmplugin/shop.weir-rate-limit";
        assert_eq!(plane.asked().into_iter().collect::<Vec<_>>(), [name]);
        let refused = TcpStream::connect(address).expect_err("nobody is served without the filter");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
    // From the very first request on.
    assert_eq!(mesh.get(&Request::get("/")).status, 200);
    assert_eq!(mesh.get(&Request::get("/")).status, 429);
    mesh.envoy.assert_healthy();
}

#[test]
fn nothing_is_served_before_the_first_resource_delta() {
    first_resource_opens_the_port(Api::Delta);
}

#[test]
fn nothing_is_served_before_the_first_resource_state_of_the_world() {
    first_resource_opens_the_port(Api::StateOfTheWorld);
}

fn an_edit_counts_and_a_bad_one_does_not(api: Api) {
    let shut = "max_tokens: 1, fill_interval: 3600s";
    let mut mesh = Mesh::start(&rendered(&limit(shut), "istio"), Names::UpTo1_29, api);
    assert_eq!(mesh.get(&Request::get("/")).status, 200);
    let answer = mesh.get(&Request::get("/"));
    assert_eq!((answer.status, answer.header("x-weir-rule").as_deref()), (429, Some("all")));

    let wide = "max_tokens: 1000, tokens_per_fill: 1000, fill_interval: 1s";
    let wide = format!("{wide}, at_limit: {{ quota_headers: ALWAYS }}");
    mesh.edit(&rendered(&limit(&wide), "istio")).unwrap();
    mesh.await_answer("the edit is in force", |answer| answer.status == 200);

    // The command would not write it; who edits in the cluster can.
    let mut bad = rendered(&limit(&wide), "istio");
    bad[0]["spec"]["pluginConfig"]["rate_limit"]["rules"][0]["fill_interval"] = "0s".into();
    let refusal = mesh.edit(&bad).unwrap_err();
    assert!(refusal.contains("Unable to create Wasm plugin shop.weir-rate-limit"), "{refusal}");
    // istiod is told no more than that; the reason is in the proxy's log.
    let reason = r#"policy.rate_limit.rules[0].fill_interval: \"0s\" must be from"#;
    assert!(mesh.envoy.log_contains(reason), "{}", mesh.envoy.log());
    let answer = mesh.get(&Request::get("/"));
    assert_eq!((answer.status, answer.header("ratelimit").is_some()), (200, true));

    mesh.edit(&rendered(&limit(shut), "istio")).unwrap();
    mesh.await_answer("the next good one is taken", |answer| answer.status == 429);
    assert_eq!(mesh.plane.refusals(), 1);
}

#[test]
fn an_edit_counts_and_a_bad_one_does_not_delta() {
    an_edit_counts_and_a_bad_one_does_not(Api::Delta);
}

#[test]
fn an_edit_counts_and_a_bad_one_does_not_state_of_the_world() {
    an_edit_counts_and_a_bad_one_does_not(Api::StateOfTheWorld);
}
