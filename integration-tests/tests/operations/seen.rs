//! Every metric, and every label value, that the dashboard and the rules ask for is one that a real Envoy shows
//! on `/stats/prometheus`: a query that finds nothing looks like a quiet service.

use crate::prometheus;
use crate::promql::{Selector, grouped_by, selectors};
use crate::server::Prometheus;
use crate::shipped::{self, SetUp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use weir_integration_tests::clock::from_now;
use weir_integration_tests::wait::{DEADLINE, wait_for};
use weir_integration_tests::{Collector, Collects, Envoy, Load, Request, Script, Scripted};

/// For what comes in several steps: a tick, a scrape, an evaluation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Values that take a broken host to see. They stand in the engine's source instead.
const UNSEEN: [(&str, &str); 2] = [
    ("weir_rate_limit_requests_total", "error_allowed"),
    ("weir_rate_limit_requests_total", "error_denied"),
];

const RATE_LIMIT: &str = "
name: shop
rate_limit:
  rules:
  - {id: few, match: {path: {prefix: /few}}, max_tokens: 2, fill_interval: 3600s}
  - {id: shadow, match: {path: {prefix: /few}}, max_tokens: 1, fill_interval: 3600s, mode: SHADOW}
  - id: users
    match: {path: {prefix: /users}}
    key: [{header: x-user, on_missing: REJECT}]
    max_tokens: 2
    fill_interval: 3600s
    max_keys: 1
";
const CIRCUIT_BREAKER: &str = "
name: shop
circuit_breaker:
  rules:
  - {id: plain, match: {direction: ANY, path: {prefix: /plain}}, minimum_calls: 1, failure_rate_percent: 50}
  - id: fallback
    match: {direction: ANY, path: {prefix: /fallback}}
    minimum_calls: 1
    failure_rate_percent: 50
    while_open: {fallback: {answer: {status: 200, body: '[]'}}}
  - id: keyed
    match: {direction: ANY, path: {prefix: /keyed}}
    key: [{header: x-user}]
    max_keys: 1
    minimum_calls: 1
    failure_rate_percent: 50
";
const TRACE_CONTEXT: &str = "
name: shop
restore: {keys: [{header: x-request-id}], mint: true, max_records: 1024}
trace_context:
  propagation: {extract: [W3C], inject: [W3C]}
  sampling: {percent: 100, rules: [{id: all, match: {path: {prefix: /spans}}, percent: 100}]}
  deadline: {default: 3s}
  spans: {cluster: collector, service_name: shop, max_queue: 16, interval: 0.5s, timeout: 0.5s}
";

fn traffic_color() -> String {
    format!(
        "
name: shop
traffic_color:
  colors: [base, gray, blue]
  rules:
  - id: moving
    match: {{path: {{prefix: /moving}}}}
    shares: [{{color: gray, weight: 10000}}]
    key: [{{header: x-user}}]
    schedule: {{ramp: {{from: '{}', to: '{}'}}}}
  - id: canary
    match: {{path: {{prefix: /canary}}}}
    shares: [{{color: gray, weight: 5000}}]
    key: [{{header: x-user}}]
    guard: {{error_delta_points: 5, window: 1s, min_requests: 50}}
  carry: {{in: [HEADER, BAGGAGE]}}
  lanes: {{lanes: [{{match: {{path: {{prefix: /lane}}}}, colors: [base, gray]}}]}}
",
        from_now(-1000),
        from_now(1000)
    )
}

/// A series by its name and labels.
type Series = (String, BTreeMap<String, String>);

#[test]
fn every_query_finds_something() {
    let (mut wanted, groupings) = asked_for();
    let recorded = prometheus::rules().1;
    // Prometheus makes these itself.
    wanted.retain(|selector| !recorded.contains(&selector.metric) && selector.metric != "up");
    assert!(wanted.iter().filter(|s| s.metric.starts_with("weir_")).count() > 25, "{wanted:#?}");

    let (base, gray) = (Scripted::start(Script::Ok), Scripted::start(Script::Ok));
    let collector = Collector::start();
    let set_up = SetUp::new()
        .cluster("orders-base", base.address)
        .cluster("orders-gray", gray.address)
        .more("collector", collector.grpc)
        .and_suite();
    let policies = set_up.policies();
    shipped::put_policy(&policies, "rate-limit.yaml", RATE_LIMIT);
    shipped::put_policy(&policies, "circuit-breaker.yaml", CIRCUIT_BREAKER);
    shipped::put_policy(&policies, "trace-context.yaml", TRACE_CONTEXT);
    shipped::put_policy(&policies, "traffic-color.yaml", &traffic_color());
    // It has the metrics of the four, so it is enough that it is there.
    shipped::put_policy(&policies, "suite.yaml", "{name: shop, mode: 'OFF'}");
    let envoy = set_up.start();
    await_policies(&envoy);
    let prometheus = Prometheus::start(envoy.address("look"));

    limits(&envoy);
    breakers(&envoy, &base);
    traces(&envoy, &collector);
    colors(&envoy, &gray);
    refused_edits(&policies);

    let shown = shown_with_all(&envoy, &wanted);
    let labels: BTreeSet<_> = shown.iter().flat_map(|(_, labels)| labels.keys().cloned()).collect();
    for label in groupings {
        // These two come from Prometheus and from its histograms.
        let is_known = labels.contains(&label) || ["instance", "le"].contains(&label.as_str());
        assert!(is_known, "a sum by {label}, which nothing has");
    }
    queries_find_something(&envoy, &prometheus);
    envoy.assert_healthy();
}

/// What Envoy shows, once all is there that the queries ask for.
fn shown_with_all(envoy: &Envoy, wanted: &BTreeSet<Selector>) -> Vec<Series> {
    let begun = Instant::now();
    loop {
        let shown = series(&envoy.admin("/stats/prometheus").text());
        let missing = missing(wanted, &shown);
        if missing.is_empty() {
            return shown;
        }
        assert!(begun.elapsed() < PATIENCE, "never seen: {missing:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The dashboard's own queries, asked of a Prometheus, while there is traffic. And no rule fails on what it gets.
fn queries_find_something(envoy: &Envoy, prometheus: &Prometheus) {
    let mut silent = prometheus::dashboard_for_prometheus();
    // An edit of each module was refused, and one guard tripped.
    for (alert, times) in
        [("WeirPolicyRefused", 5), ("WeirDiscoveryRefused", 5), ("WeirGuardTripped", 1)]
    {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        silent.push(format!("count({firing}) == {times}"));
    }
    let begun = Instant::now();
    while !silent.is_empty() {
        send(envoy, 3, |_| Request::get("/spans"));
        send(envoy, 3, |_| Request::get("/few"));
        silent.retain(|query| prometheus.query(query).is_empty());
        assert!(begun.elapsed() < PATIENCE, "these find nothing: {silent:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let rules = prometheus.rules();
    assert!(rules.len() > 20, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

#[test]
fn unseen_values_are_in_the_source() {
    let source = weir_integration_tests::paths::root().join("filters/engine/src/limit/metrics.rs");
    let source = std::fs::read_to_string(source).expect("the engine's source");
    for (metric, value) in UNSEEN {
        assert!(source.contains(&format!("\"{value}\"")), "{metric}: {value}");
    }
}

fn asked_for() -> (BTreeSet<Selector>, BTreeSet<String>) {
    let expressions = [prometheus::rules().0, prometheus::dashboard()].concat();
    let wanted = expressions.iter().flat_map(|expression| selectors(expression)).collect();
    let groupings = expressions.iter().flat_map(|expression| grouped_by(expression)).collect();
    (wanted, groupings)
}

fn missing(wanted: &BTreeSet<Selector>, shown: &[Series]) -> Vec<String> {
    let mut missing = Vec::new();
    for Selector { metric, labels } in wanted {
        let of_metric: Vec<_> = shown.iter().filter(|(name, _)| name == metric).collect();
        if of_metric.is_empty() {
            missing.push(metric.clone());
        }
        for (label, values) in labels {
            let shown: BTreeSet<_> = of_metric.iter().filter_map(|(_, l)| l.get(label)).collect();
            let values = values.as_deref().unwrap_or_default();
            let unseen = values.iter().filter(|value| {
                !shown.contains(value) && !UNSEEN.contains(&(metric.as_str(), value.as_str()))
            });
            missing.extend(unseen.map(|value| format!("{metric}{{{label}={value}}}")));
            if shown.is_empty() {
                missing.push(format!("{metric}{{{label}}}"));
            }
        }
    }
    missing
}

/// Reads Prometheus' text format, as far as Envoy uses it.
fn series(text: &str) -> Vec<Series> {
    let label = regex_lite::Regex::new(r#"([a-zA-Z_]+)="([^"]*)""#).expect("a regular expression");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('{'))
        .map(|(name, rest)| {
            let labels = label.captures_iter(rest);
            (name.to_owned(), labels.map(|l| (l[1].to_owned(), l[2].to_owned())).collect())
        })
        .collect()
}

fn await_policies(envoy: &Envoy) {
    wait_for("each module has its policy", DEADLINE, || {
        let accepted = envoy.stats("http_filter\\.weir\\..*\\.update_success");
        (accepted.values().sum::<u64>() == 5).then_some(())
    });
}

fn send(envoy: &Envoy, times: u32, make: impl Fn(u32) -> Request) {
    let mut client = envoy.client("ingress");
    (0..times).for_each(|n| drop(client.send(&make(n))));
}

/// Admitted, limited, in shadow, rejected for want of a key, and more keys than there is room for.
fn limits(envoy: &Envoy) {
    send(envoy, 4, |_| Request::get("/few"));
    send(envoy, 1, |_| Request::get("/users"));
    send(envoy, 40, |n| Request::get("/users").header("x-user", n.to_string()));
}

/// Each opens; of the keyed one more than there is room for.
fn breakers(envoy: &Envoy, base: &Scripted) {
    base.play(Script::Status(500, vec![]));
    for path in ["/plain", "/fallback"] {
        send(envoy, 5, |_| Request::get(path));
    }
    send(envoy, 40, |n| Request::get("/keyed").header("x-user", n.to_string()));
    base.play(Script::Ok);
}

/// Exported, failed and dropped spans; more requests than there is room to remember.
fn traces(envoy: &Envoy, collector: &Collector) {
    let outcome = |outcome: &str| {
        let name = format!("outcome=.={outcome};.;weir_trace_context_spans_total");
        let step = || {
            send(envoy, 1, |_| Request::get("/spans"));
            (envoy.metric_with(&[&name]) > 0).then_some(())
        };
        wait_for(&format!("spans: {outcome}"), DEADLINE, step);
    };
    outcome("exported");
    collector.play(Collects::Error);
    outcome("failed");
    collector.play(Collects::Ok);
    send(envoy, 1500, |n| Request::get("/many").header("x-request-id", format!("id-{n}")));
}

/// A color that came along, one without a lane, and one that fails until its guard trips.
fn colors(envoy: &Envoy, gray: &Scripted) {
    send(envoy, 1, |_| Request::get("/").header("x-weir-color", "gray"));
    send(envoy, 1, |_| Request::get("/lane").header("x-weir-color", "blue"));
    send(envoy, 1, |_| Request::get("/moving").header("x-user", "1"));
    gray.play(Script::Status(500, vec![]));
    let canary = |n: u64| (String::new(), Request::get("/canary").header("x-user", n.to_string()));
    wait_for("the guard trips", DEADLINE, || {
        let load = Load::labelled(envoy.address("ingress"), canary);
        load.rate(400).lasts(Duration::from_secs(1)).run();
        (envoy.metric_with(&["guard_tripped"]) > 0).then_some(())
    });
}

fn refused_edits(policies: &std::path::Path) {
    for file in ["rate-limit", "circuit-breaker", "trace-context", "traffic-color", "suite"] {
        shipped::put_policy(policies, &format!("{file}.yaml"), "{name: shop, mode: SOMETIMES}");
    }
}
