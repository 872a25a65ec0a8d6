//! The cases that are counted: policies, requests and what must become of them.

use super::report::Figures;
use super::vm::{Answer, Vm};
use crate::{paths, policy};
use std::path::{Path, PathBuf};

/// Requests before the count, until leases are as large as they get.
const WARM_UP: u64 = 1000;
/// Requests that are counted.
pub const REQUESTS: u64 = 2000;

/// Like a browser's behind a proxy: what a filter reads is one of many.
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

/// What trace and color read, each in place of a line of [`HEADERS`] that nobody reads.
const MORE: [(&str, &str, &str); 5] = [
    ("accept", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("accept-encoding", "tracestate", "shop=00f067aa0ba902b7,other=t61rcWkgMzE"),
    ("accept-language", "baggage", "user=4711,tier=gold"),
    ("x-forwarded-proto", "x-weir-deadline-ms", "5000"),
    ("user-agent", "x-weir-color", "gray"),
];

const W3C: &[&str] = &["traceparent", "tracestate"];
const WITH_DEADLINE: &[&str] = &["traceparent", "tracestate", "baggage", "x-weir-deadline-ms"];
const EVERYTHING: &[&str] =
    &["traceparent", "tracestate", "baggage", "x-weir-deadline-ms", "x-weir-color"];

/// Values of `xds.listener_direction`.
const INBOUND: u64 = 1;
const OUTBOUND: u64 = 2;

pub struct Scenario {
    pub name: &'static str,
    /// None: the module that does nothing.
    module: Option<&'static str>,
    policy: String,
    /// Of [`MORE`], what the requests carry.
    lines: &'static [&'static str],
    direction: u64,
    /// One such request came in before, with all of [`MORE`].
    is_recorded: bool,
    /// Requests a second of one worker.
    rate: u64,
    answer: Answer,
}

/// In the order of the report.
pub fn all() -> Vec<Scenario> {
    let noop = Scenario {
        module: None,
        ..case("a module that does nothing (SDK)", "rate_limit", 20_000, String::new())
    };
    [noop].into_iter().chain(limits()).chain(breakers()).chain(traces()).chain(suites()).collect()
}

fn case(name: &'static str, module: &'static str, rate: u64, sections: String) -> Scenario {
    Scenario {
        name,
        module: Some(module),
        policy: format!("{{name: bench, {sections}}}"),
        lines: &[],
        direction: INBOUND,
        is_recorded: false,
        rate,
        answer: Answer::Passed,
    }
}

fn limits() -> Vec<Scenario> {
    let busy = "max_tokens: 10000, tokens_per_fill: 100000, fill_interval: 1s";
    let usual = "max_tokens: 1000, tokens_per_fill: 2000, fill_interval: 1s";
    let drained = "max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s";
    let by_user = "key: [{header: x-user}]";
    let case = |name, rate, rules: String| {
        case(name, "rate_limit", rate, format!("rate_limit: {{rules: [{rules}]}}"))
    };
    vec![
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
            "keyed, 10 000 overrides, 20 000/s",
            20_000,
            format!("{{id: r, {by_user}, {busy}, overrides: [{}]}}", overrides()),
        ),
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
        case(
            "keyed, cost by response header, 20 000/s",
            20_000,
            format!("{{id: r, {by_user}, {busy}, cost: {{response_header: x-used}}}}"),
        ),
        case(
            "keyed, calendar MINUTE, 20 000/s",
            20_000,
            format!("{{id: r, {by_user}, max_tokens: 100000, calendar: MINUTE}}"),
        ),
        case(
            "keyed, max_concurrent alone",
            20_000,
            format!("{{id: r, {by_user}, max_concurrent: 10}}"),
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

fn breakers() -> Vec<Scenario> {
    let case = |name, rule: &str| {
        let sections = format!("circuit_breaker: {{rules: [{{id: r, {rule}}}]}}");
        Scenario { direction: OUTBOUND, ..case(name, "circuit_breaker", 1000, sections) }
    };
    // Every answer is a failure, and nothing is tried again.
    let failing = "minimum_calls: 20, failures: {http_statuses: ['200']}, open_duration: 3600s";
    vec![
        case("breaker, no rule matches", "match: {path: {prefix: /cart}}"),
        case("breaker, closed", "minimum_calls: 20"),
        case("breaker, closed, keyed by header", "key: [{header: x-user}]"),
        case("breaker, closed, ADAPTIVE", "strategy: ADAPTIVE"),
        Scenario { answer: Answer::Replied(503), ..case("breaker, open", failing) },
    ]
}

fn traces() -> Vec<Scenario> {
    let restore = "restore: {keys: [{header: x-request-id}]}";
    let case = |name, lines, direction, sections: &str| Scenario {
        lines,
        direction,
        ..case(name, "trace_context", 1000, sections.to_owned())
    };
    let all_on = "propagation: {inject: [W3C, B3_SINGLE, B3_MULTI]}, \
                  baggage: {set: [{key: user.id, value: {header: x-forwarded-for}}]}, \
                  deadline: {hop_margin: 0.01s}, \
                  response: {trace_id_header: x-trace-id, error_context: true, envelope: true}, \
                  spans: {cluster: collector, service_name: bench}";
    vec![
        case("trace, continues W3C", W3C, OUTBOUND, "trace_context: {}"),
        case("trace, mints", &[], OUTBOUND, "trace_context: {}"),
        case(
            "trace, deadline carried",
            WITH_DEADLINE,
            OUTBOUND,
            "trace_context: {deadline: {hop_margin: 0.01s}}",
        ),
        case("trace, records (inbound)", W3C, INBOUND, &format!("trace_context: {{}}, {restore}")),
        Scenario {
            is_recorded: true,
            ..case(
                "trace, restores (outbound)",
                &[],
                OUTBOUND,
                &format!("trace_context: {{}}, {restore}"),
            )
        },
        case(
            "trace, spans",
            W3C,
            OUTBOUND,
            "trace_context: {spans: {cluster: c, service_name: s}}",
        ),
        case(
            "trace, all on",
            EVERYTHING,
            INBOUND,
            &format!("trace_context: {{{all_on}}}, {restore}"),
        ),
    ]
}

/// The policies of the benchmark, on all four filters in one.
fn suites() -> Vec<Scenario> {
    let case = |name, lines, policy: &str| Scenario {
        policy: policy.to_owned(),
        lines,
        ..case(name, "suite", 20_000, String::new())
    };
    let colored = &["traceparent", "tracestate", "x-weir-color"];
    vec![
        case("suite, bench/steady.yaml", colored, include_str!("../../bench/steady.yaml")),
        case("suite, bench/all-on.yaml", WITH_DEADLINE, include_str!("../../bench/all-on.yaml")),
    ]
}

/// 10 000 overrides, the last of which means the request.
fn overrides() -> String {
    let user = |n| if n == 9999 { 4711 } else { n + 10_000 };
    let one = |n| format!("{{exact: [user-{}], max_tokens: 20000}}", user(n));
    (0..10_000).map(one).collect::<Vec<_>>().join(", ")
}

/// 10 000 rules, the last of which means the request.
fn many(rest: &str) -> String {
    let path = |n| if n == 9999 { "/orders/17".to_owned() } else { format!("/path/{n}") };
    let rule = |n| format!("{{id: r{n}, match: {{path: {{exact: {}}}}}, {rest}}}", path(n));
    (0..10_000).map(rule).collect::<Vec<_>>().join(", ")
}

/// Runs a scenario and counts. Panics when a request does not end as it must.
pub fn measure(scenario: &Scenario) -> Figures {
    let (mut figures, _) = run(scenario, &scenario.file());
    if scenario.module == Some("suite") {
        let (_, blocks) = run(scenario, &paths::built("suite_counting.wasm"));
        figures.allocations = Some(blocks.expect("the module counts"));
    }
    figures
}

/// The figures, and the blocks of memory that were taken if the module counts them.
fn run(scenario: &Scenario, module: &Path) -> (Figures, Option<u64>) {
    let mut vm = Vm::start(module);
    if let Some(module) = scenario.module {
        vm.configure(&format!("weir.{module}"), &policy::to_json(&scenario.policy))
            .unwrap_or_else(|log| panic!("{}: the policy is refused: {log}", scenario.name));
    }
    let properties = &mut vm.host().properties;
    properties.insert(b"source\0address".to_vec(), b"10.1.2.3:40000".to_vec());
    properties.insert(b"xds\0cluster_name".to_vec(), b"outbound|80||orders.shop".to_vec());
    properties.insert(b"response\0code_details".to_vec(), b"via_upstream".to_vec());
    for (name, number) in [
        (&b"response\0code"[..], 200_u64),
        (b"response\0flags", 0),
        (b"upstream\0request_attempt_count", 1),
    ] {
        properties.insert(name.to_vec(), number.to_le_bytes().to_vec());
    }

    if scenario.is_recorded {
        scenario.request(&mut vm, INBOUND, EVERYTHING);
    }
    let request = |vm: &mut Vm| scenario.request(vm, scenario.direction, scenario.lines);
    for _ in 0..WARM_UP {
        request(&mut vm);
    }
    let (before, fuel, blocks) = (vm.counts(), vm.fuel(), vm.allocations());
    for _ in 0..REQUESTS {
        let answer = request(&mut vm);
        assert_eq!(answer, scenario.answer, "{}", scenario.name);
    }
    let figures = Figures::between(scenario.name, &before, &vm.counts(), vm.fuel() - fuel);
    let blocks = blocks.and_then(|before| vm.allocations()?.checked_sub(before));
    scenario.prove(&mut vm);
    (figures, blocks)
}

impl Scenario {
    fn file(&self) -> PathBuf {
        match self.module {
            Some(module) => paths::single(module),
            None => paths::built("noop_sdk.wasm"),
        }
    }

    /// One request at its time.
    fn request(&self, vm: &mut Vm, direction: u64, names: &[&str]) -> Answer {
        let host = vm.host();
        host.now += 1_000_000_000 / self.rate;
        let now = host.now.to_le_bytes().to_vec();
        host.properties.insert(b"request\0time".to_vec(), now);
        let direction = direction.to_le_bytes().to_vec();
        host.properties.insert(b"xds\0listener_direction".to_vec(), direction);
        let headers = HEADERS.map(|line| {
            let other =
                MORE.iter().find(|(replaced, name, _)| *replaced == line.0 && names.contains(name));
            other.map_or(line, |(_, name, value)| (*name, *value))
        });
        vm.request(&headers)
    }

    /// Each of the four has decided on each request.
    fn prove_all(&self, vm: &mut Vm) {
        vm.tick();
        let metrics = &vm.host().metrics;
        for parts in [
            ["weir_rate_limit_requests_total", "outcome=.=admitted"],
            ["weir_circuit_breaker_requests_total", "outcome=.=admitted"],
            ["weir_trace_context_requests_total", "outcome=.=continued"],
            ["weir_traffic_color_", "outcome=.="],
        ] {
            let named = |name: &&(String, i64)| parts.iter().all(|part| name.0.contains(part));
            let sum: i64 = metrics.iter().filter(named).map(|(_, value)| value).sum();
            let requests = i64::try_from(WARM_UP + REQUESTS).expect("a small number");
            assert!(sum >= requests, "{}: {parts:?} is {sum}, not {requests}", self.name);
        }
    }

    /// What was counted was the work that the name promises.
    fn prove(&self, vm: &mut Vm) {
        if self.module == Some("suite") {
            self.prove_all(vm);
        }
        if !["trace_context", "suite"].map(Some).contains(&self.module) {
            return;
        }
        let request = &vm.host().request;
        let went_on = |name: &[u8]| {
            let found = request.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let sent = MORE[0].2;
        let parent = went_on(b"traceparent").unwrap_or_default();
        let continues = !self.lines.is_empty() || self.is_recorded;
        let is_same_trace = parent.get(3..35) == sent.get(3..35);
        assert!(
            parent.len() == sent.len() && parent != sent && is_same_trace == continues,
            "{}: {parent:?} goes on",
            self.name
        );
        if self.policy.contains("deadline") {
            // The margin goes off on the way out.
            let most = if self.direction == OUTBOUND { "4990" } else { "5000" };
            let left = went_on(b"x-weir-deadline-ms");
            assert!(left.as_deref().is_some_and(|left| left <= most), "{}: {left:?}", self.name);
        }
    }
}
