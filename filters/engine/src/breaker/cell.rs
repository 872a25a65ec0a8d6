//! One breaker: its state, its window, and how it goes from one state to the next.
//!
//! Everything in here is a function of the cell, an event and the time. Each change of state starts
//! a new generation, and what was asked for under an older one changes nothing.

use super::settings::Settings;
use super::window::{Run, Window};
use crate::core::ports::Nanos;

/// The states that a breaker goes through by itself. The numbers are resilience4j's, as are those of
/// the states that a policy sets: DISABLED 3, FORCED_OPEN 4, METRICS_ONLY 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    #[default]
    Closed = 0,
    Open = 1,
    HalfOpen = 2,
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    #[default]
    FailureRate = 0,
    SlowRate = 1,
    ConsecutiveFailures = 2,
    /// Too few probes succeeded.
    Probes = 3,
    /// A probe got no answer.
    NoAnswer = 4,
    /// A response asked for it.
    Header = 5,
}

impl Reason {
    pub fn word(self) -> &'static str {
        match self {
            Reason::FailureRate => "failure_rate",
            Reason::SlowRate => "slow_rate",
            Reason::ConsecutiveFailures => "consecutive_failures",
            Reason::Probes => "probes_failed",
            Reason::NoAnswer => "probe_without_answer",
            Reason::Header => "response_header",
        }
    }
}

/// A probe in flight. Its worker renews the lease; a worker that died does not, and the permit is
/// another's to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    pub id: u64,
    pub taken_at: Nanos,
    pub leased_until: Nanos,
}

/// For how long a permit stands without being renewed: long against a worker that is held up.
pub const PERMIT_LEASE: Nanos = 5_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub state: State,
    pub generation: u32,
    pub reason: Reason,
    /// How often the opening was lengthened.
    pub level: u8,
    /// When this generation began.
    pub since: Nanos,
    /// When the opening ends.
    pub until: Nanos,
    /// How long the last opening was meant to be.
    pub last_open: Nanos,
    /// When a call was last counted, for making room.
    pub used_at: Nanos,
    /// Failures in a row so far.
    pub consecutive: u32,
    /// Probes that are decided.
    pub succeeded: u16,
    pub failed: u16,
    pub permits: Vec<Permit>,
    pub window: Window,
}

/// Changes of state, in order.
pub type Transitions = Vec<(State, State)>;

/// What a call is told on arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Pass,
    Probe,
    /// `wait`: until it may be worth asking again.
    Refuse {
        wait: Nanos,
    },
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEnd {
    Success,
    Failure,
    /// It says nothing about the upstream: its permit goes back.
    Neither,
}

/// Nobody knows when probes will be through.
const HALF_OPEN_WAIT: Nanos = 1_000_000_000;

impl Cell {
    pub fn new(generation: u32, window: Window) -> Cell {
        Cell {
            state: State::Closed,
            generation,
            reason: Reason::default(),
            level: 0,
            since: 0,
            until: 0,
            last_open: 0,
            used_at: 0,
            consecutive: 0,
            succeeded: 0,
            failed: 0,
            permits: Vec::new(),
            window,
        }
    }

    fn enter(&mut self, state: State, now: Nanos, log: &mut Transitions) {
        log.push((self.state, state));
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
        self.since = now;
        self.permits.clear();
        self.succeeded = 0;
        self.failed = 0;
        self.consecutive = 0;
        self.window.clear();
    }

    /// Opens, for longer where the last opening did not help.
    fn open(
        &mut self,
        reason: Reason,
        settings: &Settings,
        now: Nanos,
        random: u64,
        log: &mut Transitions,
    ) {
        let is_healthy =
            self.state == State::Closed && now.saturating_sub(self.since) >= self.last_open;
        self.level = if is_healthy { 0 } else { self.level.saturating_add(1) };
        let (base, length) = settings.opening(self.level, random);
        self.enter(State::Open, now, log);
        self.reason = reason;
        self.last_open = base;
        self.until = now.saturating_add(length);
    }

    /// Opens because a response said for how long. True where it did.
    pub fn open_for(
        &mut self,
        length: Nanos,
        generation: u32,
        now: Nanos,
        log: &mut Transitions,
    ) -> bool {
        if self.generation != generation || self.state == State::Open {
            return false;
        }
        self.enter(State::Open, now, log);
        self.reason = Reason::Header;
        self.last_open = length;
        self.until = now.saturating_add(length);
        true
    }

    /// What time alone brings about: permits of dead workers go back, and a half-open whose probe
    /// got no answer opens again, at the time when its patience ended.
    pub fn settle(&mut self, settings: &Settings, now: Nanos, random: u64, log: &mut Transitions) {
        match self.state {
            State::Closed => {}
            // A clock that stepped back must not keep the breaker open for as long as it stepped.
            State::Open => {
                let longest = settings.longest_opening().max(self.last_open);
                self.until = self.until.min(now.saturating_add(longest.saturating_mul(2)));
            }
            State::HalfOpen => {
                let deadline = |permit: &Permit| permit.taken_at.saturating_add(settings.max_wait);
                self.permits.retain(|permit| {
                    let is_unanswered = deadline(permit) <= permit.leased_until;
                    permit.leased_until > now || is_unanswered
                });
                let late = self.permits.iter().map(deadline).filter(|at| *at <= now).min();
                if let Some(at) = late {
                    self.open(Reason::NoAnswer, settings, at, random, log);
                }
            }
        }
    }

    /// A call arrives. A breaker whose opening is over becomes half-open by the first call.
    pub fn admit(
        &mut self,
        id: u64,
        settings: &Settings,
        now: Nanos,
        log: &mut Transitions,
    ) -> Admission {
        if self.state == State::Open && now >= self.until {
            self.enter(State::HalfOpen, now, log);
        }
        match self.state {
            State::Closed => Admission::Pass,
            State::Open => Admission::Refuse { wait: self.until.saturating_sub(now) },
            State::HalfOpen if self.is_full(settings) => Admission::Refuse { wait: HALF_OPEN_WAIT },
            State::HalfOpen => {
                let leased_until = now.saturating_add(PERMIT_LEASE);
                self.permits.push(Permit { id, taken_at: now, leased_until });
                Admission::Probe
            }
        }
    }

    fn decided(&self) -> u64 {
        u64::from(self.succeeded).saturating_add(self.failed.into())
    }

    fn is_full(&self, settings: &Settings) -> bool {
        let taken = self.decided().saturating_add(self.permits.len() as u64);
        taken >= settings.probes.into()
    }

    /// A probe ended. True where that changed anything.
    pub fn conclude(
        &mut self,
        probe: (u64, u32),
        end: ProbeEnd,
        settings: &Settings,
        now: Nanos,
        random: u64,
        log: &mut Transitions,
    ) -> bool {
        let (id, generation) = probe;
        if self.state != State::HalfOpen || self.generation != generation {
            return false;
        }
        let Some(place) = self.permits.iter().position(|permit| permit.id == id) else {
            return false;
        };
        self.permits.swap_remove(place);
        match end {
            ProbeEnd::Neither => {}
            ProbeEnd::Success => self.succeeded = self.succeeded.saturating_add(1),
            ProbeEnd::Failure => self.failed = self.failed.saturating_add(1),
        }
        // More than the probes have answered where the policy lowered their number meanwhile.
        let decided = self.decided();
        if decided >= settings.probes.into() {
            let succeeded = u64::from(self.succeeded).saturating_mul(10_000);
            if succeeded >= decided.saturating_mul(settings.probe_success.into()) {
                self.enter(State::Closed, now, log);
            } else {
                self.open(Reason::Probes, settings, now, random, log);
            }
        }
        true
    }

    /// Keeps a probe's permit for a live worker.
    pub fn renew(&mut self, probe: (u64, u32), now: Nanos) -> bool {
        let (id, generation) = probe;
        let permit = self.permits.iter_mut().find(|permit| permit.id == id);
        match permit.filter(|_| self.generation == generation) {
            Some(permit) => {
                permit.leased_until = now.saturating_add(PERMIT_LEASE);
                true
            }
            None => false,
        }
    }

    /// Counts calls that were admitted in this generation while it was closed, and opens when they
    /// are too many that went wrong.
    pub fn absorb(
        &mut self,
        calls: &Window,
        run: &Run,
        settings: &Settings,
        now: Nanos,
        random: u64,
        log: &mut Transitions,
    ) {
        self.window.merge(calls, now);
        let (longest, last) = run.after(self.consecutive);
        self.consecutive = last;
        self.used_at = now;
        if let Some(reason) = self.should_trip(longest, settings, now) {
            self.open(reason, settings, now, random, log);
        }
    }

    /// Why the breaker has to open, if it has to; `longest` failures came in a row.
    pub fn should_trip(&mut self, longest: u32, settings: &Settings, now: Nanos) -> Option<Reason> {
        if self.state != State::Closed || settings.is_adaptive() {
            return None;
        }
        let sums = self.window.sums(now);
        if sums.total < settings.minimum_calls {
            return None;
        }
        let reaches = |part: u32, threshold: Option<u32>| {
            // In hundredths of a percent, without rounding.
            threshold.is_some_and(|threshold| {
                u64::from(part).saturating_mul(10_000)
                    >= u64::from(sums.total).saturating_mul(threshold.into())
            })
        };
        if reaches(sums.failed, settings.failure_rate) {
            Some(Reason::FailureRate)
        } else if reaches(sums.slow, settings.slow_rate) {
            Some(Reason::SlowRate)
        } else if settings.consecutive.is_some_and(|bound| longest >= bound) {
            Some(Reason::ConsecutiveFailures)
        } else {
            None
        }
    }
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
