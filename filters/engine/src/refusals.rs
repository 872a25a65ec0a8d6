//! Every policy of a table is refused, by the engine that runs in the filter, with the field, the value
//! and the remedy. The same tables go through a real Envoy (`integration-tests/src/refusals.rs`).

use serde_json::{Value, json};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section, decode_json};

/// One section's table.
pub struct Refusals<T> {
    pub section: Section,
    pub compile: fn(&Policy, &str) -> Result<T, FieldError>,
    /// The names of a case's parts, and of the sections that they are.
    pub parts: &'static [(&'static str, &'static str)],
}

impl<T> Refusals<T> {
    pub fn of(&self, policy: &str) -> Option<String> {
        let policy = match decode_json(policy.as_bytes(), self.section) {
            Ok(policy) => policy,
            Err(error) => return Some(error.to_string()),
        };
        (self.compile)(&policy, "test").err().map(|error| error.to_string())
    }

    /// Holds the whole table, of so many cases at least, against the engine.
    pub fn check(&self, table: &str, least: usize) {
        let table: Vec<Value> = serde_yaml_ng::from_str(table).unwrap();
        assert!(table.len() >= least);
        let mut wrong = Vec::new();
        for case in &table {
            let name = case["name"].as_str().unwrap();
            match self.of(&self.policy(case)) {
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

    fn policy(&self, case: &Value) -> String {
        if let Some(whole) = case.get("policy") {
            return whole.to_string();
        }
        let mut policy = json!({"name": "shop"});
        for (part, section) in self.parts {
            if let Some(fields) = case.get(part) {
                policy[section] = fields.clone();
            }
        }
        if let Some(fields) = case["rule"].as_object() {
            let mut rule = fields.clone();
            rule.insert("id".into(), "r".into());
            policy["circuit_breaker"] = json!({"rules": [rule]});
        }
        policy.to_string()
    }

    /// `rules` makes a policy of so many rules with this match: as many as may be are compiled, and one
    /// more refused, also of those that no index can find.
    pub fn bounds(&self, most: usize, rules: impl Fn(usize, &str) -> String) {
        let refused = |count, matches: &str, bound: usize| {
            self.of(&rules(count, matches)).is_some_and(|error| error.contains(&bound.to_string()))
        };
        let exact = r#"{"path":{"exact":"/a"}}"#;
        assert_eq!(self.of(&rules(most, exact)), None);
        assert!(refused(most + 1, exact, most));
        let regex = r#"{"path":{"regex":"/a.*"}}"#;
        assert_eq!(self.of(&rules(64, regex)), None);
        assert!(refused(65, regex, 64));
    }
}
