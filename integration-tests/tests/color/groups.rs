//! A/B groups as colors: each with a limit and a breaker of its own, all four filters in one chain.

use serde_json::json;
use std::time::Duration;
use weir_engine::color::hash::bucket;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths,
};

const POLICY: &str = "
name: shop
zone: EDGE
trace_context: {response: {trace_id_header: x-trace-id}}
traffic_color:
  colors: [none, a, b]
  rules:
  - {id: ab, shares: [{color: a, weight: 7000}, {color: b, weight: 3000}], key: [{header: x-user}]}
rate_limit:
  rules:
  - {id: a, match: {colors: [a]}, max_tokens: 100, tokens_per_fill: 100, fill_interval: 1s}
  - id: b
    match: {colors: [b]}
    max_tokens: 150
    tokens_per_fill: 150
    fill_interval: 1s
    at_limit: {degrade: {answer: {status: 203, body: short}}}
circuit_breaker:
  rules:
  - {id: a, match: {colors: [a]}, window: {count: 100}, minimum_calls: 100, failure_rate_percent: 30, open_duration: 60s}
  - {id: b, match: {colors: [b]}, window: {count: 100}, minimum_calls: 100, failure_rate_percent: 50, open_duration: 60s}
";

struct Rig {
    envoy: Envoy,
    a: Scripted,
    b: Scripted,
}

fn module(name: &str) -> Filter {
    let policy: serde_json::Value = serde_yaml_ng::from_str(POLICY).unwrap();
    Filter::inline(
        &format!("weir.{name}"),
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": format!("weir.{name}"),
                "root_id": format!("weir_{name}"),
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": paths::module(name)}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy.to_string(),
                },
            },
        }),
    )
}

fn start() -> Rig {
    let (a, b) = (Scripted::start(Script::Ok), Scripted::start(Script::Ok));
    let mut listener = Listener::new("in");
    for name in ["traffic_color", "trace_context", "rate_limit", "circuit_breaker"] {
        listener = listener.filter(module(name));
    }
    let listener = listener
        .route(Route::prefix("/", "b").when_header("x-weir-color", "b"))
        .route(Route::prefix("/", "a"));
    let envoy = Envoy::builder()
        .workers(2)
        .cluster(Cluster::h1("a", a.address))
        .cluster(Cluster::h1("b", b.address))
        .listener(listener)
        .start();
    Rig { envoy, a, b }
}

fn group(user: u64) -> &'static str {
    if bucket("ab", user.to_string().as_bytes()) < 7000 { "a" } else { "b" }
}

fn users(of: &'static str) -> impl Iterator<Item = u64> {
    (0..).filter(move |user| group(*user) == of)
}

/// 400/s and then 600/s in all: A offers 70 % against 100/s, B 30 % against 150/s.
#[test]
fn each_group_has_its_limit() {
    let rig = start();
    let load = |rate: u32| {
        Load::labelled(rig.envoy.address("in"), |n| {
            let user = n.wrapping_mul(7919) % 100_000;
            (group(user).to_owned(), Request::get("/").header("x-user", user.to_string()))
        })
        .rate(rate)
        .lasts(Duration::from_secs(4))
        .run()
    };
    let low = load(400);
    let (a, refused) = (low.of("a", 200), low.of("a", 429));
    let share = (a + refused) as f64 * 100.0 / low.total() as f64;
    println!(
        "400/s: A is {share:.1} %, {a} passed, {refused} refused; B: {} passed",
        low.of("b", 200)
    );
    assert!((68.0..72.0).contains(&share), "{share}");
    // 4 s at 100/s, and the burst of 100.
    assert!((470..=520).contains(&a), "{a}");
    assert_eq!(low.of("b", 203), 0, "120/s of 150/s");
    std::thread::sleep(Duration::from_secs(2));
    let high = load(600);
    let (b, short) = (high.of("b", 200), high.of("b", 203));
    println!("600/s: B: {b} passed, {short} degraded; A: {} passed", high.of("a", 200));
    // 180/s offered: 4 s at 150/s and the burst of 150 cover all but little.
    assert!(b + short >= 650 && b <= 760, "{b} {short}");
    assert_eq!(high.of("b", 429), 0);
    rig.envoy.assert_healthy();
}

/// A at 29 % failures stays closed and opens at 30; B at 49 and 50.
#[test]
fn each_group_has_its_breaker() {
    for (of, stays, opens) in [("a", 29, 30), ("b", 49, 50)] {
        for (failures, is_open) in [(stays, false), (opens, true)] {
            let rig = start();
            let upstream = if of == "a" { &rig.a } else { &rig.b };
            let mut client = rig.envoy.client("in");
            let mut users = users(of);
            let mut send = || {
                let user = users.next().unwrap().to_string();
                client.send(&Request::get("/").header("x-user", user))
            };
            upstream.play(Script::Status(500, vec![]));
            (0..failures).for_each(|_| assert_eq!(send().status, 500));
            upstream.play(Script::Ok);
            // The window is full with the hundredth.
            let statuses: Vec<u16> = (failures..100)
                .map(|_| {
                    // Slowly enough for the limits of both groups.
                    std::thread::sleep(Duration::from_millis(11));
                    send().status
                })
                .collect();
            assert!(statuses.iter().all(|status| *status == 200), "{of} {failures}: {statuses:?}");
            std::thread::sleep(Duration::from_millis(300));
            let after = send();
            assert!(after.header("x-trace-id").is_some());
            let refused = after.header("x-weir-reason").as_deref() == Some("circuit_open");
            assert_eq!(refused, is_open, "{of} at {failures} % failures: {}", after.status);
            // The other group is another breaker.
            let other = if of == "a" { "b" } else { "a" };
            let user = self::users(other).next().unwrap().to_string();
            assert_eq!(client.send(&Request::get("/").header("x-user", user)).status, 200);
        }
    }
}
