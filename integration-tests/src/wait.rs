//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up: generous, since it bounds nothing that a
/// test claims.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until the answer is `Some`, and panics with `what` past the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until the condition holds, and panics with `what` past the deadline.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || holds().then_some(()));
}

/// Blocks until `at`: for schedules of offered load and for `retry-after`, where the time itself is
/// what is tested.
pub fn sleep_until(at: Instant) {
    let now = Instant::now();
    if at > now {
        std::thread::sleep(at - now);
    }
}
