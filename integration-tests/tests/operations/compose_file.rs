//! The compose file keeps its rules. This needs no Docker, so it holds everywhere.

use crate::shipped;
use serde_json::{Value, json};
use std::path::Path;

/// The modules before a sample service; one limit for two proxies.
const FILES: [&str; 2] = ["docker-compose.yaml", "mesh/docker-compose.yaml"];

fn services() -> Vec<(String, Value)> {
    services_of(FILES[0])
}

fn all_services() -> Vec<(String, Value)> {
    FILES.into_iter().flat_map(services_of).collect()
}

fn services_of(file: &str) -> Vec<(String, Value)> {
    let file = shipped::yaml(file);
    let services = file["services"].as_object().expect("services").clone();
    services.into_iter().collect()
}

#[test]
fn it_has_what_the_issue_asks_for() {
    let services = services();
    let profile = |name: &str| {
        let found = services.iter().find(|(known, _)| known == name);
        let (_, service) = found.unwrap_or_else(|| panic!("no service {name}"));
        service["profiles"].clone()
    };
    for name in ["envoy", "orders-base", "orders-gray"] {
        assert_eq!(profile(name), Value::Null, "{name} comes up with `docker compose up`");
    }
    for name in ["prometheus", "grafana"] {
        assert_eq!(profile(name), json!(["observe"]));
    }
}

/// `name:1.2.3`, where a variable may name another.
#[test]
fn images_have_exact_tags() {
    for (name, service) in all_services() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let default = image.strip_prefix("${WEIR_").and_then(|rest| rest.split_once(":-"));
        let (_, default) = default.unwrap_or_else(|| panic!("{name}: a variable may name another"));
        let (_, tag) = default.trim_end_matches('}').rsplit_once(':').expect("a tag");
        let numbers: Vec<_> = tag.trim_start_matches('v').split('.').collect();
        let is_exact = numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok());
        assert!(is_exact, "{name}: {image}");
    }
}

#[test]
fn envoy_is_the_one_that_the_tests_use() {
    let output = std::process::Command::new(weir_integration_tests::paths::envoy())
        .arg("--version")
        .output()
        .expect("Envoy runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        said.split('/').find(|part| part.starts_with("1.")).expect("a version").to_owned();
    for file in FILES {
        let image = services_of(file).remove(0).1["image"].as_str().expect("an image").to_owned();
        let wanted = format!("envoyproxy/envoy:v{version}}}");
        assert!(image.ends_with(&wanted), "{image} is not {version}");
    }
}

#[test]
fn ports_are_on_the_loopback_interface_alone() {
    let mut published = 0;
    for (name, service) in all_services() {
        assert_ne!(service["network_mode"], "host", "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().expect("ports in the short form");
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
            published += 1;
        }
    }
    // Traffic, what may be looked at, Prometheus, Grafana; the first two of two proxies.
    assert_eq!(published, 8);
    for file in ["envoy/chain.yaml", "envoy/upstream.yaml", "mesh/envoy.yaml"] {
        let admin = &shipped::yaml(file)["admin"]["address"]["socket_address"]["address"];
        assert_eq!(admin, "127.0.0.1", "{file}");
    }
}

#[test]
fn containers_are_confined() {
    for (name, service) in all_services() {
        let (user, _) =
            service["user"].as_str().and_then(|user| user.split_once(':')).expect(&name);
        assert_ne!(user.parse::<u32>().expect("a number"), 0, "{name} must not be root");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        for option in ["privileged", "cap_add", "pid", "ipc", "devices"] {
            assert_eq!(service[option], Value::Null, "{name}: {option}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().expect("volumes in the short form");
            let is_named = volume.starts_with("prometheus:/") || volume.starts_with("grafana:/");
            assert!(volume.ends_with(":ro") || is_named, "{name} may write to {volume}");
            assert!(!volume.contains("docker.sock"), "{name}");
        }
    }
}

/// What is mounted is there, under the name that the configuration in the container uses.
#[test]
fn mounts_lead_to_files_that_we_ship() {
    let of = |file: &'static str| services_of(file).into_iter().map(move |it| (file, it));
    for (file, (name, service)) in FILES.into_iter().flat_map(of) {
        let folder = Path::new(file).parent().expect("a folder");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().expect("the short form");
            let source = match volume.strip_prefix("${") {
                Some(rest) => rest.split_once(":-").and_then(|(_, rest)| rest.split_once('}')),
                None => volume.split_once(':'),
            };
            let (source, _) = source.unwrap_or_else(|| panic!("{name}: {volume}"));
            if source.starts_with('.') && !source.ends_with("/target/weir") {
                let source = folder.join(source);
                let source = source.to_str().expect("ASCII");
                assert!(shipped::path(source).exists(), "{name}: {source}");
            }
        }
    }
    let chain = shipped::text("envoy/chain.yaml");
    for entry in std::fs::read_dir(shipped::path("envoy/ecds")).expect("the policies are there") {
        let file = entry.expect("readable").file_name();
        let in_container = Path::new("envoy-configs/envoy/ecds").join(file);
        assert!(chain.contains(in_container.to_str().expect("ASCII")), "{in_container:?}");
    }
}
