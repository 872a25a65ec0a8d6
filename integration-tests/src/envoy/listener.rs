//! A listener: direction, filters, routes, and how Envoy tells the client's address.

use super::{Filter, Route};
use crate::pki::{Authority, Identity};
use serde_json::{Value, json};
use std::path::Path;

/// Ports are Envoy's choice; [`super::Envoy::address`] tells them by the listener's name.
pub struct Listener {
    name: String,
    direction: &'static str,
    internal: bool,
    filters: Vec<Filter>,
    routes: Vec<Route>,
    tls: Option<Value>,
    hcm: Vec<(String, Value)>,
}

impl Listener {
    /// Without a traffic direction, as a bare Envoy's.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            direction: "UNSPECIFIED",
            internal: false,
            filters: Vec::new(),
            routes: Vec::new(),
            tls: None,
            hcm: Vec::new(),
        }
    }

    pub fn inbound(name: &str) -> Self {
        Self { direction: "INBOUND", ..Self::new(name) }
    }

    pub fn outbound(name: &str) -> Self {
        Self { direction: "OUTBOUND", ..Self::new(name) }
    }

    /// Listens on a socket file, reached only by [`super::Cluster::listener`] of the same Envoy.
    pub fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// A suite that stands in for several modules under one policy is there once.
    pub fn filter(mut self, filter: Filter) -> Self {
        let is_same = |there: &Filter| there.stands_in_for(&filter);
        if !self.filters.iter().any(is_same) {
            self.filters.push(filter);
        }
        self
    }

    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// The client's address is the last but `hops` of `x-forwarded-for`.
    pub fn trust_forwarded_for(self, hops: u32) -> Self {
        self.hcm("use_remote_address", json!(true)).hcm("xff_num_trusted_hops", json!(hops))
    }

    /// Demands a client certificate of this authority.
    pub fn mutual_tls(mut self, authority: &Authority, identity: &Identity) -> Self {
        self.tls = Some(json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": tls_context(authority, identity),
            },
        }));
        self
    }

    /// For a benchmark, which would measure the log along.
    pub fn without_access_log(self) -> Self {
        self.hcm("access_log", json!([]))
    }

    /// Any other option of the connection manager.
    pub fn hcm(mut self, option: &str, value: Value) -> Self {
        self.hcm.push((option.to_owned(), value));
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    pub(super) fn is_internal(&self) -> bool {
        self.internal
    }

    pub(super) fn to_json(&self, directory: &Path, module: &Path) -> Value {
        let address = if self.internal {
            pipe(directory, &self.name)
        } else {
            json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}})
        };
        let mut chain = json!({"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": self.connection_manager(directory, module),
        }]});
        if let Some(tls) = &self.tls {
            chain["transport_socket"] = tls.clone();
        }
        let mut listener = json!({
            "name": self.name,
            "stat_prefix": self.name,
            "address": address,
            "traffic_direction": self.direction,
            "filter_chains": [chain],
        });
        if !self.internal {
            // Connections go to the workers in turn, so that a test over several workers knows
            // that each had its share. The balancer works on one socket, not on one per worker.
            listener["enable_reuse_port"] = json!(false);
            listener["connection_balance_config"] = json!({"exact_balance": {}});
        }
        listener
    }

    fn connection_manager(&self, directory: &Path, module: &Path) -> Value {
        let filters = self.filters.iter().map(|f| f.to_json(directory, module));
        let router = json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        });
        let routes: Vec<_> = self.routes.iter().map(Route::to_json).collect();
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": self.name,
            "codec_type": "AUTO",
            "generate_request_id": false,
            "http_filters": filters.chain([router]).collect::<Vec<_>>(),
            "route_config": {
                "name": self.name,
                "virtual_hosts": [{"name": self.name, "domains": ["*"], "routes": routes}],
            },
            "access_log": [super::access_log::to_json(directory, &self.name)],
        });
        for (option, value) in &self.hcm {
            manager[option] = value.clone();
        }
        manager
    }
}

/// The address of an internal listener.
pub(super) fn pipe(directory: &Path, listener: &str) -> Value {
    json!({"pipe": {"path": directory.join(format!("{listener}.sock"))}})
}

/// A certificate, and the authority that signs the other side's.
pub(super) fn tls_context(authority: &Authority, identity: &Identity) -> Value {
    json!({
        "tls_certificates": [{
            "certificate_chain": {"filename": identity.certificate},
            "private_key": {"filename": identity.key},
        }],
        "validation_context": {"trusted_ca": {"filename": authority.certificate}},
    })
}
