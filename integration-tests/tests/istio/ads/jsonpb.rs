//! `pluginConfig` as text, in the form in which istiod gives it to a module: fields in the order of their names, each
//! number a double, and what HTML would take for its own written as escapes.

use serde_json::Value;

pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (place, (name, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                quoted(name, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => quoted(text, out),
        Value::Number(number) => out.push_str(&double(number.as_f64().expect("a number"))),
        other => out.push_str(&other.to_string()),
    }
}

/// As Go's encoding/json writes a float64.
fn double(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        return match text.split_once("e-") {
            Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
            None => text.replace('e', "e+"),
        };
    }
    format!("{number}")
}

fn quoted(text: &str, out: &mut String) {
    let json = Value::from(text).to_string();
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
}

#[test]
fn the_text_is_istiods() {
    let config = serde_json::json!({
        "b": 100, "a": "<&>", "big": 9_007_199_254_740_993_u64, "half": 0.5, "list": [true, null, {}],
        "huge": 1e21, "tiny": 1e-7, "ä": "\u{2028}\"\n",
    });
    assert_eq!(
        text(&config),
        "{\"a\":\"\\u003c\\u0026\\u003e\",\"b\":100,\"big\":9007199254740992,\"half\":0.5,\
         \"huge\":1e+21,\"list\":[true,null,{}],\"tiny\":1e-07,\"ä\":\"\\u2028\\\"\\n\"}"
    );
}
