//! What an engine says, and what becomes of the request that asked.

use crate::common::{calls, each_engine, of, shop, start, step};
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Upstream, wait_until};

#[test]
fn one_at_a_time_is_exact_and_by_key() {
    each_engine(5, |keeps, rls| {
        let upstream = Upstream::start("echo");
        let policy = shop("lease: {max: 1}, timeout: 1s", "");
        let envoy = start(2, rls, &upstream, &policy);
        let mut client = envoy.client("in");
        for user in ["ann", "bob"] {
            let statuses: Vec<u16> = (0..8).map(|_| client.send(&of(user)).status).collect();
            assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429], "{keeps:?} {user}");
            assert_eq!(rls.granted(user), 5);
        }
        assert!(rls.log().iter().all(|(name, call)| name.starts_with("x-user=") && call.hits == 1));
        wait_until("each grant was waited for", DEADLINE, || step(&envoy, "engine") >= 10);
        assert_eq!(calls(&envoy, "granted"), 10);
        let refusal = client.send(&of("ann"));
        assert_eq!(refusal.header("x-weir-reason").as_deref(), Some("rate_limited"));
        assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
        envoy.await_metric("shop", "r", "admitted", 10);
        envoy.assert_healthy();
    });
}

#[test]
fn leases_are_spent_before_more_is_asked() {
    each_engine(1000, |keeps, rls| {
        let upstream = Upstream::start("echo");
        let policy = shop("lease: {max: 100, max_age: 60s, ahead: 10s}, timeout: 1s", "");
        let envoy = start(2, rls, &upstream, &policy);
        let mut client = envoy.client("in");
        let admitted = (0..600).filter(|_| client.send(&of("ann")).status == 200).count() as u64;
        assert_eq!(admitted, 600, "{keeps:?}");
        assert!(rls.granted("ann") >= admitted);
        assert!(rls.calls() <= 30, "{keeps:?}: {} calls for 600 requests", rls.calls());
        wait_until("all are counted", DEADLINE, || {
            step(&envoy, "engine") + step(&envoy, "lease") == 600
        });
        // A small lease at first, then the process runs ahead of need.
        assert!(step(&envoy, "engine") <= 15, "{keeps:?}: {}", step(&envoy, "engine"));
        envoy.assert_healthy();
    });
}

/// What a filter writes on a request that waited goes on to the upstream, and selects the route.
#[test]
fn a_request_that_waited_can_still_be_changed() {
    each_engine(1, |keeps, rls| {
        let upstream = Upstream::start("echo");
        let degrade = "at_limit: {degrade: {request_header: {name: x-fallback, value: 'yes'}}}";
        let policy = shop("lease: {max: 1}, timeout: 1s", degrade);
        let envoy = start(1, rls, &upstream, &policy);
        let mut client = envoy.client("in");
        let answers = [(); 3].map(|()| client.send(&of("ann")));
        let seen = answers.map(|answer| {
            assert_eq!(answer.status, 200);
            answer.echoed("x-fallback").is_some()
        });
        assert_eq!(seen, [false, true, true], "{keeps:?}");
        envoy.assert_healthy();
    });
}

#[test]
fn an_engine_that_grants_too_much_is_taken_at_its_first_word() {
    let upstream = Upstream::start("echo");
    each_engine(10, |keeps, rls| {
        rls.play(weir_integration_tests::Answers::TooMuch);
        let policy = shop("lease: {max: 20}, timeout: 1s, on_error: DENY", "");
        let envoy = start(2, rls, &upstream, &policy);
        let mut client = envoy.client("in");
        let admitted = (0..300).filter(|_| client.send(&of("ann")).status == 200).count() as u64;
        assert_eq!(admitted, 300, "{keeps:?}");
        // As many as were asked for, and no more.
        assert!(rls.granted("ann") >= admitted, "{} granted", rls.granted("ann"));
        assert!(rls.log().iter().all(|(_, call)| call.hits <= 20));
        envoy.assert_healthy();
    });
}
