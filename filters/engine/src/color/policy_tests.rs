//! Every policy of the table is refused, by the engine that runs in the filter, with the field, the
//! value and the remedy. The same table goes through a real Envoy.

use serde_json::{Value, json};
use weir_protos::{Section, decode_json};

use super::Painter;

fn text(case: &Value) -> String {
    let mut policy = json!({"name": "shop"});
    for (name, section) in [("color", "traffic_color")] {
        if let Some(fields) = case.get(name) {
            policy[section] = fields.clone();
        }
    }
    policy.to_string()
}

fn refusal(policy: &str) -> Option<String> {
    let policy = match decode_json(policy.as_bytes(), Section::TrafficColor) {
        Ok(policy) => policy,
        Err(error) => return Some(error.to_string()),
    };
    Painter::compile(&policy, "test").err().map(|error| error.to_string())
}

#[test]
fn bad_policies_are_refused_by_field_value_and_remedy() {
    let table = include_str!("../../../../integration-tests/bad-color-policies.yaml");
    let table: Vec<Value> = serde_yaml_ng::from_str(table).unwrap();
    assert!(table.len() >= 60);
    let mut wrong = Vec::new();
    for case in &table {
        let name = case["name"].as_str().unwrap();
        match refusal(&text(case)) {
            None => wrong.push(format!("{name}: was accepted")),
            Some(error) => {
                for part in case["error"].as_array().unwrap().iter().filter_map(Value::as_str) {
                    if !error.contains(part) {
                        wrong.push(format!("{name}: {error}\n    lacks {part}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn many_rules_are_compiled_and_too_many_refused() {
    let rules = |count: usize, matches: &str| {
        let rules: Vec<_> = (0..count)
            .map(|n| format!(r#"{{"id":"r{n}","color":"gray","match":{matches}}}"#))
            .collect();
        let rules = rules.join(",");
        format!(r#"{{"name":"t","traffic_color":{{"colors":["base","gray"],"rules":[{rules}]}}}}"#)
    };
    let exact = r#"{"path":{"exact":"/a"}}"#;
    assert_eq!(refusal(&rules(10_000, exact)), None);
    assert!(refusal(&rules(10_001, exact)).is_some_and(|error| error.contains("10000")));
    let regex = r#"{"path":{"regex":"/a.*"}}"#;
    assert_eq!(refusal(&rules(64, regex)), None);
    assert!(refusal(&rules(65, regex)).is_some_and(|error| error.contains("64")));
}
