//! The section of a policy on one worker.

use super::cell::State;
use super::testkit::{Ending, Vm, compile, one_rule};
use crate::core::effects::HeaderEdit;
use crate::sim::Process;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

fn start(fields: &str) -> (Process, Vm) {
    let process = Process::start();
    let vm = Vm::start(&process, &one_rule(fields), 1);
    (process, vm)
}

/// A breaker that the first failure opens, for 10 s.
fn opened(fields: &str) -> (Process, Vm) {
    let (process, mut vm) = start(&format!("minimum_calls: 1\nopen_duration: 10s\n{fields}"));
    vm.call(Ending::FAILED);
    assert_eq!(vm.state(), State::Open);
    (process, vm)
}

#[test]
fn a_refusal_says_why() {
    let (_, mut vm) = opened("");
    let decision = vm.get();
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!((reply.status, reply.grpc_status), (503, None));
    assert_eq!(reply.details, "weir_circuit_open{r}");
    for (name, value) in [
        ("x-weir-reason", "circuit_open"),
        ("x-weir-rule", "r"),
        ("retry-after", "10"),
        ("x-envoy-ratelimited", "true"),
        ("content-type", "application/problem+json"),
    ] {
        assert_eq!(decision.header(name), Some(value), "{name}");
    }
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["reason"], "circuit_open");
    assert_eq!(decision.effects.state.as_deref(), Some("open rule=r reason=failure_rate"));
    assert!(decision.call.is_none(), "it does not count itself");
}

#[test]
fn a_grpc_refusal() {
    let (_, mut vm) = opened("");
    let decision = vm.grpc();
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!(reply.grpc_status, Some(14));
    assert_eq!(decision.header("grpc-retry-pushback-ms"), Some("10000"));
    assert!(!reply.body.starts_with(b"{"));
}

#[test]
fn what_the_upstream_never_saw_does_not_count() {
    let (_, mut vm) = start("minimum_calls: 1");
    for ending in [Ending::REFUSED, Ending::GONE] {
        vm.call(ending);
        vm.call(Ending { status: 503, ..ending });
        assert!(vm.cell().window.is_empty());
    }
    vm.call(Ending::RESET);
    assert_eq!(vm.state(), State::Open, "a reset after headers of 200");
}

#[test]
fn grpc_statuses_count_and_made_up_ones_do_not() {
    let (_, mut vm) = start("minimum_calls: 2");
    let decision = vm.get();
    vm.end(decision, Ending { grpc: Some(2), ..Ending::OK });
    assert!(vm.cell().window.is_empty(), "not handed over yet");
    let decision = vm.grpc();
    vm.end(decision, Ending { grpc: Some(14), ..Ending::OK });
    // One success, one failure: half of two calls.
    assert_eq!(vm.state(), State::Open);
}

#[test]
fn a_fallback_answers_or_redirects() {
    let answer = "while_open: {fallback: {answer: {status: 200, body: later}}}";
    let yaml = |way: &str| {
        format!("{{name: t, circuit_breaker: {{rules: [{{id: r, minimum_calls: 1, {way}}}]}}}}")
    };
    let process = Process::start();
    let mut vm = Vm::start(&process, &yaml(answer), 1);
    vm.call(Ending::FAILED);
    let decision = vm.get();
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"later"[..]));
    assert_eq!(decision.header("x-weir-degraded"), Some("r"));

    let header = "while_open: {fallback: {request_header: {name: x-to, value: spare}}}";
    let process = Process::start();
    let mut vm = Vm::start(&process, &yaml(header), 1);
    vm.call(Ending::FAILED);
    let before = vm.cell();
    let decision = vm.get();
    assert!(decision.effects.reply.is_none());
    assert_eq!(decision.effects.headers, [HeaderEdit::Set("x-to".into(), "spare".into())]);
    assert_eq!(decision.effects.state.as_deref(), Some("fallback rule=r reason=failure_rate"));
    // What the fallback answers counts nowhere.
    vm.end(decision, Ending::FAILED);
    assert_eq!(vm.cell(), before);
    assert_eq!(vm.counted(&["outcome=.=fallback"]), 1);
}

#[test]
fn a_response_header_opens_for_its_time() {
    let fields = "open_on_header: {header: retry-after, max_duration: 60s}";
    for (status, value, wait) in [
        (503, "7", Some(7)),
        (503, "3600", Some(60)),
        (503, "0", None),
        (503, "soon", None),
        (200, "7", None),
    ] {
        let (process, mut vm) = start(fields);
        let ending = Ending { status, header: Some(("retry-after", value)), ..Ending::OK };
        vm.call(ending);
        let cell = vm.cell();
        let found = (cell.state == State::Open).then(|| (cell.until - process.now()) / S);
        assert_eq!(found, wait, "{status} {value}");
    }
    // A local reply is not the upstream's word.
    let (_, mut vm) = start(fields);
    let header = Some(("retry-after", "7"));
    vm.call(Ending { status: 503, attempts: 0, header, ..Ending::OK });
    assert_eq!(vm.state(), State::Closed);
}

#[test]
fn slow_calls_open_and_a_slow_probe_fails() {
    let (process, mut vm) = start(
        "minimum_calls: 2\nslow_call_duration: 1s\nslow_call_rate_percent: 100\nopen_duration: 10s",
    );
    let slow = |vm: &mut Vm, took: u64| {
        let decision = vm.get();
        process.advance(took);
        vm.end(decision, Ending::OK);
    };
    slow(&mut vm, S);
    slow(&mut vm, S + 1);
    assert_eq!(vm.state(), State::Closed, "one of two: 1 s is not longer than 1 s");
    process.advance(20 * S);
    slow(&mut vm, 2 * S);
    slow(&mut vm, 2 * S);
    assert_eq!(vm.state(), State::Open);
    process.advance(10 * S);
    for _ in 0..5 {
        slow(&mut vm, 2 * S);
    }
    assert_eq!(vm.state(), State::Open);
    assert_eq!(vm.counted(&["from=.=half_open", "to=.=open"]), 1);
}

#[test]
fn time_to_headers_or_to_the_end() {
    for (measure, state) in [("HEADERS", State::Closed), ("COMPLETE", State::Open)] {
        let (process, mut vm) = start(&format!(
            "minimum_calls: 1\nslow_call_duration: 1s\nslow_call_rate_percent: 100\nmeasure: {measure}"
        ));
        let call = vm.get().call.unwrap();
        vm.answer(&call, Ending::OK);
        process.advance(5 * S);
        vm.log(&call, Ending::OK);
        assert_eq!(vm.state(), state, "{measure}");
    }
}

/// A half-open that waits for its only probe.
fn probing() -> (Process, Vm) {
    let (process, vm) = opened("half_open_probes: 1");
    process.advance(10 * S);
    (process, vm)
}

#[test]
fn a_tunnel_and_an_event_stream_are_probes_that_succeed_by_their_headers() {
    let websocket = [(":method", "GET"), ("upgrade", "websocket"), ("connection", "upgrade")];
    let connect = [(":method", "CONNECT"), (":authority", "db.example:5432"), ("x", "")];
    let events = [(":method", "GET"), (":path", "/events"), ("x", "")];
    let kind = Some(("content-type", "Text/Event-Stream; charset=utf-8"));
    for (what, request, ending) in [
        ("websocket", websocket, Ending { status: 101, ..Ending::OK }),
        ("connect", connect, Ending::OK),
        ("events", events, Ending { header: kind, ..Ending::OK }),
    ] {
        let (_, mut vm) = probing();
        let decision = vm.send(&request);
        assert!(decision.is_probe(), "{what}");
        let call = decision.call.unwrap();
        vm.answer(&call, ending);
        assert_eq!(vm.state(), State::Closed, "{what}");
        // A reset later on changes nothing.
        vm.log(&call, Ending::RESET);
        assert_eq!(vm.state(), State::Closed, "{what}");
    }
}

#[test]
fn a_long_grpc_stream_succeeds_once_it_has_lasted() {
    let (process, mut vm) = probing();
    let call = vm.grpc().call.unwrap();
    vm.answer(&call, Ending::OK);
    for _ in 0..49 {
        process.advance(100 * MS);
        vm.tick();
        assert_eq!(vm.state(), State::HalfOpen);
    }
    process.advance(100 * MS);
    vm.tick();
    assert_eq!(vm.state(), State::Closed);
    vm.log(&call, Ending { grpc: Some(14), ..Ending::OK });
    assert_eq!(vm.state(), State::Closed);
    // One that ends before counts by its trailers.
    let (process, mut vm) = probing();
    let call = vm.grpc().call.unwrap();
    vm.answer(&call, Ending::OK);
    process.advance(4 * S);
    vm.log(&call, Ending { grpc: Some(14), ..Ending::OK });
    assert_eq!(vm.state(), State::Open);
}

#[test]
fn forced_states_act_at_once_and_back() {
    let fields = "minimum_calls: 1\nopen_duration: 10s";
    let forced = |state: &str| one_rule(&format!("{fields}\nstate: {state}"));
    let (process, mut vm) = opened("");
    let before = vm.cell();
    vm.reload(&forced("DISABLED"));
    for _ in 0..30 {
        assert!(vm.call(Ending::FAILED));
    }
    vm.reload(&forced("AUTO"));
    assert!(!vm.get().passes());
    assert_eq!(vm.cell(), before);
    process.advance(10 * S);
    for _ in 0..5 {
        assert!(vm.call(Ending::OK));
    }
    assert_eq!(vm.state(), State::Closed);
    vm.reload(&forced("FORCED_OPEN"));
    assert!(!vm.get().passes());
    assert_eq!(vm.state(), State::Closed);
    vm.reload(&forced("AUTO"));
    assert!(vm.get().passes());
}

#[test]
fn the_gauge_shows_all_six_states() {
    let gauge = |vm: &mut Vm| {
        vm.tick();
        vm.ports.gauges["policy=.=t;.;rule=.=r;.;weir_circuit_breaker_state"]
    };
    let (process, mut vm) = start("minimum_calls: 1\nopen_duration: 10s");
    assert_eq!(gauge(&mut vm), 0);
    vm.call(Ending::FAILED);
    assert_eq!(gauge(&mut vm), 1);
    process.advance(10 * S);
    vm.get();
    assert_eq!(gauge(&mut vm), 2);
    for (field, number) in [("state: DISABLED", 3), ("state: FORCED_OPEN", 4), ("mode: SHADOW", 5)]
    {
        vm.reload(&one_rule(field));
        assert_eq!(gauge(&mut vm), number, "{field}");
    }
}

#[test]
fn shadow_lets_everything_pass_and_counts_what_it_would_have_done() {
    let (process, mut vm) = start("mode: SHADOW\nminimum_calls: 1\nopen_duration: 10s");
    assert!(vm.call(Ending::FAILED));
    let decision = vm.get();
    assert!(decision.passes());
    assert_eq!(decision.effects.state.as_deref(), Some("shadow rule=r reason=failure_rate"));
    assert_eq!(vm.counted(&["outcome=.=shadow_rejected"]), 1);
    process.advance(10 * S);
    for _ in 0..5 {
        assert!(vm.call(Ending::OK));
    }
    assert_eq!(vm.state(), State::Closed);
}

#[test]
fn a_reload_while_open_keeps_state_generation_and_remaining_time() {
    let (process, mut vm) = opened("");
    let before = vm.cell();
    process.advance(4 * S);
    vm.reload(&one_rule("minimum_calls: 30\nopen_duration: 60s\nwindow: {count: 50}"));
    let decision = vm.get();
    assert_eq!(decision.header("retry-after"), Some("6"));
    let now = vm.cell();
    assert_eq!(
        (now.state, now.generation, now.until),
        (before.state, before.generation, before.until)
    );
    // The stream of the old policy ends under the new one.
    process.advance(6 * S);
    let decision = vm.get();
    assert!(decision.is_probe());
    vm.reload(&one_rule("minimum_calls: 30\nhalf_open_probes: 1"));
    vm.end(decision, Ending::OK);
    assert_eq!(vm.state(), State::Closed);
}

#[test]
fn keys_have_breakers_of_their_own() {
    let (_, mut vm) = start("minimum_calls: 3\nkey: [{header: x-user}]");
    for _ in 0..3 {
        let decision = vm.user("a");
        vm.end(decision, Ending::FAILED);
        let decision = vm.user("b");
        vm.end(decision, Ending::OK);
    }
    assert!(!vm.user("a").passes() && vm.user("b").passes());
    vm.tick();
    assert_eq!(vm.ports.gauges["policy=.=t;.;rule=.=r;.;weir_circuit_breaker_open_keys"], 1);
}

#[test]
fn breakers_outlive_an_edit_of_max_keys() {
    let yaml = |max_keys: u32| {
        one_rule(&format!("minimum_calls: 1\nkey: [{{header: x-user}}]\nmax_keys: {max_keys}"))
    };
    let process = Process::start();
    let mut vm = Vm::start(&process, &yaml(1000), 1);
    let users: Vec<_> = (0..50).map(|n| format!("u{n}")).collect();
    for user in &users {
        let decision = vm.user(user);
        vm.end(decision, Ending::FAILED);
    }
    for max_keys in [10, 1000, 5000] {
        vm.reload(&yaml(max_keys));
        let open = users.iter().filter(|user| !vm.user(user).passes()).count();
        // A table of ten keys has room for 32 at most.
        assert_eq!(open, 50, "{max_keys}");
    }
}

#[test]
fn colors_have_rules_of_their_own() {
    let rule = |color: &str, rate: u32| {
        format!(
            "{{id: {color}, match: {{colors: [{color}]}}, minimum_calls: 10, failure_rate_percent: {rate}}}"
        )
    };
    let yaml =
        format!("{{name: t, circuit_breaker: {{rules: [{}, {}]}}}}", rule("a", 30), rule("b", 50));
    let process = Process::start();
    let mut vm = Vm::start(&process, &yaml, 1);
    let request = |color| [(":method", "GET"), (":path", "/"), ("x-weir-color", color)];
    for color in ["a", "b"] {
        for n in 0..10 {
            let decision = vm.send(&request(color));
            vm.end(decision, if n < 6 { Ending::OK } else { Ending::FAILED });
        }
    }
    assert!(!vm.send(&request("a")).passes() && vm.send(&request("b")).passes());
}

#[test]
fn permits_of_other_rules_go_back_when_one_refuses() {
    let yaml = "{name: t, circuit_breaker: {rules: [\
        {id: first, minimum_calls: 1, half_open_probes: 1, open_duration: 1s, jitter_percent: 0},\
        {id: second, minimum_calls: 1, open_duration: 100s, jitter_percent: 0}]}}";
    let process = Process::start();
    let mut vm = Vm::start(&process, yaml, 1);
    vm.call(Ending::FAILED);
    process.advance(S);
    for _ in 0..3 {
        assert!(!vm.get().passes());
        let first = vm.cell();
        assert!(first.state == State::HalfOpen && first.permits.is_empty());
    }
}

#[test]
fn direction_exemptions_and_mirrors() {
    let (_, mut vm) = opened("");
    assert!(vm.send(&[(":method", "GET"), (":path", "/healthz")]).passes());
    assert!(vm.send(&[(":method", "GET"), (":path", "/"), (":authority", "a-shadow")]).passes());
    vm.ports.set_attribute("xds.listener_direction", &1_u64.to_le_bytes());
    assert!(vm.get().passes(), "inbound");
}

#[test]
fn a_missing_key_part_skips_or_rejects() {
    let (_, mut vm) = start("key: [{header: x-tenant, on_missing: REJECT}]");
    assert_eq!(vm.get().effects.reply.unwrap().status, 400);
    let (_, mut vm) = start("key: [{header: x-tenant}]");
    assert!(vm.get().passes());
    assert_eq!(vm.counted(&["outcome=.=skipped"]), 1);
}

#[test]
fn enforced_percent_is_sticky_by_key() {
    let fields = "minimum_calls: 1\nenforced_percent: 30\nkey: [{header: x-user}]";
    let (_, mut vm) = start(fields);
    let mut refused = 0;
    for n in 0..400 {
        let user = format!("u{n}");
        let decision = vm.user(&user);
        vm.end(decision, Ending::FAILED);
        let first = vm.user(&user).passes();
        assert_eq!(vm.user(&user).passes(), first);
        refused += u32::from(!first);
    }
    assert!((80..=160).contains(&refused), "{refused}");
}

fn adaptive(fields: &str) -> (Process, Vm) {
    let process = Process::start();
    let yaml = format!(
        "{{name: t, circuit_breaker: {{rules: [{{id: r, strategy: ADAPTIVE, {fields}}}]}}}}"
    );
    let vm = Vm::start(&process, &yaml, 1);
    (process, vm)
}

#[test]
fn adaptive_refuses_a_share_and_lets_go_again() {
    let (process, mut vm) = adaptive("minimum_calls: 20");
    let play = |vm: &mut Vm, ending: Ending| {
        let passed = (0..2000).filter(|_| {
            process.advance(5 * MS);
            vm.call(ending)
        });
        passed.count()
    };
    assert_eq!(play(&mut vm, Ending::OK), 2000);
    let dead = play(&mut vm, Ending::FAILED);
    // While the window empties of accepted calls, p = 2t - 1 from its middle on: a quarter in all.
    assert!((1300..1600).contains(&dead), "{dead}");
    // At most nine of ten are refused.
    let dead = play(&mut vm, Ending::FAILED);
    assert!((150..300).contains(&dead), "{dead}");
    // What it refuses itself counts as asked for, so the share that passes doubles by the window.
    let passed: Vec<usize> = (0..5).map(|_| play(&mut vm, Ending::OK)).collect();
    assert!(passed.is_sorted() && passed.last() == Some(&2000), "{passed:?}");
}

#[test]
fn adaptive_in_shadow_sees_what_it_lets_through() {
    let (process, mut vm) = adaptive("minimum_calls: 20, mode: SHADOW");
    for n in 0..4000 {
        process.advance(5 * MS);
        assert!(vm.call(if n % 4 == 0 { Ending::OK } else { Ending::FAILED }));
    }
    // A quarter is accepted, so 1 - 2 / 4 would be refused. That those got through changes nothing.
    let refused = vm.counted(&["outcome=.=shadow_rejected"]);
    assert!((1800..2150).contains(&refused), "{refused}");
}

#[test]
fn adaptive_leaves_out_what_says_nothing() {
    let (process, mut vm) = adaptive("minimum_calls: 1");
    for _ in 0..500 {
        process.advance(10 * MS);
        assert!(vm.call(Ending::GONE));
    }
}

#[test]
fn no_key_of_state_holds_what_a_client_sent() {
    let process = Process::start();
    let yaml = one_rule("minimum_calls: 1\nkey: [{header: x-user}]");
    let mut vm = Vm::start(&process, &yaml, 1);
    let decision = vm.user("a-name-to-look-for");
    vm.end(decision, Ending::FAILED);
    for key in process.store.keys() {
        let text = String::from_utf8(key).unwrap();
        assert!(text.starts_with("weir/1/") && !text.contains("name-to-look"), "{text}");
    }
}

#[test]
fn a_policy_of_this_section_alone_or_none() {
    assert!(compile("{name: t}").is_ok());
    assert!(compile("{name: t, circuit_breaker: {rules: [{id: r}]}}").is_ok());
    assert!(compile("{name: t, circuit_breaker: {rules: [{id: r}, {id: r}]}}").is_err());
}
