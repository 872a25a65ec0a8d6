//! The section as a whole, on the simulated host.

use super::super::testkit::{Vm, one_rule};
use crate::core::effects::HeaderEdit;
use crate::core::ports::Nanos;
use crate::sim::Process;

const S: Nanos = 1_000_000_000;

const TEN: &str = "max_tokens: 10\ntokens_per_fill: 10\nfill_interval: 1s";

fn start(rule: &str) -> (Process, Vm) {
    let process = Process::start();
    let vm = Vm::start(&process, &one_rule(rule), 1);
    (process, vm)
}

fn admitted(vm: &mut Vm, requests: usize) -> usize {
    (0..requests).filter(|_| vm.get("/").passes()).count()
}

#[test]
fn a_burst_then_the_rate() {
    let (process, mut vm) = start(TEN);
    assert_eq!(admitted(&mut vm, 30), 10);
    process.advance(S / 2);
    assert_eq!(admitted(&mut vm, 30), 5);
    process.advance(100 * S);
    assert_eq!(admitted(&mut vm, 30), 10);
    assert_eq!(vm.counted(&["rule=.=r;", "outcome=.=admitted;"]), 25);
    assert_eq!(vm.counted(&["outcome=.=limited;"]), 65);
}

#[test]
fn a_refusal_says_why_and_when() {
    let (_, mut vm) =
        start("max_tokens: 2\nfill_interval: 30s\nat_limit: {retry_after_jitter_percent: 0}");
    admitted(&mut vm, 2);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let decision = vm.send(&[(":path", "/"), ("traceparent", traceparent)]);
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!((reply.status, reply.grpc_status), (429, None));
    assert_eq!(reply.details, "weir_rate_limited{r}");
    for (name, value) in [
        ("x-weir-reason", "rate_limited"),
        ("x-weir-rule", "r"),
        ("x-envoy-ratelimited", "true"),
        ("retry-after", "30"),
        ("ratelimit-policy", "\"r\";q=2;w=60"),
        ("ratelimit", "\"r\";r=0;t=30"),
        ("content-type", "application/problem+json"),
    ] {
        assert_eq!(decision.header(name), Some(value), "{name}");
    }
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["violated-policies"][0], "r");
    assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(body["status"], 429);
    assert_eq!(decision.effects.state.as_deref(), Some("limited rule=r"));
}

#[test]
fn retry_after_is_never_early() {
    for _ in 0..50 {
        let (process, mut vm) = start("max_tokens: 1\nfill_interval: 7.3s");
        admitted(&mut vm, 1);
        process.advance(S / 3);
        let seconds: u64 = vm.get("/").header("retry-after").unwrap().parse().unwrap();
        assert!((7..=8).contains(&seconds), "{seconds}");
        process.advance(seconds * S);
        assert!(vm.get("/").passes());
    }
}

#[test]
fn grpc_gets_a_sentence_and_its_own_status() {
    let (_, mut vm) = start("max_tokens: 1\nfill_interval: 2s");
    let grpc =
        [(":method", "POST"), (":path", "/p.S/M"), ("content-type", "application/grpc+proto")];
    assert!(vm.send(&grpc).passes());
    let decision = vm.send(&grpc);
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!(reply.grpc_status, Some(8));
    assert!(!reply.body.starts_with(b"{") && decision.header("content-type").is_none());
    assert_eq!(decision.header("grpc-retry-pushback-ms"), Some("2000"));
}

#[test]
fn keys_have_buckets_of_their_own() {
    let (_, mut vm) = start(&format!("{TEN}\nkey: [{{header: x-user}}]"));
    assert_eq!((0..20).filter(|_| vm.user("a").passes()).count(), 10);
    assert_eq!((0..20).filter(|_| vm.user("b").passes()).count(), 10);
    // Without the header the rule is skipped.
    assert_eq!(admitted(&mut vm, 50), 50);
    assert_eq!(vm.counted(&["outcome=.=skipped;"]), 50);
}

#[test]
fn a_missing_part() {
    let (_, mut vm) = start(&format!("{TEN}\nkey: [{{header: x-user, on_missing: EMPTY}}]"));
    assert_eq!(admitted(&mut vm, 50), 10);
    let (_, mut vm) = start(&format!("{TEN}\nkey: [{{header: x-user, on_missing: REJECT}}]"));
    let decision = vm.get("/");
    assert_eq!(decision.effects.reply.as_ref().unwrap().status, 400);
    assert_eq!(decision.header("x-weir-reason"), Some("missing_key"));
    assert!(vm.user("a").passes());
}

#[test]
fn parts_do_not_run_together() {
    let (_, mut vm) = start("max_tokens: 1\nfill_interval: 60s\nkey: [{header: a}, {header: b}]");
    let mut send = |a: &str, b: &str| vm.send(&[(":path", "/"), ("a", a), ("b", b)]).passes();
    assert!(send("x", "yz") && send("xy", "z") && send("", "xyz") && send("xyz", ""));
    assert!(!send("x", "yz"));
}

const TWO: &str = "name: t
rate_limit:
  rules:
  - {id: wide, max_tokens: 10, fill_interval: 60s}
  - {id: narrow, max_tokens: 3, fill_interval: 60s, key: [{header: x-user}]}
";

#[test]
fn all_rules_must_admit_and_refusals_take_nothing() {
    let process = Process::start();
    let mut vm = Vm::start(&process, TWO, 1);
    assert_eq!((0..50).filter(|_| vm.user("a").passes()).count(), 3);
    // The 47 refusals gave their tokens of `wide` back: seven are left.
    assert_eq!((0..50).filter(|n| vm.user(&format!("u{n}")).passes()).count(), 7);
    assert_eq!(vm.counted(&["rule=.=wide;", "outcome=.=admitted;"]), 10);
    assert_eq!(vm.counted(&["rule=.=narrow;", "outcome=.=limited;"]), 47);
    assert_eq!(vm.counted(&["rule=.=wide;", "outcome=.=limited;"]), 43);
}

#[test]
fn stop_ends_the_search() {
    let process = Process::start();
    let policy = "name: t
rate_limit:
  rules:
  - {id: vip, max_tokens: 100, fill_interval: 60s, match: {headers: {x-vip: {exact: '1'}}}, on_match: STOP}
  - {id: rest, max_tokens: 1, fill_interval: 60s}
";
    let mut vm = Vm::start(&process, policy, 1);
    assert!((0..50).all(|_| vm.send(&[(":path", "/"), ("x-vip", "1")]).passes()));
    assert_eq!(admitted(&mut vm, 5), 1);
}

#[test]
fn shadow_and_off() {
    for (policy_mode, section, rule, enforces) in [
        ("ENFORCE", "ENFORCE", "ENFORCE", true),
        ("SHADOW", "ENFORCE", "ENFORCE", false),
        ("ENFORCE", "SHADOW", "ENFORCE", false),
        ("ENFORCE", "ENFORCE", "SHADOW", false),
        ("OFF", "ENFORCE", "ENFORCE", false),
        ("ENFORCE", "ENFORCE", "OFF", false),
    ] {
        let process = Process::start();
        let policy = format!(
            "name: t\nmode: {policy_mode}\nrate_limit:\n  mode: {section}\n  rules:\n  \
             - {{id: r, mode: {rule}, max_tokens: 1, fill_interval: 60s}}\n"
        );
        let mut vm = Vm::start(&process, &policy, 1);
        let passed = admitted(&mut vm, 10);
        assert_eq!(passed, if enforces { 1 } else { 10 });
        let is_shadow = [policy_mode, section, rule].contains(&"SHADOW");
        assert_eq!(vm.counted(&["outcome=.=shadow_limited;"]), if is_shadow { 9 } else { 0 });
        if is_shadow {
            assert_eq!(vm.get("/").effects.state.as_deref(), Some("shadow rule=r"));
        }
    }
}

#[test]
fn an_enforced_share_sticks_to_the_key() {
    let rule = "max_tokens: 1\nfill_interval: 3600s\nkey: [{header: x-user}]\nenforced_percent: 30";
    let (_, mut vm) = start(rule);
    let mut enforced = 0;
    for user in 0..2000 {
        let user = format!("u{user}");
        assert!(vm.user(&user).passes());
        let outcomes: Vec<bool> = (0..3).map(|_| vm.user(&user).passes()).collect();
        assert!(outcomes.iter().all(|passed| *passed == outcomes[0]));
        enforced += usize::from(!outcomes[0]);
    }
    assert!((540..=660).contains(&enforced), "{enforced} of 2000 at 30 %");
}

#[test]
fn degrade_by_header_and_by_answer() {
    let (_, mut vm) = start(
        "max_tokens: 1\nfill_interval: 60s\nat_limit: {degrade: {request_header: {name: X-Lite, value: 'on'}}}",
    );
    assert!(vm.get("/").effects.headers.is_empty());
    let decision = vm.get("/");
    assert!(decision.passes());
    assert_eq!(decision.effects.headers, [HeaderEdit::Set("x-lite".into(), "on".into())]);
    let plan = decision.response.unwrap();
    assert_eq!(plan.headers, [("x-weir-degraded".to_string(), "r".to_string())]);
    let (_, mut vm) = start(
        "max_tokens: 1\nfill_interval: 60s\nat_limit: {degrade: {answer: {body: cached}, marker: x-stale}}",
    );
    vm.get("/");
    let decision = vm.get("/");
    let reply = decision.effects.reply.as_ref().unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"cached"[..]));
    assert_eq!(decision.header("x-stale"), Some("r"));
    assert_eq!(vm.counted(&["outcome=.=degraded;"]), 1);
}

#[test]
fn quota_headers_of_several_rules() {
    let process = Process::start();
    let policy =
        TWO.replace("fill_interval: 60s", "fill_interval: 60s, at_limit: {quota_headers: ALWAYS}");
    let mut vm = Vm::start(&process, &policy, 1);
    let quota = vm.user("a").response.unwrap().quota.unwrap();
    assert_eq!(quota.policy, "\"wide\";q=10;w=600, \"narrow\";q=3;w=180");
    assert_eq!(quota.limit, "\"wide\";r=9;t=60, \"narrow\";r=2;t=60");
    assert_eq!(quota.remaining, 2);
}

#[test]
fn the_upstreams_stricter_quota_stays() {
    use super::super::{Quota, ResponsePlan};
    use crate::core::headers::HeaderMap;
    let plan = || {
        let quota = Quota {
            policy: "p".into(),
            limit: "l".into(),
            remaining: 5,
            draft_03: vec![("x-ratelimit-remaining".into(), "5".into())],
        };
        ResponsePlan { quota: Some(quota), ..ResponsePlan::default() }
    };
    let edited = |name: &str, value: &str| {
        let edits = plan().edits(&HeaderMap::from_pairs(&[(name, value)]));
        let name = |edit| match edit {
            HeaderEdit::Set(name, _) => name,
            other => panic!("{other:?}"),
        };
        edits.into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(edited("ratelimit", r#""a";r=9;t=1, "b";t=3;r=4"#), ["x-ratelimit-remaining"]);
    assert_eq!(edited("ratelimit", r#""a";r=6"#).len(), 3);
    assert_eq!(edited("x-ratelimit-remaining", "0"), ["ratelimit-policy", "ratelimit"]);
    assert_eq!(edited("ratelimit", "nonsense").len(), 3);
}

#[test]
fn exempt_mirrored_and_outbound_requests_are_not_charged() {
    let (_, mut vm) = start("max_tokens: 1\nfill_interval: 60s");
    for _ in 0..5 {
        assert!(vm.get("/healthz").passes());
        assert!(vm.send(&[(":path", "/"), (":authority", "shop-shadow:80")]).passes());
    }
    vm.ports.set_attribute("xds.listener_direction", &2_u64.to_le_bytes());
    assert_eq!(admitted(&mut vm, 5), 5);
    vm.ports.set_attribute("xds.listener_direction", &1_u64.to_le_bytes());
    assert_eq!(admitted(&mut vm, 5), 1);
    assert_eq!(vm.counted(&["outcome=.=exempt;"]), 5);
}

#[test]
fn at_the_edge_nothing_is_exempt_and_every_direction_counts() {
    let process = Process::start();
    let policy = format!("zone: EDGE\n{}", one_rule("max_tokens: 1\nfill_interval: 60s"));
    let mut vm = Vm::start(&process, &policy, 1);
    vm.ports.attributes.clear();
    let passed = (0..5).filter(|_| vm.get("/healthz").passes()).count();
    assert_eq!(passed, 1);
}

#[test]
fn a_redirect_is_charged_once_and_only_with_the_mark() {
    let (_, mut vm) = start("max_tokens: 1\nfill_interval: 60s");
    let redirected = [(":path", "/"), ("x-envoy-original-url", "http://shop/a")];
    let first = vm.send(&redirected);
    assert!(first.passes() && first.effects.is_charged);
    // A client's own header proves nothing.
    assert!(!vm.send(&redirected).passes());
    let mark = vm.limiter.mark().as_bytes().to_vec();
    vm.ports.attributes.insert(mark, b"1".to_vec());
    assert!(vm.send(&redirected).passes());
    assert_eq!(vm.counted(&["outcome=.=redirected;"]), 1);
}

#[test]
fn without_shared_state_the_policy_decides() {
    for (on_error, passes) in [("ALLOW", true), ("DENY", false)] {
        let (process, mut vm) = start(&format!("{TEN}\non_error: {on_error}"));
        assert!(vm.get("/").passes());
        process.store.contend(true);
        process.advance(10 * S);
        let decision = vm.get("/");
        assert_eq!(decision.passes(), passes);
        if !passes {
            assert_eq!(decision.header("x-weir-reason"), Some("state_unavailable"));
            assert_eq!(decision.effects.reply.unwrap().status, 503);
        }
        assert_eq!(
            vm.counted(&[&format!(
                "outcome=.=error_{}",
                if passes { "allowed" } else { "denied" }
            )]),
            1
        );
        assert!(vm.counted(&["contention_total"]) >= 8);
    }
}

#[test]
fn ten_thousand_rules_and_ten_decide_alike() {
    let rules = |count: usize| {
        let rule = |n| {
            format!(
                "  - {{id: r{n}, match: {{path: {{prefix: /p{n}/}}}}, max_tokens: 2, fill_interval: 60s}}\n"
            )
        };
        format!("name: t\nrate_limit:\n  rules:\n{}", (0..count).map(rule).collect::<String>())
    };
    let process = Process::start();
    let mut vm = Vm::start(&process, &rules(10_000), 1);
    for n in [0, 7, 99, 9999] {
        assert_eq!((0..5).filter(|_| vm.get(&format!("/p{n}/x")).passes()).count(), 2);
    }
    assert!((0..5).all(|_| vm.get("/p10000/x").passes() && vm.get("/").passes()));
}

#[test]
fn metrics_past_the_bound_share_a_label() {
    let process = Process::start();
    let policy = format!("telemetry: {{max_series: 10}}\n{TWO}");
    let mut vm = Vm::start(&process, &policy, 1);
    vm.user("a");
    assert_eq!(vm.counted(&["rule=.=wide;"]), 1);
    assert_eq!(vm.counted(&["rule=.=other;"]), 1);
    assert_eq!(vm.counted(&["rule=.=narrow;"]), 0);
}
