//! Quotas that an edit shrinks, grows or leaves alone: what was used stays used.

use crate::common::{alone, shop, start};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::wait_until;
use weir_integration_tests::{Client, Envoy, Request, Response};

const WORKERS: u32 = 4;

fn quota(tokens: u32, seconds: u32, more: &str) -> String {
    shop(&format!(
        "{{id: quota, key: [{{header: x-user}}], max_tokens: {tokens}, \
          tokens_per_fill: {tokens}, fill_interval: {seconds}s, \
          at_limit: {{retry_after_jitter_percent: 0}}}}{more}"
    ))
}

fn ask(client: &mut Client, user: &str) -> Response {
    client.send(&Request::get("/").header("x-user", user))
}

/// Tokens that the workers may have leased and cannot spend: one each for a bucket of this size. On a
/// machine that leaves a worker waiting, its lease ends before it is back, and a token that may have
/// been spent counts as spent.
const LEASED: u32 = WORKERS;

/// Panics unless so many passed, or some less for the leases; never more.
fn assert_admitted(envoy: &Envoy, user: &str, requests: u32, expected: u32) {
    let passed = admitted(envoy, user, requests);
    let least = expected.saturating_sub(LEASED);
    assert!((least..=expected).contains(&passed), "{user}: {passed}, not {expected}");
}

/// Sends so many requests of a user, a connection each so that all workers serve him, and counts the
/// admitted ones.
fn admitted(envoy: &Envoy, user: &str, requests: u32) -> u32 {
    let mut count = 0;
    for _ in 0..requests {
        let answer = ask(&mut envoy.client("in"), user);
        match answer.status {
            200 => count += 1,
            429 => {}
            other => panic!("status {other}"),
        }
    }
    count
}

#[test]
fn forty_of_fifty_used_and_the_limit_now_thirty() {
    let _alone = alone();
    let envoy = start(WORKERS, &quota(50, 60, ""));
    assert_eq!(admitted(&envoy, "ann", 40), 40);

    envoy.put_policy(&quota(30, 60, "")).accepted();

    let refused = ask(&mut envoy.client("in"), "ann");
    assert_eq!(refused.status, 429);
    // Eleven tokens at two seconds each, less what came back since the first request. Each of four
    // workers may hold a leased token that counts as used and is void with the edit: 8 s more.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((18..=30).contains(&wait), "{wait}");
    assert_admitted(&envoy, "bob", 31, 30);
    envoy.assert_healthy();
}

#[test]
fn nothing_until_less_than_the_new_limit_is_used() {
    let _alone = alone();
    // The same, ten times as fast.
    let envoy = start(WORKERS, &quota(50, 6, ""));
    let start = Instant::now();
    assert_eq!(admitted(&envoy, "ann", 40), 40);

    envoy.put_policy(&quota(30, 6, "")).accepted();
    let edited = start.elapsed();
    assert!(edited < Duration::from_secs(1), "too slow to measure: {edited:?}");

    let mut client = envoy.client("in");
    wait_until("a request passes", Duration::from_secs(5), || {
        ask(&mut client, "ann").status == 200
    });
    // 11 tokens at 5 a second, less what came back before the edit at 50 in 6 seconds.
    let took = start.elapsed();
    let soonest = 2.2 - edited.as_secs_f64() * 50.0 / 6.0 / 5.0;
    assert!(took.as_secs_f64() >= soonest, "{took:?}, not before {soonest:.2} s");
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    envoy.assert_healthy();
}

#[test]
fn equal_parameters_change_nothing() {
    let _alone = alone();
    let envoy = start(WORKERS, &quota(50, 3600, ""));
    assert_eq!(admitted(&envoy, "ann", 40), 40);

    // Another text, another rule beside it, another place in the order.
    let other = ", {id: new, match: {path: {exact: /new}}, max_tokens: 5, fill_interval: 1s}";
    envoy.put_policy(&quota(50, 3600, other)).accepted();
    assert_eq!(admitted(&envoy, "ann", 5), 5);
    for n in 0..10 {
        let renamed = other.replace("id: new", &format!("id: new-{n}"));
        envoy.put_policy(&quota(50, 3600, &renamed)).accepted();
    }
    assert_admitted(&envoy, "ann", 10, 5);
    envoy.assert_healthy();
}

#[test]
fn a_refused_edit_changes_nothing() {
    let _alone = alone();
    let envoy = start(WORKERS, &quota(50, 3600, ""));
    assert_eq!(admitted(&envoy, "ann", 40), 40);

    envoy.put_policy(&quota(0, 3600, "")).refused();

    assert_admitted(&envoy, "ann", 15, 10);
    envoy.assert_healthy();
}
