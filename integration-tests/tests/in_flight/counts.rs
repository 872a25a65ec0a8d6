//! How many are let in.

use crate::common::{Rig, one_rule};
use weir_integration_tests::Request;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Script, wait_until};

fn ten_of_thirty(workers: u32, module: &str) {
    let rig = Rig::with_module(workers, &one_rule("max_concurrent: 10"), module);
    rig.upstream.play(Script::Hang);

    let mut held: Vec<_> = (0..30).map(|_| rig.send("h1", "/held")).collect();

    rig.envoy.await_metric("shop", "r", "limited", 20);
    rig.await_flying(10);
    rig.await_gauge(10);
    // The refused ones are told why.
    let refused = rig.envoy.client("h1").get("/direct");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-weir-reason").as_deref(), Some("too_many_in_flight"));
    let policy = refused.header("ratelimit-policy");
    assert_eq!(policy.as_deref(), Some("\"r\";q=10;qu=\"concurrent-requests\""));
    assert!(refused.header("retry-after").is_some());

    held.clear();
    rig.await_flying(0);
    rig.await_gauge(0);
    let again = rig.hang(10);
    assert_eq!(rig.probe(), 429);
    drop(again);
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn ten_of_thirty_with_1_worker() {
    ten_of_thirty(1, "weir_rate_limit.wasm");
}

#[test]
fn ten_of_thirty_with_4_workers() {
    ten_of_thirty(4, "weir_rate_limit.wasm");
}

#[test]
fn ten_of_thirty_in_the_suite() {
    ten_of_thirty(4, "weir_suite.wasm");
}

#[test]
fn keys_count_apart_and_a_bucket_may_stand_beside() {
    let rig = Rig::start(
        4,
        &one_rule(
            "key: [{header: x-user}], max_concurrent: 2, max_tokens: 4, fill_interval: 3600s, \
             overrides: [{exact: [root], unlimited: true}]",
        ),
    );
    rig.upstream.play(Script::Hang);
    let held = |user: &str| {
        let mut connection = rig.envoy.h1("h1");
        let request = format!("GET /held HTTP/1.1\r\nhost: shop.test\r\nx-user: {user}\r\n\r\n");
        connection.write(request.as_bytes()).unwrap();
        connection
    };
    let ask = |user: &str| {
        let answer = rig.envoy.client("h1").send(&Request::get("/direct").header("x-user", user));
        (answer.status, answer.header("x-weir-reason").unwrap_or_default())
    };
    let too_many = (429, "too_many_in_flight".to_owned());
    let connections = [held("ann"), held("ann"), held("bob")];
    rig.await_flying(3);

    // Refusals for what is in flight take no token.
    for _ in 0..9 {
        assert_eq!(ask("ann"), too_many);
        assert_eq!(ask("root").0, 200);
    }
    assert_eq!(ask("bob").0, 200);
    drop(connections);
    wait_until("ann has landed", DEADLINE, || ask("ann") != too_many);
    assert_eq!(ask("ann").0, 200, "the fourth of four tokens");
    assert_eq!(ask("ann"), (429, "rate_limited".to_owned()));
    rig.envoy.assert_healthy();
}
