//! Weights and versions change 142 times under load.

use crate::rig::{Rig, policy};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_engine::color::hash::bucket;
use weir_integration_tests::{Load, Request};

const SWITCHES: usize = 142;

/// What the rule says in each step: a color and its weight.
fn step(n: usize) -> (&'static str, u16) {
    (["gray", "blue"][n % 2], (n as u16 * 97) % 10_000 + 1)
}

fn text(n: usize) -> String {
    let (color, weight) = step(n);
    format!(
        "rules: [{{id: r, shares: [{{color: {color}, weight: {weight}}}], key: [{{header: x-user}}]}}]"
    )
}

fn expected(n: usize, user: u64) -> &'static str {
    let (color, weight) = step(n);
    if bucket("r", user.to_string().as_bytes()) < weight { color } else { "base" }
}

#[test]
fn no_request_fails_and_none_leaves_its_cohort() {
    let rig = Rig::start(2, &policy("", &text(0)));
    let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
    // The steps that may be in force: the one before a switch and the one after.
    let in_force = Arc::new(Mutex::new((0_usize, 0_usize)));
    let (complaints, steps) = (wrong.clone(), in_force.clone());
    let load = Load::labelled(rig.envoy.address("in"), |n| {
        (String::new(), Request::get("/").header("x-user", (n % 997).to_string()))
    });
    let load = load.rate(500).lasts(Duration::from_secs(24)).look(move |_, answer| {
        let user: u64 =
            answer.echoed("x-user").and_then(|user| user.parse().ok()).unwrap_or(u64::MAX);
        let color = answer.echoed("x-weir-color").unwrap_or_default();
        let (first, last) = *steps.lock().unwrap();
        // A request may have been decided on a switch ago.
        let first = first.saturating_sub(1);
        if !(first..=last).any(|n| expected(n, user) == color) {
            complaints.lock().unwrap().push(format!("user {user}: {color} at {first} to {last}"));
        }
    });
    let running = load.start();
    let begun = Instant::now();
    let mut switched = 0;
    for n in 1..=SWITCHES {
        in_force.lock().unwrap().1 = n;
        rig.edit("", &text(n));
        // The other worker's turn comes within the same wake-up; nothing older is in force after that.
        std::thread::sleep(Duration::from_millis(60));
        in_force.lock().unwrap().0 = n;
        switched += 1;
    }
    let took = begun.elapsed();
    let report = running.join().unwrap();
    println!(
        "{switched} switches in {took:?}, {} requests, {} failed",
        report.total(),
        report.failed
    );
    assert!(took < Duration::from_secs(24), "the load outlasts the switches: {took:?}");
    assert_eq!((report.failed, report.status(200)), (0, report.total()));
    let colors: BTreeSet<_> = rig.reached().iter().map(|count| *count > 0).collect();
    assert_eq!(colors.len(), 1, "every version was reached");
    let wrong = wrong.lock().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}: {:?}",
        wrong.len(),
        report.total(),
        &wrong[..wrong.len().min(5)]
    );
    rig.envoy.assert_healthy();
}
