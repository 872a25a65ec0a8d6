//! The files under `envoy-configs/`, and Envoys that run them without containers.

use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use weir_integration_tests::envoy::Builder;
use weir_integration_tests::{Envoy, paths};

const POLICIES: &str = "envoy-configs/envoy/ecds";
const MODULES: &str = "target/weir";

pub fn path(name: &str) -> PathBuf {
    paths::root().join("envoy-configs").join(name)
}

pub fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// YAML with its anchors and merges resolved.
pub fn parse(text: &str) -> Value {
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).expect("YAML");
    // A merge of what merges itself takes another pass.
    for _ in 0..3 {
        value.apply_merge().expect("merges of mappings");
    }
    serde_json::to_value(value).expect("no keys but text")
}

pub fn yaml(name: &str) -> Value {
    parse(&text(name))
}

/// A copy of the policies that we ship, for a test to edit.
pub fn copy_policies(to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(path("envoy/ecds")).expect("the policies are there") {
        let file = entry.expect("readable").path();
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, to.join(name)).expect("writable");
    }
}

/// Edits a discovery file as the README says: aside, then renamed.
pub fn edit(policies: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = policies.join(file);
    let text = std::fs::read_to_string(&path).expect("a policy is there");
    let aside = policies.with_extension("aside");
    std::fs::write(&aside, change(text)).expect("writable");
    std::fs::rename(&aside, &path).expect("the same file system");
}

/// Puts another policy, in YAML, into a discovery file.
pub fn put_policy(policies: &Path, file: &str, policy: &str) {
    edit(policies, file, |text| {
        let mut file = parse(&text);
        let policy = weir_integration_tests::policy::to_json(policy);
        file["resources"][0]["typed_config"]["config"]["configuration"]["value"] = json!(policy);
        file.to_string()
    });
}

/// `chain.yaml` on this machine.
pub struct SetUp {
    builder: Builder,
    bootstrap: Value,
}

impl SetUp {
    pub fn new() -> SetUp {
        let builder = Envoy::builder();
        let policies = builder.directory().join("ecds");
        copy_policies(&policies);
        for entry in std::fs::read_dir(&policies).expect("just made") {
            let name = entry.expect("readable").file_name();
            edit(&policies, name.to_str().expect("ASCII"), |text| {
                with_whole_paths(&text, &policies)
            });
        }
        let text = with_whole_paths(&text("envoy/chain.yaml"), &policies);
        let mut bootstrap = on_free_ports(parse(&text));
        // Envoy asks its own admin interface, whose port therefore has to be known.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let admin = port.expect("a free port");
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = json!(admin.port());
        SetUp { builder, bootstrap }.cluster("admin", admin)
    }

    /// Where a cluster of the file leads.
    pub fn cluster(mut self, name: &str, address: SocketAddr) -> SetUp {
        let clusters = self.bootstrap["static_resources"]["clusters"].as_array_mut();
        let named = clusters.expect("a list").iter_mut().find(|cluster| cluster["name"] == name);
        let cluster = named.unwrap_or_else(|| panic!("there is no cluster {name}"));
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
        endpoint["endpoint"]["address"] = socket(address);
        self
    }

    /// A cluster that the file does not have, for gRPC.
    pub fn more(mut self, name: &str, address: SocketAddr) -> SetUp {
        let cluster = json!({
            "name": name,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        });
        let clusters = self.bootstrap["static_resources"]["clusters"].as_array_mut();
        clusters.expect("a list").push(cluster);
        self
    }

    /// The suite as one more filter, set up as the limiter is, which the file does without.
    pub fn and_suite(mut self) -> SetUp {
        let as_suite =
            |text: String| text.replace("rate_limit", "suite").replace("rate-limit", "suite");
        let policies = self.policies();
        std::fs::copy(policies.join("rate-limit.yaml"), policies.join("suite.yaml"))
            .expect("writable");
        edit(&policies, "suite.yaml", as_suite);
        let manager = &mut self.bootstrap["static_resources"]["listeners"][0]["filter_chains"][0];
        let filters = manager["filters"][0]["typed_config"]["http_filters"].as_array_mut();
        let filters = filters.expect("a list");
        let limiter = filters.iter().find(|filter| filter["name"] == "weir.rate_limit");
        let suite = as_suite(limiter.expect("the limiter").to_string());
        filters.insert(0, serde_json::from_str(&suite).expect("JSON still"));
        self
    }

    pub fn policies(&self) -> PathBuf {
        self.builder.directory().join("ecds")
    }

    pub fn start(self) -> Envoy {
        self.builder.bootstrap(self.bootstrap).start()
    }
}

/// `mesh/envoy.yaml` on this machine, with this engine.
pub fn sharing(engine: SocketAddr) -> Envoy {
    const OWN: &str = "envoy-configs/mesh/ecds";
    let builder = Envoy::builder();
    let policies = builder.directory().join("ecds");
    std::fs::create_dir_all(&policies).expect("writable");
    let whole = |text: String| {
        let text = text.replace(OWN, policies.to_str().expect("ASCII"));
        with_whole_paths(&text, &policies)
    };
    let policy = whole(text("mesh/ecds/rate-limit.yaml"));
    std::fs::write(policies.join("rate-limit.yaml"), policy).expect("writable");
    let bootstrap = on_free_ports(parse(&whole(text("mesh/envoy.yaml"))));
    let set_up = SetUp { builder, bootstrap }.cluster("limitador", engine);
    set_up.start()
}

/// `upstream.yaml` on this machine.
pub fn upstream(version: &str) -> Envoy {
    let bootstrap = on_free_ports(yaml("envoy/upstream.yaml"));
    Envoy::builder().bootstrap(bootstrap).variable("WEIR_VERSION", version).start()
}

fn with_whole_paths(text: &str, policies: &Path) -> String {
    let modules = paths::root().join(MODULES);
    text.replace(POLICIES, policies.to_str().expect("ASCII"))
        .replace(MODULES, modules.to_str().expect("ASCII"))
}

fn on_free_ports(mut bootstrap: Value) -> Value {
    let free = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    bootstrap["admin"]["address"] = free.clone();
    let listeners = bootstrap["static_resources"]["listeners"].as_array_mut();
    listeners.expect("a list").iter_mut().for_each(|l| l["address"] = free.clone());
    bootstrap
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    }})
}
