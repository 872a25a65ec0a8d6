//! Prometheus' files and the dashboard, held against promtool and against each other.

use crate::promql::selectors;
use crate::shipped;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use weir_integration_tests::paths::{self, TempDir};

/// Every expression of the rules, and the names of those that record.
pub fn rules() -> (Vec<String>, BTreeSet<String>) {
    let mut expressions = Vec::new();
    let mut recorded = BTreeSet::new();
    for file in ["prometheus/rules/recording.yaml", "prometheus/rules/alerts.yaml"] {
        for group in list(&shipped::yaml(file)["groups"]) {
            for rule in list(&group["rules"]) {
                expressions.push(rule["expr"].as_str().expect("an expression").to_owned());
                recorded.extend(rule["record"].as_str().map(str::to_owned));
            }
        }
    }
    (expressions, recorded)
}

/// Every expression of the dashboard, with Grafana's variables.
pub fn dashboard() -> Vec<String> {
    let panels = &json_file("grafana/dashboards/weir.json")["panels"];
    let targets =
        list(panels).iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions =
        targets.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    expressions.collect()
}

/// The same with Grafana's variables replaced.
pub fn dashboard_for_prometheus() -> Vec<String> {
    let replaced =
        |expression: String| expression.replace("$__rate_interval", "1m").replace("$policy", ".*");
    dashboard().into_iter().map(replaced).collect()
}

fn json_file(name: &str) -> Value {
    serde_json::from_str(&shipped::text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn alerts() -> Vec<Value> {
    let file = shipped::yaml("prometheus/rules/alerts.yaml");
    list(&file["groups"]).iter().flat_map(|group| list(&group["rules"]).clone()).collect()
}

fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new(paths::built("promtool")).args(arguments).arg(file).output();
    let output = output.expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_takes_configuration_and_rules() {
    promtool(
        &["check", "config", "--lint=all", "--lint-fatal"],
        &shipped::path("prometheus/prometheus.yaml"),
    );
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["test", "rules"], &shipped::path("prometheus/tests.yaml"));
    let tests = shipped::yaml("prometheus/tests.yaml");
    let tried = |alert: &str| {
        list(&tests["tests"]).iter().any(|test| {
            list(&test["alert_rule_test"])
                .iter()
                .any(|case| case["alertname"] == alert && !case["exp_alerts"].is_null())
        })
    };
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        assert!(tried(name), "no test in which {name} fires");
    }
}

/// As rules, since promtool reads no dashboards.
#[test]
fn the_queries_of_the_dashboard_are_promql() {
    let record = |(n, expr)| json!({"record": format!("query:number:{n}"), "expr": expr});
    let rules: Vec<_> = dashboard_for_prometheus().iter().enumerate().map(record).collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let directory = TempDir::new();
    let file = directory.join("dashboard.yaml");
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).expect("writable");
    promtool(&["check", "rules"], &file);
}

#[test]
fn what_is_recorded_is_used_and_what_is_used_recorded() {
    let (expressions, recorded) = rules();
    let used: BTreeSet<_> = expressions
        .iter()
        .chain(&dashboard())
        .flat_map(|expression| selectors(expression))
        .map(|selector| selector.metric)
        .filter(|metric| metric.contains(':'))
        .collect();
    assert_eq!(used, recorded);
}

#[test]
fn panels_have_a_place_of_their_own() {
    let file = json_file("grafana/dashboards/weir.json");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in list(&file["panels"]) {
        let at = |field: &str| panel["gridPos"][field].as_u64().expect(field);
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{}", panel["title"]);
        for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            let cell = (at("x") + x, at("y") + y);
            assert!(cell.0 < 24 && taken.insert(cell), "{} overlaps", panel["title"]);
        }
    }
}

/// The names by which Grafana, Prometheus and the compose file find each other.
#[test]
fn the_parts_find_each_other() {
    let compose = shipped::yaml("docker-compose.yaml");
    let source = shipped::yaml("grafana/provisioning/datasources/weir.yaml");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let provider = shipped::yaml("grafana/provisioning/dashboards/weir.yaml");
    let folder = provider["providers"][0]["options"]["path"].as_str().expect("a folder");
    let mounted = format!("./grafana/dashboards:{folder}:ro");
    assert!(list(&compose["services"]["grafana"]["volumes"]).contains(&json!(mounted)));
    let scraped = &shipped::yaml("prometheus/prometheus.yaml")["scrape_configs"][0];
    assert_eq!(scraped["static_configs"][0]["targets"], json!(["envoy:9902"]));
    let look = &shipped::yaml("envoy/chain.yaml")["static_resources"]["listeners"][1];
    assert_eq!(look["address"]["socket_address"]["port_value"], 9902);
    let read = list(&compose["services"]["prometheus"]["command"])[0].as_str().expect("text");
    assert_eq!(read, "--config.file=/etc/prometheus/prometheus.yaml");
}

/// Each alert names the section of the page that says what to do.
#[test]
fn remedies_are_sections_of_the_page() {
    let page = paths::root().join("docs/operations.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let sections: BTreeSet<_> = page
        .lines()
        .filter_map(|line| {
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        })
        .map(anchor)
        .collect();
    for alert in alerts() {
        let remedy = alert["annotations"]["remedy"].as_str().expect("a remedy");
        let section = remedy.strip_prefix("docs/operations.md#").expect("on the page");
        assert!(sections.contains(section), "{}: {remedy}", alert["alert"]);
    }
}

/// As Markdown readers make it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
