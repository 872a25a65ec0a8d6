//! Every manifest that we write or ship is one that Istio takes.

use crate::kubernetes::{Definitions, RULES};
use crate::shipped::{built, documents, folder, named, weir};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use weir_integration_tests::paths::{self, TempDir};

fn assert_taken(manifests: &[Value], of: &str) {
    let definitions = Definitions::read();
    for manifest in manifests {
        let errors = definitions.errors(manifest);
        assert!(errors.is_empty(), "{of}, {}: {errors:#?}", manifest["metadata"]["name"]);
    }
}

const SERVICE: [&str; 2] = ["--service", "orders.shop.svc.cluster.local"];

#[test]
fn what_is_rendered_is_taken() {
    let mut kinds = BTreeSet::new();
    let digest = "3f5b1c7a9d".repeat(7)[..64].to_owned();
    let digests = ["trace-context", "traffic-color", "rate-limit", "circuit-breaker"]
        .map(|module| format!("--digest={module}={digest}"));
    let attachments = [
        vec![],
        vec!["--selector", "app=orders", "--selector", "version=v1"],
        vec!["--target", "Gateway/ingress"],
        vec!["--target", "Service/orders"],
    ];
    for entry in std::fs::read_dir(paths::root().join("envoy-configs/policies")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.to_str().unwrap();
        let has_colors = std::fs::read_to_string(&path).unwrap().contains("\ntraffic_color:");
        for to in ["istio", "traffic-extension"] {
            for attachment in &attachments {
                let mut args = vec!["render", file, "--to", to];
                args.extend(digests.iter().map(String::as_str));
                args.extend(attachment);
                if has_colors {
                    args.extend(SERVICE);
                }
                let manifests = documents(&weir(&args));
                kinds.extend(manifests.iter().map(|one| one["kind"].as_str().unwrap().to_owned()));
                assert_taken(&manifests, file);
            }
        }
    }
    let all = ["DestinationRule", "TrafficExtension", "VirtualService", "WasmPlugin"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            fields.into_iter().collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

/// The text that istiod makes of `pluginConfig` says to a module what the file says.
#[test]
fn a_policy_survives_istios_spelling_of_it() {
    for entry in std::fs::read_dir(paths::root().join("envoy-configs/policies")).unwrap() {
        let path = entry.unwrap().path();
        let policy: Value =
            serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let read =
            |text: &str| weir_protos::decode_json(text.as_bytes(), weir_protos::Section::All);
        let spelled = crate::ads::jsonpb::text(&policy);
        // Sections are kept as bytes, in the order of their fields.
        let sorted = sorted(&policy).to_string();
        assert_eq!(read(&spelled).unwrap(), read(&sorted).unwrap(), "{spelled}");
    }
}

#[test]
fn the_bases_are_what_the_command_writes() {
    let policy = folder().join("policy.yaml");
    let args = ["render", policy.to_str().unwrap(), "--to", "kustomize", "--unpinned"];
    let place = ["--namespace", "shop", "--selector", "app=orders"];
    for (base, more) in [("base", &[][..]), ("base-1.32", &["--traffic-extension"][..])] {
        let made = TempDir::new();
        let out = ["--out", made.path().to_str().unwrap()];
        weir(&[&args[..], &place, &SERVICE, &out, more].concat());
        let files = |folder: &std::path::Path| -> BTreeSet<_> {
            let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect()
        };
        let shipped = folder().join(base);
        assert_eq!(files(&shipped), files(made.path()), "{base}");
        for name in files(made.path()) {
            let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(&name));
            let (is, wanted) = (read(&shipped).unwrap(), read(made.path()).unwrap());
            assert_eq!(
                is, wanted,
                "{base}/{name:?} is stale; envoy-configs/istio/README.md has the command"
            );
        }
        assert_taken(&built(&shipped), base);
    }
}

/// What is under `pluginConfig` is a policy in every overlay too: the command's own check reads the manifests.
fn assert_policies(manifests: &[Value], of: &str) {
    let folder = TempDir::new();
    for manifest in manifests {
        if manifest["apiVersion"] == "extensions.istio.io/v1alpha1" {
            let file = folder.join("manifest.yaml");
            std::fs::write(&file, manifest.to_string()).unwrap();
            let says = weir(&["validate", file.to_str().unwrap()]);
            assert!(!says.contains("error"), "{of}: {says}");
        }
    }
}

#[test]
fn overlays_build_and_are_taken() {
    for overlay in ["dev", "gateway", "production"] {
        let manifests = built(&folder().join("overlays").join(overlay));
        assert_taken(&manifests, overlay);
        assert_policies(&manifests, overlay);
        let spaces: BTreeSet<&str> =
            manifests.iter().map(|one| one["metadata"]["namespace"].as_str().unwrap()).collect();
        assert_eq!(spaces.len(), 1, "{overlay}");
    }
}

#[test]
fn overlays_say_what_they_are_for() {
    let overlay = |name: &str| built(&folder().join("overlays").join(name));
    let dev = overlay("dev");
    let limit = named(&dev, "WasmPlugin", "weir-rate-limit");
    assert_eq!(limit.pointer("/spec/pluginConfig/rate_limit/mode").unwrap(), "SHADOW");
    assert_eq!(limit.pointer("/spec/match/0/mode").unwrap(), "SERVER");
    assert_eq!(limit.pointer("/spec/pluginConfig/rate_limit/rules/1/id").unwrap(), "per-user");

    let gateway = overlay("gateway");
    let color = named(&gateway, "WasmPlugin", "weir-traffic-color");
    assert_eq!(color.pointer("/spec/pluginConfig/zone").unwrap(), "EDGE");
    let labels = serde_json::json!({"istio": "ingressgateway"});
    assert_eq!(*color.pointer("/spec/selector/matchLabels").unwrap(), labels);
    assert!(gateway.iter().all(|one| one["metadata"]["name"] != "weir-circuit-breaker"));

    let production = overlay("production");
    let pinned = production.iter().filter(|one| one["kind"] == "TrafficExtension");
    let pins = pinned.map(|one| one.pointer("/spec/wasm/sha256").unwrap().as_str().unwrap().len());
    assert_eq!(pins.collect::<Vec<_>>(), [64; 4]);
}

/// Each color has a subset, and each subset that a route names is there.
#[test]
fn routes_go_to_the_subset_of_each_color() {
    let manifests = built(&folder().join("base"));
    let routes = &named(&manifests, "VirtualService", "weir-orders")["spec"]["http"];
    let rule = &named(&manifests, "DestinationRule", "weir-orders")["spec"];
    let subset = |place: usize| &routes[place]["route"][0]["destination"]["subset"];
    assert_eq!((subset(0).as_str(), subset(1).as_str()), (Some("gray"), Some("base")));
    let wanted = &routes[0]["match"][0]["headers"]["x-weir-color"]["exact"];
    assert_eq!((wanted.as_str(), routes[1].get("match")), (Some("gray"), None));
    let names = rule["subsets"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["base", "gray"]);
}

#[test]
fn every_rule_of_the_schema_is_known() {
    let mut known = RULES.map(str::to_owned);
    known.sort();
    assert_eq!(Definitions::read().rules(), known);
}
