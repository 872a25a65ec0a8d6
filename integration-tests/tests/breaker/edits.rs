//! Edits of the policy.

use crate::common::{Rig, SYNC, is_open, one_rule, pause};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{Client, Script};

const FIELDS: &str = "minimum_calls: 10, open_duration: 4s";

fn refused(clients: &mut [Client]) -> usize {
    clients.iter_mut().filter_map(|client| is_open(client, "/").then_some(())).count()
}

fn reload_while_open(workers: u32) {
    let rig = Rig::start(workers, &one_rule(FIELDS));
    rig.upstream.play(Script::Status(500, vec![]));
    let mut clients = rig.clients(16);
    rig.until_open(&mut clients);
    let opened = Instant::now();
    pause(SYNC);
    rig.upstream.play(Script::Ok);
    let seen = rig.upstream.seen();
    // Another window, and an opening that would last longer.
    let edited = "minimum_calls: 20, open_duration: 60s, window: {count: 100}";
    rig.envoy.put_policy(&one_rule(edited)).accepted();
    let wait = clients[0].get("/").header("retry-after").unwrap();
    assert!(wait.parse::<u64>().unwrap() <= 4, "the remaining time is kept: {wait}");
    assert_eq!(refused(&mut clients), 16);
    assert!(opened.elapsed() < Duration::from_secs(4), "too slow to tell");
    assert_eq!(rig.upstream.seen(), seen);
    sleep_until(opened + Duration::from_millis(4400));
    for _ in 0..5 {
        assert_eq!(clients[0].get("/").status, 200);
    }
    rig.await_metric(&["from=.=half_open", "to=.=closed"], 1);
    rig.envoy.assert_healthy();
}

#[test]
fn a_reload_while_open_on_one_worker() {
    reload_while_open(1);
}

#[test]
fn a_reload_while_open_on_four_workers() {
    reload_while_open(4);
}

#[test]
fn forced_states_act_at_once_and_back() {
    let rig = Rig::start(4, &one_rule(FIELDS));
    let mut clients = rig.clients(16);
    let put = |state: &str| {
        rig.envoy.put_policy(&one_rule(&format!("state: {state}, {FIELDS}"))).accepted();
    };
    put("FORCED_OPEN");
    assert_eq!(refused(&mut clients), 16);
    rig.await_metric(&["weir_circuit_breaker_state"], 4);
    put("AUTO");
    assert_eq!(refused(&mut clients), 0);
    put("DISABLED");
    rig.upstream.play(Script::Status(500, vec![]));
    for _ in 0..4 {
        assert_eq!(refused(&mut clients), 0);
    }
    rig.await_metric(&["weir_circuit_breaker_state"], 3);
    put("AUTO");
    assert_eq!(refused(&mut clients[..1]), 0, "what came while it was disabled does not count");
    rig.until_open(&mut clients);
    put("DISABLED");
    assert_eq!(refused(&mut clients), 0);
    rig.envoy.put_policy(&one_rule(&format!("mode: 'OFF', {FIELDS}"))).accepted();
    assert_eq!(refused(&mut clients), 0);
    rig.envoy.assert_healthy();
}

#[test]
fn a_bad_edit_leaves_the_old_policy() {
    let rig = Rig::start(1, &one_rule("state: FORCED_OPEN"));
    let log = rig.envoy.put_policy(&one_rule("minimum_calls: 0")).refused();
    assert!(log.contains("policy.circuit_breaker.rules[0].minimum_calls: 0 must"), "{log}");
    assert!(is_open(&mut rig.envoy.client("h1"), "/"));
}
