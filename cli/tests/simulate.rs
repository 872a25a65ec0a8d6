//! `weir simulate`: counts that can be worked out by hand. That a real Envoy counts the same is shown in
//! `integration-tests`.

mod kit;

use kit::{Folder, weir};
use serde_json::Value;
use weir_cli::Verdict;

/// A line in Envoy's default format: so many milliseconds after noon, from a client, answered so.
fn line(ms: u64, path: &str, client: &str, status: u16, took: u64) -> String {
    let (second, ms) = (ms / 1000, ms % 1000);
    let (minute, second) = (second / 60, second % 60);
    format!(
        "[2026-11-24T12:{minute:02}:{second:02}.{ms:03}Z] \"GET {path} HTTP/1.1\" {status} - 0 1 {took} - \
         \"{client}\" \"curl/8\" \"-\" \"shop.test\" \"10.9.9.9:80\"\n"
    )
}

fn simulate(policy: &str, log: &str, more: &[&str]) -> Value {
    let folder = Folder::new();
    let (policy, log) = (folder.file("policy.yaml", policy), folder.file("access.log", log));
    let args = [&["simulate", &policy, "--log", &log, "--format", "json"], more].concat();
    let (verdict, says) = weir(&args);
    assert_eq!(verdict, Verdict::Good, "{says}");
    serde_json::from_str(&says).unwrap()
}

const PER_CLIENT: &str = "\
name: shop
rate_limit:
  rules:
  - {id: per-client, key: [{source_address: {}}], max_tokens: 3, fill_interval: 10s}
";

#[test]
fn limits_by_rule_and_key() {
    // Five in a row: two are refused. After ten seconds one token is back.
    let mut log: String = (0..5).map(|n| line(n, "/a", "10.0.0.1", 200, 5)).collect();
    log.push_str(&line(4, "/a", "10.0.0.2", 200, 5));
    log.push_str(&line(10_100, "/a", "10.0.0.1", 200, 5));
    log.push_str(&line(10_101, "/a", "10.0.0.1", 200, 5));
    let says = simulate(PER_CLIENT, &log, &[]);
    assert_eq!(says["requests"], 8);
    assert_eq!((&says["passed"], &says["refused"]), (&5.into(), &3.into()));
    let rule = &says["rate_limit"]["per-client"];
    assert_eq!(rule["outcomes"], serde_json::json!({"admitted": 5, "limited": 3}));
    assert_eq!(rule["keys"], 2);
    let worst = &rule["worst"][0];
    assert_eq!((&worst["key"], &worst["refused"]), (&"10.0.0.1".into(), &3.into()));
    assert_eq!(worst["times_exhausted"], 2);
}

/// A line is written when its request ends.
#[test]
fn requests_go_in_the_order_in_which_they_began() {
    // The slow one came first, and takes the last token.
    let one = PER_CLIENT.replace("max_tokens: 3", "max_tokens: 1");
    let log = [line(50, "/fast", "10.0.0.1", 200, 1), line(0, "/slow", "10.0.0.1", 200, 9000)];
    let by_path = one.replace("key: [{source_address: {}}]", "match: {path: {exact: /slow}}");
    assert_eq!(simulate(&one, &log.concat(), &[])["refused"], 1);
    let says = simulate(&by_path, &log.concat(), &[]);
    assert_eq!(says["rate_limit"]["per-client"]["outcomes"]["admitted"], 1);
    assert_eq!(says["first"], "2026-11-24T12:00:00Z");
}

const BREAKER: &str = "\
name: shop
circuit_breaker:
  rules:
  - id: orders
    match: {direction: ANY, path: {prefix: /orders}}
    key: [{path: {segments: 2}}]
    minimum_calls: 10
    open_duration: 30s
    jitter_percent: 0
    half_open_probes: 2
";

#[test]
fn a_breaker_learns_what_the_log_tells() {
    // Ten failures open one key. What comes within 30 s is refused; two probes close it.
    let mut log: String = (0..10).map(|n| line(n * 100, "/orders/a", "-", 503, 10)).collect();
    log.extend((0..5).map(|n| line(2000 + n * 1000, "/orders/a", "-", 200, 10)));
    log.extend((0..5).map(|n| line(2500 + n * 1000, "/orders/b", "-", 200, 10)));
    log.extend((0..4).map(|n| line(40_000 + n * 1000, "/orders/a", "-", 200, 10)));
    let says = simulate(BREAKER, &log, &[]);
    let rule = &says["circuit_breaker"]["orders"];
    assert_eq!(
        rule["outcomes"],
        serde_json::json!({"admitted": 17, "probe": 2, "rejected": 5}),
        "{says}"
    );
    assert_eq!(rule["times_opened"], 1);
    assert_eq!(rule["worst"][0]["key"], "/orders/a");
    assert_eq!(says["refused_by"], serde_json::json!({"circuit_breaker": 5}));
    // The same answers by the proxy itself are no failures of an upstream.
    let own = log.replace("\"10.9.9.9:80\"", "\"-\"");
    assert_eq!(simulate(BREAKER, &own, &[])["refused"], 0);
}

#[test]
fn a_request_that_is_still_on_its_way_has_no_outcome_yet() {
    // All ten have come before the first of them fails.
    let log: String = (0..20).map(|n| line(n * 100, "/orders/a", "-", 503, 60_000)).collect();
    assert_eq!(simulate(BREAKER, &log, &[])["refused"], 0);
}

#[test]
fn two_policies_side_by_side() {
    let folder = Folder::new();
    let old = folder.file("old.yaml", &PER_CLIENT.replace("max_tokens: 3", "max_tokens: 1"));
    let log: String = (0..5).map(|n| line(n, "/a", "10.0.0.1", 200, 5)).collect();
    let says = simulate(PER_CLIENT, &log, &["--against", &old]);
    assert_eq!((&says["refused"], &says["before"]["refused"]), (&2.into(), &4.into()));
    assert_eq!(says["refused_before_only"], 2);
    assert_eq!(says["refused_now_only"], 0);
}

#[test]
fn shadow_rules_colors_and_samples_are_counted() {
    let policy = "\
name: shop
trace_context: {sampling: {rules: [{id: none-of-it, percent: 0}]}}
traffic_color:
  colors: [base, gray]
  rules: [{id: by-path, match: {path: {prefix: /g}}, color: gray}]
rate_limit:
  rules: [{id: trial, mode: SHADOW, match: {colors: [gray]}, max_tokens: 2, fill_interval: 3600s}]
";
    let log: String =
        (0..10).map(|n| line(n, if n < 5 { "/g" } else { "/b" }, "-", 200, 1)).collect();
    let says = simulate(policy, &log, &[]);
    assert_eq!(says["refused"], 0);
    assert_eq!(
        says["rate_limit"]["trial"]["outcomes"],
        serde_json::json!({"admitted": 2, "shadow_limited": 3})
    );
    let count = |section: &str, rule: &str, outcome: &str| {
        let all = says[section].as_array().unwrap().clone();
        let found = all.iter().find(|item| item["rule"] == rule && item["outcome"] == outcome);
        found.map_or(0, |item| item["count"].as_u64().unwrap())
    };
    assert_eq!(count("traffic_color", "by-path", "gray"), 5);
    assert_eq!(count("traffic_color", "none", "base"), 5);
    assert_eq!(count("sampling", "none-of-it", "dropped"), 10);
}

#[test]
fn a_load_without_a_log() {
    let folder = Folder::new();
    let policy = PER_CLIENT
        .replace("source_address: {}", "header: x-user")
        .replace("fill_interval: 10s", "fill_interval: 3600s");
    let policy = folder.file("policy.yaml", &policy);
    let svg = folder.path().join("out.svg");
    let (verdict, says) = weir(&[
        "simulate",
        &policy,
        "--rate",
        "100",
        "--for",
        "10",
        "-H",
        "x-user: u{client}",
        "--clients",
        "7",
        "--plot",
        svg.to_str().unwrap(),
    ]);
    assert_eq!(verdict, Verdict::Good, "{says}");
    // Three for each of seven clients, of a thousand.
    assert!(says.contains("1000 requests, "), "{says}");
    assert!(says.contains("per-client  admitted 21, limited 979"), "{says}");
    assert!(says.contains("the 7 worst of 7 keys"), "{says}");
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.matches("<polyline").count() >= 2 && svg.contains("refused"), "{svg}");
}

/// The policy of README.md, and the example of `--help` on it.
#[test]
fn the_example_of_the_help_is_true() {
    let readme = include_str!("../../README.md");
    let policy = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = Folder::new();
    let policy = folder.file("shop.yaml", policy);
    let help = weir(&["simulate", "--help"]).1;
    let (_, example) = help.split_once("--clients 20\n").expect("the example");
    let (example, _) = example.split_once("\n\nRequests are").unwrap();
    let example = example.replace("\n  ", "\n");
    let (_, says) = weir(&[
        "simulate",
        &policy,
        "--rate",
        "500",
        "--for",
        "60",
        "-r",
        "GET /orders",
        "-H",
        "x-user: u{client}",
        "--clients",
        "20",
    ]);
    assert_eq!(says.trim(), example.trim());
}

#[test]
fn what_is_no_log_is_said() {
    let folder = Folder::new();
    let policy = folder.file("policy.yaml", PER_CLIENT);
    let some = folder.file("some.log", &format!("hello\n{}\n", line(0, "/", "-", 200, 1)));
    let (verdict, says) = weir(&["simulate", &policy, "--log", &some]);
    assert_eq!(verdict, Verdict::Good);
    assert!(says.contains("1 lines are none of an access log, the first is line 1"), "{says}");
    let none = folder.file("none.log", "hello\n");
    let (verdict, says) = weir(&["simulate", &policy, "--log", &none]);
    assert_eq!(verdict, Verdict::Unable);
    assert!(says.contains("has no line of an access log"), "{says}");
    let bad = folder.file("bad.yaml", "nmae: x\n");
    assert_eq!(weir(&["simulate", &bad]).0, Verdict::Bad);
    assert_eq!(weir(&["simulate", &policy, "--against", &bad]).0, Verdict::Bad);
    for args in [["--rate", "0"], ["--for", "-1"], ["--rate", "NaN"], ["--log", "/nowhere"]] {
        assert_eq!(weir(&[&["simulate", &policy], &args[..]].concat()).0, Verdict::Unable);
    }
}
