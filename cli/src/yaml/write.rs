//! YAML that every reader reads alike: block style, strings in quotes where there is any doubt.

use serde_json::Value as Json;

use super::Scalar;

/// One document. The order of fields is the order of `value`.
pub fn write(value: &Json) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Json, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                out.push_str(&indent);
                out.push_str(&text(name));
                out.push(':');
                below(value, depth, out);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for item in items {
                // The item's first line stands behind the dash.
                let mut lines = String::new();
                match item {
                    Json::Object(fields) if !fields.is_empty() => {
                        block(item, depth + 1, &mut lines)
                    }
                    Json::Array(items) if !items.is_empty() => block(item, depth + 1, &mut lines),
                    scalar => lines = format!("{}\n", flow(scalar)),
                }
                out.push_str(&indent);
                out.push_str("- ");
                out.push_str(lines.trim_start_matches(' '));
            }
        }
        scalar => {
            out.push_str(&indent);
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

fn below(value: &Json, depth: usize, out: &mut String) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        Json::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, depth, out);
        }
        scalar => {
            out.push(' ');
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Without quotes only what is plainly text.
fn text(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && matches!(Scalar::plain(text), Ok(Scalar::Text(_)));
    if is_plain { text.to_string() } else { Json::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "plain": "text", "a word": "two words", "off": "OFF", "number": "10", "empty": "",
            "list": [1, "a: b", [2, [3]], {"x": {"y": []}, "z": {}}, []],
            "nested": {"deep": {"deeper": [{"a": 1, "b": [{"c": null}]}]}},
            "quote": "\"'\\\n\t# é", "yes": true, "float": 1.5, "negative": -3, "big": u64::MAX,
        });
        let text = write(&value);
        let (documents, troubles) = load(&text);
        assert_eq!(troubles, [], "{text}");
        assert_eq!(documents[0].to_json(), value, "{text}");
    }
}
