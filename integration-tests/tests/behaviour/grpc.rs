//! gRPC calls: trailers-only replies, and what a rule can tell about them.

use crate::common::{once, shop};
use weir_integration_tests::http::grpc;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream};

const GET: &str = "/shop.v1.Orders/Get";
const LIST: &str = "/shop.v1.Orders/List";
const OTHER: &str = "/shop.v1.Carts/Get";

fn start(policy: &str) -> (Envoy, Upstream) {
    let upstream = Upstream::start("grpc");
    let envoy = Envoy::builder()
        .cluster(Cluster::h2("grpc", upstream.address))
        .listener(Listener::inbound("in").filter(Filter::weir()).route(Route::prefix("/", "grpc")))
        .policy(policy)
        .start();
    (envoy, upstream)
}

#[test]
fn a_refused_call_ends_with_trailers_only() {
    let (envoy, upstream) =
        start(&shop("{id: calls, max_tokens: 1, fill_interval: 60s, at_limit: {status: 503}}"));
    let mut connection = envoy.h2("in");

    let admitted = grpc::call(&mut connection, GET, &[]);
    assert_eq!(admitted.status, Some(0), "{admitted:?}");
    assert!(!admitted.trailers_only);

    for content_type in ["application/grpc", "application/grpc+proto"] {
        let refused = grpc::call_as(&mut connection, GET, content_type, &[]);
        assert_eq!(refused.http.status(), Some(200), "{content_type}");
        assert_eq!(refused.status, Some(8), "{content_type}: {refused:?}");
        assert!(refused.trailers_only, "{content_type}: {refused:?}");
        let message = &refused.message;
        assert!(!message.is_empty() && !message.contains('{'), "{message}");
        let pushback = refused.header("grpc-retry-pushback-ms").unwrap_or_default();
        let pushback: u64 = pushback.parse().expect("milliseconds");
        assert!((58_000..=66_000).contains(&pushback), "{pushback}");
        assert_eq!(refused.header("x-weir-rule").as_deref(), Some("calls"));
    }
    assert_eq!(upstream.count("/"), 1);
    envoy.assert_healthy();
}

/// grpc-web, and what Envoy does not take for gRPC: a reply in gRPC's form is Envoy's to make.
#[test]
fn what_is_no_grpc_to_envoy_gets_plain_http() {
    let (envoy, _upstream) = start(&shop(&format!("{{id: r, {}}}", once(1))));
    let mut connection = envoy.h2("in");
    grpc::call(&mut connection, GET, &[]);

    for content_type in
        ["application/grpc-web", "application/grpc-web+proto", "application/grpc;charset=utf-8"]
    {
        let refused = grpc::call_as(&mut connection, GET, content_type, &[]);
        assert_eq!(refused.http.status(), Some(429), "{content_type}");
        assert_eq!(refused.status, None, "{content_type}: {refused:?}");
        assert!(!refused.http.data.is_empty(), "{content_type}: a body");
    }
    envoy.assert_healthy();
}

#[test]
fn service_and_method_match() {
    let (envoy, _upstream) = start(&shop(&format!(
        "{{id: get, match: {{grpc: {{service: shop.v1.Orders, method: Get}}}}, {once}}}, \
         {{id: carts, match: {{grpc: {{service: shop.v1.Carts}}}}, {once}}}",
        once = once(1)
    )));
    let mut connection = envoy.h2("in");
    let mut call = |path: &str| grpc::call(&mut connection, path, &[]).status;

    assert_eq!([call(GET), call(GET)], [Some(0), Some(8)]);
    assert_eq!([call(LIST), call(LIST)], [Some(0), Some(0)]);
    assert_eq!([call(OTHER), call(OTHER)], [Some(0), Some(8)]);
    // The same path as a plain request is no gRPC call.
    let plain = envoy.client("in").send(&Request::new("POST", GET));
    assert_eq!(plain.status, 200);
    envoy.assert_healthy();
}

#[test]
fn service_and_method_are_keys() {
    let (envoy, _upstream) = start(&shop(&format!(
        "{{id: by-service, match: {{headers: {{x-by: {{exact: service}}}}}}, \
          key: [{{grpc_service: true}}], {once}}}, \
         {{id: by-method, match: {{headers: {{x-by: {{exact: method}}}}}}, \
          key: [{{grpc_method: true}}], {once}}}",
        once = once(1)
    )));
    let mut connection = envoy.h2("in");
    let mut call = |path: &str, by: &str| grpc::call(&mut connection, path, &[("x-by", by)]).status;

    assert_eq!([call(GET, "service"), call(LIST, "service")], [Some(0), Some(8)]);
    assert_eq!(call(OTHER, "service"), Some(0));
    assert_eq!([call(GET, "method"), call(OTHER, "method")], [Some(0), Some(8)]);
    assert_eq!(call(LIST, "method"), Some(0));
    envoy.assert_healthy();
}

#[test]
fn a_missing_key_part_refuses_the_call_with_a_status_of_its_own() {
    let (envoy, _upstream) = start(&shop(&format!(
        "{{id: r, key: [{{header: x-user, on_missing: REJECT}}], {}}}",
        once(1)
    )));

    let reply = grpc::call(&mut envoy.h2("in"), GET, &[]);

    assert!(reply.trailers_only, "{reply:?}");
    assert!(!matches!(reply.status, None | Some(0)), "{reply:?}");
    assert_eq!(reply.header("x-weir-reason").as_deref(), Some("missing_key"));
    envoy.assert_healthy();
}
