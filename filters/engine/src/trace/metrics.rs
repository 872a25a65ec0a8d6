//! Counters of trace context. They gather with the policy and are written by the tick.
//!
//! A stream ends under the policy that it began with, so the counts are shared with it. One thread
//! runs a VM.

use std::cell::Cell;

use crate::core::ports::{Metrics, labels};

/// What became of a request's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contexts {
    Continued,
    /// Nothing had come.
    Started,
    /// What had come was broken, or was not to go on.
    Restarted,
    Restored,
    Exempt,
}

/// What became of what a proxy remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restores {
    Recorded,
    /// The store was contended, or refused.
    NotRecorded,
    Restored,
    Missing,
    /// Two requests of different traces had the id.
    Ambiguous,
    /// An id of an untrusted client.
    Untrusted,
    Evicted,
}

/// What became of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlines {
    Carried,
    Default,
    /// No number, or several.
    Broken,
    /// Longer than what an untrusted client may ask for.
    Capped,
    Spent,
}

const CONTEXTS: [(Contexts, &str); 5] = [
    (Contexts::Continued, "continued"),
    (Contexts::Started, "started"),
    (Contexts::Restarted, "restarted"),
    (Contexts::Restored, "restored"),
    (Contexts::Exempt, "exempt"),
];

const RESTORES: [(Restores, &str); 7] = [
    (Restores::Recorded, "recorded"),
    (Restores::NotRecorded, "not_recorded"),
    (Restores::Restored, "restored"),
    (Restores::Missing, "missing"),
    (Restores::Ambiguous, "ambiguous"),
    (Restores::Untrusted, "untrusted"),
    (Restores::Evicted, "evicted"),
];

const DEADLINES: [(Deadlines, &str); 5] = [
    (Deadlines::Carried, "carried"),
    (Deadlines::Default, "default"),
    (Deadlines::Broken, "broken"),
    (Deadlines::Capped, "capped"),
    (Deadlines::Spent, "spent"),
];

impl Contexts {
    pub fn word(self) -> &'static str {
        CONTEXTS.get(self as usize).map_or("", |(_, word)| word)
    }
}

#[derive(Debug, Default)]
pub struct Counts {
    contexts: [Cell<u64>; CONTEXTS.len()],
    restores: [Cell<u64>; RESTORES.len()],
    deadlines: [Cell<u64>; DEADLINES.len()],
    is_dirty: Cell<bool>,
}

impl Counts {
    fn add(&self, count: Option<&Cell<u64>>, by: u64) {
        if let Some(count) = count {
            count.set(count.get().saturating_add(by));
            self.is_dirty.set(true);
        }
    }

    pub fn context(&self, outcome: Contexts) {
        self.add(self.contexts.get(outcome as usize), 1);
    }

    pub fn restore(&self, outcome: Restores, by: u64) {
        self.add(self.restores.get(outcome as usize), by);
    }

    pub fn deadline(&self, outcome: Deadlines) {
        self.add(self.deadlines.get(outcome as usize), 1);
    }

    /// Hands over what has gathered.
    pub fn flush(&self, policy: &str, metrics: &mut impl Metrics) {
        if !self.is_dirty.take() {
            return;
        }
        let mut total = |name: &str, outcome: &str, count: &Cell<u64>| {
            let count = count.take();
            if count > 0 {
                let labels = labels(&[("policy", policy), ("rule", "none"), ("outcome", outcome)]);
                metrics.count(&format!("{labels}weir_trace_context_{name}_total"), count);
            }
        };
        for ((_, outcome), count) in CONTEXTS.iter().zip(&self.contexts) {
            total("requests", outcome, count);
        }
        for ((_, outcome), count) in RESTORES.iter().zip(&self.restores) {
            total("restores", outcome, count);
        }
        for ((_, outcome), count) in DEADLINES.iter().zip(&self.deadlines) {
            total("deadlines", outcome, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_their_place() {
        assert!(
            CONTEXTS.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place)
        );
        assert!(
            RESTORES.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place)
        );
        assert!(
            DEADLINES.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place)
        );
    }
}
