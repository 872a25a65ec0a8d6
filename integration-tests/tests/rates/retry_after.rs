//! `Retry-After` never names a time before the token.

use crate::common::{alone, shop, start};
use std::time::{Duration, Instant};
use weir_integration_tests::Request;
use weir_integration_tests::wait::sleep_until;

#[test]
fn who_waits_as_long_as_told_is_admitted() {
    let _alone = alone();
    for (interval, jitter) in [("0.7s", 0), ("1s", 0), ("1.3s", 10), ("2s", 100)] {
        let envoy = start(
            4,
            &shop(&format!(
                "{{id: r, max_tokens: 1, fill_interval: {interval}, \
                  at_limit: {{retry_after_jitter_percent: {jitter}}}}}"
            )),
        );
        assert_eq!(envoy.client("in").get("/").status, 200);

        for round in 0..2 {
            let refused = envoy.client("in").send(&Request::get("/"));
            let got = Instant::now();
            assert_eq!(refused.status, 429, "{interval}, round {round}");
            let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=4).contains(&seconds), "{interval}: {seconds}");

            sleep_until(got + Duration::from_secs(seconds));
            let answer = envoy.client("in").get("/");
            assert_eq!(answer.status, 200, "{interval}, round {round}: after {seconds} s");
        }
        envoy.assert_healthy();
    }
}
