//! Policies that are refused.

use weir_protos::Section;

use super::Breaker;
use crate::refusals::Refusals;

const REFUSALS: Refusals<Breaker> =
    Refusals { section: Section::CircuitBreaker, compile: Breaker::compile, parts: &[] };

#[test]
fn bad_policies_are_refused_by_field_value_and_remedy() {
    REFUSALS.check(include_str!("../../../../integration-tests/bad-breaker-policies.yaml"), 80);
}

#[test]
fn many_rules_are_compiled_and_too_many_refused() {
    REFUSALS.bounds(10_000, |count, matches| {
        let rule = |n| format!(r#"{{"id":"r{n}","match":{matches}}}"#);
        let rules: Vec<_> = (0..count).map(rule).collect();
        format!(r#"{{"name":"t","circuit_breaker":{{"rules":[{}]}}}}"#, rules.join(","))
    });
}
