//! Counters of coloring. They gather with the policy and are written by the tick.

use std::cell::Cell;

use crate::core::ports::{Metrics, labels};

/// What came along of a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Trusted,
    /// From a client that is not trusted.
    Removed,
    /// No color of the policy's, or several.
    Unknown,
    /// Two carriers with different colors.
    Conflict,
    Restored,
    Exempt,
}

/// What a lane made of a color that has no instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    Fallback,
    Refused,
}

const CAME: [(Came, &str); 6] = [
    (Came::Trusted, "trusted"),
    (Came::Removed, "removed"),
    (Came::Unknown, "unknown"),
    (Came::Conflict, "conflict"),
    (Came::Restored, "restored"),
    (Came::Exempt, "exempt"),
];

const LANES: [(Lanes, &str); 2] = [(Lanes::Fallback, "fallback"), (Lanes::Refused, "refused")];

#[derive(Debug, Default)]
pub struct Counts {
    came: [Cell<u64>; CAME.len()],
    lanes: [Cell<u64>; LANES.len()],
    pub not_a_number: Cell<u64>,
    /// Requests that no rule gave a color, by their color.
    pub others: Vec<Cell<u64>>,
}

pub fn add(count: Option<&Cell<u64>>, by: u64) {
    if let Some(count) = count {
        count.set(count.get().saturating_add(by));
    }
}

impl Counts {
    pub fn new(colors: usize) -> Counts {
        Counts { others: vec![Cell::new(0); colors], ..Counts::default() }
    }

    pub fn came(&self, outcome: Came) {
        add(self.came.get(outcome as usize), 1);
    }

    pub fn lane(&self, outcome: Lanes) {
        add(self.lanes.get(outcome as usize), 1);
    }

    /// Hands over what has gathered.
    pub fn flush(&self, policy: &str, colors: &[String], metrics: &mut impl Metrics) {
        let none = [("policy", policy), ("rule", "none")];
        let mut total = |name: &str, outcome: &str, count: &Cell<u64>| {
            let count = count.take();
            if count > 0 {
                let labels = [labels(&none), labels(&[("outcome", outcome)])].concat();
                metrics.count(&format!("{labels}weir_traffic_color_{name}_total"), count);
            }
        };
        for ((_, outcome), count) in CAME.iter().zip(&self.came) {
            total("existing", outcome, count);
        }
        for ((_, outcome), count) in LANES.iter().zip(&self.lanes) {
            total("lanes", outcome, count);
        }
        for (color, count) in colors.iter().zip(&self.others) {
            total("requests", color, count);
        }
        let count = self.not_a_number.take();
        if count > 0 {
            let labels = labels(&[("policy", policy)]);
            metrics.count(&format!("{labels}weir_traffic_color_not_a_number_total"), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_their_place() {
        assert!(CAME.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place));
        assert!(LANES.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place));
    }
}
