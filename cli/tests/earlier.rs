//! Policies of earlier versions load for ever. Their folders are frozen: a new version gets a folder of its own.

mod kit;

use kit::weir;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weir_cli::Verdict;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/earlier");
    let mut folders: Vec<_> = root.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

fn policies(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_earlier_policy_still_loads() {
    for path in folders().iter().flat_map(|folder| policies(folder)) {
        let (verdict, said) = weir(&["validate", path.to_str().unwrap()]);
        let remedy = "an old policy has to load in a new module: bring back what it needs, beside the new way";
        assert_eq!(verdict, Verdict::Good, "{remedy}\n{said}");
    }
}

/// They use every field that there was, but those of `scope: MESH`, which 0.1 refused by name.
#[test]
fn the_policies_of_0_1_are_wide() {
    let (_, schema) = weir(&["schema"]);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut used = BTreeSet::new();
    for path in policies(&folders()[0]) {
        let policy = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        fields(&schema, "Policy", &policy, &mut used);
    }
    assert_eq!(used.len(), 307, "{used:#?}");
}

/// Walks a policy along its schema, and notes each field by its message.
fn fields(schema: &Value, message: &str, policy: &Value, used: &mut BTreeSet<String>) {
    let properties = &schema["definitions"][message]["properties"];
    for (name, value) in policy.as_object().into_iter().flatten() {
        let property = &properties[name];
        assert!(!property.is_null(), "{message}.{name} is not in the schema");
        used.insert(format!("{message}.{name}"));
        step(schema, property, value, used);
    }
}

fn step(schema: &Value, property: &Value, value: &Value, used: &mut BTreeSet<String>) {
    if let Some(message) = property["allOf"][0]["$ref"].as_str() {
        return fields(schema, message.rsplit('/').next().unwrap(), value, used);
    }
    for item in value.as_array().into_iter().flatten() {
        step(schema, &property["items"], item, used);
    }
    for item in value.as_object().into_iter().flat_map(|map| map.values()) {
        step(schema, &property["additionalProperties"], item, used);
    }
}
