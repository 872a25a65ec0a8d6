//! A cluster with one endpoint.

use crate::pki::{Authority, Identity};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Where a route leads.
#[derive(Clone)]
pub struct Cluster {
    name: String,
    endpoint: Endpoint,
    protocol: Protocol,
    tls: Option<Value>,
    options: Vec<(String, Value)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    H1,
    H2,
    Followed,
}

#[derive(Clone)]
enum Endpoint {
    Tcp(SocketAddr),
    /// A listener of the same Envoy, by its name.
    Listener(String),
}

impl Cluster {
    /// HTTP/1.1 to an upstream.
    pub fn h1(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: Endpoint::Tcp(address),
            protocol: Protocol::H1,
            tls: None,
            options: Vec::new(),
        }
    }

    /// HTTP/2 with prior knowledge, for gRPC.
    pub fn h2(name: &str, address: SocketAddr) -> Self {
        Self { protocol: Protocol::H2, ..Self::h1(name, address) }
    }

    /// The protocol in which the request came.
    pub fn followed(name: &str, address: SocketAddr) -> Self {
        Self { protocol: Protocol::Followed, ..Self::h1(name, address) }
    }

    /// Leads to a listener made with [`super::Listener::internal`].
    pub fn listener(name: &str, listener: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: Endpoint::Listener(listener.to_owned()),
            protocol: Protocol::H1,
            tls: None,
            options: Vec::new(),
        }
    }

    /// Mutual TLS with this certificate.
    pub fn tls(mut self, authority: &Authority, identity: &Identity) -> Self {
        self.tls = Some(json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": super::listener::tls_context(authority, identity),
            },
        }));
        self
    }

    /// Any other option of the cluster.
    pub fn option(mut self, option: &str, value: Value) -> Self {
        self.options.push((option.to_owned(), value));
        self
    }

    pub fn to_json(&self, directory: &std::path::Path) -> Value {
        let address = match &self.endpoint {
            Endpoint::Tcp(address) => json!({"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            }}),
            Endpoint::Listener(name) => super::listener::pipe(directory, name),
        };
        let mut cluster = json!({
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {
                "cluster_name": self.name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        });
        let protocols = match self.protocol {
            Protocol::H1 => None,
            Protocol::H2 => Some(("explicit_http_config", json!({"http2_protocol_options": {}}))),
            Protocol::Followed => Some((
                "use_downstream_protocol_config",
                json!({"http_protocol_options": {}, "http2_protocol_options": {}}),
            )),
        };
        if let Some((how, protocols)) = protocols {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    how: protocols,
                },
            });
        }
        if let Some(tls) = &self.tls {
            cluster["transport_socket"] = tls.clone();
        }
        for (option, value) in &self.options {
            cluster[option] = value.clone();
        }
        cluster
    }
}
