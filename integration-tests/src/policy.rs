//! Policies as users write them, in YAML, turned into the JSON that the module reads.

use serde_json::Value;

/// The JSON text of a policy written in YAML or JSON. Panics on text that is neither.
pub fn to_json(text: &str) -> String {
    try_json(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The same for text that may be neither.
pub fn try_json(text: &str) -> Result<String, String> {
    let value: Result<Value, _> = serde_yaml_ng::from_str(text);
    value.map(|v| v.to_string()).map_err(|e| format!("the policy is not YAML: {e}"))
}

/// A policy that lets everything pass: what `default_config` holds in our set-ups, so that a bad
/// first policy does not turn every request into a 500.
pub const PASS_THROUGH: &str = "{name: pass-through, mode: OFF}";
