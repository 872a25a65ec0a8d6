//! The forms in which a plugin is written.

use serde_json::{Map, Value, json};

use super::Args;
use crate::proxy::Module;

pub struct Plugin {
    pub module: Module,
    pub config: Value,
    pub digest: Option<String>,
}

/// As images are called.
pub fn name(module: Module) -> &'static str {
    match module {
        Module::Trace => "trace-context",
        Module::Color => "traffic-color",
        Module::Limit => "rate-limit",
        Module::Breaker => "circuit-breaker",
    }
}

/// Higher priorities come first within a phase. All of it runs after authentication and before
/// authorization, so that a route by color is the one that is authorized; the breaker stands nearest
/// the router, so that it sees what the others have let through.
fn place(module: Module) -> Option<u32> {
    match module {
        Module::Color => Some(30),
        Module::Trace => Some(20),
        Module::Limit => Some(10),
        Module::Breaker => None,
    }
}

/// Without a trace or a color requests still make sense; without a limit they do not.
fn fail_strategy(module: Module) -> &'static str {
    match module {
        Module::Trace | Module::Color => "FAIL_OPEN",
        Module::Limit | Module::Breaker => "FAIL_RELOAD",
    }
}

/// The API group of a kind that plugins attach to.
pub fn group(kind: &str) -> Option<&'static str> {
    match kind {
        "Gateway" | "GatewayClass" => Some("gateway.networking.k8s.io"),
        "Service" => Some(""),
        "ServiceEntry" => Some("networking.istio.io"),
        _ => None,
    }
}

pub fn wasm_plugin(args: &Args, plugin: &Plugin) -> Value {
    let mut spec = attachment(args);
    spec.extend(phase(plugin.module));
    spec.extend(code(args, plugin));
    manifest(args, "WasmPlugin", plugin.module, spec)
}

pub fn traffic_extension(args: &Args, plugin: &Plugin) -> Value {
    let mut spec = attachment(args);
    spec.extend(phase(plugin.module));
    spec.insert("wasm".into(), code(args, plugin).into());
    manifest(args, "TrafficExtension", plugin.module, spec)
}

fn manifest(args: &Args, kind: &str, module: Module, spec: Map<String, Value>) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": kind,
        "metadata": { "name": format!("weir-{}", name(module)), "namespace": args.namespace },
        "spec": spec,
    })
}

/// Where it runs; without a word on it in the whole namespace.
fn attachment(args: &Args) -> Map<String, Value> {
    let mut spec = Map::new();
    if let Some((kind, name)) = &args.target {
        let target = json!({ "group": group(kind), "kind": kind, "name": name });
        spec.insert("targetRefs".into(), json!([target]));
    } else if !args.selectors.is_empty() {
        let labels =
            args.selectors.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        let labels: Map<String, Value> = labels.collect();
        spec.insert("selector".into(), json!({ "matchLabels": labels }));
    }
    spec
}

fn phase(module: Module) -> Map<String, Value> {
    let mut spec = Map::new();
    // The phase without a name comes last.
    if let Some(priority) = place(module) {
        spec.insert("phase".into(), "AUTHZ".into());
        spec.insert("priority".into(), priority.into());
    }
    spec
}

fn code(args: &Args, plugin: &Plugin) -> Map<String, Value> {
    let mut spec = Map::new();
    spec.insert("url".into(), args.image.replace("{module}", name(plugin.module)).into());
    if let Some(digest) = &plugin.digest {
        spec.insert("sha256".into(), digest.as_str().into());
    }
    spec.insert("failStrategy".into(), fail_strategy(plugin.module).into());
    spec.insert("pluginConfig".into(), plugin.config.clone());
    spec
}

/// What a base of these files says.
pub fn kustomization(files: &[String]) -> Value {
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": files,
    })
}

/// One file with the resource of each module, in the order of the chain. A filter entry takes its
/// own by the name.
pub fn discovery(args: &Args, plugins: &[Plugin]) -> Value {
    let resources = plugins.iter().map(|plugin| {
        let module = plugin.module.section();
        json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": format!("weir.{module}"),
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": format!("weir.{module}"),
                    "root_id": format!("weir_{module}"),
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": format!("{}/weir_{module}.wasm", args.modules) } },
                    },
                    "failure_policy": fail_strategy(plugin.module),
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": plugin.config.to_string(),
                    },
                },
            },
        })
    });
    json!({ "resources": resources.collect::<Vec<_>>() })
}
