//! The cases that are counted: policies, requests and what must become of them.

use super::report::Figures;
use super::vm::{Answer, Vm};
use crate::{paths, policy};
use std::path::PathBuf;

/// Requests before the count, until leases are as large as they get.
const WARM_UP: u64 = 1000;
/// Requests that are counted.
pub const REQUESTS: u64 = 2000;

/// Like a browser's behind a proxy: what a limiter reads is one of many.
const HEADERS: [(&str, &str); 12] = [
    (":authority", "shop.test"),
    (":path", "/orders/17?page=2"),
    (":method", "GET"),
    (":scheme", "http"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("x-user", "user-4711"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-forwarded-proto", "http"),
    ("x-request-id", "5f2c1b0e-8f2e-4a3c-9c3d-2f6a1f0f7a55"),
];

pub struct Scenario {
    pub name: &'static str,
    rules: String,
    /// Requests a second of one worker.
    rate: u64,
    answer: Answer,
    noop: bool,
}

/// In the order of the report.
pub fn all() -> Vec<Scenario> {
    let busy = "max_tokens: 10000, tokens_per_fill: 100000, fill_interval: 1s";
    let usual = "max_tokens: 1000, tokens_per_fill: 2000, fill_interval: 1s";
    let drained = "max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s";
    let by_user = "key: [{header: x-user}]";
    let case = |name, rate, rules: String| Scenario {
        name,
        rules,
        rate,
        answer: Answer::Passed,
        noop: false,
    };
    vec![
        Scenario { noop: true, ..case("a module that does nothing (SDK)", 20_000, String::new()) },
        case(
            "no rule matches",
            20_000,
            format!("{{id: r, match: {{path: {{prefix: /cart}}}}, {busy}}}"),
        ),
        case("one of 10 000 keyed limits, 20 000/s", 20_000, many(&format!("{by_user}, {busy}"))),
        case("one limit, 20 000/s", 20_000, format!("{{id: r, {busy}}}")),
        case("one limit, 1000/s", 1000, format!("{{id: r, {usual}}}")),
        case("keyed by header, 20 000/s", 20_000, format!("{{id: r, {by_user}, {busy}}}")),
        case("keyed by header, 1000/s", 1000, format!("{{id: r, {by_user}, {usual}}}")),
        case("keyed by header, 10/s", 10, format!("{{id: r, {by_user}, {usual}}}")),
        case(
            "keyed by source address, 20 000/s",
            20_000,
            format!("{{id: r, key: [{{source_address: {{}}}}], {busy}}}"),
        ),
        case(
            "keyed, quota_headers ALWAYS, 20 000/s",
            20_000,
            format!("{{id: r, {by_user}, {busy}, at_limit: {{quota_headers: ALWAYS}}}}"),
        ),
        Scenario {
            answer: Answer::Replied(429),
            ..case("keyed, refused", 20_000, format!("{{id: r, {by_user}, {drained}}}"))
        },
        case(
            "keyed, over the limit in mode SHADOW",
            20_000,
            format!("{{id: r, mode: SHADOW, {by_user}, {drained}}}"),
        ),
    ]
}

/// 10 000 rules, the last of which means the request.
fn many(rest: &str) -> String {
    let path = |n| if n == 9999 { "/orders/17".to_owned() } else { format!("/path/{n}") };
    let rule = |n| format!("{{id: r{n}, match: {{path: {{exact: {}}}}}, {rest}}}", path(n));
    (0..10_000).map(rule).collect::<Vec<_>>().join(", ")
}

/// Runs a scenario and counts. Panics when a request does not end as it must.
pub fn measure(scenario: &Scenario) -> Figures {
    let mut vm = Vm::start(&scenario.module());
    if !scenario.noop {
        let text = format!("{{name: bench, rate_limit: {{rules: [{}]}}}}", scenario.rules);
        vm.configure(&policy::to_json(&text))
            .unwrap_or_else(|log| panic!("{}: the policy is refused: {log}", scenario.name));
    }
    let properties = &mut vm.host().properties;
    // INBOUND; the client's address.
    properties.insert(b"xds\0listener_direction".to_vec(), 1_u64.to_le_bytes().to_vec());
    properties.insert(b"source\0address".to_vec(), b"10.1.2.3:40000".to_vec());

    for _ in 0..WARM_UP {
        scenario.request(&mut vm);
    }
    let (before, fuel) = (vm.counts(), vm.fuel());
    for _ in 0..REQUESTS {
        let answer = scenario.request(&mut vm);
        assert_eq!(answer, scenario.answer, "{}", scenario.name);
    }
    Figures::between(scenario.name, &before, &vm.counts(), vm.fuel() - fuel)
}

impl Scenario {
    fn module(&self) -> PathBuf {
        if self.noop { paths::built("noop_sdk.wasm") } else { paths::module("rate_limit") }
    }

    /// One request at its time.
    fn request(&self, vm: &mut Vm) -> Answer {
        vm.host().now += 1_000_000_000 / self.rate;
        vm.request(&HEADERS)
    }
}
