//! The four transitions, and what gets through in each state.

use crate::common::{Rig, SYNC, is_open, one_rule, pause};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::{DEADLINE, sleep_until};
use weir_integration_tests::{Script, wait_until};

const FIELDS: &str = "minimum_calls: 10, open_duration: 1s";

/// Opens the breaker; gives when it did.
fn open(rig: &Rig) -> Instant {
    rig.upstream.play(Script::Status(500, vec![]));
    rig.until_open(&mut rig.clients(16));
    pause(SYNC);
    Instant::now()
}

fn all_transitions(workers: u32) {
    let rig = Rig::start(workers, &one_rule(FIELDS));
    let mut clients = rig.clients(16);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    let opened = open(&rig);
    let seen = rig.upstream.seen();
    let refused =
        clients.iter_mut().filter_map(|client| is_open(client, "/").then_some(())).count();
    if opened.elapsed() < Duration::from_millis(700) {
        assert_eq!(refused, 16, "every worker refuses");
        assert_eq!(rig.upstream.seen(), seen, "nothing reaches the upstream");
    }

    // Half-open, and the upstream still fails.
    sleep_until(opened + Duration::from_millis(1100));
    rig.upstream.play(Script::Status(500, vec![]));
    rig.until_open(&mut clients[..1]);
    rig.await_metric(&["transitions", "from=.=half_open", "to=.=open"], 1);
    assert_eq!(rig.upstream.seen(), seen + 5);

    // Twice as long now; then it is well again, and slow enough that all meet in half-open.
    rig.upstream.play(Script::Slow(Duration::from_millis(500)));
    pause(Duration::from_millis(2200));
    let seen = rig.upstream.seen();
    let answers = rig.at_once(40);
    assert_eq!(rig.upstream.seen(), seen + 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 5);
    rig.await_metric(&["transitions", "from=.=half_open", "to=.=closed"], 1);

    rig.upstream.play(Script::Ok);
    pause(SYNC);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    for (from, to, times) in
        [("closed", "open", 1), ("open", "half_open", 2), ("half_open", "open", 1)]
    {
        let parts = ["transitions", &format!("from=.={from}"), &format!("to=.={to}")];
        assert_eq!(rig.metric(&parts), times, "{from} to {to}");
    }
    rig.await_metric(&["weir_circuit_breaker_state"], 0);
    rig.envoy.assert_healthy();
}

#[test]
fn all_transitions_on_one_worker() {
    all_transitions(1);
}

#[test]
fn all_transitions_on_four_workers() {
    all_transitions(4);
}

fn hanging(workers: u32) {
    let fields = format!("{FIELDS}, half_open_probes: 3, half_open_max_wait: 2s");
    let rig = Rig::start(workers, &one_rule(&fields));
    let opened = open(&rig);
    sleep_until(opened + Duration::from_millis(1100));
    rig.upstream.play(Script::Hang);
    let seen = rig.upstream.seen();
    let mut hanging: Vec<_> = (0..16).map(|_| rig.envoy.h1("h1")).collect();
    let start = Instant::now();
    for connection in &mut hanging {
        connection.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").unwrap();
    }
    wait_until("the probes hang", DEADLINE, || rig.upstream.seen() == seen + 3);
    let mut clients = rig.clients(16);
    while start.elapsed() < Duration::from_millis(1800) {
        clients.iter_mut().for_each(|client| assert!(is_open(client, "/")));
    }
    assert_eq!(rig.upstream.seen(), seen + 3, "no more than the probes");
    // No answer for the longest wait: open again.
    wait_until("it opens again", DEADLINE, || {
        assert!(is_open(&mut clients[0], "/"));
        rig.metric(&["transitions", "from=.=half_open", "to=.=open"]) == 1
    });
    rig.envoy.assert_healthy();
}

#[test]
fn a_hanging_upstream_collects_the_probes_on_one_worker() {
    hanging(1);
}

#[test]
fn a_hanging_upstream_collects_the_probes_on_four_workers() {
    hanging(4);
}

/// Each way in which a probe can end without a word about the upstream gives its permit back.
#[test]
fn permits_come_back() {
    let fields = format!("{FIELDS}, half_open_probes: 1");
    let rig = Rig::start(2, &one_rule(&fields));
    let opened = open(&rig);
    sleep_until(opened + Duration::from_millis(1100));
    for _ in 0..3 {
        // The client leaves.
        rig.upstream.play(Script::Hang);
        let before = rig.upstream.seen();
        let mut leaving = rig.envoy.h1("h1");
        leaving.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").unwrap();
        wait_until("the probe hangs", DEADLINE, || rig.upstream.seen() == before + 1);
        assert!(is_open(&mut rig.envoy.client("h1"), "/"));
        drop(leaving);
        // Nothing upstream is asked.
        wait_until("the permit is back", DEADLINE, || {
            !is_open(&mut rig.envoy.client("h1"), "/direct")
        });
        // The policy is edited while a probe is out.
        let mut waiting = rig.envoy.h1("h1");
        wait_until("a probe is out", DEADLINE, || {
            waiting = rig.envoy.h1("h1");
            waiting.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").unwrap();
            pause(Duration::from_millis(50));
            rig.upstream.flying() == 1
        });
        rig.envoy
            .put_policy(
                &one_rule(&format!("{fields}, minimum_calls: 11"))
                    .replace("minimum_calls: 10, ", ""),
            )
            .accepted();
        drop(waiting);
        rig.envoy.put_policy(&one_rule(&fields)).accepted();
    }
    rig.upstream.play(Script::Ok);
    wait_until("closed again", DEADLINE, || {
        rig.metric(&["to=.=closed"]) == 1 || {
            rig.envoy.client("h1").get("/");
            false
        }
    });
    rig.envoy.assert_healthy();
}

#[test]
fn shadow_lets_everything_through() {
    let rig = Rig::start(1, &one_rule(&format!("mode: SHADOW, {FIELDS}")));
    rig.upstream.play(Script::Status(500, vec![]));
    let mut client = rig.envoy.client("h1");
    for _ in 0..30 {
        assert_eq!(client.get("/").status, 500);
    }
    assert_eq!(rig.upstream.seen(), 30);
    rig.await_metric(&["outcome=.=shadow_rejected"], 20);
    rig.await_metric(&["weir_circuit_breaker_state"], 5);
}

#[test]
fn slow_calls_open_it() {
    let rig = Rig::start(
        1,
        &one_rule("minimum_calls: 4, slow_call_duration: 0.1s, slow_call_rate_percent: 50"),
    );
    rig.upstream.play(Script::Slow(Duration::from_millis(200)));
    assert_eq!(rig.until_open(&mut rig.clients(1)), 4);
}

#[test]
fn adaptive_refuses_a_share() {
    let rig = Rig::start(
        2,
        "{name: shop, circuit_breaker: {rules: [{id: r, strategy: ADAPTIVE, minimum_calls: 20}]}}",
    );
    let mut clients = rig.clients(16);
    let mut open = |count: usize| (0..count).filter(|n| is_open(&mut clients[n % 16], "/")).count();
    assert_eq!(open(200), 0);
    rig.upstream.play(Script::Status(500, vec![]));
    open(1000);
    let refused = open(500);
    assert!((100..500).contains(&refused), "{refused} of 500");
}
