//! Values that look like secrets: a policy is readable by all who can read the cluster's resources,
//! and stands in Envoy's config dump.

use crate::finding::{Finding, Severity};
use crate::yaml::{Node, Scalar, Value};

use super::Lint;

pub fn look(root: &Node, lint: &mut Lint<'_>) {
    walk(root, "policy", "", lint);
}

/// `name` is that of the header or the like that a value belongs to.
fn walk(node: &Node, path: &str, name: &str, lint: &mut Lint<'_>) {
    match &node.value {
        Value::Scalar(Scalar::Text(text)) => {
            if looks_secret(text) || (names_a_secret(name) && text.len() >= 8) {
                lint.findings.push(Finding {
                    severity: Severity::Warning,
                    code: "secret",
                    path: path.to_string(),
                    value: String::new(),
                    remedy: "looks like a secret, and a policy is no place for one: \
                             match on what the proxy has verified, or on its presence"
                        .into(),
                    span: node.span.clone(),
                    other: None,
                    is_secret: true,
                });
            }
        }
        Value::Scalar(_) => {}
        Value::List(items) => {
            for item in items {
                walk(&item.node, &format!("{path}[{}]", item.place), name, lint);
            }
        }
        Value::Map(entries) => {
            let named = node.get("name").and_then(Node::text);
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                let name = match entry.key.as_str() {
                    "exact" | "prefix" | "suffix" | "contains" | "in" | "values" => name,
                    "value" => named.unwrap_or(name),
                    // What names a header is no value of it.
                    "header" | "cookie" | "query" | "name" | "id" | "regex" => "",
                    key => key,
                };
                walk(&entry.node, &path, name, lint);
            }
        }
    }
}

fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "authorization",
        "api-key",
        "apikey",
        "api_key",
        "password",
        "secret",
        "private-key",
        "access-token",
    ];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

fn looks_secret(text: &str) -> bool {
    // Schemes and services that mark their secrets by how they begin.
    const STARTS: [(&str, usize); 11] = [
        ("Bearer ", 16),
        ("Basic ", 12),
        ("eyJ", 40),
        ("AKIA", 20),
        ("ghp_", 30),
        ("github_pat_", 30),
        ("glpat-", 20),
        ("sk_live_", 20),
        ("xoxb-", 20),
        ("xoxp-", 20),
        ("-----BEGIN ", 20),
    ];
    STARTS.iter().any(|(start, length)| text.starts_with(start) && text.len() >= *length)
}
