//! Bad policies through a real Envoy: each is refused with a message that names the field, and the
//! old policy goes on.

use crate::rig::{Rig, policy};
use weir_integration_tests::Request;
use weir_integration_tests::refusals::Refusals;

fn table() -> Refusals {
    Refusals::read(include_str!("../../bad-color-policies.yaml"))
}

#[test]
fn every_bad_policy_is_refused_by_name_and_the_old_one_serves_on() {
    let good = &policy("", "response: {echo_header: x-color}");
    let rig = Rig::start(1, good);
    table().are_refused(&rig.envoy, good, &[("color", "traffic_color")], || {
        rig.send("in", &Request::get("/")).header("x-color").is_some()
    });
}

#[test]
fn every_field_has_a_bad_policy() {
    table().cover(&["traffic_color.proto"], 45);
}
