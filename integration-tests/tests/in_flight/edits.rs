//! Policies and modules that change while requests are in flight.

use crate::common::{Rig, one_rule, shop};
use weir_integration_tests::paths;

#[test]
fn an_edit_of_the_limit() {
    let rule = |most: u32| one_rule(&format!("max_concurrent: {most}"));
    let rig = Rig::start(4, &rule(5));
    let mut held = rig.hang(5);
    assert_eq!(rig.probe(), 429);

    rig.envoy.put_policy(&rule(3)).accepted();
    for left in [4, 3] {
        held.pop();
        rig.await_flying(left);
        rig.await_gauge(left as u64);
        assert_eq!(rig.probe(), 429, "{left} are in flight");
    }
    held.pop();
    rig.await_flying(2);
    rig.await_probe(200);
    rig.envoy.put_policy(&rule(9)).accepted();
    held.extend(rig.hang(7));
    assert_eq!(rig.probe(), 429);
    drop(held);
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn an_edit_beside_it_and_a_rule_that_comes_back() {
    let rule = "{id: r, max_concurrent: 2}";
    let rig = Rig::start(4, &shop(rule));
    let held = rig.hang(2);
    for n in 0..5 {
        let other = format!("{{id: n{n}, max_tokens: 1000, fill_interval: 1s}}, {rule}");
        rig.envoy.put_policy(&shop(&other)).accepted();
        assert_eq!(rig.probe(), 429);
    }
    // Out of the policy for a while: what was in flight still is.
    rig.envoy.put_policy(&shop("{id: o, max_tokens: 1000, fill_interval: 1s}")).accepted();
    assert_eq!(rig.probe(), 200);
    rig.envoy.put_policy(&shop(rule)).accepted();
    assert_eq!(rig.probe(), 429);
    drop(held);
    rig.await_probe(200);
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

/// The old module's VMs live until their last stream ends, and the new one's count what these have.
#[test]
fn a_new_module_in_mid_flight() {
    let policy = one_rule("max_concurrent: 3");
    let rig = Rig::start(4, &policy);
    let mut held = rig.hang(3);
    // Another module to Envoy: a custom section more.
    let mut bytes = std::fs::read(paths::module("rate_limit")).unwrap();
    bytes.extend([0, 6, 5]);
    bytes.extend(b"other");
    let other = rig.envoy.directory().join("other.wasm");
    std::fs::write(&other, bytes).unwrap();

    rig.envoy.put_module(&other, &policy).accepted();

    // Longer than a VM that is silent is taken for alive.
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_secs(8) {
        assert_eq!(rig.probe(), 429);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    held.pop();
    rig.await_flying(2);
    rig.await_probe(200);
    held.extend(rig.hang(1));
    assert_eq!(rig.probe(), 429);
    drop(held);
    rig.await_probe(200);
    rig.await_flying(0);
    rig.await_gauge(0);
    let again = rig.hang(3);
    assert_eq!(rig.probe(), 429);
    drop(again);
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}
