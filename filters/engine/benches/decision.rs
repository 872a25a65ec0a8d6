//! The time of one decision in native code: `cargo bench -p weir-engine --features sim`.

#![allow(clippy::expect_used)] // It never runs inside Envoy.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weir_engine::core::headers::HeaderMap;
use weir_engine::limit::{Limiter, Worker};
use weir_engine::sim::{Process, SimPorts};
use weir_protos::{Section, decode_json};

struct Bench {
    limiter: Limiter,
    worker: Worker,
    ports: SimPorts,
    process: Process,
    headers: HeaderMap,
}

impl Bench {
    /// At the edge, so that no attribute is asked for: what an attribute costs is the host's time.
    fn new(rules: &str) -> Bench {
        let policy =
            format!(r#"{{"name":"bench","zone":"EDGE","rate_limit":{{"rules":[{rules}]}}}}"#);
        let policy = decode_json(policy.as_bytes(), Section::RateLimit).expect("a policy");
        let mut limiter = Limiter::compile(&policy, "bench", 1).expect("a valid policy");
        let (process, mut worker) = (Process::start(), Worker::default());
        let mut ports = process.ports(1);
        limiter.prepare(&mut worker, &mut ports);
        let mut pairs: Vec<(String, String)> = [
            (":method", "GET"),
            (":path", "/orders/7?page=2"),
            (":authority", "shop.example"),
            (":scheme", "http"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            ("accept", "application/json, text/plain, */*"),
            ("x-user", "4711"),
            ("x-request-id", "7f3c1c0e-4f43-9d6c-8a51-1c0d2f0c7e55"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        pairs.extend(
            (pairs.len()..20).map(|n| (format!("x-header-{n}"), format!("value of header {n}"))),
        );
        Bench { limiter, worker, ports, process, headers: HeaderMap::from_pairs(&pairs) }
    }

    fn decide(&mut self) -> bool {
        // One request each 20 microseconds: the worker keeps its lease, and time goes on.
        self.process.advance(20_000);
        let decision =
            self.limiter.on_request(&mut self.worker, black_box(&self.headers), &mut self.ports);
        decision.effects.reply.is_none()
    }
}

const BUCKET: &str = r#""max_tokens":1000000,"tokens_per_fill":1000000,"fill_interval":"1s""#;

fn decisions(criterion: &mut Criterion) {
    let rule = |n: usize, more: &str| format!(r#"{{"id":"r{n}",{BUCKET}{more}}}"#);
    let path = |n: usize| {
        format!(
            r#","match":{{"path":{{"prefix":"/{}/"}}}}"#,
            if n == 0 { "orders".into() } else { format!("p{n}") }
        )
    };
    let many = |count: usize| (0..count).map(|n| rule(n, &path(n))).collect::<Vec<_>>().join(",");
    // The last means the request's user.
    let overrides = |count: usize| {
        let one = |n| format!(r#"{{"exact":["u{n}"],"prefix":"{n}-","max_tokens":2000000}}"#);
        let others = (1..count / 2).map(|n| one(n + 10_000)).collect::<Vec<_>>().join(",");
        let ours = r#"{"exact":["4711"],"max_tokens":2000000}"#;
        format!(r#","key":[{{"header":"x-user"}}],"overrides":[{others},{ours}]"#)
    };
    for (name, rules) in [
        ("unkeyed", rule(0, "")),
        ("keyed by a header", rule(0, r#","key":[{"header":"x-user"}]"#)),
        ("10 overrides", rule(0, &overrides(10))),
        ("10000 overrides", rule(0, &overrides(10_000))),
        ("10 rules", many(10)),
        ("10000 rules", many(10_000)),
        ("no rule matches", rule(0, &path(1))),
    ] {
        let mut bench = Bench::new(&rules);
        criterion.bench_function(name, |bencher| bencher.iter(|| bench.decide()));
    }
    let mut parsed = Bench::new(&rule(0, ""));
    let pairs: Vec<_> =
        parsed.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let _ = parsed.decide();
    criterion.bench_function("parse 20 headers", |bencher| {
        bencher.iter(|| HeaderMap::from_pairs(black_box(&pairs)).len());
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
