//! Traffic coloring: how fast decisions are where they run, inside the module.

use std::time::Duration;

use weir_integration_tests::wait::wait_for;
use weir_integration_tests::{Envoy, Listener, Route, paths, policy};

use crate::cpu;
use crate::machine::Machine;
use crate::variants::wasm;

/// Decisions a second that the biggest sale is said to have asked for.
const WANTED: f64 = 230_000.0;

pub struct Rate {
    pub rules: usize,
    pub nanoseconds: f64,
}

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

pub fn rates(machine: &Machine) -> Vec<Rate> {
    [10, 10_000].map(|rules| rate(rules, machine)).into()
}

fn rate(rules: usize, machine: &Machine) -> Rate {
    let filter = wasm("color_loop", &paths::built("color_loop.wasm"), &policy::to_json(&text(rules)));
    let listener = Listener::new("in").filter(filter).route(Route::direct("/", 200));
    let envoy = Envoy::builder().listener(listener).start();
    cpu::pin(envoy.pid(), &[machine.worker]);
    let nanoseconds = wait_for("the loop says its time", Duration::from_secs(60), || {
        let log = envoy.log();
        let line = log.lines().find(|line| line.contains("decisions took"))?;
        let (count, rest) = line.split_once(" decisions took ")?;
        let count: f64 = count.rsplit('"').next()?.parse().ok()?;
        let time: f64 = rest.split(' ').next()?.parse().ok()?;
        Some(time / count)
    });
    Rate { rules, nanoseconds }
}

pub fn print(rates: &[Rate]) {
    println!("\nDecisions on a color inside the module (20 headers parsed, matched, hashed, effects built):");
    for Rate { rules, nanoseconds } in rates {
        let rate = 1e9 / nanoseconds;
        println!(
            "  {rules:>6} rules  {nanoseconds:>7.0} ns  {:>9.0} a second, {:.1} x the {WANTED} wanted",
            rate,
            rate / WANTED
        );
    }
    if let [few, many] = rates {
        println!("  10 000 rules cost {:.2} x what 10 do", many.nanoseconds / few.nanoseconds);
    }
}
