//! Counters of the limiter. They gather in the worker and are written by the tick.

use super::mesh::CallCounts;
use crate::core::ports::{Metrics, labels};

/// What became of a request at a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    Limited,
    /// Would have been limited: shadow mode, or outside the enforced share.
    ShadowLimited,
    Degraded,
    /// A part of the key was missing, and the rule says REJECT.
    Rejected,
    /// A part of the key was missing, and the rule says `SKIP_RULE`.
    Skipped,
    ErrorAllowed,
    ErrorDenied,
}

impl Outcome {
    /// As metrics call it.
    #[cfg(any(test, feature = "sim"))]
    pub fn word(self) -> &'static str {
        OUTCOMES.get(self as usize).map_or("", |(_, word)| word)
    }
}

/// Who decided a request of a rule with `scope: MESH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the process has of the engine: hits, or a refusal that stands.
    Lease,
    /// The engine's answer, which the request waited for.
    Engine,
    /// The safe bucket.
    Safe,
}

/// Series that such a rule has more.
pub const STEPS: u32 = 3;

const OUTCOMES: [(Outcome, &str); 8] = [
    (Outcome::Admitted, "admitted"),
    (Outcome::Limited, "limited"),
    (Outcome::ShadowLimited, "shadow_limited"),
    (Outcome::Degraded, "degraded"),
    (Outcome::Rejected, "rejected"),
    (Outcome::Skipped, "skipped"),
    (Outcome::ErrorAllowed, "error_allowed"),
    (Outcome::ErrorDenied, "error_denied"),
];

/// The most series that any rule can have: the outcomes, contention and evictions. Where a rule's cost
/// is a header, there is one more for bad ones.
pub const SERIES_PER_RULE: u32 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct RuleCounts {
    outcomes: [u64; OUTCOMES.len()],
    contention: u64,
    evictions: u64,
    bad_costs: u64,
    steps: [u64; STEPS as usize],
}

#[derive(Debug, Default)]
pub struct Counters {
    rules: Vec<RuleCounts>,
    exempt: u64,
    redirected: u64,
    dirty: bool,
}

impl Counters {
    pub fn new(rules: usize) -> Counters {
        Counters { rules: vec![RuleCounts::default(); rules], ..Counters::default() }
    }

    pub fn record(&mut self, rule: usize, outcome: Outcome) {
        self.dirty = true;
        if let Some(count) =
            self.rules.get_mut(rule).and_then(|counts| counts.outcomes.get_mut(outcome as usize))
        {
            *count = count.saturating_add(1);
        }
    }

    pub fn step(&mut self, rule: usize, step: Step) {
        let counts = self.rules.get_mut(rule);
        if let Some(count) = counts.and_then(|counts| counts.steps.get_mut(step as usize)) {
            self.dirty = true;
            *count = count.saturating_add(1);
        }
    }

    /// Hands over, and forgets, what was recorded for a rule, each outcome once.
    #[cfg(any(test, feature = "sim"))]
    pub fn take(&mut self, rule: usize, mut say: impl FnMut(Outcome)) {
        let Some(counts) = self.rules.get_mut(rule) else { return };
        for ((outcome, _), count) in OUTCOMES.iter().zip(&mut counts.outcomes) {
            if std::mem::take(count) > 0 {
                say(*outcome);
            }
        }
    }

    pub fn effort(&mut self, rule: usize, contention: u64, evictions: u64) {
        if let Some(counts) = self.rules.get_mut(rule) {
            self.dirty |= contention | evictions != 0;
            counts.contention = counts.contention.saturating_add(contention);
            counts.evictions = counts.evictions.saturating_add(evictions);
        }
    }

    pub fn bad_costs(&mut self, rule: usize, count: u64) {
        if let Some(counts) = self.rules.get_mut(rule) {
            self.dirty |= count != 0;
            counts.bad_costs = counts.bad_costs.saturating_add(count);
        }
    }

    pub fn exempt(&mut self) {
        self.dirty = true;
        self.exempt = self.exempt.saturating_add(1);
    }

    pub fn redirected(&mut self) {
        self.dirty = true;
        self.redirected = self.redirected.saturating_add(1);
    }

    /// Hands over what has gathered. `label` names a rule.
    pub fn flush<'l>(
        &mut self,
        policy: &str,
        label: impl Fn(usize) -> &'l str,
        metrics: &mut impl Metrics,
    ) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let mut total = |rule: &str, outcome: &str, count: &mut u64| {
            let count = std::mem::take(count);
            if count > 0 {
                let labels = labels(&[("policy", policy), ("rule", rule), ("outcome", outcome)]);
                metrics.count(&format!("{labels}weir_rate_limit_requests_total"), count);
            }
        };
        total("none", "exempt", &mut self.exempt);
        total("none", "redirected", &mut self.redirected);
        for (rule, counts) in self.rules.iter_mut().enumerate() {
            for ((_, outcome), count) in OUTCOMES.iter().zip(&mut counts.outcomes) {
                total(label(rule), outcome, count);
            }
        }
        for (rule, counts) in self.rules.iter_mut().enumerate() {
            let labels = || labels(&[("policy", policy), ("rule", label(rule))]);
            for (name, count) in [
                ("contention", &mut counts.contention),
                ("evictions", &mut counts.evictions),
                ("bad_costs", &mut counts.bad_costs),
            ] {
                let count = std::mem::take(count);
                if count > 0 {
                    metrics.count(&format!("{}weir_rate_limit_{name}_total", labels()), count);
                }
            }
            for (step, count) in ["lease", "engine", "safe"].into_iter().zip(&mut counts.steps) {
                let count = std::mem::take(count);
                if count > 0 {
                    let labels = labels_with_step(policy, label(rule), step);
                    metrics.count(&format!("{labels}weir_rate_limit_mesh_requests_total"), count);
                }
            }
        }
    }
}

fn labels_with_step(policy: &str, rule: &str, step: &str) -> String {
    labels(&[("policy", policy), ("rule", rule), ("step", step)])
}

/// Hands over what became of calls to the engine of a policy.
pub fn flush_calls(policy: &str, counts: CallCounts, metrics: &mut impl Metrics) {
    let CallCounts { granted, over_limit, failed, nonsense } = counts;
    for (result, count) in [
        ("granted", granted),
        ("over_limit", over_limit),
        ("failed", failed),
        ("nonsense", nonsense),
    ] {
        if count > 0 {
            let labels = labels(&[("policy", policy), ("result", result)]);
            metrics.count(&format!("{labels}weir_rate_limit_mesh_calls_total"), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_their_place() {
        for (place, (outcome, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
        assert!(OUTCOMES.len() + 2 <= SERIES_PER_RULE as usize && SERIES_PER_RULE <= 12);
    }
}
