//! The set-up that users start from is one that Envoy takes.

use crate::common::direct;
use std::process::Command;
use weir_integration_tests::paths;

#[test]
fn envoy_accepts_the_bootstrap_that_we_ship() {
    let path = paths::root().join("envoy-configs/envoy/rate-limit.yaml");
    let text = std::fs::read_to_string(&path).expect("the set-up is part of the repository");
    assert!(text.contains("default_config"), "a bad first policy must not mean 500");
    // Its paths are relative to the repository's root.
    let output = Command::new(paths::envoy())
        .args(["--mode", "validate", "--config-path"])
        .arg(&path)
        .args(["--service-node", "test", "--service-cluster", "test"])
        .current_dir(paths::root())
        .output()
        .expect("Envoy runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
}

#[test]
fn the_policy_that_we_ship_is_taken() {
    let path = paths::root().join("envoy-configs/envoy/ecds/rate-limit.yaml");
    let text = std::fs::read_to_string(&path).expect("the policy is part of the repository");
    let file: serde_json::Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let policy = &file["resources"][0]["typed_config"]["config"]["configuration"]["value"];
    let policy = policy.as_str().expect("the policy's text");

    let envoy = direct("{name: before}");
    envoy.put_configuration(policy).accepted();
    assert_eq!(envoy.client("in").get("/").status, 200);
    envoy.assert_healthy();
}
