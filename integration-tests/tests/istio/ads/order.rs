//! Phases, priorities and matches: the plugins of a workload run in the order that they need, each where it belongs.

use super::istiod::{Listener, Names, chain};
use super::mesh::{Api, DIGEST, IMAGE, INBOUND, Mesh, rendered};
use crate::shipped::{built, folder};
use serde_json::Value;
use weir_integration_tests::Request;

const OUTBOUND: Listener = Listener { is_inbound_of_sidecar: false, port: 80 };
const GATEWAY: Listener = Listener { is_inbound_of_sidecar: false, port: 8443 };

fn names(manifests: &[Value], listener: &Listener) -> Vec<String> {
    let chain = chain(manifests, Names::Since1_30, listener);
    let name = |name: String| {
        let name = name.split_once(".weir-").expect("a name of ours").1.to_owned();
        name.trim_end_matches("~istio-translated-wasmplugin").to_owned()
    };
    chain.iter().map(|plugin| name(plugin.name())).collect()
}

fn plugins(overlay: &str) -> Vec<Value> {
    let mut manifests = built(&folder().join(overlay));
    manifests.retain(|one| one["apiVersion"] == "extensions.istio.io/v1alpha1");
    // kubectl sorts by name, which is not their age: whatever that is, the order is the same.
    manifests.reverse();
    manifests
}

#[test]
fn each_overlay_puts_its_plugins_where_they_belong() {
    let all = ["traffic-color", "trace-context", "rate-limit", "circuit-breaker"];
    for whole in ["base", "base-1.32", "overlays/production"] {
        assert_eq!(names(&plugins(whole), &INBOUND), all, "{whole}");
        assert_eq!(names(&plugins(whole), &OUTBOUND), all, "{whole}");
    }
    let dev = plugins("overlays/dev");
    assert_eq!(names(&dev, &INBOUND), ["traffic-color", "trace-context", "rate-limit"]);
    assert_eq!(names(&dev, &OUTBOUND), ["traffic-color", "trace-context", "circuit-breaker"]);
    let gateway = plugins("overlays/gateway");
    assert_eq!(names(&gateway, &GATEWAY), ["traffic-color", "trace-context", "rate-limit"]);
    assert_eq!(names(&gateway, &OUTBOUND), [""; 0]);
    assert_eq!(names(&gateway, &Listener { is_inbound_of_sidecar: true, port: 8443 }), [""; 0]);
}

#[test]
fn phases_come_first_then_priorities_then_age() {
    let plugin = |name: &str, phase: Value, priority: Value| {
        serde_json::json!({
            "kind": "WasmPlugin",
            "metadata": {"namespace": "shop", "name": format!("weir-{name}")},
            "spec": {"phase": phase, "priority": priority},
        })
    };
    let manifests = [
        plugin("last", Value::Null, Value::Null),
        plugin("stats", "STATS".into(), 1.into()),
        plugin("unset", "AUTHZ".into(), Value::Null),
        plugin("older", "AUTHZ".into(), 7.into()),
        plugin("younger", "AUTHZ".into(), 7.into()),
        plugin("below", "AUTHZ".into(), (-1).into()),
        plugin("before", Value::Null, 5.into()),
        plugin("first", "AUTHN".into(), Value::Null),
    ];
    let wanted = ["first", "older", "younger", "below", "unset", "stats", "before", "last"];
    assert_eq!(names(&manifests, &INBOUND), wanted);
}

/// What comes first is seen by what comes after it, as `weir explain` has it.
#[test]
fn rendered_plugins_work_together_in_their_order() {
    let policy = "
name: shop
trace_context: { response: { trace_id_header: x-trace-id } }
traffic_color:
  colors: [base, gray]
  rules: [{ id: staff, match: { headers: { x-staff: { exact: 'yes' } } }, color: gray }]
rate_limit:
  rules: [{ id: gray-alone, match: { colors: [gray] }, max_tokens: 1, fill_interval: 3600s }]
circuit_breaker:
  rules: [{ id: shut, match: { direction: ANY, path: { prefix: /shut } }, state: FORCED_OPEN }]
";
    for (to, api) in [("istio", Api::StateOfTheWorld), ("traffic-extension", Api::Delta)] {
        let mut manifests = rendered(policy, to);
        manifests.reverse();
        let mesh = Mesh::start(&manifests, Names::Since1_30, api);
        let staff = Request::get("/").header("x-staff", "yes");
        let first = mesh.get(&staff);
        assert_eq!((first.status, first.echoed("x-weir-color").as_deref()), (200, Some("gray")));
        assert_eq!(first.header("x-trace-id").map(|id| id.len()), Some(32));
        let second = mesh.get(&staff);
        let rule = second.header("x-weir-rule");
        assert_eq!((second.status, rule.as_deref()), (429, Some("gray-alone")));
        let shut = mesh.get(&Request::get("/shut"));
        assert_eq!((shut.status, shut.header("x-weir-rule").as_deref()), (503, Some("shut")));
        mesh.envoy.assert_healthy();
    }
}

/// The overlays that are shipped, with a real Envoy taking each of their plugins.
#[test]
fn shipped_overlays_serve() {
    for (overlay, kind) in
        [("overlays/dev", "WasmPlugin"), ("overlays/production", "TrafficExtension")]
    {
        let mut manifests = plugins(overlay);
        for manifest in &mut manifests {
            assert_eq!(manifest["kind"], kind);
            let wasm = match kind {
                "WasmPlugin" => &mut manifest["spec"],
                _ => &mut manifest["spec"]["wasm"],
            };
            let prefix = IMAGE.split('{').next().expect("a name");
            assert!(wasm["url"].as_str().expect("a URL").starts_with(prefix));
            // The zeros that stand for a digest.
            if wasm.get("sha256").is_some() {
                wasm["sha256"] = DIGEST.into();
            }
        }
        let mesh = Mesh::start(&manifests, Names::Since1_30, Api::Delta);
        let request = Request::get("/").header("x-staff", "yes").header("x-user", "ann");
        let answers: Vec<_> = (0..21).map(|_| mesh.get(&request)).collect();
        assert_eq!(answers[0].echoed("x-weir-color").as_deref(), Some("gray"));
        assert!(answers[0].echoed("traceparent").is_some());
        // 20 at once for a user: in a test namespace more than that is counted, in production refused.
        let refused = answers.iter().filter(|answer| answer.status == 429).count();
        match kind {
            "WasmPlugin" => assert_eq!(refused, 0, "{overlay}"),
            _ => assert!(answers[20].status == 429 || refused > 0, "{overlay}"),
        }
        mesh.envoy.assert_healthy();
    }
}
