//! A limit that is edited under load.

use crate::common::{alone, assert_offered, shop, start};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{Load, Request};

const WORKERS: u32 = 4;
const LASTS: Duration = Duration::from_secs(6);

/// The edited rule, and another whose state an edit must not touch.
fn policy(rate: u32) -> String {
    shop(&format!(
        "{{id: edited, match: {{path: {{exact: /}}}}, key: [{{header: x-user}}], \
          max_tokens: 100, tokens_per_fill: {rate}, fill_interval: 1s}}, \
         {{id: beside, match: {{path: {{exact: /other}}}}, key: [{{header: x-user}}], \
          max_tokens: 5, fill_interval: 3600s}}"
    ))
}

fn edit(before: u32, after: u32) {
    let _alone = alone();
    let envoy = start(WORKERS, &policy(before));
    let mut client = envoy.client("in");
    let other = Request::get("/other").header("x-user", "ann");
    let spend = |client: &mut weir_integration_tests::Client, n| -> Vec<u16> {
        (0..n).map(|_| client.send(&other).status).collect()
    };
    assert_eq!(spend(&mut client, 3), [200; 3]);

    let request = Request::get("/").header("x-user", "hot");
    let load = Load::new(envoy.address("in"), request).rate(2000).lasts(LASTS);
    let start = Instant::now();
    let load = load.start();
    sleep_until(start + LASTS / 2);
    let asked = Instant::now();
    envoy.put_policy(&policy(after)).accepted();
    let edited = Instant::now();
    let report = load.join().expect("the load runs to its end");

    assert_offered(&envoy, &report, LASTS, WORKERS);
    let rate_between = |from: Instant, until: Instant| {
        report.between(200, from, until) as f64 / (until - from).as_secs_f64()
    };
    // The burst is gone after a fifth of a second.
    let old = rate_between(start + Duration::from_millis(500), asked);
    let new = rate_between(edited, report.end());
    let near = |rate: f64, limit: u32| (rate / f64::from(limit) - 1.0).abs() < 0.05;
    assert!(near(old, before), "{old:.0}/s before the edit, not {before}");
    assert!(near(new, after), "{new:.0}/s from the edit on, not {after}");
    // A gift would show in the first moments: 100 tokens are the whole burst.
    let moment = Duration::from_millis(500);
    let first = report.between(200, edited, edited + moment) as f64;
    let allowed = f64::from(after) * moment.as_secs_f64();
    assert!(first <= allowed * 1.05 + 10.0, "{first} right after the edit, not {allowed}");

    assert_eq!(spend(&mut client, 3), [200, 200, 429], "another rule's key is untouched");
    envoy.assert_healthy();
}

#[test]
fn from_1000_to_200() {
    edit(1000, 200);
}

#[test]
fn from_200_to_1000() {
    edit(200, 1000);
}
