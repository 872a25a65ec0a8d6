//! Bad policies through a real Envoy: each is refused with a message that names the field, and the
//! old policy goes on.

mod coverage;
mod table;

use table::Case;
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route};

/// The policy that is in force all the time: one request a user, ever.
const GOOD: &str = "
name: in-force
rate_limit:
  rules:
  - {id: once, key: [{header: x-user}], max_tokens: 1, fill_interval: 3600s}
";

fn envoy() -> Envoy {
    Envoy::builder()
        .listener(Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200)))
        .policy(GOOD)
        .start()
}

#[test]
fn every_bad_policy_is_refused_by_name_and_the_old_one_serves_on() {
    let envoy = envoy();
    let mut client = envoy.client("in");
    let mut wrong = Vec::new();

    for (n, case) in table::read().iter().enumerate() {
        match envoy.put_configuration(&case.configuration()).verdict() {
            Err(log) => wrong.extend(complaint(case, &log)),
            Ok(()) => {
                wrong.push(format!("{}: accepted", case.name));
                envoy.put_policy(GOOD).accepted();
            }
        }

        let user = Request::get("/").header("x-user", n.to_string());
        let answers = [client.send(&user).status, client.send(&user).status];
        assert_eq!(answers, [200, 429], "after {}: the old policy", case.name);
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    envoy.assert_healthy();
}

/// What is missing in the error line, if anything.
fn complaint(case: &Case, log: &str) -> Option<String> {
    let line = log.lines().find(|l| l.contains("policy") && l.contains("wasm log"));
    let Some(line) = line else {
        return Some(format!("{}: no error line in:\n{log}", case.name));
    };
    let missing: Vec<_> = case.error.iter().filter(|part| !mentions(line, part)).collect();
    (!missing.is_empty()).then(|| format!("{}: no {missing:?} in: {line}", case.name))
}

/// The module's log lines are JSON, in which a quote is escaped.
fn mentions(line: &str, part: &str) -> bool {
    line.contains(part) || line.contains(&part.replace('"', "\\\""))
}

#[test]
fn a_good_policy_after_a_bad_one_is_taken_at_once() {
    let envoy = envoy();

    envoy.put_policy("{name: in-force, nmae: x}").refused();
    envoy.put_policy(&GOOD.replace("max_tokens: 1", "max_tokens: 2")).accepted();

    let mut client = envoy.client("in");
    let user = Request::get("/").header("x-user", "ann");
    let answers = [(); 3].map(|()| client.send(&user).status);
    assert_eq!(answers, [200, 200, 429]);
    envoy.assert_healthy();
}

#[test]
fn too_many_rules_are_refused() {
    let envoy = envoy();
    let rules = |count: usize, matches: &str| {
        let rule = |n| format!("{{id: r{n}, match: {matches}, max_tokens: 1, fill_interval: 1s}}");
        let all: Vec<_> = (0..count).map(rule).collect();
        format!("{{name: many, rate_limit: {{rules: [{}]}}}}", all.join(", "))
    };

    let indexable = "{path: {exact: /a}}";
    let log = envoy.put_policy(&rules(10_001, indexable)).refused();
    assert!(log.contains("policy.rate_limit.rules"), "{log}");
    assert!(log.contains("10000"), "{log}");

    let not_indexable = "{path: {regex: '/a.*'}}";
    let log = envoy.put_policy(&rules(65, not_indexable)).refused();
    assert!(log.contains("policy.rate_limit.rules"), "{log}");
    assert!(log.contains("64"), "{log}");

    envoy.put_policy(&rules(64, not_indexable)).accepted();
    envoy.put_policy(&rules(10_000, indexable)).accepted();
    envoy.assert_healthy();
}
