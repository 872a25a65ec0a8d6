//! One request of a client that reaches the limiter more than once: retries, mirrors, redirects.

use crate::common::{once, shop, statuses};
use weir_integration_tests::wait::{DEADLINE, wait_until};
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream};

/// A front listener whose route leads to a limited listener of the same Envoy.
fn two_hops(policy: &str, front: Route) -> (Envoy, Upstream) {
    let upstream = Upstream::start("echo");
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("echo", upstream.address))
        .cluster(Cluster::listener("limited", "limited"))
        .listener(Listener::outbound("front").route(front))
        .listener(
            Listener::inbound("limited")
                .internal()
                .filter(Filter::weir())
                .route(Route::prefix("/redirect/", "echo").follow_redirects())
                .route(Route::prefix("/", "echo")),
        )
        .policy(policy)
        .start();
    (envoy, upstream)
}

fn to_limited() -> Route {
    Route::prefix("/", "limited")
}

fn arrived(envoy: &Envoy) -> u64 {
    envoy.counter("http.limited.downstream_rq_total")
}

#[test]
fn a_refusal_is_not_retried() {
    for status in [429, 503] {
        let front = to_limited().retry("5xx,gateway-error,retriable-status-codes", &[429, 503], 2);
        let policy = shop(&format!(
            "{{id: r, match: {{path: {{exact: /limited}}}}, {}, at_limit: {{status: {status}}}}}",
            once(1)
        ));
        let (envoy, upstream) = two_hops(&policy, front);
        let mut client = envoy.client("front");

        let limited = Request::get("/limited");
        assert_eq!(statuses(&mut client, &limited, 2), [200, status]);
        assert_eq!(arrived(&envoy), 2, "one attempt for each request");

        // The route does retry: an upstream's own answer of the same status comes three times.
        let failing = Request::get("/failing").header("x-test-status", status.to_string());
        assert_eq!(client.send(&failing).status, status);
        assert_eq!(upstream.count("/failing"), 3);
        envoy.assert_healthy();
    }
}

#[test]
fn a_mirrored_request_takes_nothing() {
    let policy = shop(&format!("{{id: r, {}}}", once(3)));
    let (envoy, upstream) = two_hops(&policy, to_limited().mirror("limited"));
    let mut client = envoy.client("front");

    for n in 1..=3 {
        assert_eq!(client.get("/").status, 200);
        wait_until("the copy has arrived", DEADLINE, || arrived(&envoy) == 2 * n);
    }
    wait_until("the copies have passed", DEADLINE, || upstream.count("/") == 6);
    assert_eq!(client.get("/").status, 429);
    wait_until("the last copy has passed", DEADLINE, || upstream.count("/") == 7);
    envoy.await_metric("shop", "r", "admitted", 3);
    envoy.await_metric("shop", "r", "limited", 1);
    envoy.assert_healthy();
}

#[test]
fn an_internal_redirect_is_charged_once() {
    let policy = shop(&format!("{{id: r, {}}}", once(2)));
    let (envoy, upstream) = two_hops(&policy, to_limited());
    let mut client = envoy.client("front");

    let redirected = Request::get("/redirect/landing");
    let answers: Vec<_> = (0..3).map(|_| client.send(&redirected)).collect();

    let got: Vec<_> = answers.iter().map(|a| a.status).collect();
    assert_eq!(got, [200, 200, 429]);
    assert_eq!(answers[0].json()["path"], "/landing");
    assert_eq!((upstream.count("/redirect"), upstream.count("/landing")), (2, 2));
    envoy.await_metric("shop", "none", "redirected", 2);
    envoy.await_metric("shop", "r", "admitted", 2);
    envoy.assert_healthy();
}
