//! Manifests with one fault each, which the check has to find: else its silence about the good ones says nothing.

use crate::kubernetes::Definitions;
use serde_json::{Value, json};

fn plugin() -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "weir-rate-limit", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "orders"}},
            "url": "oci://registry.example/weir/rate-limit:0.1.0",
            "sha256": "3f".repeat(32),
            "phase": "AUTHZ",
            "priority": 10,
            "failStrategy": "FAIL_RELOAD",
            "match": [{"mode": "SERVER", "ports": [{"number": 8080}]}],
            "vmConfig": {"env": [{"name": "A", "value": "a"}]},
            "pluginConfig": {"name": "shop", "rate_limit": {}},
        },
    })
}

fn extension() -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "TrafficExtension",
        "metadata": {"name": "weir-rate-limit", "namespace": "shop"},
        "spec": {"phase": "AUTHZ", "wasm": {"url": "oci://registry.example/weir/rate-limit:0.1.0"}},
    })
}

/// Puts `value` where the path points to, made where it is missing.
fn put(mut manifest: Value, path: &str, value: Value) -> Value {
    let mut place = &mut manifest;
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(number) => &mut place[number],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    manifest
}

#[test]
fn a_good_manifest_has_no_fault() {
    let definitions = Definitions::read();
    for good in [plugin(), extension(), put(plugin(), "spec.priority", Value::Null)] {
        assert_eq!(definitions.errors(&good), Vec::<String>::new());
    }
}

#[test]
fn each_fault_is_found() {
    let target = json!({"kind": "Gateway", "name": "ingress"});
    let many = vec![target.clone(); 17];
    let port = |number: u64| json!([{"mode": "SERVER", "ports": [{"number": number}]}]);
    let env = |all: Value| json!({"env": all});
    let cases = [
        ("kind", json!("WasmPlugins"), "is none that weir writes"),
        ("apiVersion", json!("extensions.istio.io/v1"), "apiVersion: must be"),
        ("metadata.name", json!("Weir"), "metadata.name"),
        ("metadata.name", Value::Null, "metadata.name: required"),
        ("specs", json!({}), "specs: unknown field"),
        // Envoy's spelling, not Istio's.
        ("spec.failStrategy", json!("FAIL_CLOSED"), "must be one of"),
        ("spec.failstrategy", json!("FAIL_OPEN"), "spec.failstrategy: unknown field"),
        ("spec.url", json!(""), "is too short"),
        ("spec.url", json!("ftp://registry.example/weir"), "getScheme()"),
        // A port without a scheme before it.
        ("spec.url", json!("registry.example:5000/weir/rate-limit:1"), "getScheme()"),
        ("spec.url", Value::Null, "must be \"string\""),
        ("spec.sha256", json!("3F".repeat(32)), "must match"),
        ("spec.sha256", json!("3f"), "must match"),
        ("spec.sha256", json!(format!("sha256:{}", "3f".repeat(32))), "must match"),
        ("spec.phase", json!("UNSPECIFIED"), "must be one of"),
        ("spec.priority", json!("10"), "must be \"integer\""),
        ("spec.priority", json!(3_000_000_000_u64), "must be \"int32\""),
        ("spec.pluginConfig", json!("name: shop"), "must be \"object\""),
        ("spec.pluginName", json!("x".repeat(257)), "is too long"),
        ("spec.imagePullPolicy", json!("Never"), "must be one of"),
        ("spec.match", port(0), "must be at least 1"),
        ("spec.match", port(65_536), "must be at most 65535"),
        ("spec.match", json!([{"ports": [{"number": 1}, {"number": 1}]}]), "twice"),
        ("spec.match", json!([{"ports": [{}]}]), "has no \"number\""),
        ("spec.match", json!([{"mode": "INBOUND"}]), "must be one of"),
        ("spec.targetRef", target.clone(), "<= 1"),
        ("spec.targetRefs", json!([target]), "<= 1"),
        ("spec.targetRefs", json!(many), "too many items"),
        ("spec.targetRefs", json!([{"kind": "Gateway"}]), "has no \"name\""),
        (
            "spec.targetRefs",
            json!([{"kind": "A", "name": "b", "namespace": "c"}]),
            "self.size() == 0",
        ),
        ("spec.selector", json!({"matchLabels": {"app": "*"}}), "!self.contains(\"*\")"),
        ("spec.selector", json!({"matchLabels": {"a*": "b"}}), "!key.contains"),
        ("spec.selector", json!({"matchLabels": {"": "b"}}), "key.size() != 0"),
        ("spec.selector", json!({"labels": {"app": "b"}}), "spec.selector.labels: unknown field"),
        ("spec.vmConfig", env(json!([{"name": "A", "valueFrom": "HOST", "value": "a"}])), "HOST"),
        ("spec.vmConfig", env(json!([{"name": "A"}, {"name": "A"}])), "twice"),
    ];
    let definitions = Definitions::read();
    for (path, value, expected) in cases {
        let errors = definitions.errors(&put(plugin(), path, value.clone()));
        assert!(errors.iter().any(|error| error.contains(expected)), "{path} {value}: {errors:#?}");
    }
    let cases = [
        ("spec.phase", json!("UNSPECIFIED_PHASE"), "must be one of"),
        ("spec.url", json!("oci://registry.example/weir:1"), "spec.url: unknown field"),
        ("spec.wasm.failStrategy", json!("FAIL_CLOSED"), "must be one of"),
        ("spec.lua", json!({"inlineCode": "x"}), "has(self.wasm) != has(self.lua)"),
    ];
    for (path, value, expected) in cases {
        let errors = definitions.errors(&put(extension(), path, value.clone()));
        assert!(errors.iter().any(|error| error.contains(expected)), "{path} {value}: {errors:#?}");
    }
}
