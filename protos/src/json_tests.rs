use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Result<Policy, String> {
    decode_json(text.as_bytes(), Section::All).map_err(|err| err.to_string())
}

#[test]
fn both_spellings_and_every_kind_of_value() {
    let snake = r#"{"name":"shop","zone":"EDGE","rate_limit":{"rules":[{"id":"a","max_tokens":"10",
        "fill_interval":"1.5s","enforced_percent":12.5,"match":{"headers":{"x-a":{"in":{"values":["p","q"]}}}},
        "key":[{"header":"x-user"},{"method":true}],"scope":"WORKER"}]}}"#;
    let camel = snake
        .replace("rate_limit", "rateLimit")
        .replace("max_tokens\":\"10\"", "maxTokens\":10.0")
        .replace("fill_interval", "fillInterval")
        .replace("enforced_percent", "enforcedPercent");
    let policy = read(snake).unwrap();
    assert_eq!(policy, read(&camel).unwrap());
    let rule = &policy.rate_limit().unwrap().rules[0];
    assert_eq!(rule.max_tokens, Some(10));
    assert_eq!(rule.fill_interval.as_ref().map(|d| (d.seconds, d.nanos)), Some((1, 500_000_000)));
    assert_eq!(rule.enforced_percent, Some(12.5));
    assert_eq!(rule.key.len(), 2);
}

#[test]
fn refusals_name_field_value_and_remedy() {
    for (text, expected) in [
        (r#"{"rate_limt":{}}"#, "policy.rate_limt: unknown field; did you mean `rate_limit`?"),
        (r#"{"zzzzzzzz":1}"#, "policy.zzzzzzzz: unknown field; Policy has: name, "),
        (r#"{"name":5}"#, "policy.name: 5 must be text; put it in quotes"),
        (r#"{"mode":"ON"}"#, r#"policy.mode: "ON" must be one of OFF, SHADOW, ENFORCE"#),
        (r#"{"mode":"UNSPECIFIED"}"#, "must be one of OFF"),
        (r#"{"name":"a","name":"b"}"#, "policy.name: is given twice"),
        (r#"{"rate_limit":[]}"#, "policy.rate_limit: must be an object"),
        (r#"{"rate_limit":{"rules":{}}}"#, "policy.rate_limit.rules: must be a list"),
        (r#"{"rate_limit":{"rules":[null]}}"#, "policy.rate_limit.rules[0]: must be an object"),
        (
            r#"{"rate_limit":{"rules":[{},{"max_tokens":-1}]}}"#,
            "policy.rate_limit.rules[1].max_tokens: -1 must be a whole number from 0 to 18446744073709551615",
        ),
        (
            r#"{"rate_limit":{"rules":[{"max_tokens":0.5}]}}"#,
            "rules[0].max_tokens: 0.5 must be a whole",
        ),
        (
            r#"{"rate_limit":{"rules":[{"fill_interval":1}]}}"#,
            "fill_interval: 1 must be a duration with its unit",
        ),
        (
            r#"{"rate_limit":{"rules":[{"fill_interval":"1m"}]}}"#,
            r#"fill_interval: "1m" must be a duration in seconds"#,
        ),
        (
            r#"{"rate_limit":{"rules":[{"match":{"path":{"exact":"/a","prefix":"/b"}}}]}}"#,
            "match.path.prefix: excludes `exact`; keep one of the two",
        ),
        (
            r#"{"rate_limit":{"rules":[{"match":{"headers":{"x":{"exact":"a"},"x":{"exact":"a"}}}}]}}"#,
            "match.headers.x: is given twice",
        ),
        (r#"{"exempt":[{"headers":{"x":null}}]}"#, "policy.exempt[0].headers.x: must be an object"),
        (r#"{"name":"a""#, "policy: cannot be read: EOF"),
        (r#"{"name":"a"} x"#, "policy: is not JSON: trailing characters"),
        ("[]", "policy: cannot be read: invalid type"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}\n  said {error}\n  not  {expected}");
    }
}

#[test]
fn a_module_passes_over_the_sections_of_others() {
    let text =
        br#"{"circuit_breaker":{"from":"a later version"},"traffic_color":7,"rate_limit":{}}"#;
    let policy = decode_json(text, Section::RateLimit).unwrap();
    assert!(policy.circuit_breaker.is_empty() && policy.traffic_color.is_empty());
    assert!(decode_json(br#"{"circuit_braker":{}}"#, Section::RateLimit).is_err());
}

#[test]
fn nothing_is_the_empty_policy_and_null_the_default() {
    assert_eq!(read(" \n").unwrap(), Policy::default());
    assert_eq!(read(r#"{"name":null,"mode":null}"#).unwrap(), Policy::default());
}

#[test]
fn nesting_is_bounded() {
    let deep =
        |n: usize| format!(r#"{{"exempt":[{}{{}}{}]}}"#, r#"{"not":"#.repeat(n), "}".repeat(n));
    assert!(read(&deep(20)).is_ok());
    assert!(read(&deep(40)).unwrap_err().contains("nested more than 32 levels"));
    assert!(read(&deep(10_000)).is_err());
}

#[test]
fn yaml_reads_the_same() {
    let yaml =
        "name: shop\nrate_limit:\n  rules:\n  - id: a\n    max_tokens: 10\n    fill_interval: 1s\n";
    let from_yaml = decode(serde_yaml_ng::Deserializer::from_str(yaml), Section::All).unwrap();
    let json = r#"{"name":"shop","rate_limit":{"rules":[{"id":"a","max_tokens":10,"fill_interval":"1s"}]}}"#;
    assert_eq!(from_yaml, read(json).unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_json(&bytes, Section::All);
    }
}
