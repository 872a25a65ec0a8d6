//! Requests that cost more than one token, and costs that the response tells.

use crate::common::{direct, once, proxied, shop, statuses};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Client, Cluster, Envoy, Filter, Listener, Request, Route, Upstream};

fn costing(cost: &str) -> Request {
    Request::get("/").header("x-cost", cost)
}

/// A request that the upstream says has cost so much.
fn billed(cost: &str) -> Request {
    Request::get("/").header("x-test-answer-header", format!("x-used={cost}"))
}

fn admitted(client: &mut Client, request: &Request, requests: usize) -> usize {
    statuses(client, request, requests).into_iter().filter(|status| *status == 200).count()
}

#[test]
fn a_constant_and_a_request_header() {
    let policy =
        shop(&format!("{{id: r, {}, cost: {{constant: 3, request_header: X-Cost}}}}", once(20)));
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    for (request, left, status) in [
        (costing("11"), 20, 200),
        (costing("10"), 9, 429),
        // No cost, so the constant.
        (Request::get("/"), 9, 200),
        (costing("nine"), 6, 200),
        (costing("0"), 3, 200),
        (costing("1"), 0, 429),
    ] {
        let answer = client.send(&request);
        assert_eq!(answer.status, status, "{request:?}");
        assert_fares(&policy, "inbound", &request, &answer, &["--state", &format!("r={left}")]);
    }
    envoy.await_metric("shop", "r", "admitted", 4);
    let bad = || envoy.weir_metrics().into_iter().filter(|(name, _)| name.contains("bad_costs"));
    weir_integration_tests::wait_until(
        "bad costs are counted",
        weir_integration_tests::wait::DEADLINE,
        || bad().map(|(_, count)| count).sum::<u64>() == 2,
    );
    envoy.assert_healthy();
}

#[test]
fn a_response_header_is_charged_and_owed_within_the_bound() {
    let (envoy, upstream) = proxied(&shop(
        "{id: r, key: [{header: x-user}], max_tokens: 10, fill_interval: 1s, \
         at_limit: {retry_after_jitter_percent: 0}, \
         cost: {response_header: x-used, apply: ON_RESPONSE, max_debt: 50}}",
    ));
    let mut client = envoy.client("in");
    let of = |user: &str, request: Request| request.header("x-user", user);

    assert_eq!(client.send(&of("ann", billed("1000000"))).status, 200);
    let refused = client.send(&of("ann", billed("1")));
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((45..=51).contains(&wait), "owes 50 and is to have one at one a second: {wait}");
    // Eight of ten, whatever the response of another user said.
    assert_eq!(client.send(&of("bob", billed("8"))).status, 200);
    let passed = admitted(&mut client, &of("bob", billed("1")), 20);
    assert!((2..=4).contains(&passed), "{passed}");
    // What is free comes back.
    assert_eq!(admitted(&mut client, &of("eve", billed("0")), 30), 30);
    assert_eq!(upstream.count("/"), 1 + 1 + passed + 30);
    envoy.assert_healthy();
}

#[test]
fn what_a_client_sends_is_no_bill() {
    let (envoy, _upstream) =
        proxied(&shop(&format!("{{id: r, {}, cost: {{response_header: x-used}}}}", once(5))));
    let mut client = envoy.client("in");

    let forged = Request::get("/").header("x-used", "0");
    assert_eq!(admitted(&mut client, &forged, 20), 5);
    envoy.assert_healthy();
}

/// Envoy follows the redirect itself: the filter sees the response of the second stream alone, which may
/// lie under the rule or not.
#[test]
fn a_redirected_response_is_charged_once() {
    for landing in ["redirected", "elsewhere"] {
        let upstream = Upstream::start("echo");
        let envoy = Envoy::builder()
            .cluster(Cluster::h1("echo", upstream.address))
            .listener(
                Listener::inbound("in")
                    .filter(Filter::weir())
                    .route(Route::prefix("/", "echo").follow_redirects()),
            )
            .policy(&shop(&format!(
                "{{id: r, match: {{path: {{prefix: /redirect}}}}, {}, cost: {{response_header: x-used}}}}",
                once(20)
            )))
            .start();
        let mut client = envoy.client("in");

        let expensive =
            Request::get(format!("/redirect/{landing}")).header("x-test-answer-header", "x-used=8");
        let answer = client.send(&expensive);
        assert_eq!((answer.status, &answer.json()["path"]), (200, &format!("/{landing}").into()));
        assert_eq!(admitted(&mut client, &Request::get("/redirected"), 20), 12, "{landing}");
        envoy.assert_healthy();
    }
}
