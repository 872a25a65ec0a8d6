//! The guard cuts off a color that does worse than the base.

use crate::rig::{Rig, policy, with};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{Load, Request, Script};

const RULE: &str = "{id: beta, shares: [{color: gray, weight: 5000}], key: [{header: x-user}], \
                    guard: {error_delta_points: 5, slow_share_delta_points: 20, window: 2s";

fn text(more: &str) -> String {
    format!("rules: [{RULE}{more}}}]")
}

/// 503 for so many percent of the requests, at once.
fn flaky(percent: u64) -> Script {
    Script::Flaky { seed: 7, percent, capacity: 1000, busy: Duration::from_millis(1) }
}

fn load(rig: &Rig, seconds: u64) -> Load {
    let make =
        |n: u64| (String::new(), Request::get("/script").header("x-user", (n * 7919).to_string()));
    Load::labelled(rig.envoy.address("in"), make).rate(400).lasts(Duration::from_secs(seconds))
}

/// From the moment the color fails to the last request that reached it.
fn time_to_cut() -> Duration {
    let rig = Rig::start(2, &policy("", &text("}")));
    rig.scripted["base"].play(flaky(1));
    rig.scripted["gray"].play(flaky(1));
    let (begun, last) = (Instant::now(), Arc::new(Mutex::new((0, Instant::now()))));
    let seen = last.clone();
    let running = load(&rig, 12).start();
    sleep_until(begun + Duration::from_secs(5));
    rig.scripted["gray"].play(flaky(20));
    let failing = Instant::now();
    while begun.elapsed() < Duration::from_secs(11) {
        let count = rig.scripted["gray"].seen();
        let mut last = seen.lock().unwrap();
        if count != last.0 {
            *last = (count, Instant::now());
        }
        drop(last);
        std::thread::sleep(Duration::from_millis(5));
    }
    running.join().unwrap();
    rig.await_metric(&["guard_trips_total", "rule=.=beta"], 1);
    rig.envoy.assert_healthy();
    let cut = last.lock().unwrap().1;
    cut.saturating_duration_since(failing)
}

/// 200 requests a second each, a window of 2 s: off within two windows on every worker. A deadline,
/// tried once more.
#[test]
fn a_failing_color_is_off_within_two_windows() {
    let took: Vec<Duration> = (0..2)
        .map(|_| time_to_cut())
        .scan(false, |done, took| {
            let was = std::mem::replace(done, took <= Duration::from_secs(4));
            (!was).then_some(took)
        })
        .collect();
    println!("gray at 20 % errors over 1 %: off after {took:?}");
    assert!(took.iter().any(|took| *took <= Duration::from_secs(4)), "{took:?}");
}

#[test]
fn a_healthy_color_is_left_alone() {
    let rig = Rig::start(2, &policy("", &text("}")));
    rig.scripted["base"].play(flaky(5));
    rig.scripted["gray"].play(flaky(5));
    let report = load(&rig, 15).run();
    let trips = rig.metric(&["guard_trips_total"]);
    println!("{} requests, both at 5 % errors: {trips} trips", report.total());
    assert_eq!(trips, 0);
    assert!(rig.scripted["gray"].seen() > 1000);
}

#[test]
fn tripped_it_overrides_cookies_and_colors_until_it_is_reset() {
    let rig = Rig::start(2, &policy("", &text("}")));
    rig.scripted["gray"].play(Script::Status(500, vec![]));
    let report = load(&rig, 5).run();
    assert!(report.status(500) > 0);
    rig.await_metric(&["guard_trips_total"], 1);
    let color =
        |headers: &[(&str, &str)]| rig.send("in", &with(headers)).echoed("x-weir-color").unwrap();
    // What came along from within the mesh as well.
    for _ in 0..8 {
        assert_eq!(color(&[("x-weir-color", "gray")]), "base");
    }
    assert!((0..100).all(|n: u32| color(&[("x-user", &n.to_string())]) == "base"));
    // Another edit changes nothing; `keep_trusted` believes the color that came.
    rig.edit("", &text(", keep_trusted: true}"));
    assert_eq!(color(&[("x-weir-color", "gray")]), "gray");
    assert!((0..100).all(|n: u32| color(&[("x-user", &n.to_string())]) == "base"));
    rig.edit("", &text(", reset: again}"));
    let gray = (0..100).filter(|n: &u32| color(&[("x-user", &n.to_string())]) == "gray").count();
    assert!((30..70).contains(&gray), "{gray}");
}
