//! What becomes of requests, by rule and by key.

use std::collections::{BTreeMap, HashMap};

use weir_engine::core::key::KeyLook;

/// What counts as let through, and what as refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Admitted,
    Refused,
    /// Would have been: in shadow, or outside the enforced share.
    Shadow,
    /// The rule had no say.
    Other,
}

/// Of an outcome by its name in the metrics.
pub fn kind(outcome: &str) -> Kind {
    match outcome {
        "admitted" | "probe" => Kind::Admitted,
        "limited" | "degraded" | "rejected" | "fallback" | "missing_key" => Kind::Refused,
        "shadow_limited" | "shadow_rejected" => Kind::Shadow,
        _ => Kind::Other,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// By their names in the metrics.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// By the values of the parts of the key.
    pub keys: HashMap<Vec<Vec<u8>>, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub admitted: u64,
    pub refused: u64,
    pub shadow: u64,
    /// How often the rule began to refuse after it had admitted: the openings of a breaker.
    pub turns: u64,
    is_refusing: bool,
}

impl Rule {
    pub fn add(&mut self, outcome: &'static str, key: &KeyLook) {
        *self.outcomes.entry(outcome).or_default() += 1;
        match key {
            KeyLook::Whole => self.count(&[], kind(outcome)),
            KeyLook::Found(values) => self.count(values, kind(outcome)),
            KeyLook::Missing { .. } => {}
        }
    }

    fn count(&mut self, key: &[Vec<u8>], kind: Kind) {
        // Most keys are known, so that none has to be copied.
        if let Some(counts) = self.keys.get_mut(key) {
            return counts.add(kind);
        }
        self.keys.entry(key.to_vec()).or_default().add(kind);
    }

    pub fn sum(&self, wanted: Kind) -> u64 {
        let named = self.outcomes.iter().filter(|(outcome, _)| kind(outcome) == wanted);
        named.map(|(_, count)| count).sum()
    }

    pub fn turns(&self) -> u64 {
        self.keys.values().map(|counts| counts.turns).sum()
    }

    /// The keys that were refused most, or would have been, the worst first.
    pub fn worst(&self, most: usize) -> Vec<(&[Vec<u8>], Counts)> {
        let refused = |counts: &Counts| counts.refused + counts.shadow;
        let mut keys: Vec<_> = self.keys.iter().filter(|(_, c)| refused(c) > 0).collect();
        keys.sort_by(|(a, x), (b, y)| (refused(y), a).cmp(&(refused(x), b)));
        keys.truncate(most);
        keys.into_iter().map(|(key, counts)| (key.as_slice(), *counts)).collect()
    }
}

impl Counts {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Admitted => self.admitted += 1,
            Kind::Refused => self.refused += 1,
            Kind::Shadow => self.shadow += 1,
            Kind::Other => return,
        }
        let refuses = kind != Kind::Admitted;
        self.turns += u64::from(refuses && !self.is_refusing);
        self.is_refusing = refuses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_apart_and_the_worst_comes_first() {
        let mut rule = Rule::default();
        let key = |text: &str| KeyLook::Found(vec![text.as_bytes().to_vec(), b"x".to_vec()]);
        for (outcome, who) in [
            ("admitted", "a"),
            ("limited", "a"),
            ("limited", "a"),
            ("admitted", "a"),
            ("limited", "a"),
            ("admitted", "b"),
            ("limited", "c"),
        ] {
            rule.add(outcome, &key(who));
        }
        rule.add("skipped", &KeyLook::Missing { part: 0, rejects: false });
        assert_eq!((rule.sum(Kind::Admitted), rule.sum(Kind::Refused)), (3, 4));
        let worst = rule.worst(10);
        let keys: Vec<&[u8]> = worst.iter().map(|(key, _)| key[0].as_slice()).collect();
        assert_eq!(keys, [b"a", b"c"]);
        assert_eq!((worst[0].1.refused, worst[0].1.turns), (3, 2));
        assert_eq!(rule.worst(1).len(), 1);
        assert_eq!(rule.turns(), 3);
    }
}
