//! Bad policies through a real Envoy: each is refused with a message that names the field, and the
//! old policy goes on.

use crate::common::{Rig, is_open, one_rule};
use weir_integration_tests::refusals::Refusals;

fn table() -> Refusals {
    Refusals::read(include_str!("../../bad-breaker-policies.yaml"))
}

#[test]
fn every_bad_policy_is_refused_by_name_and_the_old_one_serves_on() {
    let good = one_rule("state: FORCED_OPEN");
    let rig = Rig::start(1, &good);
    let mut client = rig.envoy.client("h1");
    table().are_refused(&rig.envoy, &good, &[], || is_open(&mut client, "/"));
}

#[test]
fn every_field_has_a_bad_policy() {
    table().cover(&["circuit_breaker.proto"], 40);
}
