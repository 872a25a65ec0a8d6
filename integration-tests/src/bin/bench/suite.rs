//! All four filters, one after the other and in one pass, beside the native filters that come nearest.

use serde_json::json;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Route, Scripted, paths, policy};

use crate::breaker;
use crate::limit;
use crate::subject::{NONE, NOOP, Running, Subject, wasm};
use crate::trace::tracing;

pub const STEADY: &str = include_str!("../../../bench/steady.yaml");
const ALL_ON: &str = include_str!("../../../bench/all-on.yaml");

/// In the order in which they stand in a chain.
pub const FILTERS: [&str; 4] = ["traffic_color", "trace_context", "rate_limit", "circuit_breaker"];

const TRACEPARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Without a filter comes first.
pub fn subjects(upstream: &Scripted) -> Vec<Subject<'_>> {
    let start = move |filters: Vec<Filter>, percent: Option<u32>| {
        let mut listener = Listener::inbound("in").without_access_log();
        for filter in filters {
            listener = listener.filter(filter);
        }
        if let Some(percent) = percent {
            listener = tracing(listener, percent);
        }
        let envoy = Envoy::builder()
            .cluster(Cluster::h1("up", upstream.address))
            .cluster(Cluster::h2("collector", upstream.address))
            .listener(listener.route(Route::prefix("/", "up")))
            .start();
        with_lines(Running::new(envoy, "in", "/orders/17"))
    };
    // What a policy does to requests with and without a color.
    let colored = |running: Running, policy: &str| match policy == STEADY {
        true => running.line("x-weir-color: gray"),
        false => running.line("x-idle-color: gray"),
    };
    let ours = move |modules: &'static [&'static str], policy: &'static str| {
        let configuration = policy::to_json(policy);
        let filter =
            |module: &&str| wasm(&format!("weir.{module}"), &paths::module(module), &configuration);
        let running = colored(start(modules.iter().map(filter).collect(), None), policy);
        let decides = |filter: &str| modules.contains(&filter) || modules == ["suite"];
        let proofs = FILTERS.into_iter().filter(|filter| decides(filter));
        proofs.fold(running, |running, filter| running.counts(&proof(filter, policy)))
    };
    let plain = move |filters: Vec<Filter>, percent| colored(start(filters, percent), STEADY);
    let counted = |running: Running| running.counts(&["bench.http_local_rate_limit.ok"]);
    vec![
        Subject::new(NONE, move || plain(vec![], None)),
        Subject::new(NOOP, move || plain(vec![noop()], None)),
        Subject::new("native, three filters", move || counted(plain(native_chain(), None))),
        Subject::new("native, and tracing at 0 %", move || counted(plain(native_chain(), Some(0)))),
        Subject::new("native, and tracing at 100 %", move || {
            counted(plain(native_chain(), Some(100)))
        }),
        Subject::new("Lua, trace context alone", move || {
            plain(vec![Filter::lua(crate::trace::LUA)], None)
        }),
        Subject::new("wasm, the suite's host calls alone", move || plain(vec![same_calls()], None)),
        Subject::new("weir, color alone", move || ours(&["traffic_color"], STEADY)),
        Subject::new("weir, trace alone", move || ours(&["trace_context"], STEADY)),
        Subject::new("weir, limit alone", move || ours(&["rate_limit"], STEADY)),
        Subject::new("weir, breaker alone", move || ours(&["circuit_breaker"], STEADY)),
        Subject::new("weir, four modules", move || ours(&FILTERS, STEADY)),
        Subject::new("weir, suite", move || ours(&["suite"], STEADY)),
        Subject::new("weir, four modules, all on", move || ours(&FILTERS, ALL_ON)),
        Subject::new("weir, suite, all on", move || ours(&["suite"], ALL_ON)),
    ]
}

fn with_lines(running: Running) -> Running {
    running.line("x-user: hot").line(TRACEPARENT).line("x-weir-deadline-ms: 5000")
}

/// What a request brings along for `bench/steady.yaml`.
pub fn steady_lines(running: Running) -> Running {
    with_lines(running).line("x-weir-color: gray")
}

pub fn noop() -> Filter {
    wasm("noop", &paths::built("noop_sdk.wasm"), "")
}

/// What the suite asks of the host, and nothing else.
fn same_calls() -> Filter {
    let wasm_of = wat::parse_str(include_str!("../../../bench/same-calls.wat"));
    let path = paths::root().join("target/weir/same_calls.wasm");
    let written = std::fs::write(&path, wasm_of.expect("the text is a module"));
    written.unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    wasm("same-calls", &path, "")
}

/// Envoy's own filters that come nearest.
pub fn native_chain() -> Vec<Filter> {
    vec![header_mutation(), limit::native(&limit::by_header()), breaker::admission_control()]
}

/// These modules under `bench/steady.yaml`.
pub fn modules(modules: &[&str]) -> Vec<Filter> {
    let configuration = policy::to_json(STEADY);
    let filter =
        |module: &&str| wasm(&format!("weir.{module}"), &paths::module(module), &configuration);
    modules.iter().map(filter).collect()
}

/// What counts each request, where a filter decides on each.
fn proof(filter: &str, policy: &str) -> [&'static str; 2] {
    match filter {
        "trace_context" => ["weir_trace_context_requests_total", "outcome=.=continued"],
        "traffic_color" if policy == STEADY => {
            ["weir_traffic_color_existing_total", "outcome=.=trusted"]
        }
        "traffic_color" => ["weir_traffic_color_requests_total", "outcome=.=gray"],
        "rate_limit" => ["weir_rate_limit_requests_total", "outcome=.=admitted"],
        _ => ["weir_circuit_breaker_requests_total", "outcome=.=admitted"],
    }
}

/// One request header and one response header.
fn header_mutation() -> Filter {
    let append = |key: &str, value: &str| {
        json!([{"append": {
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }}])
    };
    Filter::inline(
        "envoy.filters.http.header_mutation",
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {
                "request_mutations": append("x-mutated", "1"),
                "response_mutations": append("x-mutated", "1"),
            },
        }),
    )
}
