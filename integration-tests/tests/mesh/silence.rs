//! Engines that are slow, gone, or talk nonsense: no request waits or fails that the policy did not say.

use crate::common::{calls, each_engine, of, shop, start, step};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Answers, H1Conn, Upstream, wait_until};

#[test]
fn whatever_an_engine_does_requests_pass_where_the_policy_says_so() {
    let upstream = Upstream::start("echo");
    each_engine(10_000_000, |keeps, rls| {
        let policy = shop("lease: {max: 1}, timeout: 0.02s", "");
        let envoy = start(2, rls, &upstream, &policy);
        let mut client = envoy.client("in");
        let bad = [
            Answers::Slowly(Duration::from_millis(20)),
            Answers::Error,
            Answers::Nonsense(b"\x08\x09".to_vec()),
            Answers::Nonsense(vec![0xff; 70_000]),
            Answers::Nonsense(Vec::new()),
            Answers::Gone,
        ];
        for answers in bad {
            rls.play(answers.clone());
            let started = Instant::now();
            for _ in 0..60 {
                assert_eq!(client.send(&of("ann")).status, 200, "{keeps:?} {answers:?}");
            }
            let took = started.elapsed();
            // The timeout for each would be 1.2 s: after the first failure nobody waits.
            assert!(took < Duration::from_secs(1), "{keeps:?} {answers:?}: {took:?}");
            // It flaps.
            rls.play(Answers::Rightly);
            let before = step(&envoy, "engine");
            wait_until("the engine is asked again", DEADLINE, || {
                client.send(&of("ann"));
                step(&envoy, "engine") > before
            });
        }
        assert!(calls(&envoy, "failed") > 0 && calls(&envoy, "nonsense") > 0);
        assert!(envoy.metric_with(&["outcome=.=error_allowed;"]) > 0);
        envoy.assert_healthy();
    });
}

/// Lease, safe bucket, `on_error`.
#[test]
fn the_order_in_which_a_process_falls_back() {
    let upstream = Upstream::start("echo");
    each_engine(1000, |keeps, rls| {
        // A hundredth of 1000 for one of two: five.
        let mesh = "lease: {max: 50, max_age: 60s, ahead: 10s}, timeout: 0.1s, safe_share_percent: 1, \
                    instances: 2, on_error: DENY";
        let envoy = start(1, rls, &upstream, &shop(mesh, ""));
        let mut client = envoy.client("in");
        for _ in 0..200 {
            assert_eq!(client.send(&of("ann")).status, 200, "{keeps:?}");
        }
        wait_until("no call is under way", DEADLINE, || calls(&envoy, "granted") == rls.calls());
        let before = rls.granted("ann");
        rls.play(Answers::Gone);
        let statuses: Vec<u16> = (0..400).map(|_| client.send(&of("ann")).status).collect();
        let admitted = statuses.iter().filter(|status| **status == 200).count() as u64;
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        // What was left of the lease, and the safe bucket, which refills at 5 a second.
        let leased = before.saturating_sub(200);
        assert!(
            (leased + 5..=leased + 5 + 10).contains(&admitted),
            "{keeps:?}: {admitted}, {leased}"
        );
        wait_until("the safe bucket is counted", DEADLINE, || step(&envoy, "safe") >= 5);
        envoy.assert_healthy();
    });
}

#[test]
fn without_a_safe_bucket_deny_answers_503() {
    let upstream = Upstream::start("echo");
    each_engine(1000, |keeps, rls| {
        rls.play(Answers::Gone);
        let envoy = start(1, rls, &upstream, &shop("on_error: DENY, timeout: 0.1s", ""));
        let answer = envoy.client("in").send(&of("ann"));
        let reason = answer.header("x-weir-reason");
        assert_eq!(
            (answer.status, reason.as_deref()),
            (503, Some("state_unavailable")),
            "{keeps:?}"
        );
        envoy.await_metric("shop", "r", "error_denied", 1);
        envoy.assert_healthy();
    });
}

/// Clients that leave while their requests wait leave nothing behind.
#[test]
fn clients_may_leave_while_they_wait() {
    let upstream = Upstream::start("echo");
    each_engine(1000, |keeps, rls| {
        rls.play(Answers::Slowly(Duration::from_millis(300)));
        let envoy = start(2, rls, &upstream, &shop("lease: {max: 1}, timeout: 1s", ""));
        for _ in 0..20 {
            let mut client = H1Conn::connect(envoy.address("in")).expect("a connection");
            client.write(b"GET / HTTP/1.1\r\nhost: shop\r\nx-user: ann\r\n\r\n").expect("written");
        }
        wait_until("all have asked", DEADLINE, || rls.calls() >= 20);
        rls.play(Answers::Rightly);
        assert_eq!(envoy.client("in").send(&of("bob")).status, 200, "{keeps:?}");
        assert_eq!(rls.granted("ann"), 20);
        envoy.assert_healthy();
    });
}
