//! How soon the breaker reacts after a healthy minute: a bound, retried once.

use crate::common::{Rig, one_rule};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_integration_tests::{Load, Request, Script};

/// From the first error that a client saw to the first local reply.
fn react(workers: u32, fields: &str) -> Duration {
    let rig = Rig::start(workers, &one_rule(fields));
    let seen = Arc::new(Mutex::new((None::<Instant>, None::<Instant>)));
    let note = seen.clone();
    let load = Load::new(rig.envoy.address("h1"), Request::get("/"))
        .rate(100)
        .lasts(Duration::from_secs(63))
        .look(move |at, answer| {
            let mut seen = note.lock().unwrap();
            let is_open = answer.header("x-weir-reason").is_some();
            let place = if is_open { &mut seen.1 } else { &mut seen.0 };
            if answer.status != 200 {
                *place = Some(place.map_or(at, |first| first.min(at)));
            }
        })
        .start();
    std::thread::sleep(Duration::from_secs(60));
    rig.upstream.play(Script::Status(500, vec![]));
    load.join().unwrap();
    let (failed, open) = *seen.lock().unwrap();
    let by_worker = rig.envoy.connections_by_worker("h1");
    assert_eq!(by_worker.len(), workers as usize);
    assert!(by_worker.iter().all(|taken| *taken >= 2), "{by_worker:?}");
    open.expect("it opened") - failed.expect("it failed")
}

fn within(bound: Duration, workers: u32, fields: &str) {
    let first = react(workers, fields);
    println!("{workers} workers, {fields}: {first:?} of {bound:?}");
    if first > bound {
        let second = react(workers, fields);
        println!("{workers} workers, {fields}: {second:?} of {bound:?}, second try");
        assert!(second <= bound, "{first:?}, then {second:?}, of {bound:?}");
    }
}

const RATE: &str = "window: {time: {duration: 2s, buckets: 10}}, failure_rate_percent: 50";
const ROW: &str = "failure_rate_percent: 0, consecutive_failures: 20";

/// All four at a time: each waits out its healthy minute, at a load that leaves a machine idle.
#[test]
fn bounds() {
    let cases = [(1200, 1, RATE), (1200, 4, RATE), (400, 1, ROW), (400, 4, ROW)];
    let running = cases.map(|(bound, workers, fields)| {
        std::thread::spawn(move || within(Duration::from_millis(bound), workers, fields))
    });
    running.into_iter().for_each(|case| case.join().expect("within its bound"));
}
