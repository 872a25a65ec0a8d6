//! The reference of a policy as Markdown, out of its schema: so the words are those of the protos.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;

const HEAD: &str = "\
# Reference of a policy

Written by `weir schema --to markdown` from the comments in `protos/weir/v1`; a change there is a change here. Examples
are in [`envoy-configs/policies`](../envoy-configs/policies).

Fields may be spelled in snake_case or camelCase. A duration is seconds with an `s`, such as `1.5s`.
";

/// Messages in the order in which they are met from the policy on.
pub fn markdown(schema: &str) -> anyhow::Result<String> {
    let schema: Value = serde_json::from_str(schema)?;
    let mut names = Vec::new();
    meet(&schema, "Policy", &mut names);
    let mut out = HEAD.to_owned();
    for name in names {
        let message = schema["definitions"].get(&name).context("a definition for each name")?;
        section(&name, message, &mut out);
    }
    Ok(out)
}

fn meet(schema: &Value, name: &str, names: &mut Vec<String>) {
    let Some(message) = schema["definitions"].get(name) else { return };
    if names.iter().any(|known| known == name) {
        return;
    }
    names.push(name.to_owned());
    for (_, field) in fields(message) {
        if let Some(name) = message_of(field) {
            meet(schema, name, names);
        }
    }
}

fn fields(message: &Value) -> impl Iterator<Item = (&String, &Value)> {
    message["properties"].as_object().into_iter().flatten()
}

/// The message that a field, its items or its values are of.
fn message_of(field: &Value) -> Option<&str> {
    let inner = field.get("items").or_else(|| field.get("additionalProperties")).unwrap_or(field);
    inner["allOf"][0]["$ref"].as_str()?.strip_prefix("#/definitions/")
}

fn section(name: &str, message: &Value, out: &mut String) {
    let _ = write!(out, "\n## {name}\n\n");
    if let Some(text) = message["description"].as_str() {
        let _ = write!(out, "{text}\n\n");
    }
    let ways = message["oneOf"].as_array().into_iter().flatten();
    let ways: Vec<&str> = ways.filter_map(|way| way["required"][0].as_str()).collect();
    let ways: Vec<&str> =
        ways.into_iter().filter(|way| message["properties"].get(way).is_some()).collect();
    if !ways.is_empty() {
        let _ = write!(out, "Exactly one of `{}`.\n\n", ways.join("`, `"));
    }
    out.push_str("| field | type | meaning |\n|---|---|---|\n");
    for (name, field) in fields(message) {
        let text = field["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "| `{name}` | {} | {} |", kind(field), cell(text));
    }
}

fn kind(field: &Value) -> String {
    if let Some(items) = field.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(values) = field.get("additionalProperties") {
        return format!("map of names to {}", kind(values));
    }
    if let Some(name) = message_of(field) {
        return format!("[{name}](#{})", name.replace('.', "").to_lowercase());
    }
    if let Some(values) = field["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        return values.collect::<Vec<_>>().join(" or ");
    }
    match field["type"].as_str() {
        Some("string") if field.get("pattern").is_some() => "duration",
        Some("string") => "text",
        Some("boolean") => "`true` or `false`",
        Some("number") => "number",
        // A whole number, in digits or as text.
        _ => "whole number",
    }
    .to_owned()
}

/// Text that stays in its cell, and is what it says.
fn cell(text: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    for c in text.chars() {
        is_code ^= c == '`';
        match c {
            '|' => out.push_str("\\|"),
            '<' if !is_code => out.push_str("&lt;"),
            '*' | '_' if !is_code => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn text_stays_in_its_cell() {
        assert_eq!(cell("a|b `x|<y>*` <z> *"), "a\\|b `x\\|<y>*` &lt;z> \\*");
    }
}
