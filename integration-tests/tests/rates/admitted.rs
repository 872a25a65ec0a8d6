//! 2000 requests a second against a limit of 1000: what passes is the burst and the rate, no less
//! and no more, however many workers and keys there are.

use crate::common::{alone, assert_offered, assert_within, shop, start};
use std::time::Duration;
use weir_integration_tests::{Load, Request};

const LASTS: Duration = Duration::from_secs(5);
const RULE: &str = "id: r, max_tokens: 1000, tokens_per_fill: 1000, fill_interval: 1s";

fn unkeyed(workers: u32) {
    let _alone = alone();
    let envoy = start(workers, &shop(&format!("{{{RULE}}}")));

    let load = Load::new(envoy.address("in"), Request::get("/"));
    let report = load.rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, workers);
    let admitted = report.status(200);
    let expected = 1000.0 + 1000.0 * report.elapsed.as_secs_f64();
    assert_within("admitted", admitted, expected, 2.0);
    envoy.await_metric("shop", "r", "admitted", admitted);
    envoy.await_metric("shop", "r", "limited", report.status(429));
    envoy.assert_healthy();
}

#[test]
fn unkeyed_1_worker() {
    unkeyed(1);
}

#[test]
fn unkeyed_4_workers() {
    unkeyed(4);
}

/// One key takes all the load.
fn hot_key(workers: u32) {
    let _alone = alone();
    let envoy = start(workers, &shop(&format!("{{{RULE}, key: [{{header: x-user}}]}}")));

    let request = Request::get("/").header("x-user", "hot");
    let load = Load::new(envoy.address("in"), request);
    let report = load.rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, workers);
    let expected = 1000.0 + 1000.0 * report.elapsed.as_secs_f64();
    assert_within("admitted", report.status(200), expected, 2.0);
    envoy.assert_healthy();
}

#[test]
fn hot_key_1_worker() {
    hot_key(1);
}

#[test]
fn hot_key_4_workers() {
    hot_key(4);
}

/// Four keys share the load, each with a limit that it offers twice.
fn several_keys(workers: u32) {
    let _alone = alone();
    let rule = "{id: r, key: [{header: x-user}], \
                max_tokens: 250, tokens_per_fill: 250, fill_interval: 1s}";
    let envoy = start(workers, &shop(rule));

    // Request n comes over connection n % 17, so that every connection uses every key.
    let load = Load::labelled(envoy.address("in"), |n| {
        let user = format!("user-{}", n % 4);
        (user.clone(), Request::get("/").header("x-user", user))
    });
    let report = load.connections(17).rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, workers);
    let expected = 250.0 + 250.0 * report.elapsed.as_secs_f64();
    for user in 0..4 {
        let user = format!("user-{user}");
        assert_within(&user, report.of(&user, 200), expected, 2.0);
    }
    envoy.assert_healthy();
}

#[test]
fn several_keys_1_worker() {
    several_keys(1);
}

#[test]
fn several_keys_4_workers() {
    several_keys(4);
}
