//! Policy edits while requests come in.

use crate::common::{alone, assert_offered, shop, start};
use std::time::Duration;
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{Load, Request};

const WORKERS: u32 = 4;
const LASTS: Duration = Duration::from_secs(5);
const EDITS: u32 = 20;

#[test]
fn twenty_edits_cost_no_request_and_give_no_token() {
    let _alone = alone();
    let policy = |n: u32| {
        shop(&format!(
            "{{id: r, max_tokens: 500, tokens_per_fill: 500, fill_interval: 1s}}, \
             {{id: edit-{n}, match: {{path: {{exact: /never}}}}, max_tokens: 1, fill_interval: 1s}}"
        ))
    };
    let envoy = start(WORKERS, &policy(0));

    let load = Load::new(envoy.address("in"), Request::get("/")).rate(1000).lasts(LASTS);
    let start = std::time::Instant::now();
    let load = load.start();
    for n in 1..=EDITS {
        sleep_until(start + LASTS * n / (EDITS + 2));
        envoy.put_policy(&policy(n)).accepted();
    }
    let report = load.join().expect("the load runs to its end");

    assert_offered(&envoy, &report, LASTS, WORKERS);
    let (admitted, refused) = (report.status(200), report.status(429));
    assert_eq!(admitted + refused, report.total(), "{:?}", report.answers);
    let most = 500.0 + 500.0 * report.elapsed.as_secs_f64();
    let admitted = admitted as f64;
    assert!(admitted <= most * 1.02, "{admitted} of at most {most:.0}");
    // A lease is void at an edit; what it held is not given out twice, and little is lost.
    assert!(admitted >= most * 0.9, "{admitted} of {most:.0}");
    envoy.assert_healthy();
}
