//! More than the limit, most of it of low priority: what is high passes whole, and the limit is used.

use crate::common::{alone, assert_offered, assert_within, shop, start};
use std::time::Duration;
use weir_integration_tests::{Load, Request};

const LASTS: Duration = Duration::from_secs(5);

fn offered_twice(workers: u32) {
    let _alone = alone();
    let envoy = start(
        workers,
        &shop(
            "{id: r, max_tokens: 500, tokens_per_fill: 1000, fill_interval: 1s, \
             priority: {reserve_percent: 40}}",
        ),
    );

    // A fifth is high: 400 a second. Request n comes over connection n % 17, so that every connection
    // carries both.
    let load = Load::labelled(envoy.address("in"), |n| {
        let class = if n % 5 == 0 { "high" } else { "low" };
        (class.to_owned(), Request::get("/").header("qos_level", class))
    });
    let report = load.connections(17).rate(2000).lasts(LASTS).run();

    assert_offered(&envoy, &report, LASTS, workers);
    let expected = 300.0 + 1000.0 * report.elapsed.as_secs_f64();
    assert_eq!(report.of("high", 429), 0, "{:?}", report.answers);
    assert_within("admitted", report.status(200), expected, 2.0);
    envoy.assert_healthy();
}

#[test]
fn high_passes_1_worker() {
    offered_twice(1);
}

#[test]
fn high_passes_4_workers() {
    offered_twice(4);
}
