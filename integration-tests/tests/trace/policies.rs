//! Bad policies through a real Envoy: each is refused with a message that names the field, and the
//! old policy goes on.

use crate::rig::Rig;
use weir_integration_tests::refusals::Refusals;

fn table() -> Refusals {
    Refusals::read(include_str!("../../bad-trace-policies.yaml"))
}

#[test]
fn every_bad_policy_is_refused_by_name_and_the_old_one_serves_on() {
    let good = "{name: shop, trace_context: {response: {trace_id_header: x-trace-id}}}";
    let rig = Rig::start(good);
    let parts = [("trace", "trace_context"), ("restore", "restore")];
    table().are_refused(&rig.envoy, good, &parts, || {
        rig.get("out", &[]).header("x-trace-id").is_some()
    });
}

#[test]
fn every_field_has_a_bad_policy() {
    table().cover(&["trace_context.proto", "restore.proto"], 50);
}
