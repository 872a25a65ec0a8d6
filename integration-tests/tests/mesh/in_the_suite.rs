//! All four in one module: a request that waits in the middle of the chain meets each filter once.

use crate::common::each_engine;
use weir_integration_tests::traceparent::Traceparent;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream, paths};

const POLICY: &str = "
name: shop
zone: EDGE
traffic_color:
  colors: [base, gray]
  rules: [{id: staff, match: {headers: {x-staff: {exact: 'yes'}}}, color: gray}]
trace_context: {}
rate_limit:
  mesh: {cluster: engine, domain: shop, lease: {max: 1}, timeout: 1s}
  rules:
  - {id: gray, match: {colors: [gray]}, scope: MESH, key: [{color: true}],
     max_tokens: 3, tokens_per_fill: 3, fill_interval: 3600s}
circuit_breaker:
  rules: [{id: shop, state: FORCED_OPEN, match: {headers: {x-broken: {exact: 'yes'}}}}]
";

#[test]
fn each_filter_meets_a_request_that_waited_once() {
    each_engine(3, |keeps, rls| {
        let upstream = Upstream::start("echo");
        let listener = Listener::inbound("in").filter(Filter::weir());
        let envoy = Envoy::builder()
            .workers(2)
            .module(paths::single("suite"))
            .listener(listener.route(Route::prefix("/", "echo")))
            .cluster(Cluster::h1("echo", upstream.address))
            .cluster(Cluster::h2("engine", rls.address))
            .policy(POLICY)
            .start();
        let mut client = envoy.client("in");
        let staff = Request::get("/").header("x-staff", "yes");
        // The limiter goes by the color that was given in here, and what was written stays.
        let passed = client.send(&staff);
        assert_eq!(passed.status, 200, "{keeps:?}");
        assert_eq!(passed.echoed("x-weir-color").as_deref(), Some("gray"));
        // Panics unless there is one good line.
        Traceparent::read(passed.echoed("traceparent"));
        // The breaker is asked afterwards.
        let broken = client.send(&staff.clone().header("x-broken", "yes"));
        assert_eq!(broken.header("x-weir-reason").as_deref(), Some("circuit_open"), "{keeps:?}");
        // Two of three hits are spent, or one: what the breaker refused was admitted before.
        let mut statuses: Vec<u16> = (0..4).map(|_| client.send(&staff).status).collect();
        statuses.dedup();
        assert_eq!(statuses, [200, 429], "{keeps:?}");
        assert_eq!(rls.granted("gray"), 3);
        assert_eq!(client.send(&Request::get("/")).status, 200);
        envoy.assert_healthy();
    });
}
