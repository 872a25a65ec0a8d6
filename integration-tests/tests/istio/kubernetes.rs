//! What a Kubernetes API server with Istio's resource definitions says to a manifest: their OpenAPI schema, with
//! unknown fields refused (as by `kubectl --validate=strict`), and their CEL rules.

use regex_lite::Regex;
use serde_json::{Map, Value};
use weir_integration_tests::paths;

pub struct Definitions(Value);

impl Definitions {
    pub fn read() -> Definitions {
        let file = paths::root().join("integration-tests/vectors/istio-schemas.yaml");
        let text = std::fs::read_to_string(file).expect("the vectors are there");
        let mut all: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
        all.apply_merge().expect("merges of mappings");
        Definitions(serde_json::to_value(all).expect("no keys but text"))
    }

    /// What is wrong with a manifest; nothing, when it is taken.
    pub fn errors(&self, manifest: &Value) -> Vec<String> {
        let kind = manifest["kind"].as_str().unwrap_or_default();
        let Some(definition) = self.0.get(kind).filter(|_| !kind.starts_with('.')) else {
            return vec![format!("kind: {kind:?} is none that weir writes")];
        };
        let mut errors = Vec::new();
        if manifest["apiVersion"] != definition["apiVersion"] {
            errors.push(format!("apiVersion: must be {}", definition["apiVersion"]));
        }
        for name in manifest.as_object().into_iter().flat_map(Map::keys) {
            if !["apiVersion", "kind", "metadata", "spec"].contains(&name.as_str()) {
                errors.push(format!("{name}: unknown field"));
            }
        }
        let label = Regex::new("^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$").expect("a pattern");
        for (name, value) in manifest["metadata"].as_object().into_iter().flatten() {
            let is_name = ["name", "namespace"].contains(&name.as_str());
            if !is_name || !value.as_str().is_some_and(|text| label.is_match(text)) {
                errors.push(format!("metadata.{name}: {value} is not of these manifests"));
            }
        }
        if manifest["metadata"]["name"].is_null() {
            errors.push("metadata.name: required".to_owned());
        }
        check(&manifest["spec"], &definition["spec"], "spec", &mut errors);
        errors
    }

    /// The rules of all kinds.
    pub fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        collect(&self.0, &mut rules);
        rules.sort();
        rules.dedup();
        rules
    }
}

fn collect(schema: &Value, rules: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name == "x-kubernetes-validations" {
                    true => rules.extend(strings(value).map(str::to_owned)),
                    false => collect(value, rules),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, rules)),
        _ => {}
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn check(value: &Value, schema: &Value, path: &str, errors: &mut Vec<String>) {
    let words = schema.as_object().expect("a schema is an object");
    if value.is_null() && words.contains_key("nullable") {
        return;
    }
    let mut fail = |said: String| errors.push(format!("{path}: {value} {said}"));
    for (word, limit) in words {
        let bound = limit.as_f64().unwrap_or_default();
        let text = value.as_str();
        let length = text.map(|text| text.chars().count() as f64);
        match word.as_str() {
            "type" if !is_of(value, limit) => fail(format!("must be {limit}")),
            "enum" if !limit.as_array().expect("a list").contains(value) => {
                fail(format!("must be one of {limit}"));
            }
            "pattern" => {
                let pattern = Regex::new(limit.as_str().expect("a pattern")).expect("a pattern");
                if !text.is_some_and(|text| pattern.is_match(text)) {
                    fail(format!("must match {limit}"));
                }
            }
            "minimum" if value.as_f64().is_none_or(|number| number < bound) => {
                fail(format!("must be at least {limit}"));
            }
            "maximum" if value.as_f64().is_none_or(|number| number > bound) => {
                fail(format!("must be at most {limit}"));
            }
            "format" if value.as_i64().is_none_or(|number| i32::try_from(number).is_err()) => {
                fail(format!("must be {limit}"));
            }
            "minLength" if length.is_none_or(|length| length < bound) => {
                fail("is too short".into())
            }
            "maxLength" if length.is_none_or(|length| length > bound) => fail("is too long".into()),
            "maxItems" if value.as_array().is_some_and(|all| all.len() as f64 > bound) => {
                fail("has too many items".into());
            }
            "maxProperties" if value.as_object().is_some_and(|all| all.len() as f64 > bound) => {
                fail("has too many fields".into());
            }
            "required" => {
                for name in strings(limit).filter(|name| value.get(name).is_none()) {
                    fail(format!("has no {name:?}"));
                }
            }
            "x-kubernetes-list-map-keys" => {
                for key in strings(limit) {
                    let mut seen: Vec<&Value> =
                        value.as_array().into_iter().flatten().map(|item| &item[key]).collect();
                    let all = seen.len();
                    seen.sort_by_key(|value| value.to_string());
                    seen.dedup();
                    if seen.len() < all {
                        fail(format!("has the same {key:?} twice"));
                    }
                }
            }
            "x-kubernetes-validations" => {
                for rule in strings(limit) {
                    if !holds(rule, value) {
                        fail(format!("breaks the rule {rule}"));
                    }
                }
            }
            "type"
            | "enum"
            | "minimum"
            | "maximum"
            | "format"
            | "minLength"
            | "maxLength"
            | "maxItems"
            | "maxProperties"
            | "nullable"
            | "properties"
            | "items"
            | "additionalProperties"
            | "x-kubernetes-preserve-unknown-fields" => {}
            other => panic!("the schema says {other:?}, which this check does not know"),
        }
    }
    let is_open = words.contains_key("x-kubernetes-preserve-unknown-fields");
    for (name, field) in value.as_object().into_iter().flatten().filter(|_| !is_open) {
        let known = words.get("properties").and_then(|known| known.get(name));
        match known.or(words.get("additionalProperties")) {
            Some(schema) => check(field, schema, &format!("{path}.{name}"), errors),
            None => errors.push(format!("{path}.{name}: unknown field")),
        }
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], &format!("{path}[{place}]"), errors);
    }
}

fn is_of(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the schema says type {other:?}, which this check does not know"),
    }
}

/// The rules that are known here, in the words of the schema.
pub const RULES: [&str; 9] = [
    "!self.contains(\"*\")",
    "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    "(has(self.selector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    "(has(self.valueFrom) ? self.valueFrom : \"\") != \"HOST\" || !has(self.value)",
    "has(self.wasm) != has(self.lua)",
    "self.all(key, !key.contains(\"*\"))",
    "self.all(key, key.size() != 0)",
    "self.size() == 0",
    "isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"]) : (isURL(\"http://\" + self) && url(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"])",
];

fn holds(rule: &str, value: &Value) -> bool {
    let has = |name: &str| value.get(name).is_some();
    let text = value.as_str().unwrap_or_default();
    let attachments = ["selector", "targetRef", "targetRefs"].into_iter().filter(|name| has(name));
    let mut keys = value.as_object().into_iter().flat_map(Map::keys);
    match RULES.iter().position(|known| *known == rule) {
        Some(0) => !text.contains('*'),
        Some(1 | 2) => attachments.count() <= 1,
        Some(3) => value["valueFrom"] != "HOST" || !has("value"),
        Some(4) => has("wasm") != has("lua"),
        Some(5) => keys.all(|key| !key.contains('*')),
        Some(6) => keys.all(|key| !key.is_empty()),
        Some(7) => text.is_empty(),
        Some(8) => {
            // A port after a host without a scheme makes the host the scheme, as Go reads URLs.
            let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(is_of_scheme);
            let scheme = if is_scheme { scheme } else { "" };
            ["", "http", "https", "file", "oci"].contains(&scheme)
        }
        _ => panic!("the schema has the rule {rule:?}, which this check does not know"),
    }
}
