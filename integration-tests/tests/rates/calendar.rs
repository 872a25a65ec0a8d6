//! Quotas that are whole again at a boundary of the calendar. Boundaries are minutes apart, so one
//! test waits for one of them with everything that happens there.

use crate::common::{alone, start};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weir_integration_tests::{Client, Envoy, Request, Response};

const WORKERS: u32 = 4;
const MINUTE: u64 = 60;

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// The offset of a place where a period ends when our minute `boundary` does, at most 12 hours away.
fn offset(period: u64, boundary: u64) -> String {
    let behind = (boundary % period) / MINUTE;
    let (sign, minutes) =
        if behind <= 12 * 60 { ('-', behind) } else { ('+', period / MINUTE - behind) };
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A rule for each path, two for each period: for all, and for each user.
fn policy(boundary: u64, quota: u32) -> String {
    let rule = |name: &str, seconds: u64, key: &str| {
        format!(
            "{{id: {name}, match: {{path: {{exact: /{name}}}}}, max_tokens: {quota}, {key} \
              calendar: {}, utc_offset: '{}', \
              at_limit: {{quota_headers: ALWAYS, retry_after_jitter_percent: 0}}}}",
            name.split('-').next().unwrap_or_default().to_uppercase(),
            offset(seconds, boundary),
        )
    };
    let user = "key: [{header: x-user}],";
    let rules = [
        rule("minute", 60, ""),
        rule("minute-user", 60, user),
        rule("hour-user", 3600, user),
        rule("day", 86_400, ""),
        rule("day-user", 86_400, user),
    ];
    format!("{{name: shop, rate_limit: {{rules: [{}]}}}}", rules.join(", "))
}

const PATHS: [(&str, u64); 5] = [
    ("/minute", 60),
    ("/minute-user", 60),
    ("/hour-user", 3600),
    ("/day", 86_400),
    ("/day-user", 86_400),
];

fn ask(client: &mut Client, path: &str) -> Response {
    client.send(&Request::get(path).header("x-user", "ann"))
}

/// A connection for each request, so that all workers serve.
fn admitted(envoy: &Envoy, path: &str, requests: u32) -> u32 {
    let mut count = 0;
    for _ in 0..requests {
        match ask(&mut envoy.client("in"), path).status {
            200 => count += 1,
            429 => {}
            other => panic!("status {other}"),
        }
    }
    count
}

#[test]
fn quotas_come_back_at_the_boundary_and_edits_keep_what_was_used() {
    let _alone = alone();
    // Time for all that comes before the boundary.
    while MINUTE as f64 - now() % MINUTE as f64 <= 15.0 {
        std::thread::sleep(Duration::from_millis(200));
    }
    let boundary = (now() as u64 / MINUTE + 1) * MINUTE;
    let envoy = start(WORKERS, &policy(boundary, 50));

    for (path, length) in PATHS {
        let first = ask(&mut envoy.client("in"), path);
        let left = boundary as f64 - now();
        let limit = first.header("ratelimit").unwrap_or_default();
        let (remaining, reset) = limit.split_once(";t=").expect("a reset");
        assert!(remaining.ends_with(";r=49"), "{path}: {limit}");
        let reset: f64 = reset.parse().expect("seconds");
        assert!((left - 1.0..=left + 2.0).contains(&reset), "{path}: {reset}, not {left:.1}");
        let policy = first.header("ratelimit-policy").unwrap_or_default();
        assert!(policy.ends_with(&format!(";q=50;w={length}")), "{path}: {policy}");
        assert_eq!(admitted(&envoy, path, 39), 39, "{path}");
    }

    // 40 of 50 used, and the limit now 30.
    envoy.put_policy(&policy(boundary, 30)).accepted();
    for (path, _) in PATHS {
        let refused = ask(&mut envoy.client("in"), path);
        let left = boundary as f64 - now();
        assert_eq!(refused.status, 429, "{path}");
        let wait: f64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((left - 0.1..=left + 2.0).contains(&wait), "{path}: {wait}, not {left:.1}");
        assert_eq!(admitted(&envoy, path, 8), 0, "{path}");
    }
    // Back to 50: ten are left, and then none.
    envoy.put_policy(&policy(boundary, 50)).accepted();
    for (path, _) in PATHS {
        assert_eq!(admitted(&envoy, path, 20), 10, "{path}");
    }
    // Another offset moves the boundary and gives nothing.
    envoy.put_policy(&policy(boundary + 25 * MINUTE, 50)).accepted();
    for path in ["/hour-user", "/day", "/day-user"] {
        assert_eq!(admitted(&envoy, path, 8), 0, "{path}");
    }
    envoy.put_policy(&policy(boundary, 30)).accepted();
    assert!(now() < boundary as f64 - 1.0, "the machine is too slow for this test");

    // Nothing until the boundary, and then the whole quota, once.
    let mut client = envoy.client("in");
    loop {
        let sent = now();
        let status = ask(&mut client, "/minute").status;
        let answered = now();
        if status == 200 {
            assert!(answered >= boundary as f64, "{:.3} s early", boundary as f64 - answered);
            assert!(sent < boundary as f64 + 1.0, "{:.3} s late", sent - boundary as f64);
            break;
        }
        assert!(sent < boundary as f64 + 1.0, "no quota after the boundary");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(admitted(&envoy, "/minute", 50), 29);
    for (path, _) in &PATHS[1..] {
        assert_eq!(admitted(&envoy, path, 50), 30, "{path}");
    }
    envoy.assert_healthy();
}
