//! Every field of the schema has a case in the table.

use crate::table;
use std::collections::BTreeSet;
use weir_integration_tests::schema;

/// What the rate limiter reads. The sections of other modules are passed over by it; the only thing
/// about them that it refuses is one given twice.
const FILES: [&str; 4] = ["policy.proto", "match.proto", "mode.proto", "rate_limit.proto"];

#[test]
fn every_field_has_a_bad_policy() {
    let cases: BTreeSet<String> = table::read().into_iter().map(|c| c.field).collect();
    let fields = schema::fields(&FILES);
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
