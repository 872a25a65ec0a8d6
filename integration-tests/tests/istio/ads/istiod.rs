//! What istiod makes of a WasmPlugin or TrafficExtension: a filter in the chain that takes its configuration from
//! discovery, and that configuration. Restated from its source (1.28 to 1.31 and what is to be 1.32).

use super::jsonpb;
use prost::Message;
use prost_types::Duration;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weir_integration_tests::xds::messages::{
    AsyncDataSource, EnvironmentVariables, FailurePolicy, HttpUri, PluginConfig, RBAC,
    RemoteDataSource, TypedExtensionConfig, VmConfig, WASM, Wasm, any,
};

/// How resources are called: a WasmPlugin is translated to a TrafficExtension since Istio 1.30.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Names {
    UpTo1_29,
    Since1_30,
}

pub struct Plugin<'a> {
    manifest: &'a Value,
    names: Names,
}

impl<'a> Plugin<'a> {
    pub fn of(manifest: &'a Value, names: Names) -> Plugin<'a> {
        let is_extension = manifest["kind"] == "TrafficExtension";
        assert!(is_extension || manifest["kind"] == "WasmPlugin", "{manifest}");
        assert!(!is_extension || names == Names::Since1_30, "1.29 knows no TrafficExtension");
        Plugin { manifest, names }
    }

    fn spec(&self) -> &Value {
        &self.manifest["spec"]
    }

    fn is_extension(&self) -> bool {
        self.manifest["kind"] == "TrafficExtension"
    }

    /// The name of the plugin in Envoy, which the module is told.
    pub fn name(&self) -> String {
        let metadata = &self.manifest["metadata"];
        let text = |name: &str| metadata[name].as_str().expect("a manifest has a name");
        let translated = match self.names == Names::Since1_30 && !self.is_extension() {
            true => "~istio-translated-wasmplugin",
            false => "",
        };
        format!("{}.{}{translated}", text("namespace"), text("name"))
    }

    /// The name of the filter and of its resource.
    pub fn resource_name(&self) -> String {
        let kind = match self.names {
            Names::UpTo1_29 => "wasmplugin",
            Names::Since1_30 => "trafficextension",
        };
        format!("extensions.istio.io/{kind}/{}", self.name())
    }

    /// The filter's place in the chain of the connection manager.
    pub fn filter(&self) -> Value {
        json!({
            "name": self.resource_name(),
            "config_discovery": {
                "config_source": {
                    "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s",
                },
                "type_urls": [WASM, RBAC],
            },
        })
    }

    /// The configuration as istiod sends it; the agent has still to get the module.
    pub fn resource(&self, resource_version: &str) -> TypedExtensionConfig {
        let wasm = match self.is_extension() {
            true => &self.spec()["wasm"],
            false => self.spec(),
        };
        let text = |name: &str| wasm[name].as_str().unwrap_or_default().to_owned();
        let mut key_values = BTreeMap::new();
        if let Some(policy) = wasm["imagePullPolicy"].as_str() {
            key_values.insert("ISTIO_META_WASM_IMAGE_PULL_POLICY".to_owned(), policy.to_owned());
        }
        let version = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION".to_owned();
        key_values.insert(version, resource_version.to_owned());
        let mut host_env_keys = Vec::new();
        for variable in wasm["vmConfig"]["env"].as_array().into_iter().flatten() {
            let text = |name: &str| variable[name].as_str().unwrap_or_default().to_owned();
            match variable["valueFrom"] == "HOST" {
                true => host_env_keys.push(text("name")),
                false => {
                    key_values.insert(text("name"), text("value"));
                }
            }
        }
        let configuration = wasm.get("pluginConfig").map(|config| prost_types::Any {
            type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
            value: jsonpb::text(config).encode_to_vec(),
        });
        let uri = HttpUri {
            uri: text("url"),
            cluster: "_".to_owned(),
            timeout: Some(Duration { seconds: 30, nanos: 0 }),
        };
        let remote = RemoteDataSource { http_uri: Some(uri), sha256: text("sha256") };
        let config = PluginConfig {
            name: self.name(),
            root_id: text("pluginName"),
            vm_config: Some(VmConfig {
                runtime: "envoy.wasm.runtime.v8".to_owned(),
                code: Some(AsyncDataSource { local: None, remote: Some(remote) }),
                environment_variables: Some(EnvironmentVariables { host_env_keys, key_values }),
            }),
            configuration,
            failure_policy: match text("failStrategy").as_str() {
                "FAIL_OPEN" => FailurePolicy::FailOpen,
                "FAIL_RELOAD" => FailurePolicy::FailReload,
                _ => FailurePolicy::FailClosed,
            }
            .into(),
        };
        let wasm = Wasm { config: Some(config) };
        TypedExtensionConfig { name: self.resource_name(), typed_config: Some(any(WASM, &wasm)) }
    }

    /// Whether the listener is one that it runs on: entries of `match` are alternatives, mode and port of one
    /// belong together.
    pub fn is_on(&self, listener: &Listener) -> bool {
        let Some(matches) = self.spec()["match"].as_array() else { return true };
        let any_of = |one: &Value| {
            let mode = match one["mode"].as_str() {
                Some("SERVER") => listener.is_inbound_of_sidecar,
                Some("CLIENT") => !listener.is_inbound_of_sidecar,
                _ => true,
            };
            let ports = one["ports"].as_array();
            let is_port = |port: &Value| port["number"] == listener.port;
            mode && ports.is_none_or(|ports| ports.is_empty() || ports.iter().any(is_port))
        };
        matches.is_empty() || matches.iter().any(any_of)
    }
}

/// A listener, as far as plugins choose it.
pub struct Listener {
    pub is_inbound_of_sidecar: bool,
    pub port: u16,
}

/// The filters of a listener, without what Istio puts between its phases, in the order of the chain. Manifests come
/// in the order of their age.
pub fn chain<'a>(manifests: &'a [Value], names: Names, listener: &Listener) -> Vec<Plugin<'a>> {
    let plugins = manifests.iter().map(|manifest| Plugin::of(manifest, names));
    let mut plugins: Vec<Plugin> = plugins.filter(|plugin| plugin.is_on(listener)).collect();
    plugins.sort_by_key(|plugin| {
        let phase = match plugin.spec()["phase"].as_str() {
            Some("AUTHN") => 0,
            Some("AUTHZ") => 1,
            // Before those without a phase: it is really so.
            Some("STATS") => 2,
            _ => 3,
        };
        let priority = plugin.spec()["priority"].as_i64().unwrap_or(i64::from(i32::MIN));
        (phase, -priority)
    });
    plugins
}
