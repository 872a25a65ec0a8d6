//! Tables of bad policies, which the engine's own tests read as well: a case has a name, the field of the
//! schema that it is about, the policy or a part of it, and what the message has to say.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::{Envoy, schema};

pub struct Refusals(Vec<Value>);

impl Refusals {
    pub fn read(table: &str) -> Refusals {
        Refusals(serde_yaml_ng::from_str(table).expect("a list of cases"))
    }

    /// Gives each policy to Envoy, where `good` is in force: the message says what it has to, and the old
    /// policy goes on, as `serves` finds. `parts` are the names of a case's parts and of the sections that
    /// they are.
    pub fn are_refused(
        &self,
        envoy: &Envoy,
        good: &str,
        parts: &[(&str, &str)],
        mut serves: impl FnMut() -> bool,
    ) {
        let mut wrong = Vec::new();
        for case in &self.0 {
            let name = text(case, "name");
            match envoy.put_configuration(&policy(case, parts)).verdict() {
                Err(log) => {
                    let refused = |line: &&str| line.contains("policy refused");
                    let line = log.lines().find(refused).unwrap_or("");
                    let said = case["error"].as_array().expect("a list").iter();
                    // The module's log lines are JSON, in which a quote is escaped.
                    let missing: Vec<_> = said
                        .filter_map(Value::as_str)
                        .filter(|part| !line.contains(&part.replace('"', "\\\"")))
                        .collect();
                    if !missing.is_empty() {
                        wrong.push(format!("{name}: no {missing:?} in: {line}"));
                    }
                }
                Ok(()) => {
                    wrong.push(format!("{name}: accepted"));
                    envoy.put_policy(good).accepted();
                }
            }
            assert!(serves(), "after {name}: the old policy");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        envoy.assert_healthy();
    }

    /// Each field of these files has a case. `least` guards against a schema that was not read.
    pub fn cover(&self, protos: &[&str], least: usize) {
        let names: BTreeSet<_> = self.0.iter().map(|case| text(case, "name")).collect();
        assert_eq!(names.len(), self.0.len(), "a name is given twice");
        let covered: BTreeSet<String> =
            self.0.iter().map(|case| text(case, "field").to_owned()).collect();
        let fields = schema::fields(protos);
        assert!(fields.len() > least, "the schema was not read: {fields:?}");
        let without: Vec<_> = fields.difference(&covered).collect();
        assert!(without.is_empty(), "fields without a bad policy: {without:?}");
        let unknown: Vec<_> =
            covered.difference(&fields).filter(|field| field.contains('.')).collect();
        assert!(unknown.is_empty(), "cases of fields that do not exist: {unknown:?}");
    }
}

fn text<'c>(case: &'c Value, field: &str) -> &'c str {
    case[field].as_str().unwrap_or_else(|| panic!("{case} has no `{field}`"))
}

fn policy(case: &Value, parts: &[(&str, &str)]) -> String {
    if let Some(whole) = case.get("policy") {
        return whole.to_string();
    }
    let mut policy = json!({"name": "shop"});
    for (part, section) in parts {
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
