//! What operators see: counters that agree with the clients, reloads, and the policy in force.

use crate::common::{listener, once, shop, statuses};
use weir_integration_tests::{Envoy, Request};

fn four_workers(policy: &str) -> Envoy {
    Envoy::builder().workers(4).listener(listener()).policy(policy).start()
}

/// Sum of all our counters whose name contains every one of these parts.
fn sum(envoy: &Envoy, parts: &[&str]) -> u64 {
    let metrics = envoy.weir_metrics();
    let matching = metrics.iter().filter(|(name, _)| parts.iter().all(|p| name.contains(p)));
    matching.map(|(_, value)| value).sum()
}

fn await_sum(envoy: &Envoy, parts: &[&str], value: u64) {
    let deadline = weir_integration_tests::wait::DEADLINE;
    weir_integration_tests::wait_until(&format!("{parts:?} = {value}"), deadline, || {
        sum(envoy, parts) == value
    });
}

#[test]
fn counters_equal_what_the_clients_counted() {
    let envoy = four_workers(&shop(&format!(
        "{{id: all, match: {{path: {{exact: /a}}}}, {}}}, \
         {{id: user, match: {{path: {{exact: /b}}}}, key: [{{header: x-user}}], {}}}",
        once(30),
        once(2)
    )));
    let (mut all, mut keyed) = ((0, 0), (0, 0));
    let count = |sum: &mut (u64, u64), status: u16| match status {
        200 => sum.0 += 1,
        429 => sum.1 += 1,
        other => panic!("status {other}"),
    };

    for n in 0..16 {
        // A connection each, so that every worker has its share.
        let mut client = envoy.client("in");
        for _ in 0..5 {
            count(&mut all, client.get("/a").status);
            let user = Request::get("/b").header("x-user", format!("u{}", n % 4));
            count(&mut keyed, client.send(&user).status);
        }
    }

    // How many exactly is the concern of the rate tests; here both outcomes have to occur.
    assert_eq!((all.0 + all.1, keyed.0 + keyed.1), (80, 80));
    assert!((1..=30).contains(&all.0) && (1..=8).contains(&keyed.0), "{all:?} {keyed:?}");
    envoy.await_metric("shop", "all", "admitted", all.0);
    envoy.await_metric("shop", "all", "limited", all.1);
    envoy.await_metric("shop", "user", "admitted", keyed.0);
    envoy.await_metric("shop", "user", "limited", keyed.1);
    envoy.assert_healthy();
}

#[test]
fn prometheus_gets_labels() {
    let envoy = four_workers(&shop(&format!("{{id: r, {}}}", once(1))));
    statuses(&mut envoy.client("in"), &Request::get("/"), 3);
    envoy.await_metric("shop", "r", "limited", 2);

    let text = envoy.admin("/stats/prometheus").text();

    let wanted = r#"weir_rate_limit_requests_total{policy="shop",rule="r",outcome="limited"} 2"#;
    assert!(text.contains(wanted), "no {wanted}");
    envoy.assert_healthy();
}

#[test]
fn reloads_are_counted_once_for_the_process() {
    let rule = |tokens| shop(&format!("{{id: r, {}}}", once(tokens)));
    let envoy = four_workers(&rule(1));
    let accepted = ["policy=.=shop;", "result=.=accepted", "reloads_total"];
    let refused = ["result=.=refused", "reloads_total"];
    await_sum(&envoy, &accepted, 1);

    envoy.put_policy(&rule(2)).accepted();
    await_sum(&envoy, &accepted, 2);
    envoy.put_policy(&rule(0)).refused();
    await_sum(&envoy, &refused, 1);
    envoy.put_policy(&rule(3)).accepted();
    await_sum(&envoy, &accepted, 3);
    // Nothing comes late: the tick that follows traffic has run once these are counted.
    statuses(&mut envoy.client("in"), &Request::get("/"), 1);
    envoy.await_metric("shop", "r", "admitted", 1);
    assert_eq!(sum(&envoy, &accepted), 3);
    assert_eq!(sum(&envoy, &refused), 1);
    envoy.assert_healthy();
}

#[test]
fn the_gauge_tells_which_policy_is_in_force() {
    let rule = |tokens| shop(&format!("{{id: r, {}}}", once(tokens)));
    let envoy = four_workers(&rule(1));
    let gauge = ["policy=.=shop;", "policy_version"];
    let version = |not: &[u64]| {
        let deadline = weir_integration_tests::wait::DEADLINE;
        weir_integration_tests::wait::wait_for("another policy version", deadline, || {
            Some(sum(&envoy, &gauge)).filter(|v| *v != 0 && !not.contains(v))
        })
    };

    let first = version(&[]);
    assert!(first <= u64::from(u32::MAX), "{first}");
    envoy.put_policy(&rule(2)).accepted();
    let second = version(&[first]);
    envoy.put_policy(&rule(1)).accepted();
    assert_eq!(version(&[second]), first, "the same text, the same version");
    envoy.assert_healthy();
}

#[test]
fn a_quiet_log() {
    let envoy = four_workers(&shop(&format!("{{id: r, {}}}", once(1))));
    let secret = Request::get("/secret-path").header("x-user", "secret-user");
    statuses(&mut envoy.client("in"), &secret, 50);
    envoy.await_metric("shop", "r", "limited", 49);

    let log = envoy.log();
    let ours = log.lines().filter(|l| l.contains("wasm log")).count();
    assert!(ours <= 5, "{ours} lines of ours for 50 requests:\n{log}");
    assert!(!log.contains("secret-"), "what a client sent does not belong in a log");
    envoy.assert_healthy();
}
