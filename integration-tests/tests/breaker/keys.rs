//! Exact thresholds, keys and groups: each request says what the upstream is to answer.

use crate::common::{is_open, shop};
use weir_integration_tests::{
    Client, Cluster, Envoy, Filter, Listener, Request, Route, Upstream, paths,
};

fn echo(workers: u32, policy: &str) -> (Envoy, Upstream) {
    let upstream = Upstream::start("echo");
    let envoy = Envoy::builder()
        .workers(workers)
        .module(paths::module("circuit_breaker"))
        .cluster(Cluster::h1("echo", upstream.address))
        .listener(
            Listener::outbound("h1")
                .filter(Filter::weir())
                .route(Route::prefix("/a", "echo").named("route-a"))
                .route(Route::prefix("/", "echo").named("route-b")),
        )
        .policy(policy)
        .start();
    (envoy, upstream)
}

fn send(client: &mut Client, request: &Request, fails: bool) -> bool {
    let request =
        if fails { request.clone().header("x-test-status", "500") } else { request.clone() };
    client.send(&request).header("x-weir-reason").is_some()
}

/// So many failures spread over a hundred calls.
fn hundred(client: &mut Client, path: &str, failures: u32) {
    for n in 0..100 {
        let fails = (n + 1) * failures / 100 > n * failures / 100;
        send(client, &Request::get(path), fails);
    }
}

#[test]
fn thresholds_are_exact() {
    let rule = |path: &str, rate: u32| {
        format!(
            "{{id: {path}, match: {{path: {{exact: /{path}}}}}, window: {{count: 100}}, \
             minimum_calls: 100, failure_rate_percent: {rate}}}"
        )
    };
    let cases = [(29, 30), (30, 30), (94, 95), (95, 95), (49, 50), (50, 50)];
    let rules: Vec<_> = cases.iter().map(|(n, rate)| rule(&format!("f{n}"), *rate)).collect();
    let (envoy, _upstream) = echo(1, &shop(&rules.join(", ")));
    let mut client = envoy.client("h1");
    for (failures, rate) in cases {
        let path = format!("/f{failures}");
        hundred(&mut client, &path, failures);
        assert_eq!(is_open(&mut client, &path), failures >= rate, "{failures} of 100 at {rate} %");
    }
}

#[test]
fn below_the_minimum_and_past_the_window_it_stays_closed() {
    let fields = "minimum_calls: 20, window: {time: {duration: 1s, buckets: 10}}";
    let (envoy, _upstream) = echo(1, &shop(&format!("{{id: r, {fields}}}")));
    let mut client = envoy.client("h1");
    for _ in 0..3 {
        for _ in 0..19 {
            assert!(!send(&mut client, &Request::get("/"), true));
        }
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    for _ in 0..20 {
        send(&mut client, &Request::get("/"), true);
    }
    assert!(is_open(&mut client, "/"));
}

#[test]
fn one_keys_breaker_leaves_another_alone() {
    for key in ["{header: x-user}", "{property: xds.route_name}", "{path: {segments: 1}}"] {
        let (envoy, _upstream) =
            echo(4, &shop(&format!("{{id: r, minimum_calls: 5, key: [{key}]}}")));
        let request = |user: &str| Request::get(format!("/{user}")).header("x-user", user);
        let (a, b) = (request("a"), request("b"));
        let mut clients: Vec<_> = (0..16).map(|_| envoy.client("h1")).collect();
        let mut open = (0..200).map(|n| send(&mut clients[n % 16], &a, true));
        assert!(open.any(|open| open), "{key}");
        for client in &mut clients {
            assert!(!send(client, &b, false), "{key}");
        }
        weir_integration_tests::wait_until(
            "the gauge of open keys",
            weir_integration_tests::wait::DEADLINE,
            || {
                envoy
                    .weir_metrics()
                    .iter()
                    .any(|(name, value)| name.contains("open_keys") && *value == 1)
            },
        );
    }
}

#[test]
fn one_groups_breaker_leaves_another_closed() {
    let rule = |color: &str, rate: u32| {
        format!(
            "{{id: {color}, match: {{colors: [{color}]}}, minimum_calls: 20, \
             window: {{count: 20}}, failure_rate_percent: {rate}}}"
        )
    };
    let (envoy, _upstream) = echo(1, &shop(&format!("{}, {}", rule("a", 30), rule("b", 50))));
    let mut client = envoy.client("h1");
    let request = |color: &str| Request::get("/").header("x-weir-color", color);
    for color in ["a", "b"] {
        for n in 0..20 {
            send(&mut client, &request(color), n >= 12);
        }
    }
    assert!(send(&mut client, &request("a"), false));
    assert!(!send(&mut client, &request("b"), false));
}
