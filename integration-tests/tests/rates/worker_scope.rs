//! `scope: WORKER`: each worker has its share of the limit to itself.

use crate::common::{alone, assert_offered, assert_within, shop, start};
use std::time::Duration;
use weir_integration_tests::{Load, Request};

const WORKERS: u32 = 4;
const LASTS: Duration = Duration::from_secs(5);
const RULE: &str =
    "id: r, scope: WORKER, max_tokens: 1000, tokens_per_fill: 1000, fill_interval: 1s";

#[test]
fn with_a_stated_number_of_workers() {
    let _alone = alone();
    let envoy = start(WORKERS, &shop(&format!("{{{RULE}, workers: {WORKERS}}}")));

    let load = Load::new(envoy.address("in"), Request::get("/"));
    let report = load.rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, WORKERS);
    let expected = 1000.0 + 1000.0 * report.elapsed.as_secs_f64();
    assert_within("admitted", report.status(200), expected, 2.0);
    envoy.assert_healthy();
}

#[test]
fn with_as_many_as_serve() {
    let _alone = alone();
    let envoy = start(WORKERS, &shop(&format!("{{{RULE}}}")));

    // Workers learn of each other within some ticks: the first second is not measured.
    let load = Load::new(envoy.address("in"), Request::get("/"));
    let report = load.rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, WORKERS);
    let end = report.end();
    let measured = LASTS - Duration::from_secs(2);
    let admitted = report.between(200, end - measured, end);
    assert_within("admitted", admitted, 1000.0 * measured.as_secs_f64(), 5.0);
    envoy.assert_healthy();
}

#[test]
fn one_worker_alone_has_the_whole_limit() {
    let _alone = alone();
    let envoy = start(1, &shop(&format!("{{{RULE}}}")));

    let load = Load::new(envoy.address("in"), Request::get("/"));
    let report = load.rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, 1);
    let expected = 1000.0 + 1000.0 * report.elapsed.as_secs_f64();
    assert_within("admitted", report.status(200), expected, 2.0);
    envoy.assert_healthy();
}
