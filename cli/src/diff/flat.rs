//! A tree as a list of fields and values, in one spelling, so that two can be laid side by side.

use std::collections::BTreeMap;

use crate::yaml::{Node, Scalar, Value, snake};

/// Fields that are maps by names of the user's: these names stay as they are.
const MAPS: [&str; 8] = [
    "headers",
    "query",
    "cookies",
    "jwt_claims",
    "baggage",
    "properties",
    "resource",
    "attributes",
];

/// The fields below a node, by their paths.
pub fn fields(node: &Node) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    walk(node, "", false, &mut all);
    all
}

/// The name of a field as the schema has it.
pub fn field(name: &str) -> String {
    snake(name)
}

fn walk(node: &Node, path: &str, is_map: bool, all: &mut BTreeMap<String, String>) {
    match &node.value {
        // What is null is not there.
        Value::Scalar(Scalar::Null) => {}
        Value::Scalar(scalar) => {
            all.insert(path.to_string(), text(scalar));
        }
        Value::List(items) => {
            let scalars: Option<Vec<String>> = items
                .iter()
                .map(|item| match &item.node.value {
                    Value::Scalar(scalar) => Some(text(scalar)),
                    _ => None,
                })
                .collect();
            match scalars {
                Some(scalars) if !scalars.is_empty() => {
                    all.insert(path.to_string(), format!("[{}]", scalars.join(", ")));
                }
                _ => {
                    for item in items {
                        walk(&item.node, &format!("{path}[{}]", item.place), false, all);
                    }
                }
            }
        }
        Value::Map(entries) => {
            if entries.is_empty() && !path.is_empty() {
                all.insert(path.to_string(), "{}".into());
            }
            for entry in entries {
                let name = if is_map { entry.key.clone() } else { field(&entry.key) };
                let is_map = !is_map && MAPS.contains(&name.as_str());
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                walk(&entry.node, &path, is_map, all);
            }
        }
    }
}

/// `"1.50s"` is `1.5s`, and `"10"` is 10: both spellings are read.
fn text(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Null => "null".into(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Unsigned(value) => value.to_string(),
        Scalar::Negative(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
        Scalar::Text(text) => match text.strip_suffix('s') {
            Some(number)
                if number.contains('.')
                    && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') =>
            {
                format!("{}s", number.trim_end_matches('0').trim_end_matches('.'))
            }
            _ => text.clone(),
        },
    }
}
