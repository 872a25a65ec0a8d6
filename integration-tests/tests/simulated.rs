//! The access log of a real Envoy with one worker, replayed by `weir simulate`: the same requests are
//! refused, by the same rules and keys.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use weir_cli::{Cli, Verdict};
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Request, Route, Upstream, wait_until,
};

/// Nothing refills and nothing closes again while the test runs, so that the clock has no say.
const POLICY: &str = "
name: shop
rate_limit:
  rules:
  - id: by-path
    key: [{ path: { segments: 1 } }]
    max_tokens: 320
    fill_interval: 86400s
  - id: by-client
    match: { path: { prefix: /items } }
    key: [{ source_address: {} }]
    max_tokens: 5
    fill_interval: 86400s
  - id: trial
    mode: SHADOW
    match: { methods: [POST] }
    max_tokens: 40
    fill_interval: 86400s
circuit_breaker:
  rules:
  - id: by-shop
    match: { direction: ANY, path: { prefix: /orders } }
    key: [{ path: { segments: 2 } }]
    window: { count: 20 }
    minimum_calls: 10
    failure_rate_percent: 40
    open_duration: 3600s
";

const REQUESTS: u64 = 1500;

/// The n-th request: a path, a client, and what the upstream answers.
fn request(n: u64) -> Request {
    let mut mixed = n.wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = |below: u64| {
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) % below
    };
    let path = match draw(4) {
        0 => format!("/items/{n}?of=all"),
        1 => format!("/other/{n}"),
        _ => format!("/orders/{}/{n}", draw(12)),
    };
    let method = if draw(5) == 0 { "POST" } else { "GET" };
    // Some shops fail more often than others.
    let fails = path.contains("/orders/1") && draw(2) == 0 || draw(20) == 0;
    Request::new(method, path)
        .header("x-forwarded-for", format!("10.0.0.{}", draw(40)))
        .header("x-test-status", if fails { "503" } else { "200" })
}

/// Refusals by rule and key.
type Refused = BTreeMap<(String, String), u64>;

#[test]
fn what_a_real_envoy_refuses_is_refused_in_the_simulation() {
    let upstream = Upstream::start("echo");
    let builder = Envoy::builder();
    let log = builder.directory().join("default.log");
    let file = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            // Without a format of its own: Envoy's default.
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
        },
    }]);
    let envoy = builder
        .workers(1)
        .cluster(Cluster::h1("echo", upstream.address))
        .listener(
            Listener::inbound("in")
                // The log tells what the client wrote, the last of which is the address that Envoy takes.
                .trust_forwarded_for(1)
                .hcm("skip_xff_append", json!(true))
                .hcm("access_log", file)
                .filter(Filter::module("rate_limit", POLICY))
                .filter(Filter::module("circuit_breaker", POLICY))
                .route(Route::prefix("/", "echo")),
        )
        .start();
    let mut client = envoy.client("in");

    let mut refused = Refused::new();
    let mut passed = 0;
    for n in 0..REQUESTS {
        let request = request(n);
        let answer = client.send(&request);
        match answer.header("x-weir-rule") {
            Some(rule) => {
                let key = key(&rule, &request);
                *refused.entry((rule, key)).or_default() += 1;
            }
            None => passed += 1,
        }
    }
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("all requests are in the log", DEADLINE, || {
        lines().lines().count() as u64 == REQUESTS
    });

    let says = simulate(envoy.directory(), &log);
    let mut told = Refused::new();
    for section in ["rate_limit", "circuit_breaker"] {
        for (rule, of) in says[section].as_object().unwrap() {
            for key in of["worst"].as_array().unwrap() {
                let count = key["refused"].as_u64().unwrap();
                if count > 0 {
                    told.insert((rule.clone(), key["key"].as_str().unwrap().to_owned()), count);
                }
            }
        }
    }
    assert_eq!(told, refused);
    assert_eq!(says["passed"], passed);
    // Of the rule in shadow only the metrics tell, which the tick writes.
    let shadow = says["rate_limit"]["trial"]["outcomes"]["shadow_limited"].as_u64().unwrap();
    assert!(shadow > 0);
    wait_until("the rule in shadow has the same count", DEADLINE, || {
        envoy.metric_with(&["rule=.=trial", "outcome=.=shadow_limited"]) == shadow
    });
    // All three rules that refuse have done so, at several keys.
    for rule in ["by-path", "by-client", "by-shop"] {
        let keys = refused.keys().filter(|(refusing, _)| refusing == rule).count();
        assert!(keys >= 2, "{rule}: {refused:?}");
    }
    envoy.assert_healthy();
}

/// As the rule's key has it.
fn key(rule: &str, request: &Request) -> String {
    let target = String::from_utf8_lossy(&request.target).into_owned();
    let first = |count: usize| {
        let segments: Vec<&str> = target.split(['/', '?']).take(count + 1).collect();
        segments.join("/")
    };
    match rule {
        "by-path" => first(1),
        "by-shop" => first(2),
        _ => {
            let client = request.headers.iter().find(|(name, _)| name == b"x-forwarded-for");
            String::from_utf8_lossy(&client.expect("it has one").1).into_owned()
        }
    }
}

fn simulate(folder: &std::path::Path, log: &std::path::Path) -> Value {
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let [policy, log] = [&policy, log].map(|path| path.as_os_str().to_owned());
    let args: [std::ffi::OsString; 9] = [
        "weir".into(),
        "simulate".into(),
        policy,
        "--log".into(),
        log,
        "--format".into(),
        "json".into(),
        "--top".into(),
        "1000".into(),
    ];
    let mut out = Vec::new();
    let verdict = weir_cli::run(&Cli::read(args).unwrap(), &mut out).unwrap();
    assert_eq!(verdict, Verdict::Good);
    serde_json::from_slice(&out).unwrap()
}
