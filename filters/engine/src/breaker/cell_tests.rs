use super::super::settings::Settings;
use super::super::window::{Run, Sums, Window};
use super::*;
use weir_protos::v1::CircuitBreakerRule;
use weir_protos::{Section, decode};

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// The settings of a rule with these fields.
pub fn settings(fields: &str) -> Settings {
    let yaml = format!("circuit_breaker:\n  rules:\n  - {{id: r, {fields}}}\n");
    let policy = decode(serde_yaml_ng::Deserializer::from_str(&yaml), Section::All).unwrap();
    let rule: CircuitBreakerRule = policy.circuit_breaker().unwrap().rules.remove(0);
    Settings::compile(&rule, "policy.circuit_breaker.rules[0]").unwrap()
}

/// One breaker under a clock that the test moves.
struct Play {
    settings: Settings,
    cell: Cell,
    log: Transitions,
    next: u64,
}

impl Play {
    fn new(fields: &str) -> Play {
        let settings = settings(fields);
        let cell = Cell::new(0, Window::new(settings.shape));
        Play { settings, cell, log: Vec::new(), next: 0 }
    }

    fn call(&mut self, failed: bool, slow: bool, now: Nanos) {
        let (mut calls, mut run) = (Window::new(self.settings.shape), Run::default());
        calls.record(Sums::call(failed, slow), now);
        run.record(failed);
        self.cell.absorb(&calls, &run, &self.settings, now, 0, &mut self.log);
    }

    fn calls(&mut self, failed: u32, total: u32, now: Nanos) {
        // Spread evenly, so that no stretch is worse than the whole.
        for n in 0..total {
            self.call((n + 1) * failed / total > n * failed / total, false, now);
        }
    }

    fn arrive(&mut self, now: Nanos) -> (Admission, u64) {
        self.next += 1;
        self.cell.settle(&self.settings, now, 0, &mut self.log);
        let admission = self.cell.admit(self.next, &self.settings, now, &mut self.log);
        (admission, self.next)
    }

    fn end(&mut self, id: u64, end: ProbeEnd, now: Nanos) {
        let generation = self.cell.generation;
        self.cell.conclude((id, generation), end, &self.settings, now, 0, &mut self.log);
    }

    /// A half-open with so many probes sent.
    fn half_open(fields: &str, probes: u64) -> Play {
        let mut play = Play::new(&format!("minimum_calls: 1, jitter_percent: 0, {fields}"));
        play.call(true, false, 0);
        for _ in 0..probes {
            assert_eq!(play.arrive(30 * S).0, Admission::Probe);
        }
        play
    }
}

#[test]
fn thresholds_are_exact() {
    for (rate, below, at) in [(30, 29, 30), (95, 94, 95), (50, 49, 50)] {
        for window in ["{count: 100}", "{time: {duration: 10s}}"] {
            let fields =
                format!("window: {window}, minimum_calls: 100, failure_rate_percent: {rate}");
            let mut play = Play::new(&fields);
            play.calls(below, 100, 0);
            assert_eq!(play.cell.state, State::Closed, "{below} of 100 at {rate} % in {window}");
            let mut play = Play::new(&fields);
            play.calls(at, 100, 0);
            assert_eq!(play.cell.state, State::Open, "{at} of 100 at {rate} % in {window}");
            assert_eq!(play.cell.reason, Reason::FailureRate);
        }
    }
}

#[test]
fn below_the_minimum_nothing_trips() {
    let mut play = Play::new(
        "minimum_calls: 10, consecutive_failures: 3, slow_call_duration: 1s, slow_call_rate_percent: 1",
    );
    for n in 0..9 {
        play.call(true, true, n * MS);
        assert_eq!(play.cell.state, State::Closed);
    }
    play.call(true, true, 9 * MS);
    assert_eq!(play.cell.state, State::Open);
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let mut play = Play::new("minimum_calls: 10, window: {time: {duration: 2s}}");
    play.calls(9, 9, 0);
    play.calls(4, 9, 2 * S);
    assert_eq!(play.cell.state, State::Closed);
    // The success before keeps it at 5 of 10, which trips.
    play.call(true, false, 2 * S);
    assert_eq!(play.cell.state, State::Open);
}

#[test]
fn slow_calls_trip_by_themselves() {
    let mut play =
        Play::new("minimum_calls: 4, slow_call_duration: 1s, slow_call_rate_percent: 50");
    for slow in [true, false, false, true] {
        play.call(false, slow, 0);
    }
    assert_eq!((play.cell.state, play.cell.reason), (State::Open, Reason::SlowRate));
}

#[test]
fn failures_in_a_row() {
    let fields = "minimum_calls: 1, failure_rate_percent: 0, consecutive_failures: 3";
    let mut play = Play::new(fields);
    for failed in [true, true, false, true, true] {
        play.call(failed, false, 0);
    }
    assert_eq!(play.cell.state, State::Closed);
    play.call(true, false, 0);
    assert_eq!((play.cell.state, play.cell.reason), (State::Open, Reason::ConsecutiveFailures));
}

#[test]
fn openings_grow_while_probes_fail_and_after_a_healthy_time_start_anew() {
    let mut play = Play::new(
        "minimum_calls: 1, half_open_probes: 1, open_duration: 1s, max_open_duration: 5s, jitter_percent: 0",
    );
    let mut now = 0;
    play.call(true, false, now);
    for length in [1, 2, 4, 5, 5] {
        assert_eq!(play.cell.until, now + length * S);
        now = play.cell.until;
        let (admission, id) = play.arrive(now);
        assert_eq!(admission, Admission::Probe);
        play.end(id, ProbeEnd::Failure, now);
    }
    let close = |play: &mut Play, now| {
        let (_, id) = play.arrive(now);
        play.end(id, ProbeEnd::Success, now);
        assert_eq!(play.cell.state, State::Closed);
    };
    now = play.cell.until;
    close(&mut play, now);
    // It fails again before it was well for as long as it was out.
    play.call(true, false, now + 4 * S);
    assert_eq!(play.cell.until, now + 9 * S);
    now = play.cell.until;
    close(&mut play, now);
    play.call(true, false, now + 5 * S);
    assert_eq!(play.cell.until, now + 6 * S);
}

#[test]
fn jitter_stretches_and_never_shortens() {
    let settings = settings("open_duration: 10s, jitter_percent: 10");
    for random in [0, 1, 7_777_777_777, u64::MAX] {
        let (base, length) = settings.opening(0, random);
        assert_eq!(base, 10 * S);
        assert!((10 * S..=11 * S).contains(&length), "{length}");
    }
}

#[test]
fn probes_decide_only_when_all_have_answered() {
    let mut play = Play::half_open("half_open_probes: 3, half_open_success_percent: 60", 3);
    assert!(matches!(play.arrive(30 * S).0, Admission::Refuse { .. }));
    play.end(1, ProbeEnd::Success, 31 * S);
    play.end(2, ProbeEnd::Success, 31 * S);
    assert_eq!(play.cell.state, State::HalfOpen);
    // Answered probes stay taken.
    assert!(matches!(play.arrive(31 * S).0, Admission::Refuse { .. }));
    play.end(3, ProbeEnd::Failure, 31 * S);
    assert_eq!(play.cell.state, State::Closed);
    assert!(play.cell.window.is_empty());
}

#[test]
fn a_probe_that_says_nothing_gives_its_permit_back() {
    let mut play = Play::half_open("half_open_probes: 1", 1);
    play.end(1, ProbeEnd::Neither, 31 * S);
    assert_eq!(play.cell.state, State::HalfOpen);
    assert_eq!(play.arrive(31 * S).0, Admission::Probe);
    // Its result counts once.
    play.end(1, ProbeEnd::Failure, 31 * S);
    assert_eq!(play.cell.state, State::HalfOpen);
}

#[test]
fn a_probe_without_an_answer_opens_again() {
    let mut play = Play::half_open("half_open_probes: 2, half_open_max_wait: 10s", 1);
    // A live worker keeps its permit.
    for second in 31..40 {
        let generation = play.cell.generation;
        assert!(play.cell.renew((1, generation), second * S));
        play.cell.settle(&play.settings, second * S, 0, &mut play.log);
        assert_eq!(play.cell.state, State::HalfOpen);
    }
    play.cell.settle(&play.settings, 41 * S, 0, &mut play.log);
    assert_eq!((play.cell.state, play.cell.reason), (State::Open, Reason::NoAnswer));
    assert_eq!(play.cell.until, 40 * S + 60 * S, "since its patience ended");
}

#[test]
fn the_permit_of_a_dead_worker_returns() {
    let mut play = Play::half_open("half_open_probes: 1, half_open_max_wait: 10s", 1);
    let at = 30 * S + PERMIT_LEASE;
    assert!(matches!(play.arrive(at - 1).0, Admission::Refuse { .. }));
    assert_eq!(play.arrive(at).0, Admission::Probe);
    // Also when nobody looked before its patience would have ended.
    let mut play = Play::half_open("half_open_probes: 1, half_open_max_wait: 10s", 1);
    assert_eq!(play.arrive(3600 * S).0, Admission::Probe);
}

#[test]
fn a_response_may_open_for_a_time_of_its_own() {
    let mut play = Play::new("minimum_calls: 5");
    let log = &mut play.log;
    assert!(!play.cell.open_for(7 * S, 1, 0, log), "another generation");
    assert!(play.cell.open_for(7 * S, 0, 0, log));
    assert!(!play.cell.open_for(9 * S, 1, S, log), "open already");
    assert_eq!(play.arrive(2 * S).0, Admission::Refuse { wait: 5 * S });
    assert_eq!(play.arrive(7 * S).0, Admission::Probe);
}

#[test]
fn a_clock_that_steps_back_does_not_keep_it_open() {
    let mut play = Play::new("minimum_calls: 1, open_duration: 1s, max_open_duration: 2s");
    play.call(true, false, 10_000 * S);
    play.arrive(S);
    assert!(play.cell.until <= 5 * S);
}
