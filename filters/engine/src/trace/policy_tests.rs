//! Policies that are refused.

use weir_protos::Section;

use super::Tracer;
use crate::refusals::Refusals;

const REFUSALS: Refusals<Tracer> = Refusals {
    section: Section::TraceContext,
    compile: Tracer::compile,
    parts: &[("trace", "trace_context"), ("restore", "restore")],
};

#[test]
fn bad_policies_are_refused_by_field_value_and_remedy() {
    REFUSALS.check(include_str!("../../../../integration-tests/bad-trace-policies.yaml"), 80);
}

#[test]
fn many_rules_are_compiled_and_too_many_refused() {
    REFUSALS.bounds(1000, |count, matches| {
        let rule = |n| format!(r#"{{"id":"r{n}","match":{matches}}}"#);
        let rules: Vec<_> = (0..count).map(rule).collect();
        format!(
            r#"{{"name":"t","trace_context":{{"sampling":{{"rules":[{}]}}}}}}"#,
            rules.join(",")
        )
    });
}
