//! Traffic coloring: how fast decisions are where they run, inside the module.

use std::time::Duration;

use serde_json::{Value, json};
use weir_integration_tests::wait::wait_for;
use weir_integration_tests::{Envoy, Listener, Route, paths, policy};

use crate::subject::wasm;

/// Decisions a second that the biggest sale is said to have asked for.
const WANTED: f64 = 230_000.0;

/// Rules with a path each and a share of users; the last means the request.
fn text(rules: usize) -> String {
    let path = |n| if n + 1 == rules { "/orders/7".to_owned() } else { format!("/path/{n}") };
    let rule = |n| {
        format!(
            "{{id: r{n}, match: {{path: {{exact: {}}}}}, key: [{{header: x-user}}], \
             shares: [{{color: gray, weight: 5000}}]}}",
            path(n)
        )
    };
    let all = (0..rules).map(rule).collect::<Vec<_>>().join(", ");
    format!("{{name: bench, zone: EDGE, traffic_color: {{colors: [base, gray], rules: [{all}]}}}}")
}

/// Prints what a decision takes with few rules and with many.
pub fn lab() -> Result<Value, String> {
    println!(
        "  20 headers parsed, the policy matched, the key hashed, the effects built, in Envoy's V8:"
    );
    let [few, many] = [10, 10_000].map(|rules| {
        let nanoseconds = decision(rules);
        let rate = 1e9 / nanoseconds;
        println!(
            "  {rules:>6} rules  {nanoseconds:>6.0} ns  {rate:>9.0} a second, {:.1} x the {WANTED} wanted",
            rate / WANTED
        );
        nanoseconds
    });
    println!("  10 000 rules take {:.2} x what 10 take", many / few);
    Ok(json!({"ns with 10 rules": few, "ns with 10000 rules": many}))
}

/// Nanoseconds, by the module's own clock.
fn decision(rules: usize) -> f64 {
    let module = paths::built("color_loop.wasm");
    let filter = wasm("color_loop", &module, &policy::to_json(&text(rules)));
    let listener = Listener::new("in").filter(filter).route(Route::direct("/", 200));
    let envoy = Envoy::builder().listener(listener).start();
    wait_for("the loop says its time", Duration::from_secs(60), || {
        let log = envoy.log();
        // The main thread runs it as well, at the same time; the worker's line is as good.
        let line = log.lines().find(|line| line.contains("decisions took"))?;
        let (count, rest) = line.split_once(" decisions took ")?;
        let count: f64 = count.rsplit('"').next()?.parse().ok()?;
        let time: f64 = rest.split(' ').next()?.parse().ok()?;
        Some(time / count)
    })
}
