//! A limited listener without an upstream, and bounds.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use weir_integration_tests::load::{LoadReport, assert_spread};
use weir_integration_tests::{Envoy, Filter, Listener, Route};

/// Two loads at once would measure each other. The tests of this binary wait for their turn, however
/// many threads the test runner has.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing behind that the next one could see.
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

pub fn start(workers: u32, policy: &str) -> Envoy {
    Envoy::builder()
        .workers(workers)
        .listener(Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200)))
        .policy(policy)
        .start()
}

pub fn shop(rules: &str) -> String {
    format!("{{name: shop, rate_limit: {{rules: [{rules}]}}}}")
}

/// Panics unless `actual` is within so many percent of `expected`.
pub fn assert_within(what: &str, actual: u64, expected: f64, percent: f64) {
    let off = (actual as f64 - expected) / expected * 100.0;
    assert!(
        off.abs() <= percent,
        "{what}: {actual}, expected {expected:.0} within {percent} % (off by {off:.2} %)"
    );
}

/// Panics unless every request was answered, at the rate that was meant, by every worker.
pub fn assert_offered(envoy: &Envoy, report: &LoadReport, lasts: Duration, workers: u32) {
    assert_eq!(report.failed, 0, "{:?}", report.failure);
    let late = report.elapsed.saturating_sub(lasts);
    assert!(
        late < Duration::from_millis(500),
        "the machine was too slow to offer the load: {late:?} late"
    );
    assert_spread(report, &envoy.connections_by_worker("in"), workers as usize);
}
