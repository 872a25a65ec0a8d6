//! `bad-policies.yaml`: the cases that the engine's own tests read as well.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    /// `Message.field`, or a message where the case is about the whole of it.
    pub field: String,
    policy: Value,
    pub error: Vec<String>,
}

impl Case {
    /// The text that the module receives.
    pub fn configuration(&self) -> String {
        match &self.policy {
            Value::String(text) => text.clone(),
            policy => policy.to_string(),
        }
    }
}

pub fn read() -> Vec<Case> {
    let text = include_str!("../../bad-policies.yaml");
    serde_yaml_ng::from_str(text).expect("bad-policies.yaml is a list of cases")
}
