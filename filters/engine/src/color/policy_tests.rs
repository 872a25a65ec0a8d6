//! Policies that are refused.

use weir_protos::Section;

use super::Painter;
use crate::refusals::Refusals;

const REFUSALS: Refusals<Painter> = Refusals {
    section: Section::TrafficColor,
    compile: Painter::compile,
    parts: &[("color", "traffic_color")],
};

#[test]
fn bad_policies_are_refused_by_field_value_and_remedy() {
    REFUSALS.check(include_str!("../../../../integration-tests/bad-color-policies.yaml"), 60);
}

#[test]
fn many_rules_are_compiled_and_too_many_refused() {
    REFUSALS.bounds(10_000, |count, matches| {
        let rule = |n| format!(r#"{{"id":"r{n}","color":"gray","match":{matches}}}"#);
        let rules: Vec<_> = (0..count).map(rule).collect();
        format!(
            r#"{{"name":"t","traffic_color":{{"colors":["base","gray"],"rules":[{}]}}}}"#,
            rules.join(",")
        )
    });
}
