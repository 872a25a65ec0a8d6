//! Recording and restoring on the simulated host: two listeners, several workers, one process.

use proptest::prelude::*;

use super::testkit::{Sent, Vm};
use crate::core::ports::Nanos;
use crate::sim::Process;

const S: Nanos = 1_000_000_000;

const POLICY: &str = "{name: t, restore: {keys: [{header: x-request-id}, \
    {header: x-session, scope: SESSION, baggage: [tenant]}], mint: true}, trace_context: {deadline: {}}}";

fn inbound(process: &Process) -> Vm {
    Vm::start(process, POLICY, 1).facing(1)
}

fn outbound(process: &Process) -> Vm {
    Vm::start(process, POLICY, 2).facing(2)
}

fn parent(sent: &Sent) -> String {
    sent.traceparent().1
}

#[test]
fn the_whole_context_comes_back() {
    let process = Process::start();
    let (mut into, mut out) = (inbound(&process), outbound(&process));
    let came = into.send(&[
        ("x-request-id", "r1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "foo=1, bar=2"),
        ("baggage", "tenant=a, b=2"),
        ("x-weir-color", "gray"),
        ("sw8", "1-abc"),
        ("x-weir-deadline-ms", "1000"),
    ]);
    process.advance(S / 10);
    let went = out.send(&[("x-request-id", "r1")]);
    assert_eq!(went.trace_id(), came.trace_id());
    assert_ne!(parent(&went), parent(&came));
    assert_eq!(went.header("tracestate").as_deref(), Some("foo=1,bar=2"));
    assert_eq!(went.header("baggage").as_deref(), Some("tenant=a,b=2"));
    assert_eq!(went.header("x-weir-color").as_deref(), Some("gray"));
    assert_eq!(went.header("sw8").as_deref(), Some("1-abc"));
    assert_eq!(went.header("x-weir-deadline-ms").as_deref(), Some("900"));

    // What the application forwarded itself stays its own.
    let went = out.send(&[("x-request-id", "r1"), ("baggage", "own=1"), ("x-weir-color", "blue")]);
    assert_eq!(went.header("baggage").as_deref(), Some("own=1"));
    assert_eq!(went.header("x-weir-color").as_deref(), Some("blue"));
    // In a trace of its own it is another request, and gets nothing.
    let other = "00-0000000000000000000000000000000a-00f067aa0ba902b7-01";
    let went = out.send(&[("x-request-id", "r1"), ("traceparent", other)]);
    assert_eq!((went.header("baggage"), went.header("x-weir-color")), (None, None));
    // A time that it forwarded without counting its own is not believed.
    let went = out.send(&[("x-request-id", "r1"), ("x-weir-deadline-ms", "1000")]);
    assert_eq!(went.header("x-weir-deadline-ms").as_deref(), Some("900"));
}

#[test]
fn envoys_decision_in_a_request_id_makes_no_other_request() {
    let process = Process::start();
    let (mut into, mut out) = (inbound(&process), outbound(&process));
    let id = |version: char| format!("4bf92f35-77b3-{version}da6-a3ce-929d0e0e4736");
    let came = into.send(&[("x-request-id", id('4'))]);
    assert_eq!(out.send(&[("x-request-id", id('9'))]).trace_id(), came.trace_id());
}

#[test]
fn one_id_and_two_traces_restore_nothing() {
    let process = Process::start();
    let (mut into, mut out) = (inbound(&process), outbound(&process));
    let traces: Vec<_> = (0..2).map(|_| into.send(&[("x-request-id", "r1")]).trace_id()).collect();
    let went = out.send(&[("x-request-id", "r1")]);
    assert!(!traces.contains(&went.trace_id()));
    assert_eq!(out.counted(&["restores_total", "outcome=.=ambiguous"]), 1);
    // Long after both, the id is as good as new.
    process.advance(61 * S);
    let came = into.send(&[("x-request-id", "r1")]);
    assert_eq!(out.send(&[("x-request-id", "r1")]).trace_id(), came.trace_id());
    process.advance(61 * S);
    assert_ne!(out.send(&[("x-request-id", "r1")]).trace_id(), came.trace_id(), "expired");
}

#[test]
fn a_session_gives_no_trace() {
    let process = Process::start();
    let (mut into, mut out) = (inbound(&process), outbound(&process));
    let came =
        into.send(&[("x-session", "s"), ("baggage", "tenant=a,b=2"), ("x-weir-color", "gray")]);
    let went = out.send(&[("x-session", "s")]);
    assert_ne!(went.trace_id(), came.trace_id());
    assert_eq!(went.header("baggage").as_deref(), Some("tenant=a"));
    assert_eq!(went.header("x-weir-color").as_deref(), Some("gray"));
    // The newest request of the session had neither.
    into.send(&[("x-session", "s")]);
    let went = out.send(&[("x-session", "s")]);
    assert_eq!((went.header("baggage"), went.header("x-weir-color")), (None, None));
}

#[test]
fn who_has_no_side_records_and_restores_nothing() {
    let process = Process::start();
    let mut bare = Vm::start(&process, POLICY, 3);
    let came = bare.send(&[("x-request-id", "r1")]);
    assert_ne!(bare.send(&[("x-request-id", "r1")]).trace_id(), came.trace_id());
    assert_ne!(outbound(&process).send(&[("x-request-id", "r1")]).trace_id(), came.trace_id());
    // An outbound listener alone records nothing either.
    let mut out = outbound(&process);
    let went = out.send(&[("x-request-id", "r2")]);
    assert_ne!(out.send(&[("x-request-id", "r2")]).trace_id(), went.trace_id());
}

#[test]
fn mirrors_and_strangers_leave_no_record() {
    let process = Process::start();
    let mut into = inbound(&process);
    let mirrored = into.send(&[("x-request-id", "r1"), (":authority", "shop-shadow")]);
    assert_ne!(outbound(&process).send(&[("x-request-id", "r1")]).trace_id(), mirrored.trace_id());

    let edge = POLICY.replace("{name: t,", "{name: t, zone: EDGE,");
    let mut into = Vm::start(&process, &edge, 1).facing(1);
    let came = into.send(&[
        ("x-request-id", "victims"),
        ("x-session", "victims"),
        ("x-weir-color", "gray"),
    ]);
    let minted = came.header("x-request-id").unwrap();
    assert_ne!(minted, "victims", "a stranger's id is replaced by ours");
    let mut out = outbound(&process);
    for id in ["x-request-id", "x-session"] {
        let went = out.send(&[(id, "victims")]);
        assert_ne!(went.trace_id(), came.trace_id());
        assert_eq!(went.header("x-weir-color"), None);
    }
    assert_eq!(out.send(&[("x-request-id", minted)]).trace_id(), came.trace_id());
}

/// Under a policy of the edge what the proxy let in and remembers is its own.
#[test]
fn what_was_let_in_at_the_edge_goes_on() {
    let process = Process::start();
    let edge = "{name: t, zone: EDGE, restore: {keys: [{header: x-request-id}], mint: true}, \
                trace_context: {baggage: {allow: [a]}, sampling: {percent: 0, rules: [{id: r, match: {path: {exact: /in}}}]}}}";
    let mut into = Vm::start(&process, edge, 1).facing(1);
    let came = into.send(&[(":path", "/in"), ("baggage", "a=1,b=2")]);
    assert_eq!(came.traceparent().2, "03");
    let id = came.header("x-request-id").unwrap();
    let went = Vm::start(&process, edge, 2).facing(2).send(&[("x-request-id", id)]);
    assert_eq!((went.trace_id(), went.traceparent().2), (came.trace_id(), "03".into()));
    assert_eq!(went.header("baggage").as_deref(), Some("a=1"));
}

#[test]
fn records_outlive_an_edit() {
    let process = Process::start();
    let came = inbound(&process).send(&[("x-request-id", "r1")]);
    let edited = POLICY.replace("mint: true", "mint: true, max_records: 2048, ttl: 30s");
    let mut out = Vm::start(&process, &edited, 4).facing(2);
    assert_eq!(out.send(&[("x-request-id", "r1")]).trace_id(), came.trace_id());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Requests come in and go out in any order over several workers, some with an id that another
    /// has. Each call is in its own request's trace, or in a new one where its id is not its own.
    #[test]
    fn nobody_gets_anothers_context(
        steps in proptest::collection::vec((0_usize..40, any::<bool>(), 0_usize..3), 1..200),
        twins in proptest::collection::hash_set(0_usize..40, 0..8),
    ) {
        let process = Process::start();
        let mut into: Vec<Vm> = (0..3).map(|n| Vm::start(&process, POLICY, 10 + n).facing(1)).collect();
        let mut out: Vec<Vm> = (0..3).map(|n| Vm::start(&process, POLICY, 20 + n).facing(2)).collect();
        // Twins share an id with the request after them.
        let id = |request: usize| format!("r{}", if twins.contains(&request) { request + 1 } else { request });
        let mut traces: Vec<Option<String>> = vec![None; 41];
        for (request, comes_in, worker) in steps {
            process.advance(1_000_000);
            let headers = [("x-request-id", id(request))];
            if comes_in && traces[request].is_none() {
                traces[request] = Some(into[worker].send(&headers).trace_id());
            } else if let Some(own) = &traces[request] {
                let went = out[worker].send(&headers).trace_id();
                let shares = (0..41).any(|other| {
                    other != request && id(other) == id(request) && traces[other].is_some()
                });
                if shares {
                    prop_assert!(!traces.contains(&Some(went)), "of two with one id neither is restored");
                } else {
                    prop_assert_eq!(&went, own);
                }
            }
        }
    }
}
