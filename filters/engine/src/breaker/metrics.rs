//! Counters of the breaker. They gather with each rule and are written by the tick.
//!
//! A stream ends under the rule that it began with, which may be an older policy's, so the counts lie
//! in the rule and not in the policy at work. One thread runs a VM.

use std::cell::Cell as Slot;

use super::cell::{State, Transitions};
use crate::core::ports::{Metrics, labels};

/// What a request met at a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    /// Admitted to find out whether the upstream is well again.
    Probe,
    Rejected,
    Fallback,
    /// Would have been rejected: shadow mode, or outside the enforced share.
    ShadowRejected,
    /// A part of the key was missing, and the rule says REJECT.
    MissingKey,
    /// A part of the key was missing, and the rule says `SKIP_RULE`.
    Skipped,
}

impl Outcome {
    /// As metrics call it.
    #[cfg(any(test, feature = "sim"))]
    pub fn word(self) -> &'static str {
        OUTCOMES.get(self as usize).map_or("", |(_, word)| word)
    }
}

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Admitted, "admitted"),
    (Outcome::Probe, "probe"),
    (Outcome::Rejected, "rejected"),
    (Outcome::Fallback, "fallback"),
    (Outcome::ShadowRejected, "shadow_rejected"),
    (Outcome::MissingKey, "missing_key"),
    (Outcome::Skipped, "skipped"),
];

const TRANSITIONS: [(State, State); 4] = [
    (State::Closed, State::Open),
    (State::Open, State::HalfOpen),
    (State::HalfOpen, State::Open),
    (State::HalfOpen, State::Closed),
];

/// The most series that one rule has: a rule either rejects or answers with its fallback, and the
/// gauge is the state's or that of the open keys.
pub const SERIES_PER_RULE: u32 = 12;

#[derive(Debug, Default)]
pub struct Counts {
    outcomes: [Slot<u64>; OUTCOMES.len()],
    transitions: [Slot<u64>; TRANSITIONS.len()],
    /// Calls that counted as failures.
    failures: Slot<u64>,
    contention: Slot<u64>,
    evictions: Slot<u64>,
    /// Keys that came to be open, less those that are so no more.
    opened: Slot<i64>,
    is_dirty: Slot<bool>,
}

impl Counts {
    fn add(&self, count: Option<&Slot<u64>>) {
        if let Some(count) = count {
            count.set(count.get().saturating_add(1));
            self.is_dirty.set(true);
        }
    }

    pub fn outcome(&self, outcome: Outcome) {
        self.add(self.outcomes.get(outcome as usize));
    }

    /// Hands over, and forgets, the outcomes that were recorded, each once.
    #[cfg(any(test, feature = "sim"))]
    pub fn take(&self, mut say: impl FnMut(Outcome)) {
        for ((outcome, _), count) in OUTCOMES.iter().zip(&self.outcomes) {
            if count.take() > 0 {
                say(*outcome);
            }
        }
    }

    pub fn failure(&self) {
        self.add(Some(&self.failures));
    }

    pub fn contention(&self) {
        self.add(Some(&self.contention));
    }

    /// A full set forgot a breaker in this state.
    pub fn eviction(&self, state: State) {
        self.add(Some(&self.evictions));
        if state != State::Closed {
            self.opened.set(self.opened.get().saturating_sub(1));
        }
    }

    pub fn transitions(&self, transitions: &Transitions) {
        for transition in transitions {
            let place = TRANSITIONS.iter().position(|known| known == transition);
            self.add(place.and_then(|place| self.transitions.get(place)));
            let change = match transition {
                (State::Closed, _) => 1,
                (_, State::Closed) => -1,
                _ => 0,
            };
            self.opened.set(self.opened.get().saturating_add(change));
        }
    }

    /// Hands over what has gathered. `is_keyed` rules have a gauge of keys that are not closed.
    pub fn flush(&self, policy: &str, rule: &str, is_keyed: bool, metrics: &mut impl Metrics) {
        if !self.is_dirty.take() {
            return;
        }
        let own = [("policy", policy), ("rule", rule)];
        let mut total = |more: &[(&str, &str)], name: &str, count: &Slot<u64>| {
            let count = count.take();
            if count > 0 {
                let labels = [labels(&own), labels(more)].concat();
                metrics.count(&format!("{labels}weir_circuit_breaker_{name}_total"), count);
            }
        };
        for ((_, outcome), count) in OUTCOMES.iter().zip(&self.outcomes) {
            total(&[("outcome", outcome)], "requests", count);
        }
        for ((from, to), count) in TRANSITIONS.iter().zip(&self.transitions) {
            total(&[("from", name(*from)), ("to", name(*to))], "transitions", count);
        }
        total(&[], "failures", &self.failures);
        // These are the policy's: they tell of the tables, and a rule has its series already.
        let policy_labels = labels(&[("policy", policy)]);
        for (name, count) in [("contention", &self.contention), ("evictions", &self.evictions)] {
            let count = count.take();
            if count > 0 {
                metrics.count(&format!("{policy_labels}weir_circuit_breaker_{name}_total"), count);
            }
        }
        let opened = self.opened.take();
        if is_keyed && opened != 0 {
            metrics.shift(&format!("{}weir_circuit_breaker_open_keys", labels(&own)), opened);
        }
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_their_place_and_series_are_few() {
        for (place, (outcome, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
        // Rejected or fallback; then the failures and a gauge.
        assert!(OUTCOMES.len() - 1 + TRANSITIONS.len() + 2 <= SERIES_PER_RULE as usize);
    }
}
