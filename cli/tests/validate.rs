//! `weir validate`: what it says of broken and of odd policies, and how.

mod kit;

use std::collections::BTreeSet;

use kit::{Case, Folder, golden, weir};
use serde_json::Value;
use weir_cli::Verdict;

fn validate(case: &Case) -> (Verdict, String) {
    let folder = Folder::new();
    let file = folder.file("policy.yaml", &case.text);
    let (verdict, says) = weir(&["validate", &file]);
    (verdict, says.replace(&file, "policy.yaml"))
}

#[test]
fn broken_policies_are_refused_with_place_and_remedy() {
    let cases = golden("broken-policies.txt", |case| {
        let (verdict, says) = validate(case);
        assert_eq!(verdict, Verdict::Bad, "{}: {says}", case.name);
        assert!(says.contains(" --> policy.yaml:"), "{}: no place in {says}", case.name);
        says
    });
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is given twice");
    assert!(cases.len() >= 60);
}

#[test]
fn odd_policies_are_taken_with_a_warning() {
    golden("odd-policies.txt", |case| {
        let (verdict, says) = validate(case);
        assert_eq!(verdict, Verdict::Good, "{}: {says}", case.name);
        says
    });
}

/// The tables that the modules are tested with on a real Envoy: the command refuses the same
/// policies, with the same words, and shows a place for each.
#[test]
fn what_the_modules_refuse_is_refused_here() {
    let folder = Folder::new();
    let mut count = 0;
    let mut wrong = Vec::new();
    for (table, text) in [
        ("limit", include_str!("../../integration-tests/bad-policies.yaml")),
        ("breaker", include_str!("../../integration-tests/bad-breaker-policies.yaml")),
        ("trace", include_str!("../../integration-tests/bad-trace-policies.yaml")),
        ("color", include_str!("../../integration-tests/bad-color-policies.yaml")),
    ] {
        let cases: Vec<Value> = serde_yaml_ng::from_str(text).unwrap();
        for case in cases {
            count += 1;
            let name = case["name"].as_str().unwrap();
            let file = folder.file(&format!("{table}-{name}.json"), &policy(&case));
            let (verdict, says) = weir(&["validate", "--format", "json", &file]);
            let says: Value = serde_json::from_str(&says).unwrap();
            let findings = says["files"][0]["findings"].as_array().unwrap();
            let text = |finding: &Value| {
                let part = |name: &str| finding[name].as_str().unwrap().to_string();
                let value = part("value");
                let value = if value.is_empty() { value } else { format!("{value} ") };
                format!("{}: {value}{}", part("path"), part("message"))
            };
            let parts: Vec<&str> = case["error"]
                .as_array()
                .unwrap()
                .iter()
                .map(|part| part.as_str().unwrap())
                .collect();
            let is_said = findings.iter().any(|finding| {
                let text = text(finding);
                // What is wrong with the text itself, YAML says in its own way.
                let is_of_the_text = finding["path"] == "";
                is_of_the_text || parts.iter().all(|part| text.contains(part))
            });
            let has_places = findings.iter().all(|finding| finding["line"].as_u64() >= Some(1));
            if verdict != Verdict::Bad || !is_said || !has_places {
                wrong.push(format!("{table} {name}: no {parts:?} in {findings:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 480, "{count}");
}

/// As the tables of the four modules spell a policy.
fn policy(case: &Value) -> String {
    if let Some(text) = case["policy"].as_str() {
        return text.to_string();
    }
    if !case["policy"].is_null() {
        return case["policy"].to_string();
    }
    let mut policy = serde_json::json!({"name": "shop"});
    if let Some(rule) = case["rule"].as_object() {
        let mut rule = rule.clone();
        rule.insert("id".into(), "r".into());
        policy["circuit_breaker"] = serde_json::json!({"rules": [rule]});
    }
    for (name, section) in
        [("color", "traffic_color"), ("trace", "trace_context"), ("restore", "restore")]
    {
        if let Some(fields) = case.get(name) {
            policy[section] = fields.clone();
        }
    }
    policy.to_string()
}

#[test]
fn the_examples_of_the_repository_are_good() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-configs/policies");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        files.push(entry.unwrap().path().to_str().unwrap().to_string());
    }
    assert!(files.len() >= 10, "{files:?}");
    let args: Vec<&str> =
        ["validate", "--strict"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let (verdict, says) = weir(&args);
    assert_eq!(verdict, Verdict::Good, "{says}");
}

#[test]
fn exit_codes_tell_errors_warnings_and_missing_files_apart() {
    let folder = Folder::new();
    let good = folder.file("good.yaml", "name: shop\n");
    let odd = folder.file("odd.yaml", "{}\n");
    let bad = folder.file("bad.yaml", "nmae: shop\n");
    assert_eq!(weir(&["validate", &good]).0, Verdict::Good);
    assert_eq!(weir(&["validate", &odd]).0, Verdict::Good);
    assert_eq!(weir(&["validate", "--strict", &odd]).0, Verdict::Bad);
    assert_eq!(weir(&["validate", &good, &bad]).0, Verdict::Bad);
    let missing = format!("{good}.missing");
    let (verdict, says) = weir(&["validate", &good, &missing]);
    assert_eq!(verdict, Verdict::Unable);
    assert!(says.contains("cannot read") && says.contains("missing"), "{says}");
    std::fs::write(folder.path().join("latin.yaml"), b"name: shop\n# Gr\xfc\xdfe\n").unwrap();
    let (verdict, says) = weir(&["validate", folder.path().join("latin.yaml").to_str().unwrap()]);
    assert_eq!(verdict, Verdict::Unable);
    assert!(says.contains("latin.yaml:2:5: is not UTF-8"), "{says}");
}

#[test]
fn json_has_the_place_and_all_parts_of_a_message() {
    let folder = Folder::new();
    let file = folder.file(
        "bad.yaml",
        "name: shop\nrate_limit:\n  rules: [{id: ä, max_tokens: 0, fill_interval: 1s}]\n",
    );
    let (verdict, says) = weir(&["validate", "--format", "json", &file]);
    assert_eq!(verdict, Verdict::Bad);
    let says: Value = serde_json::from_str(&says).unwrap();
    assert_eq!(says["is_valid"], false);
    let finding = &says["files"][0]["findings"][0];
    assert_eq!(
        (&finding["line"], &finding["column"], &finding["end_column"]),
        (&3.into(), &16.into(), &17.into())
    );
    assert_eq!(finding["path"], "policy.rate_limit.rules[0].id");
    assert_eq!(finding["severity"], "error");
    assert!(finding["message"].as_str().unwrap().contains("a-z"));
}

/// Where a policy is needed, its errors come in the format that was asked for.
#[test]
fn other_commands_tell_errors_in_the_same_way() {
    let folder = Folder::new();
    let bad = folder.file("bad.yaml", "nmae: shop\n");
    for command in
        [vec!["explain", &bad, "-r", "/"], vec!["simulate", &bad], vec!["diff", &bad, &bad]]
    {
        let (verdict, says) = weir(&command);
        assert_eq!(verdict, Verdict::Bad);
        assert!(says.contains("bad.yaml:1:1"), "{command:?}: {says}");
        let (verdict, says) = weir(&[command.clone(), vec!["--format", "json"]].concat());
        assert_eq!(verdict, Verdict::Bad);
        let says: Value = serde_json::from_str(&says).unwrap();
        assert_eq!(says["files"][0]["findings"][0]["path"], "policy.nmae", "{command:?}");
    }
}

/// Texts that are nearly policies: cut, with other bytes in them, lines twice. Each is taken or refused.
#[test]
fn any_text_is_taken_or_refused() {
    let policies =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-configs/policies");
    let folder = Folder::new();
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below.max(1)
    };
    let noise = [
        "", ":", "\t", "- ", "{", "]", "ü", "\"", "'", "&a", "*a", "!!x", "%", "\r\n", "#", "<<: ",
        "---\n", "\u{feff}",
    ];
    let mut verdicts = [0; 2];
    for entry in std::fs::read_dir(policies).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for _ in 0..40 {
            let mut chars: Vec<char> = text.chars().collect();
            for _ in 0..=draw(3) {
                let at = draw(chars.len());
                let end = (at + draw(6)).min(chars.len());
                chars.splice(at..end, noise[draw(noise.len())].chars());
            }
            let file = folder.file("policy.yaml", &chars.into_iter().collect::<String>());
            match weir(&["validate", &file]).0 {
                Verdict::Good => verdicts[0] += 1,
                Verdict::Bad => verdicts[1] += 1,
                Verdict::Unable => panic!("it can be read"),
            }
        }
    }
    assert!(verdicts.iter().all(|count| *count > 10), "{verdicts:?}");
}

#[test]
fn secrets_are_not_repeated() {
    let folder = Folder::new();
    let file = folder.file(
        "policy.yaml",
        "name: shop\nexempt: [{headers: {authorization: {exact: Bearer 0123456789abcdef}}}]\n",
    );
    for format in ["text", "json"] {
        let (_, says) = weir(&["validate", "--format", format, &file]);
        assert!(says.contains("secret") && !says.contains("0123456789"), "{says}");
    }
}
