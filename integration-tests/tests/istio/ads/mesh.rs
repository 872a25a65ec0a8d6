//! A proxy as Istio sets it up: discovery over ADS for filters, and for the listener in place of LDS over ADS a file,
//! which changes when the chain does.

use super::agent::Images;
use super::istiod::{Listener, Names, chain};
use crate::shipped::{documents, weir};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use weir_integration_tests::paths::{self, TempDir};
use weir_integration_tests::wait::{DEADLINE, wait_for, wait_until};
use weir_integration_tests::xds::ControlPlane;
use weir_integration_tests::xds::messages::TypedExtensionConfig;
use weir_integration_tests::{Client, Cluster, Envoy, Request, Response, Upstream};

/// The dialect of discovery. Istio's default is delta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Api {
    StateOfTheWorld,
    Delta,
}

pub struct Mesh {
    pub plane: ControlPlane,
    pub envoy: Envoy,
    pub address: SocketAddr,
    pub images: Images,
    folder: TempDir,
    names: Names,
    edits: u32,
    _upstream: Upstream,
}

/// Where the images of rendered plugins lie, and what they are pinned to.
pub const IMAGE: &str = "oci://registry.example/weir/{module}:0.1.0";
pub const DIGEST: &str = "3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b";

/// Every module under its rendered name, with the digest that it is pinned to.
pub fn images() -> Images {
    let modules = ["rate-limit", "circuit-breaker", "trace-context", "traffic-color"];
    modules.into_iter().fold(Images::default(), |images, module| {
        let file = paths::single(&module.replace('-', "_"));
        images.with(&IMAGE.replace("{module}", module), DIGEST, file)
    })
}

/// The manifests that the command writes of a policy.
pub fn rendered(policy: &str, to: &str) -> Vec<Value> {
    let folder = TempDir::new();
    let file = folder.join("policy.yaml");
    std::fs::write(&file, policy).expect("writable");
    let digests = ["rate-limit", "circuit-breaker", "trace-context", "traffic-color"]
        .map(|module| format!("--digest={module}={DIGEST}"));
    let mut args = vec!["render", file.to_str().expect("UTF-8"), "--to", to];
    args.extend(["--namespace", "shop", "--image", IMAGE]);
    args.extend(digests.iter().map(String::as_str));
    documents(&weir(&args))
}

/// A sidecar's inbound listener.
pub const INBOUND: Listener = Listener { is_inbound_of_sidecar: true, port: 8080 };

impl Mesh {
    pub fn start(manifests: &[Value], names: Names, api: Api) -> Mesh {
        Mesh::start_with(manifests, names, api, |_, _| {})
    }

    /// `before` runs while Envoy waits for the first configuration, with the listener's address to be.
    pub fn start_with(
        manifests: &[Value],
        names: Names,
        api: Api,
        before: impl FnOnce(&ControlPlane, SocketAddr),
    ) -> Mesh {
        let (plane, upstream, folder) =
            (ControlPlane::start(), Upstream::start("echo"), TempDir::new());
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        write_listener(folder.path(), manifests, names, address);
        let bootstrap = bootstrap(folder.path(), api, &plane, upstream.address);
        let images = images();
        let envoy = std::thread::scope(|scope| {
            let starting = scope.spawn(|| Envoy::builder().bootstrap(bootstrap).start());
            wait_until("Envoy asks for the filters", DEADLINE, || {
                starting.is_finished() || plane.asked().len() == chain_of(manifests, names).len()
            });
            before(&plane, address);
            plane.offer(resources(manifests, names, &images, 1));
            starting.join().expect("Envoy starts")
        });
        Mesh { plane, envoy, address, images, folder, names, edits: 1, _upstream: upstream }
    }

    /// What istiod pushes after an edit of the resources.
    pub fn edit(&mut self, manifests: &[Value]) -> Result<(), String> {
        self.edits += 1;
        self.plane.push(resources(manifests, self.names, &self.images, self.edits))
    }

    /// The chain changes, as when istiod is upgraded: new names, and the listener is updated in place.
    pub fn upgrade(&mut self, manifests: &[Value], names: Names) {
        (self.names, self.edits) = (names, self.edits + 1);
        let updates = "listener_manager.listener_in_place_updated";
        let before = self.envoy.counter(updates);
        self.plane.offer(resources(manifests, names, &self.images, self.edits));
        write_listener(self.folder.path(), manifests, names, self.address);
        wait_until("the listener's chain is the new one", DEADLINE, || {
            self.envoy.counter(updates) > before
                && self.envoy.counter("listener_manager.total_listeners_warming") == 0
        });
    }

    /// A request on a connection of its own, so that the chain in force has it.
    pub fn get(&self, request: &Request) -> Response {
        Client::new(self.address).send(request)
    }

    /// Asks until the answer is such.
    pub fn await_answer(&self, what: &str, is: impl Fn(&Response) -> bool) -> Response {
        wait_for(what, DEADLINE, || Some(self.get(&Request::get("/"))).filter(|answer| is(answer)))
    }
}

fn chain_of(manifests: &[Value], names: Names) -> Vec<super::istiod::Plugin<'_>> {
    chain(manifests, names, &INBOUND)
}

fn resources(
    manifests: &[Value],
    names: Names,
    images: &Images,
    edit: u32,
) -> Vec<TypedExtensionConfig> {
    let version = edit.to_string();
    let plugins = chain_of(manifests, names).into_iter();
    plugins.map(|plugin| images.rewrite(plugin.resource(&version))).collect()
}

fn bootstrap(folder: &Path, api: Api, plane: &ControlPlane, upstream: SocketAddr) -> Value {
    let api = match api {
        Api::StateOfTheWorld => "GRPC",
        Api::Delta => "DELTA_GRPC",
    };
    let clusters = [Cluster::h2("istiod", plane.address), Cluster::h1("echo", upstream)]
        .map(|c| c.to_json(folder));
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "istiod"}}],
            },
            "lds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": folder.join("lds/lds.json"),
                    "watched_directory": {"path": folder.join("lds")},
                },
            },
        },
        "static_resources": {"clusters": clusters},
    })
}

fn write_listener(folder: &Path, manifests: &[Value], names: Names, address: SocketAddr) {
    let mut filters: Vec<Value> =
        chain_of(manifests, names).iter().map(|plugin| plugin.filter()).collect();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "virtualInbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": address.port()}},
        "traffic_direction": "INBOUND",
        "filter_chains": [{"name": "0.0.0.0_8080", "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "inbound",
                "http_filters": filters,
                "route_config": {"virtual_hosts": [{
                    "name": "inbound|http|80",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}],
                }]},
            },
        }]}],
    });
    let file = json!({"version_info": "1", "resources": [listener]});
    std::fs::create_dir_all(folder.join("lds")).expect("writable");
    let aside = folder.join("lds.json.new");
    std::fs::write(&aside, file.to_string()).expect("writable");
    std::fs::rename(aside, folder.join("lds/lds.json")).expect("the same file system");
}
