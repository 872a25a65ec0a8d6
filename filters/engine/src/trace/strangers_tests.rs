//! What strangers say, what the proxy remembers, and what must not come of either.

use super::testkit::{Vm, section};
use crate::core::headers::HeaderMap;
use crate::sim::Process;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn edge(fields: &str) -> Vm {
    Vm::start(
        &Process::start(),
        &format!("{{name: t, zone: EDGE, trace_context: {{{fields}}}}}"),
        1,
    )
}

fn start(fields: &str) -> Vm {
    Vm::start(&Process::start(), &section(fields), 1)
}

#[test]
fn a_strangers_decision_goes_on_in_no_form() {
    let mut vm = edge("sampling: {percent: 0}");
    for (name, value) in [
        ("b3", format!("{TRACE}-{SPAN}-d")),
        ("uber-trace-id", format!("{TRACE}:{SPAN}:0:3")),
        ("x-datadog-sampling-priority", "2".into()),
        ("x-b3-flags", "1".into()),
    ] {
        let sent = vm.send(&[(name, &value)]);
        assert_eq!(sent.traceparent().2.as_bytes()[1] & 1, 0);
        assert_ne!(sent.header(name), Some(value), "{name} goes on");
    }
}

#[test]
fn a_stranger_is_not_preserved() {
    let mut vm = edge("propagation: {mode: PRESERVE}, sampling: {percent: 0}");
    assert_ne!(vm.send(&[("traceparent", parent("01"))]).traceparent().2, "01");
}

#[test]
fn a_strangers_probability_goes() {
    let mut vm = edge("");
    let sent = vm.send(&[
        ("traceparent", parent("00")),
        ("tracestate", "ot=th:fffffffffffff;rv:ffffffffffffff".into()),
    ]);
    assert_eq!(sent.traceparent().2, "01");
    assert_eq!(sent.header("tracestate"), None);
}

#[test]
fn what_is_remembered_comes_before_a_mere_id() {
    let process = Process::start();
    let yaml = "{name: t, restore: {keys: [{header: x-request-id}]}, trace_context: {propagation: {extract: [W3C, REQUEST_ID]}}}";
    let id = "0123abcd-77b3-4da6-a3ce-929d0e0e4736";
    let came = Vm::start(&process, yaml, 1)
        .facing(1)
        .send(&[("x-request-id", id), ("traceparent", &parent("01"))]);
    let went = Vm::start(&process, yaml, 2).facing(2).send(&[("x-request-id", id)]);
    assert_eq!(came.trace_id(), went.trace_id());
}

#[test]
fn a_restart_leaves_no_other_form() {
    let mut vm = start("propagation: {mode: RESTART, inject: [B3_SINGLE]}");
    let sent = vm.send(&[("traceparent", parent("01")), ("tracestate", "foo=1".into())]);
    assert_eq!((sent.header("traceparent"), sent.header("tracestate")), (None, None));
}

#[test]
fn a_restart_leaves_no_b3() {
    let mut vm = start("propagation: {mode: RESTART}");
    let b3 = format!("{TRACE}-{SPAN}-1");
    assert_ne!(vm.send(&[("b3", &b3)]).header("b3"), Some(b3));
}

#[test]
fn the_answers_of_filters_are_theirs() {
    let mut vm = start("response: {envelope: true}");
    let call = vm.send::<&str>(&[]).decision.call.unwrap();
    let mut replaced = Vec::new();
    for (status, flag, details) in [
        ("401", 0x1000_u64, "ext_authz_denied"),
        ("429", 0x800, "request_rate_limited"),
        ("503", 0x400, "fault_filter_abort"),
    ] {
        vm.ports.set_attribute("response.flags", &flag.to_le_bytes());
        vm.ports.set_attribute("response.code_details", details.as_bytes());
        let response = HeaderMap::from_pairs(&[
            (":status", status),
            ("www-authenticate", "Basic"),
            ("retry-after", "7"),
        ]);
        if call.on_response(&response, &mut vm.ports).reply.is_some() {
            replaced.push(details);
        }
    }
    assert_eq!(replaced, Vec::<&str>::new());
}

#[test]
fn an_envelope_keeps_what_envoy_told_beside() {
    let mut vm = start("response: {envelope: true}");
    let call = vm.send::<&str>(&[]).decision.call.unwrap();
    vm.ports.set_attribute("response.flags", &128_u64.to_le_bytes());
    vm.ports.set_attribute(
        "response.code_details",
        b"upstream_reset_before_response_started{overflow}",
    );
    let response = HeaderMap::from_pairs(&[(":status", "503"), ("x-envoy-overloaded", "true")]);
    let reply = call.on_response(&response, &mut vm.ports).reply.unwrap();
    assert!(
        reply.headers.iter().any(|(name, _)| name == "x-envoy-overloaded"),
        "{:?}",
        reply.headers
    );
}

#[test]
fn what_was_stripped_is_not_restored() {
    let process = Process::start();
    let yaml = "{name: t, zone: EDGE, restore: {keys: [{header: x-request-id}], mint: true}, trace_context: {propagation: {strip: [SKYWALKING]}}}";
    let came = Vm::start(&process, yaml, 1).facing(1).send(&[("sw8", "1-strangers")]);
    assert_eq!(came.header("sw8"), None);
    let id = came.header("x-request-id").unwrap();
    let went = Vm::start(&process, yaml, 2).facing(2).send(&[("x-request-id", &id)]);
    assert_eq!(went.header("sw8"), None);
}

#[test]
fn no_half_of_an_old_id_stays() {
    let mut vm = start("propagation: {extract: [W3C, DATADOG], inject: [DATADOG]}");
    let sent = vm.send(&[
        ("traceparent", "00-0000000000000000a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-datadog-tags", "_dd.p.tid=4bf92f3577b34da6"),
    ]);
    assert_eq!(sent.header("x-datadog-tags"), None);
}

#[test]
fn an_event_stream_among_other_kinds() {
    let mut vm = start("deadline: {default: 1s}");
    let sent = vm.send(&[("accept", "application/json, text/event-stream")]);
    assert_eq!(sent.header("x-envoy-upstream-rq-timeout-ms"), None);
}

#[test]
fn a_proxy_knows_its_own_requests_again() {
    let process = Process::start();
    let yaml = "{name: t, zone: EDGE, restore: {keys: [{header: x-request-id}], mint: true}, \
        trace_context: {baggage: {set: [{key: tenant, value: {constant: a}}]}, sampling: {percent: 0, rules: [{id: r, match: {path: {exact: /in}}}]}}}";
    let Ok(_) = super::testkit::compile(yaml) else {
        panic!("{:?}", super::testkit::compile(yaml).err())
    };
    let came = Vm::start(&process, yaml, 1).facing(1).send(&[(":path", "/in")]);
    assert_eq!(came.traceparent().2, "03");
    let forwarded = [
        ("x-request-id", came.header("x-request-id").unwrap()),
        ("traceparent", came.header("traceparent").unwrap()),
    ];
    let went = Vm::start(&process, yaml, 2).facing(2).send(&forwarded);
    assert_eq!((went.trace_id(), went.traceparent().2.as_str()), (came.trace_id(), "03"));
}

#[test]
fn the_state_of_the_same_trace_stays() {
    let mut vm = start("propagation: {extract: [B3_SINGLE, W3C]}");
    let sent = vm.send(&[
        ("traceparent", parent("01")),
        ("tracestate", "foo=1".into()),
        ("b3", format!("{TRACE}-{SPAN}-1")),
    ]);
    assert_eq!(sent.header("tracestate").as_deref(), Some("foo=1"));
}

#[test]
fn half_an_id_is_known_again() {
    let process = Process::start();
    let yaml = "{name: t, restore: {keys: [{header: x-request-id}]}, trace_context: {propagation: {inject: [W3C, B3_SINGLE]}}}";
    let came = Vm::start(&process, yaml, 1).facing(1).send(&[
        ("x-request-id", "r"),
        ("traceparent", &parent("01")),
        ("baggage", "a=1"),
    ]);
    let went = Vm::start(&process, yaml, 2)
        .facing(2)
        .send(&[("x-request-id", "r"), ("b3", &format!("{}-{SPAN}-1", &TRACE[16..]))]);
    assert_eq!(
        (went.trace_id(), went.header("baggage").as_deref()),
        (came.trace_id(), Some("a=1"))
    );
}

#[test]
fn a_stream_remembers_what_is_left() {
    let process = Process::start();
    let yaml =
        "{name: t, restore: {keys: [{header: x-request-id}]}, trace_context: {deadline: {}}}";
    Vm::start(&process, yaml, 1).facing(1).send(&[
        ("x-request-id", "r"),
        ("content-type", "application/grpc"),
        ("x-weir-deadline-ms", "500"),
    ]);
    let went = Vm::start(&process, yaml, 2).facing(2).send(&[("x-request-id", "r")]);
    assert_eq!(went.header("x-weir-deadline-ms").as_deref(), Some("500"));
}

#[test]
fn what_is_stripped_is_not_preserved() {
    let mut vm = start("propagation: {mode: PRESERVE, strip: [W3C], inject: [W3C]}");
    assert!(vm.send(&[("traceparent", parent("01"))]).header("traceparent").is_some());
}

#[test]
fn headers_with_a_meaning_are_refused() {
    for yaml in [
        section("response: {trace_id_header: content-length}"),
        section("deadline: {header: host}"),
        section("deadline: {header: grpc-timeout}"),
        "{name: t, restore: {keys: [{header: content-length}], mint: true}, trace_context: {}}"
            .to_string(),
    ] {
        assert!(super::testkit::compile(&yaml).is_err(), "{yaml}");
    }
}

#[test]
fn a_restart_keeps_no_field_of_the_old_trace() {
    let mut vm =
        start("propagation: {mode: RESTART, extract: [XRAY, DATADOG], inject: [XRAY, DATADOG]}");
    let sent = vm.send(&[
        ("x-amzn-trace-id", "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Lineage=a:1"),
        ("x-datadog-tags", "_dd.p.usr.id=x"),
        ("x-datadog-origin", "rum"),
    ]);
    assert!(!sent.header("x-amzn-trace-id").unwrap().contains("Lineage"));
    assert!(!sent.header("x-datadog-tags").unwrap_or_default().contains("usr"));
}

#[test]
fn the_last_milliseconds_run_out() {
    let mut vm = start("deadline: {}").facing(2);
    let mut left = "10".to_string();
    for _ in 0..100 {
        use crate::core::ports::Clock;
        let began = vm.ports.wall() - 900_000;
        vm.ports.set_attribute("request.time", &began.to_le_bytes());
        let sent = vm.send(&[("x-weir-deadline-ms", &left)]);
        if sent.decision.effects.reply.is_some() {
            return;
        }
        left = sent.header("x-weir-deadline-ms").unwrap();
    }
    panic!("90 ms of hops, {left} ms of 10 left");
}

#[test]
fn a_client_chooses_no_randomness_for_the_mesh() {
    let mut vm = edge("");
    let mut inner = start("sampling: {parent: IGNORE, percent: 1}");
    let sampled = (0..100)
        .filter(|_| {
            let sent = vm.send(&[
                ("traceparent", parent("00")),
                ("tracestate", "ot=rv:ffffffffffffff".into()),
            ]);
            let went = inner.send(&[
                ("traceparent", sent.header("traceparent").unwrap()),
                ("tracestate", sent.header("tracestate").unwrap_or_default()),
            ]);
            went.traceparent().2.ends_with('1')
        })
        .count();
    assert!(sampled < 20, "{sampled} of 100 at 1 %");
}

#[test]
fn what_is_preserved_forces_nothing() {
    let mut vm = start(
        "propagation: {mode: PRESERVE}, sampling: {rules: [{id: r, override_parent: true, force_envoy_tracer: true}]}",
    );
    let sent = vm.send(&[("traceparent", parent("00"))]);
    assert_eq!(sent.traceparent().2 == "01", sent.header("x-envoy-force-trace").is_some());
}
