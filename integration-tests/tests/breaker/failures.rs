//! What counts as a failure, in every way in which a real call can end.

use crate::common::{Rig, is_open, one_rule, pause};
use std::time::Duration;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Filter, Request, Script, wait_until};

const QUIET: &str = "minimum_calls: 1000";

fn failures(rig: &Rig) -> u64 {
    rig.metric(&["failures_total"])
}

/// Waits until all calls so far are decided, by one more that is known to count.
fn settled(rig: &Rig, listener: &str) -> u64 {
    let before = rig.metric(&["outcome=.=admitted"]);
    rig.upstream.play(Script::Ok);
    let mut client = rig.envoy.client(listener);
    wait_until("the upstream is back", DEADLINE, || client.get("/settled").status == 200);
    wait_until("counters are written", DEADLINE, || rig.metric(&["outcome=.=admitted"]) > before);
    pause(Duration::from_millis(150));
    failures(rig)
}

#[test]
fn endings_of_http_calls() {
    let rig = Rig::start(1, &one_rule(QUIET));
    let mut expected = 0;
    for listener in ["h1", "h2"] {
        for (script, counts) in [
            (Script::Ok, 0),
            (Script::Status(404, vec![]), 0),
            (Script::Status(429, vec![]), 0),
            (Script::Status(500, vec![]), 1),
            (Script::Status(503, vec![]), 1),
            (Script::ResetBeforeHeaders, 1),
            (Script::ResetMidBody, 1),
            (Script::Refuse, 1),
        ] {
            rig.upstream.play(script.clone());
            if script == Script::Refuse {
                pause(Duration::from_millis(100));
            }
            let mut connection = rig.envoy.h1(listener);
            // A reset mid-body ends the client's connection as well.
            let _ = connection.send(&Request::get("/"));
            let found = settled(&rig, listener);
            assert!(
                found >= expected + counts,
                "{listener} {script:?}: {found} of {expected} + {counts}"
            );
            // While the upstream comes back, refused connections may fail a few calls more.
            let more = found - expected - counts;
            assert!(
                more == 0 || script == Script::Refuse,
                "{listener} {script:?}: {more} too many"
            );
            expected = found;
        }
    }
    rig.envoy.assert_healthy();
}

#[test]
fn endings_of_grpc_calls() {
    let rig = Rig::start(1, &one_rule(QUIET));
    let mut expected = 0;
    for (script, counts) in [
        (Script::Ok, 0),
        (Script::GrpcTrailersOnly(14), 1),
        (Script::GrpcTrailersOnly(5), 0),
        (Script::GrpcTrailersOnly(8), 0),
        (Script::GrpcTrailers(13), 1),
        (Script::GrpcTrailers(2), 1),
        (Script::GrpcTrailers(3), 0),
        (Script::ResetBeforeHeaders, 1),
        (Script::ResetMidBody, 1),
    ] {
        rig.upstream.play(script.clone());
        let reply = grpc::call(&mut rig.envoy.h2("h2"), "/shop.Orders/Get", &[]);
        expected += counts;
        assert_eq!(settled(&rig, "h2"), expected, "{script:?}: {reply:?}");
    }
    rig.envoy.assert_healthy();
}

#[test]
fn a_timeout_counts_and_a_client_that_leaves_does_not() {
    let soon = r#"function envoy_on_request(h)
        if h:headers():get(":path") == "/soon" then
            h:headers():add("x-envoy-upstream-rq-timeout-ms", "200")
        end
    end"#;
    let rig = Rig::with_filters(1, &one_rule(QUIET), || vec![Filter::lua(soon), Filter::weir()]);
    rig.upstream.play(Script::Hang);
    assert_eq!(rig.envoy.client("h1").get("/soon").status, 504);
    assert_eq!(settled(&rig, "h1"), 1);

    rig.upstream.play(Script::Hang);
    let seen = rig.upstream.seen();
    let mut leaving = rig.envoy.h1("h1");
    leaving.write(b"GET /left HTTP/1.1\r\nhost: shop.test\r\n\r\n").unwrap();
    wait_until("the request is out", DEADLINE, || rig.upstream.seen() == seen + 1);
    drop(leaving);
    wait_until("the upstream is let go", DEADLINE, || rig.upstream.flying() == 0);
    assert_eq!(settled(&rig, "h1"), 1);
}

#[test]
fn a_retried_call_counts_once_by_its_end() {
    let rig = Rig::start(1, &one_rule(QUIET));
    rig.upstream.play(Script::Status(503, vec![]));
    assert_eq!(rig.envoy.client("h1").get("/retried").status, 503);
    assert_eq!(rig.upstream.seen(), 3);
    assert_eq!(settled(&rig, "h1"), 1);
}

/// Nothing that the upstream never saw counts, nor what the breaker answers itself.
#[test]
fn local_replies_do_not_count() {
    let rig = Rig::start(1, &one_rule("minimum_calls: 3, open_duration: 1s, half_open_probes: 1"));
    let mut client = rig.envoy.client("h1");
    for _ in 0..50 {
        assert_eq!(client.get("/direct").status, 503);
    }
    assert!(!is_open(&mut client, "/"));
    rig.upstream.play(Script::Status(500, vec![]));
    rig.until_open(&mut rig.clients(1));
    let counted = failures(&rig);
    for _ in 0..50 {
        assert!(is_open(&mut client, "/"));
    }
    pause(Duration::from_millis(1200));
    rig.upstream.play(Script::Ok);
    assert_eq!(client.get("/").status, 200, "the probe");
    rig.await_metric(&["to=.=closed"], 1);
    assert!(failures(&rig) <= counted.max(3));
}

#[test]
fn sets_of_the_policys_own() {
    let rig = Rig::start(
        1,
        &one_rule(
            "minimum_calls: 1000, failures: {http_statuses: ['404', '500-503']}, ignore: {http_statuses: ['502']}",
        ),
    );
    let mut expected = 0;
    for (status, counts) in [(404, 1), (403, 0), (503, 1), (504, 0), (502, 0)] {
        rig.upstream.play(Script::Status(status, vec![]));
        assert_eq!(rig.envoy.client("h1").get("/").status, status);
        expected += counts;
        assert_eq!(settled(&rig, "h1"), expected, "{status}");
    }
}
