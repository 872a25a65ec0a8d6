//! Many streams of all kinds over four workers: in the end none is in flight.
//!
//! `WEIR_STREAMS` says how many, 8000 where it does not.

use crate::common::{Rig, one_rule};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_integration_tests::{H1Conn, Request, Script};

const CLIENTS: u64 = 16;
/// Fewer than there are clients, so that some are refused.
const MOST: usize = 12;

fn streams() -> u64 {
    let given = std::env::var("WEIR_STREAMS").ok();
    given.map_or(8000, |text| text.parse().expect("WEIR_STREAMS is a number"))
}

/// One client: an ending a request, by its number. A connection that was cut is made anew.
fn client(rig: &Rig, first: u64, last: u64, answers: &[AtomicU64; 6]) {
    let mut connection: Option<H1Conn> = None;
    for n in first..last {
        let listener = if n % 2 == 0 { "h1" } else { "h2" };
        let kind = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        if kind < 2 {
            // Leaves without waiting, some before the request is at the upstream, some after.
            let leaving = rig.send(listener, "/left");
            if kind == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            drop(leaving);
            continue;
        }
        let path = match kind {
            2 | 3 => "/local",
            4 => "/soon",
            5..8 => "/direct",
            _ => "/",
        };
        let mut open = connection.take().unwrap_or_else(|| rig.envoy.h1("h1"));
        let Ok(answer) = open.send(&Request::get(path)) else { continue };
        let counted = answers.get(usize::from(answer.status / 100));
        counted.expect("a status").fetch_add(1, Ordering::Relaxed);
        if answer.header("connection").as_deref() != Some("close") {
            connection = Some(open);
        }
    }
}

fn mixed(policy: &str) {
    let rig = Rig::start(4, policy);
    let answers: [AtomicU64; 6] = Default::default();
    let each = streams() / CLIENTS;
    std::thread::scope(|scope| {
        let (rig, answers) = (&rig, &answers);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || client(rig, n * each, (n + 1) * each, answers)))
            .collect();
        // The upstream changes its ways all the while.
        let scripts = [
            Script::Ok,
            Script::Status(503, vec![]),
            Script::ResetBeforeHeaders,
            Script::Slow(Duration::from_millis(5)),
            Script::ResetMidBody,
        ];
        for script in scripts.iter().cycle() {
            rig.upstream.play(script.clone());
            if clients.iter().all(|client| client.is_finished()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });

    let count = |class: usize| answers[class].load(Ordering::Relaxed);
    println!("{} streams: 2xx {}, 4xx {}, 5xx {}", streams(), count(2), count(4), count(5));
    for class in [2, 4, 5] {
        assert!(count(class) > streams() / 100, "the mix: {answers:?}");
    }
    assert!(rig.envoy.metric("shop", "r", "limited") > 0, "the limit was met");
    rig.upstream.play(Script::Ok);
    rig.await_flying(0);
    rig.await_gauge(0);
    // Every slot is there, and no more.
    let held = rig.hang(MOST);
    assert_eq!(rig.probe(), 429);
    drop(held);
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn of_one_rule() {
    mixed(&one_rule(&format!("max_concurrent: {MOST}")));
}

#[test]
fn of_one_key_beside_a_bucket() {
    mixed(&one_rule(&format!(
        "key: [{{method: true}}], max_concurrent: {MOST}, \
         max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s"
    )));
}
