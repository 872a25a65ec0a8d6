//! One Envoy with the trace-context module, in front of an upstream that says what it saw.

use serde_json::json;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Request, Response, Route, Script, Scripted, Upstream, paths,
    wait_until,
};

/// `in` and `out` lead to the echo over HTTP/1.1, `grpc` over HTTP/2, `plain` without a filter; `both` goes through `in`'s and
/// `out`'s filters one after the other. Paths under `/script` lead to an upstream that follows one.
pub struct Rig {
    pub envoy: Envoy,
    pub echo: Upstream,
    pub scripted: Scripted,
}

impl Rig {
    /// With these fields in the section `trace_context`.
    pub fn section(fields: &str) -> Rig {
        Rig::start(&format!("{{name: shop, trace_context: {{{fields}}}}}"))
    }

    pub fn start(policy: &str) -> Rig {
        Rig::with(1, policy, |_| vec![Filter::weir()], |listener| listener)
    }

    /// `filters` by the listener's name; `more` for options of every listener.
    pub fn with(
        workers: u32,
        policy: &str,
        filters: impl Fn(&str) -> Vec<Filter>,
        more: impl Fn(Listener) -> Listener,
    ) -> Rig {
        let echo = Upstream::start("echo");
        let scripted = Scripted::start(Script::Ok);
        let mut builder = Envoy::builder()
            .workers(workers)
            .module(paths::module("trace_context"))
            .cluster(Cluster::h1("echo", echo.address))
            .cluster(Cluster::h2("echo-h2", echo.address))
            .cluster(Cluster::h1("scripted", scripted.address))
            .cluster(Cluster::h2("scripted-h2", scripted.address))
            .cluster(Cluster::h1("nobody", "127.0.0.1:1".parse().unwrap()))
            .cluster(Cluster::listener("egress", "egress"))
            .policy(policy);
        let listeners = [
            ("plain", Listener::inbound("plain"), "echo", "scripted"),
            ("in", Listener::inbound("in"), "echo", "scripted"),
            ("out", Listener::outbound("out"), "echo", "scripted"),
            ("grpc", Listener::outbound("grpc"), "echo-h2", "scripted-h2"),
            ("both", Listener::inbound("both"), "egress", "egress"),
            ("egress", Listener::outbound("egress").internal(), "echo", "scripted"),
        ];
        for (name, listener, cluster, scripted) in listeners {
            let log = builder.directory().join(format!("trace-{name}.log"));
            let mut listener = listener
                .hcm("access_log", access_log(&log))
                .hcm("upgrade_configs", json!([{"upgrade_type": "websocket"}]))
                .hcm("max_request_headers_kb", json!(96))
                .route(Route::prefix("/script/retried", scripted).retry("5xx", &[], 2))
                .route(Route::prefix("/script", scripted))
                .route(Route::prefix("/nobody", "nobody"))
                .route(Route::direct("/direct", 404))
                .route(Route::prefix("/", cluster));
            for filter in filters(name).into_iter().filter(|_| name != "plain") {
                listener = listener.filter(filter);
            }
            builder = builder.listener(more(listener));
        }
        Rig { envoy: builder.start(), echo, scripted }
    }

    pub fn get(&self, listener: &str, headers: &[(&str, &str)]) -> Response {
        self.ask(listener, "/", headers)
    }

    pub fn ask(&self, listener: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.envoy.client(listener).send(&request)
    }

    /// A counter of the module whose name holds all of these parts, summed.
    pub fn metric(&self, parts: &[&str]) -> u64 {
        let metrics = self.envoy.weir_metrics();
        let named = metrics.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        named.map(|(_, value)| value).sum()
    }

    pub fn await_metric(&self, parts: &[&str], value: u64) {
        wait_until(&format!("{parts:?} = {value}"), DEADLINE, || self.metric(parts) == value);
    }

    /// What the access log of a listener says of the first request to this path.
    pub fn await_access(&self, listener: &str, path: &str) -> String {
        let file = self.envoy.directory().join(format!("trace-{listener}.log"));
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

fn access_log(file: &std::path::Path) -> serde_json::Value {
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
                  %FILTER_STATE(wasm.weir.trace_context:PLAIN)%\n";
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const SPAN: &str = "00f067aa0ba902b7";

/// A valid `traceparent` of version 00.
pub fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// Trace id, parent id and flags of a `traceparent` that the upstream saw.
pub fn seen(response: &Response) -> (String, String, String) {
    let text = response.echoed("traceparent").expect("the upstream saw a traceparent");
    let parts: Vec<&str> = text.split('-').collect();
    let lower_hex =
        |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(lengths, [2, 32, 16, 2], "{text}");
    assert!(parts.iter().all(|part| lower_hex(part)), "{text}");
    assert!(parts[0] == "00" && parts[1] != "0".repeat(32) && parts[2] != "0".repeat(16), "{text}");
    (parts[1].into(), parts[2].into(), parts[3].into())
}
