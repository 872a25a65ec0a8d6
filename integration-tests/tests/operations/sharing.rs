//! Two proxies with one limit, as `envoy-configs/mesh/` sets them up, tried without containers. Limitador's crate
//! stands in for its image.

use crate::shipped;
use serde_json::Value;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Answers, Client, Envoy, Keeps, Request, Rls, paths, wait_until};

/// What the header of the compose file tries.
#[test]
fn two_proxies_share_a_limit_and_each_has_its_part_of_it_without_the_engine() {
    let rls = Rls::start(Keeps::LimitadorWithHeaders, 20, 1);
    let proxies = [(); 2].map(|()| shipped::sharing(rls.address));
    let mut clients = proxies.each_ref().map(|envoy| envoy.client("ingress"));
    for envoy in &proxies {
        wait_until("the policy is in force", DEADLINE, || {
            envoy.counter("extension_config_discovery.http_filter.weir.rate_limit.config_reload")
                > 0
                || envoy.metric_with(&["weir_rate_limit_policy_version"]) > 0
        });
    }
    let mut send = |user: &str, requests: usize| -> u64 {
        let ask = |clients: &mut [Client; 2], n: usize| {
            clients[n % 2].send(&Request::get("/").header("x-user", user)).status
        };
        (0..requests).filter(|n| ask(&mut clients, *n) == 200).count() as u64
    };
    wait_until("a user has met the limit", DEADLINE, || {
        let passed = send("ann", 60);
        assert!(passed <= rls.granted("ann"));
        passed < 60
    });
    assert!(rls.calls() > 0);

    rls.play(Answers::Gone);
    let before = proxies.iter().map(safe).sum::<u64>();
    wait_until("the safe buckets are spent", DEADLINE, || {
        send("bob", 60);
        proxies.iter().map(safe).sum::<u64>() >= before + 10
    });
    proxies.iter().for_each(Envoy::assert_healthy);
}

fn safe(envoy: &Envoy) -> u64 {
    envoy.metric_with(&["step=.=safe;", "weir_rate_limit_mesh_requests_total"])
}

/// The discovery file and the example, and Limitador's limit, say the same.
#[test]
fn the_files_agree() {
    let file = shipped::yaml("mesh/ecds/rate-limit.yaml");
    let value = &file["resources"][0]["typed_config"]["config"]["configuration"]["value"];
    let given: Value = serde_json::from_str(value.as_str().expect("text")).expect("JSON");
    let example = paths::root().join("envoy-configs/policies/mesh.yaml");
    let example = std::fs::read_to_string(example).expect("an example");
    let example: Value = serde_yaml_ng::from_str(&example).expect("YAML");
    assert_eq!(given, example);
    let limit = &shipped::yaml("mesh/limits.yaml")[0];
    assert_eq!(limit["namespace"], example["rate_limit"]["mesh"]["domain"]);
    assert_eq!(limit["max_value"], example["rate_limit"]["rules"][0]["max_tokens"]);
    assert_eq!(limit["variables"][0], "descriptors[0]['x-user']");
}
