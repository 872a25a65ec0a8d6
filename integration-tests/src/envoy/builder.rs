//! The bootstrap of a test's Envoy, and its start.

use super::process::Process;
use super::{Cluster, Envoy, Filter, Listener, ecds};
use crate::http::{Client, Request};
use crate::paths::{self, TempDir};
use crate::policy;
use crate::wait::{DEADLINE, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

pub struct Builder {
    workers: u32,
    directory: TempDir,
    listeners: Vec<Listener>,
    clusters: Vec<Cluster>,
    module: Option<PathBuf>,
    first_policy: String,
    may_be_bad: bool,
    on_trap: &'static str,
    bootstrap: Option<Value>,
    variables: Vec<(String, String)>,
    options: Vec<(String, Value)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: 1,
            directory: TempDir::new(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            module: None,
            first_policy: policy::to_json(policy::PASS_THROUGH),
            may_be_bad: false,
            on_trap: ecds::FAIL_CLOSED,
            bootstrap: None,
            variables: Vec::new(),
            options: Vec::new(),
        }
    }
}

impl Builder {
    /// Worker threads, each with a VM of its own. Default 1.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// The policy to start with, in YAML or JSON. Default: everything passes.
    pub fn policy(mut self, text: &str) -> Self {
        self.first_policy = policy::to_json(text);
        self
    }

    /// A policy to start with that Envoy may refuse.
    pub fn bad_first_policy(mut self, text: &str) -> Self {
        self.may_be_bad = true;
        self.policy(text)
    }

    /// `FAIL_RELOAD`: after a trap, the next request gets a VM made anew.
    pub fn on_trap(mut self, failure_policy: &'static str) -> Self {
        self.on_trap = failure_policy;
        self
    }

    /// Another module than the built rate limiter.
    pub fn module(mut self, module: PathBuf) -> Self {
        self.module = Some(module);
        self
    }

    /// This bootstrap in place of one around [`Builder::listener`] and [`Builder::cluster`]: for the
    /// files that we ship. Paths in it are whole, and its first policies are the caller's to await.
    pub fn bootstrap(mut self, bootstrap: Value) -> Self {
        self.bootstrap = Some(bootstrap);
        self
    }

    /// Any other option of the bootstrap, such as `stats_flush_interval`.
    pub fn option(mut self, option: &str, value: Value) -> Self {
        self.options.push((option.to_owned(), value));
        self
    }

    /// A variable of Envoy's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The directory that Envoy will run in, for certificates and the like.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Starts Envoy and waits until it serves.
    pub fn start(self) -> Envoy {
        let ours = |l: &Listener| l.filters().iter().any(|f| matches!(f, Filter::Weir { .. }));
        let has_weir = self.listeners.iter().any(ours);
        let module = match self.module {
            Some(module) => module,
            None if has_weir => paths::module("rate_limit"),
            None => PathBuf::new(),
        };
        let base = self.directory.path();
        std::fs::create_dir_all(ecds::directory(base)).expect("writable");
        ecds::write(base, &module, &self.first_policy, self.on_trap);

        let listeners: Vec<_> = self.listeners.iter().map(|l| l.to_json(base, &module)).collect();
        let clusters: Vec<_> = self.clusters.iter().map(|c| c.to_json(base)).collect();
        let bootstrap = base.join("bootstrap.json");
        let mut text = self.bootstrap.unwrap_or_else(|| bootstrap_json(&listeners, &clusters));
        for (option, value) in self.options {
            text[option] = value;
        }
        std::fs::write(&bootstrap, format!("{text:#}")).expect("writable");

        let admin_path = base.join("admin.address");
        let variables = &self.variables;
        let mut process = Process::start(base, self.workers, &bootstrap, &admin_path, variables);
        let admin = wait_for("Envoy opens its admin port", DEADLINE, || {
            if let Some(status) = process.ended() {
                panic!("Envoy did not start ({status}):\n{}", process.tail());
            }
            let text = std::fs::read_to_string(&admin_path).ok()?;
            text.trim().parse().ok()
        });
        let own = self.listeners.iter().filter(|l| !l.is_internal()).map(|l| l.name());
        let given = text["static_resources"]["listeners"].as_array();
        let given = given.into_iter().flatten().filter_map(|l| l["name"].as_str());
        let wanted: Vec<_> =
            if self.listeners.is_empty() { given.collect() } else { own.collect() };
        let ports = wait_for("Envoy opens its listeners", DEADLINE, || {
            if let Some(status) = process.ended() {
                panic!("Envoy ended ({status}):\n{}", process.tail());
            }
            let ready = Client::new(admin).send(&Request::get("/ready")).status == 200;
            let ports = listener_ports(admin);
            (ready && wanted.iter().all(|name| ports.contains_key(*name))).then_some(ports)
        });
        let envoy = Envoy {
            process,
            directory: self.directory,
            admin,
            ports,
            module,
            on_trap: self.on_trap,
        };
        if has_weir {
            envoy.await_first_policy(self.may_be_bad);
        }
        envoy
    }
}

fn listener_ports(admin: SocketAddr) -> BTreeMap<String, SocketAddr> {
    let response = Client::new(admin).send(&Request::get("/listeners?format=json"));
    let listeners = response.json();
    let statuses = listeners["listener_statuses"].as_array();
    let port = |status: &Value| {
        let address = &status["local_address"]["socket_address"];
        let ip = address["address"].as_str()?.parse().ok()?;
        let port = address["port_value"].as_u64()?.try_into().ok()?;
        let name = status["name"].as_str()?.to_owned();
        (port != 0).then(|| (name, SocketAddr::new(ip, port)))
    };
    statuses.into_iter().flatten().filter_map(port).collect()
}

/// The bootstrap around listeners and clusters.
fn bootstrap_json(listeners: &[Value], clusters: &[Value]) -> Value {
    // Metric names carry their labels in Istio's encoding; these tags make them labels again.
    let tag = |name: &str| json!({"tag_name": name, "regex": format!("({name}=\\.=(.*?);\\.;)")});
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "stats_config": {
            "stats_tags": [tag("policy"), tag("rule"), tag("outcome"), tag("result"), tag("step")],
        },
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}
