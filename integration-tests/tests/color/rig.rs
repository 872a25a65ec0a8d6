//! Envoys with the traffic-color module in front of a service in three versions.

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Envoy, Filter, H2Conn, Listener, Request, Response, Route, Script, Scripted, Upstream,
    explained, paths, wait_until,
};

pub const COLORS: [&str; 3] = ["base", "gray", "blue"];

/// `in`, `out` and `grpc` lead to the version that the color header names, and to `base` without one;
/// `plain` has no filter. `scripted-*` follow a script, under `/script`.
pub struct Rig {
    pub envoy: Envoy,
    pub versions: BTreeMap<&'static str, Upstream>,
    pub scripted: BTreeMap<&'static str, Scripted>,
    /// In force.
    policy: Mutex<String>,
}

/// A policy `shop` with these colors and fields.
pub fn policy(head: &str, fields: &str) -> String {
    format!("{{name: shop, {head}traffic_color: {{colors: [base, gray, blue], {fields}}}}}")
}

impl Rig {
    /// With these fields in the section, inside the mesh.
    pub fn section(fields: &str) -> Rig {
        Rig::start(1, &policy("", fields))
    }

    pub fn edge(fields: &str) -> Rig {
        Rig::start(1, &policy("zone: EDGE, ", fields))
    }

    pub fn start(workers: u32, policy: &str) -> Rig {
        let versions: BTreeMap<_, _> = COLORS.map(|name| (name, Upstream::start(name))).into();
        let scripted: BTreeMap<_, _> =
            ["base", "gray"].map(|name| (name, Scripted::start(Script::Ok))).into();
        let mut builder =
            Envoy::builder().workers(workers).module(paths::module("traffic_color")).policy(policy);
        for (name, version) in &versions {
            builder = builder.cluster(Cluster::h1(name, version.address));
            builder = builder.cluster(Cluster::h2(&format!("{name}-h2"), version.address));
        }
        for (name, version) in &scripted {
            builder = builder.cluster(Cluster::h1(&format!("scripted-{name}"), version.address));
        }
        let listeners = [
            ("plain", Listener::inbound("plain"), ""),
            ("in", Listener::inbound("in"), ""),
            ("out", Listener::outbound("out"), ""),
            ("grpc", Listener::inbound("grpc"), "-h2"),
        ];
        for (name, listener, suffix) in listeners {
            let log = builder.directory().join(format!("color-{name}.log"));
            let mut listener = listener
                .trust_forwarded_for(1)
                .hcm("access_log", access_log(&log))
                .hcm("max_request_headers_kb", json!(96))
                .hcm("delayed_close_timeout", json!("0.001s"))
                .route(
                    Route::prefix("/script", "scripted-gray").when_header("x-weir-color", "gray"),
                )
                .route(Route::prefix("/script", "scripted-base"));
            if name != "plain" {
                listener = listener.filter(Filter::jwt_authn()).filter(Filter::weir());
            }
            for color in ["gray", "blue"] {
                let cluster = format!("{color}{suffix}");
                listener =
                    listener.route(Route::prefix("/", &cluster).when_header("x-weir-color", color));
            }
            builder =
                builder.listener(listener.route(Route::prefix("/", &format!("base{suffix}"))));
        }
        let policy = Mutex::new(policy.to_owned());
        Rig { envoy: builder.start(), versions, scripted, policy }
    }

    pub fn send(&self, listener: &str, request: &Request) -> Response {
        self.envoy.client(listener).send(request)
    }

    /// The version that answers, and the color that it saw.
    pub fn color(&self, headers: &[(&str, &str)]) -> String {
        color_of(&self.send("in", &with(headers)))
    }

    /// The color that `weir explain` tells for `in`.
    pub fn explained(&self, headers: &[(&str, &str)]) -> String {
        let policy = self.policy.lock().unwrap().clone();
        let explained = explained::explain(&policy, "inbound", &with(headers), &[]);
        explained::upstream(&explained, "x-weir-color").expect("a color goes on")
    }

    /// Holds an answer of `in` against what `weir explain` says.
    pub fn assert_explained(&self, request: &Request, answer: &Response) {
        let policy = self.policy.lock().unwrap().clone();
        explained::assert_fares(&policy, "inbound", request, answer, &[]);
    }

    pub fn edit(&self, head: &str, fields: &str) {
        let policy = policy(head, fields);
        self.envoy.put_policy(&policy).accepted();
        *self.policy.lock().unwrap() = policy;
    }

    pub fn metric(&self, parts: &[&str]) -> u64 {
        let metrics = self.envoy.weir_metrics();
        let named = metrics.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        named.map(|(_, value)| value).sum()
    }

    pub fn await_metric(&self, parts: &[&str], value: u64) {
        wait_until(&format!("{parts:?} = {value}"), DEADLINE, || self.metric(parts) == value);
    }

    /// How many requests each version got so far.
    pub fn reached(&self) -> [usize; 3] {
        COLORS.map(|color| self.versions[color].count("/"))
    }

    pub fn h2(&self) -> H2Conn {
        self.envoy.h2("grpc")
    }
}

pub fn with(headers: &[(&str, &str)]) -> Request {
    let (mut method, mut path, mut host) = ("GET", "/", "shop.test");
    let mut rest = Vec::new();
    for (name, value) in headers {
        match *name {
            ":method" => method = value,
            ":path" => path = value,
            ":authority" => host = value,
            _ => rest.push((*name, *value)),
        }
    }
    let request = Request::new(method, path).host(host);
    rest.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The version that answered. Panics when it is not the one of the color that it saw.
pub fn color_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let version = response.json()["upstream"].as_str().expect("an upstream").to_owned();
    let color = response.echoed("x-weir-color").expect("a color goes on");
    assert_eq!(version, color, "routed by the color");
    color
}

fn access_log(file: &std::path::Path) -> serde_json::Value {
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% \
                  %FILTER_STATE(wasm.weir.traffic_color:PLAIN)%\n";
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

impl Rig {
    /// What the access log of `in` says of the first request to this path.
    pub fn await_access(&self, path: &str) -> String {
        let file = self.envoy.directory().join("color-in.log");
        let mut found = None;
        wait_until(&format!("an access log entry for {path}"), DEADLINE, || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let start = format!("{path} ");
            found = text.lines().find(|line| line.starts_with(&start)).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }
}
