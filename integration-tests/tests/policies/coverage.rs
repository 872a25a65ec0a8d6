//! Every field of the schema has a case in the table.

use crate::table;
use std::collections::BTreeSet;
use weir_integration_tests::paths;

/// What the rate limiter reads. The sections of other modules are passed over by it; the only thing
/// about them that it refuses is one given twice.
const FILES: [&str; 4] = ["policy.proto", "match.proto", "mode.proto", "rate_limit.proto"];

#[test]
fn every_field_has_a_bad_policy() {
    let cases: BTreeSet<String> = table::read().into_iter().map(|c| c.field).collect();
    let fields = schema_fields();
    assert!(fields.len() > 100, "the schema was not read: {fields:?}");

    let without: Vec<_> = fields.difference(&cases).collect();
    assert!(without.is_empty(), "fields without a bad policy: {without:?}");

    let of_a_field = |name: &&String| name.contains('.');
    let unknown: Vec<_> = cases.difference(&fields).filter(of_a_field).collect();
    assert!(unknown.is_empty(), "cases of fields that do not exist: {unknown:?}");
}

#[test]
fn names_are_unique_and_every_case_names_its_field() {
    let cases = table::read();
    let names: BTreeSet<_> = cases.iter().map(|c| &c.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is given twice");
    for case in &cases {
        let path = case.error.first().map(String::as_str).unwrap_or_default();
        assert!(path.starts_with("policy"), "{}: the first part is the path", case.name);
    }
}

/// `Message.field` of all fields in [`FILES`], enums left out.
fn schema_fields() -> BTreeSet<String> {
    let directory = paths::root().join("protos/weir/v1");
    let mut fields = BTreeSet::new();
    for file in FILES {
        let text = std::fs::read_to_string(directory.join(file));
        let text = text.unwrap_or_else(|e| panic!("{file} is part of the schema: {e}"));
        read_fields(&text, &mut fields);
    }
    fields
}

fn read_fields(text: &str, fields: &mut BTreeSet<String>) {
    // Open blocks, innermost last; a block that is no message (oneof, enum) has its keyword.
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind @ ("message" | "enum" | "oneof")), Some(name)) if line.ends_with('{') => {
                blocks.push((kind, name));
            }
            (Some("}"), _) => {
                blocks.pop();
            }
            (Some(first), _)
                if line.ends_with(';') && !blocks.is_empty() && !first.starts_with("//") =>
            {
                if blocks.last().is_some_and(|(kind, _)| *kind == "enum") {
                    continue;
                }
                let declaration = line.split('=').next().unwrap_or_default().trim();
                let name = declaration.rsplit(' ').next().unwrap_or_default();
                let path = blocks.iter().filter(|(kind, _)| *kind == "message");
                let path: Vec<_> = path.map(|(_, name)| *name).collect();
                fields.insert(format!("{}.{name}", path.join(".")));
            }
            _ => {}
        }
    }
}
