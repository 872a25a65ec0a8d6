//! An image that cannot be had, at the start or after an edit: the agent puts another filter in the plugin's place.

use super::istiod::{Names, Plugin};
use super::mesh::{Api, DIGEST, Mesh, images, rendered};
use prost::Message;
use serde_json::Value;
use weir_integration_tests::Request;
use weir_integration_tests::wait::{DEADLINE, wait_until};
use weir_integration_tests::xds::messages::{RBAC, Rbac, WASM, Wasm};

const POLICY: &str = "
name: shop
traffic_color:
  colors: [base, gray]
  rules: [{ id: staff, match: { headers: { x-staff: { exact: 'yes' } } }, color: gray }]
rate_limit: { rules: [{ id: all, max_tokens: 100, fill_interval: 1s, at_limit: { quota_headers: ALWAYS } }] }
";

/// With a tag that nobody pushed, or a digest that the tag no longer has.
fn broken(manifest: &Value, field: &str) -> Value {
    let mut manifest = manifest.clone();
    manifest["spec"][field] = match field {
        "url" => "oci://registry.example/weir/none:1".into(),
        _ => DIGEST.replace('3', "4").into(),
    };
    manifest
}

#[test]
fn a_plugin_without_its_module_refuses_or_is_left_out() {
    let good = rendered(POLICY, "istio");
    let [color, limit] = &good[..] else { panic!("two plugins: {good:?}") };
    assert_eq!(
        (&color["spec"]["failStrategy"], &limit["spec"]["failStrategy"]),
        (&"FAIL_OPEN".into(), &"FAIL_RELOAD".into())
    );
    let mut mesh = Mesh::start(&good, Names::Since1_30, Api::Delta);
    let staff = Request::get("/").header("x-staff", "yes");
    let is_whole = |mesh: &Mesh| {
        let answer = mesh.get(&staff);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.echoed("x-weir-color").as_deref(), Some("gray"));
        assert!(answer.header("ratelimit").is_some());
    };
    is_whole(&mesh);

    let mut closed = limit.clone();
    closed["spec"]["failStrategy"] = "FAIL_CLOSE".into();
    for (limit, field) in [(limit, "url"), (limit, "sha256"), (&closed, "url")] {
        // Envoy takes it, so that istiod hears of nothing.
        mesh.edit(&[color.clone(), broken(limit, field)]).unwrap();
        let answer = mesh.await_answer("requests are refused", |answer| answer.status == 403);
        assert_eq!(answer.text(), "RBAC: access denied");
        mesh.edit(&good).unwrap();
        mesh.await_answer("they are served again", |answer| answer.status == 200);
        is_whole(&mesh);
    }

    mesh.edit(&[broken(color, "url"), limit.clone()]).unwrap();
    mesh.await_answer("the color is left out", |_| {
        mesh.get(&staff).echoed("x-weir-color").is_none()
    });
    let answer = mesh.get(&staff);
    assert_eq!((answer.status, answer.header("ratelimit").is_some()), (200, true));
    mesh.edit(&good).unwrap();
    mesh.await_answer("the color is back", |_| mesh.get(&staff).echoed("x-weir-color").is_some());
    is_whole(&mesh);
    assert_eq!(mesh.plane.refusals(), 0);
    mesh.envoy.assert_healthy();
}

/// Shared data lives as long as one VM does: any plugin of weir's in the proxy keeps it for the others.
#[test]
fn what_was_counted_outlives_a_failed_pull_beside_another_plugin() {
    let limit = "rate_limit: { rules: [{ id: all, max_tokens: 2, fill_interval: 3600s }] }";
    let color = "traffic_color: { colors: [base, gray] }";
    for (policy, after) in [
        (format!("name: shop\n{limit}\n"), [200, 200, 429]),
        (format!("name: shop\n{limit}\n{color}\n"), [429, 429, 429]),
    ] {
        let good = rendered(&policy, "istio");
        let (limit, others) = good.split_last().unwrap();
        let mut mesh = Mesh::start(&good, Names::Since1_30, Api::Delta);
        let statuses = |mesh: &Mesh| [(); 3].map(|()| mesh.get(&Request::get("/")).status);
        assert_eq!(statuses(&mesh), [200, 200, 429]);
        mesh.edit(&[others, &[broken(limit, "url")]].concat()).unwrap();
        mesh.await_answer("requests are refused", |answer| answer.status == 403);
        if others.is_empty() {
            wait_until("no VM is left", DEADLINE, || {
                mesh.envoy.counter("wasm.envoy.wasm.runtime.v8.active") == 0
            });
        }
        mesh.edit(&good).unwrap();
        // A look that costs nothing: health checks are exempt.
        let probe = Request::get("/healthz");
        wait_until("they are served again", DEADLINE, || mesh.get(&probe).status == 200);
        assert_eq!(statuses(&mesh), after, "{policy}");
    }
}

#[test]
fn what_the_agent_sends_is_what_it_can_have() {
    let good = rendered(POLICY, "istio");
    let mut limit = good[1].clone();
    let sent = |manifest: &Value| {
        let config = images().rewrite(Plugin::of(manifest, Names::UpTo1_29).resource("7"));
        assert_eq!(config.name, "extensions.istio.io/wasmplugin/shop.weir-rate-limit");
        config.typed_config.unwrap()
    };
    let plugin = |manifest: &Value| {
        let any = sent(manifest);
        assert_eq!(any.type_url, WASM);
        Wasm::decode(any.value.as_slice()).unwrap().config.unwrap()
    };
    // What is istiod's own does not reach the VM, and nothing is left then.
    let first = plugin(&limit);
    assert_eq!((first.name.as_str(), first.root_id.as_str()), ("shop.weir-rate-limit", ""));
    let vm = first.vm_config.unwrap();
    assert_eq!(vm.environment_variables, None);
    let file = vm.code.unwrap().local.unwrap().filename;
    assert!(file.ends_with("weir_rate_limit.wasm"), "{file}");
    let value = first.configuration.unwrap().value;
    let text = String::decode(value.as_slice()).unwrap();
    assert!(
        text.starts_with("{\"name\":\"shop\",\"rate_limit\":{\"rules\":[{\"at_limit\":"),
        "{text}"
    );

    limit["spec"]["vmConfig"] = serde_json::json!({"env": [{"name": "A", "value": "b"}]});
    let variables = plugin(&limit).vm_config.unwrap().environment_variables.unwrap();
    assert_eq!(variables.key_values.into_iter().collect::<Vec<_>>(), [("A".into(), "b".into())]);

    for (strategy, prefix, denies) in [
        ("FAIL_CLOSE", "wasm-default-deny", true),
        ("FAIL_RELOAD", "wasm-default-deny", true),
        ("FAIL_OPEN", "wasm-default-allow", false),
    ] {
        let mut missing = broken(&limit, "sha256");
        missing["spec"]["failStrategy"] = strategy.into();
        let any = sent(&missing);
        let rbac = Rbac::decode(any.value.as_slice()).unwrap();
        assert_eq!(any.type_url, RBAC);
        assert_eq!((rbac.rules_stat_prefix.as_str(), rbac.rules.is_some()), (prefix, denies));
    }
}
