//! A million keys: memory has a bound, and a client who behaves keeps his limit.

use crate::common::{alone, assert_within, shop, start};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use weir_integration_tests::wait::{sleep_until, wait_until};
use weir_integration_tests::{H1Conn, H2Conn, Request};

const WORKERS: u32 = 2;
const CONNECTIONS: u64 = 4;
/// Requests that a connection writes before it reads the answers. (HTTP/2: Envoy does not take that
/// many over HTTP/1.1.)
const BATCH: u64 = 50;
const MIB: u64 = 1 << 20;

/// Sends keys that were never seen before, as fast as they are answered.
fn flood(address: SocketAddr, keys: std::ops::Range<u64>) -> u64 {
    let each = (keys.end - keys.start) / CONNECTIONS;
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let from = keys.start + n * each;
            thread::spawn(move || flood_connection(address, from, each))
        })
        .collect();
    threads.into_iter().map(|t| t.join().expect("the flood is answered")).sum()
}

fn flood_connection(address: SocketAddr, from: u64, count: u64) -> u64 {
    let mut connection = H2Conn::connect(address).expect("Envoy accepts connections");
    let mut admitted = 0;
    for start in (from..from + count).step_by(BATCH as usize) {
        let users: Vec<_> = (start..start + BATCH).map(|key| format!("flood-{key}")).collect();
        let batch: Vec<_> = users.iter().map(|user| request(user)).collect();
        let statuses = connection.batch(&batch).expect("every request is answered");
        admitted += statuses.iter().filter(|s| **s == 200).count() as u64;
    }
    admitted
}

fn request(user: &str) -> Vec<(&[u8], &[u8])> {
    vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"shop.test"),
        (b"x-user", user.as_bytes()),
    ]
}

/// Offers 20 requests a second until told to stop; gives the admitted ones and the time.
fn behave(address: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> (u64, Duration) {
    let mut connection = H1Conn::connect(address).expect("Envoy accepts connections");
    let request = Request::get("/").header("x-user", "well-behaved");
    let start = Instant::now();
    let mut admitted = 0;
    let mut elapsed = Duration::ZERO;
    for n in 0.. {
        sleep_until(start + Duration::from_millis(50) * n);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        elapsed = start.elapsed();
        let answer = connection.send(&request).expect("every request is answered");
        admitted += u64::from(answer.status == 200);
        sent.fetch_add(1, Ordering::Relaxed);
    }
    (admitted, elapsed)
}

#[test]
fn a_million_keys() {
    let _alone = alone();
    let envoy = start(
        WORKERS,
        &shop(
            "{id: r, key: [{header: x-user}], \
              max_tokens: 10, tokens_per_fill: 10, fill_interval: 1s}",
        ),
    );
    let address = envoy.address("in");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let behaving = {
        let (stop, sent) = (stop.clone(), sent.clone());
        thread::spawn(move || behave(address, &stop, &sent))
    };
    wait_until("the first request", Duration::from_secs(5), || sent.load(Ordering::Relaxed) > 0);

    // Fresh keys are admitted, whatever was forgotten for them.
    assert_eq!(flood(address, 0..100_000), 100_000);
    let (allocated, resident) = (envoy.allocated_memory(), envoy.resident_memory());
    assert_eq!(flood(address, 100_000..1_000_000), 900_000);
    let grown = envoy.allocated_memory().saturating_sub(allocated);
    let grown_resident = envoy.resident_memory().saturating_sub(resident);

    stop.store(true, Ordering::Relaxed);
    let (admitted, elapsed) = behaving.join().expect("the well-behaved client is answered");

    assert!(grown <= 8 * MIB, "allocated memory grew by {grown} bytes");
    // The modules' memories are not in `allocated`.
    assert!(grown_resident <= 16 * MIB, "the process grew by {grown_resident} bytes");
    let expected = 10.0 + 10.0 * elapsed.as_secs_f64();
    assert_within("the well-behaved key", admitted, expected, 5.0);
    envoy.assert_healthy();
}
