//! Beside Envoy's own tracer, and beside an authorization service.

use crate::rig::{Rig, SPAN, TRACE, parent, seen};
use serde_json::json;
use weir_integration_tests::{Filter, Listener, Request};

/// Envoy's OpenTelemetry tracer; what it exports goes to the echo, which takes anything.
fn traced(listener: Listener, percent: u32) -> Listener {
    // Its decision goes by the request id.
    listener.hcm("generate_request_id", json!(true)).hcm(
        "tracing",
        json!({
            "random_sampling": {"value": percent},
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "echo-h2"}, "timeout": "0.5s"},
                    "service_name": "envoy",
                },
            },
        }),
    )
}

fn beside_the_tracer(percent: u32, fields: &str) -> Rig {
    let policy = format!("{{name: shop, trace_context: {{{fields}}}}}");
    Rig::with(1, &policy, |_| vec![Filter::weir()], |listener| traced(listener, percent))
}

/// As measured, and as the README says: Envoy's tracer decides before the filters run and writes after
/// them, so its `traceparent` is what the upstream sees.
#[test]
fn envoys_own_tracer_has_the_last_word() {
    let rig = beside_the_tracer(100, "response: {trace_id_header: x-trace-id}");
    let response = rig.get("out", &[("traceparent", &parent("01"))]);
    let (trace, span, flags) = seen(&response);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "the trace that came goes on");
    assert_ne!(span, SPAN);
    assert_eq!(response.header("x-trace-id").as_deref(), Some(TRACE), "and we tell the same");

    let response = rig.get("out", &[]);
    let ours = response.header("x-trace-id").unwrap();
    assert_ne!(seen(&response).0, ours, "of a new trace each has its own idea");
    rig.envoy.assert_healthy();
}

/// The way to live together: we observe, the tracer writes.
#[test]
fn observing_leaves_it_to_the_tracer() {
    let rig = beside_the_tracer(
        100,
        "propagation: {mode: OBSERVE}, response: {trace_id_header: x-trace-id}",
    );
    let response = rig.get("out", &[("traceparent", &parent("01"))]);
    assert_eq!(seen(&response).0, TRACE);
    assert_eq!(response.header("x-trace-id").as_deref(), Some(TRACE));
    assert_eq!(
        rig.get("out", &[]).header("x-trace-id"),
        None,
        "what we do not write we do not tell"
    );
}

/// A color that is to be traced is, on the same hop, at a base rate of nothing.
#[test]
fn a_forced_trace_is_forced_in_envoys_tracer_too() {
    let rig = beside_the_tracer(
        0,
        "sampling: {percent: 0, rules: [{id: gray, match: {colors: [gray]}, force_envoy_tracer: true}]}",
    );
    let forced = || rig.envoy.counter("http.out.tracing.service_forced");
    let response = rig.get("out", &[]);
    assert_eq!((seen(&response).2.as_str(), forced()), ("00", 0));
    let response = rig.get("out", &[("x-weir-color", "gray")]);
    assert_eq!(forced(), 1);
    assert!(seen(&response).2.ends_with('1'), "{:?}", seen(&response));
}

#[test]
fn an_authorization_service_sees_the_same_trace() {
    let authorize = || {
        Filter::inline(
            "envoy.filters.http.ext_authz",
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                "http_service": {
                    "server_uri": {"uri": "http://echo", "cluster": "echo", "timeout": "2s"},
                    "path_prefix": "/authorize",
                },
                "allowed_headers": {"patterns": [{"exact": "traceparent"}]},
            }),
        )
    };
    let rig = Rig::with(
        1,
        "{name: shop, trace_context: {}}",
        |_| vec![Filter::weir(), authorize()],
        |listener| listener,
    );
    let response = rig.envoy.client("in").send(&Request::get("/"));
    let (trace, ..) = seen(&response);
    let asked = rig.echo.seen().into_iter().find(|seen| seen.path.starts_with("/authorize"));
    let asked = asked.expect("the service was asked");
    assert_eq!(asked.header("traceparent").unwrap()[3..35], trace);
}
