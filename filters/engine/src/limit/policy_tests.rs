//! Every policy of the table is refused, by the engine that runs in the filter, with the field, the
//! value and the remedy. The same table goes through a real Envoy.

use serde_yaml_ng::Value;
use weir_protos::{Section, decode_json};

use super::Limiter;

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(other).unwrap(),
    }
}

fn refusal(policy: &str) -> Option<String> {
    let policy = match decode_json(policy.as_bytes(), Section::RateLimit) {
        Ok(policy) => policy,
        Err(error) => return Some(error.to_string()),
    };
    Limiter::compile(&policy, "test", 1).err().map(|error| error.to_string())
}

#[test]
fn bad_policies_are_refused_by_field_value_and_remedy() {
    let table = include_str!("../../../../integration-tests/bad-policies.yaml");
    let table: Vec<Value> = serde_yaml_ng::from_str(table).unwrap();
    assert!(table.len() >= 100);
    let mut wrong = Vec::new();
    for case in &table {
        let name = case["name"].as_str().unwrap();
        match refusal(&text(&case["policy"])) {
            None => wrong.push(format!("{name}: was accepted")),
            Some(error) => {
                for part in case["error"].as_sequence().unwrap() {
                    let part = part.as_str().unwrap();
                    if !error.contains(part) {
                        wrong.push(format!("{name}: {error}\n    lacks {part}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}
