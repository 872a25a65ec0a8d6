//! Bad policies through a real Envoy: each is refused with a message that names the field, and the
//! old policy goes on.

use crate::rig::{Rig, policy as section};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weir_integration_tests::{Request, schema};

/// The cases that the engine's own tests read as well.
fn table() -> Vec<Value> {
    let text = include_str!("../../bad-color-policies.yaml");
    serde_yaml_ng::from_str(text).expect("a list of cases")
}

fn policy(case: &Value) -> String {
    let mut policy = json!({"name": "shop"});
    for (name, section) in [("color", "traffic_color")] {
        if let Some(fields) = case.get(name) {
            policy[section] = fields.clone();
        }
    }
    policy.to_string()
}

#[test]
fn every_bad_policy_is_refused_by_name_and_the_old_one_serves_on() {
    let good = &section("", "response: {echo_header: x-color}");
    let rig = Rig::start(1, good);
    let mut wrong = Vec::new();
    for case in table() {
        let name = case["name"].as_str().unwrap();
        match rig.envoy.put_configuration(&policy(&case)).verdict() {
            Err(log) => {
                let line = log.lines().find(|line| line.contains("policy refused")).unwrap_or("");
                let parts = case["error"].as_array().unwrap().iter().filter_map(Value::as_str);
                // The module's log lines are JSON, in which a quote is escaped.
                let missing: Vec<_> =
                    parts.filter(|part| !line.contains(&part.replace('"', "\\\""))).collect();
                if !missing.is_empty() {
                    wrong.push(format!("{name}: no {missing:?} in: {line}"));
                }
            }
            Ok(()) => {
                wrong.push(format!("{name}: accepted"));
                rig.envoy.put_policy(good).accepted();
            }
        }
        let response = rig.send("in", &Request::get("/"));
        assert!(response.header("x-color").is_some(), "after {name}: the old policy");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rig.envoy.assert_healthy();
}

#[test]
fn every_field_has_a_bad_policy() {
    let cases = table();
    let names: BTreeSet<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), cases.len(), "a name is given twice");
    let covered: BTreeSet<String> =
        cases.iter().map(|case| case["field"].as_str().unwrap().to_owned()).collect();
    let fields = schema::fields(&["traffic_color.proto"]);
    assert!(fields.len() > 45, "the schema was not read: {fields:?}");
    let without: Vec<_> = fields.difference(&covered).collect();
    assert!(without.is_empty(), "fields without a bad policy: {without:?}");
    let unknown: Vec<_> = covered.difference(&fields).filter(|field| field.contains('.')).collect();
    assert!(unknown.is_empty(), "cases of fields that do not exist: {unknown:?}");
}
