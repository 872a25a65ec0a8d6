//! `weir schema` and `weir completions`.

mod kit;

use std::path::Path;
use std::process::Command;

use kit::weir;
use regex_lite::Regex;
use serde_json::Value;
use weir_cli::Verdict;

/// The file that editors fetch from the repository. WEIR_BLESS=1 writes it anew.
#[test]
fn the_file_in_the_repository_is_current() {
    let (verdict, schema) = weir(&["schema"]);
    assert_eq!(verdict, Verdict::Good);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protos/policy.schema.json");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(file == schema, "protos/policy.schema.json is old; WEIR_BLESS=1 writes it anew");
}

/// And the reference that people read.
#[test]
fn the_reference_in_the_repository_is_current() {
    let (verdict, reference) = weir(&["schema", "--to", "markdown"]);
    assert_eq!(verdict, Verdict::Good);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(file == reference, "docs/policy.md is old; WEIR_BLESS=1 writes it anew");
    // Every message that the schema defines is met, and every link leads to one.
    let schema = schema();
    for name in schema["definitions"].as_object().unwrap().keys() {
        assert!(reference.contains(&format!("\n## {name}\n")), "{name}");
    }
    let links = Regex::new(r"\]\(#([a-z0-9]+)\)").unwrap();
    for link in links.captures_iter(&reference) {
        let is_linked = |line: &str| {
            line.strip_prefix("## ")
                .is_some_and(|name| name.replace('.', "").to_lowercase() == link[1])
        };
        assert!(reference.lines().any(is_linked), "{}", &link[1]);
    }
}

fn schema() -> Value {
    serde_json::from_str(&weir(&["schema"]).1).unwrap()
}

#[test]
fn the_examples_of_the_repository_fit() {
    let schema = schema();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-configs/policies");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let policy: Value = serde_yaml_ng::from_str(&text).unwrap();
        check(&schema, &schema, &policy).unwrap_or_else(|at| panic!("{}: {at}", path.display()));
        count += 1;
    }
    assert!(count >= 10);
    let camel: Value = serde_json::from_str(
        r#"{"name": "shop", "rateLimit": {"rules": [{"id": "r", "maxTokens": "10", "fillInterval": "1.5s"}]}}"#,
    )
    .unwrap();
    check(&schema, &schema, &camel).unwrap();
}

/// Of the policies that the modules refuse, those with a wrong name, type or value.
#[test]
fn what_the_reader_refuses_does_not_fit() {
    let schema = schema();
    let (mut refused, mut wrong) = (0, Vec::new());
    for (section, text) in [
        ("policy", include_str!("../../integration-tests/bad-policies.yaml")),
        ("trace", include_str!("../../integration-tests/bad-trace-policies.yaml")),
        ("color", include_str!("../../integration-tests/bad-color-policies.yaml")),
        ("rule", include_str!("../../integration-tests/bad-breaker-policies.yaml")),
    ] {
        let cases: Vec<Value> = serde_yaml_ng::from_str(text).unwrap();
        for case in cases {
            let fields = case[section].clone();
            let policy = match section {
                "trace" => serde_json::json!({ "trace_context": fields }),
                "color" => serde_json::json!({ "traffic_color": fields }),
                "rule" => serde_json::json!({ "circuit_breaker": { "rules": [fields] } }),
                _ => fields,
            };
            // Only the reader's own errors; those of the compilers are beyond a schema.
            let json = policy.to_string();
            let is_readers = policy.is_object()
                && weir_protos::decode_json(json.as_bytes(), weir_protos::Section::All).is_err();
            if is_readers {
                refused += 1;
                if check(&schema, &schema, &policy).is_ok() {
                    wrong.push(format!("{section} {}: {json}", case["name"]));
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As much of JSON Schema as ours uses. `Err` says where a value does not fit.
fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let all = schema.as_object().unwrap();
    let fits = |schema: &Value, value: &Value| check(root, schema, value);
    for (word, said) in all {
        let is_fit = match word.as_str() {
            "$schema" | "title" | "description" | "definitions" => true,
            "properties" | "patternProperties" | "additionalProperties" => true,
            "$ref" => {
                let target = root.pointer(said.as_str().unwrap().strip_prefix('#').unwrap());
                fits(target.expect("the target is there"), value).map(|()| true)?
            }
            "allOf" => {
                said.as_array().unwrap().iter().try_for_each(|schema| fits(schema, value))?;
                true
            }
            "oneOf" => {
                let each = said.as_array().unwrap().iter();
                each.filter(|schema| fits(schema, value).is_ok()).count() == 1
            }
            "type" => match said.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                other => panic!("type {other}"),
            },
            "enum" => said.as_array().unwrap().contains(value),
            "pattern" => {
                let text = value.as_str();
                text.is_none_or(|text| Regex::new(said.as_str().unwrap()).unwrap().is_match(text))
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                for (place, item) in items {
                    fits(said, item).map_err(|at| format!("[{place}]{at}"))?;
                }
                true
            }
            "required" => {
                let names = said.as_array().unwrap().iter().filter_map(Value::as_str);
                value
                    .as_object()
                    .is_none_or(|fields| names.into_iter().all(|n| fields.contains_key(n)))
            }
            other => panic!("the checker does not know {other}"),
        };
        if !is_fit {
            return Err(format!(": {value} is against {word} {said}"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let own = all.get("properties").and_then(|properties| properties.get(name));
        let patterns = all.get("patternProperties").and_then(Value::as_object);
        let by_pattern = patterns
            .into_iter()
            .flatten()
            .find(|(pattern, _)| Regex::new(pattern).unwrap().is_match(name));
        let schema = own.or(by_pattern.map(|(_, schema)| schema));
        match schema.or(all.get("additionalProperties")) {
            Some(Value::Bool(false)) => return Err(format!(".{name}: no such field")),
            Some(schema) => fits(schema, value).map_err(|at| format!(".{name}{at}"))?,
            None => {}
        }
    }
    Ok(())
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (verdict, text) = weir(&["completions", shell]);
        assert_eq!(verdict, Verdict::Good);
        for command in ["validate", "explain", "simulate", "diff", "--against"] {
            assert!(text.contains(command.trim_start_matches('-')), "{shell}: {command}");
        }
    }
    // A shell takes what it is given.
    let mut bash =
        Command::new("bash").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let text = weir(&["completions", "bash"]).1;
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
    assert_eq!(weir(&["completions", "command.com"]).0, Verdict::Unable);
}

/// Every command has a worked example in its help.
#[test]
fn every_help_has_an_example() {
    for command in ["validate", "explain", "simulate", "diff", "render", "schema", "completions"] {
        let help = weir(&[command, "--help"]).1;
        assert!(help.contains(&format!("Example:\n  $ weir {command}")), "{command}: {help}");
    }
}
