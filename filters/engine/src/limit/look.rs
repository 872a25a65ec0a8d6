//! The rules as a request finds them, for people who ask why. Nothing is decided and nothing taken.

use weir_protos::v1::mode;

use super::{Limiter, RuleScope, buckets};
use crate::core::headers::HeaderMap;
use crate::core::key::{Fingerprint, KeyLook, KeyOutcome};
use crate::core::ports::{Nanos, Ports};
use crate::core::request::Request;
use crate::limit::Worker;
use crate::limit::gcra::Bucket;
use crate::limit::metrics::Outcome;

/// One rule and one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub id: String,
    pub mode: mode::Value,
    /// Whether the rule means the request.
    pub matches: bool,
    /// Whether no later rule is looked at.
    pub stops: bool,
    pub key: KeyLook,
    /// Of the request's bucket, where it has one.
    pub level: Option<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub available: u64,
    pub max: u64,
    /// Until there is a token; 0 where there is one.
    pub wait: Nanos,
}

impl Limiter {
    /// All rules that are not off, in order.
    pub fn look(
        &self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Vec<Look> {
        (0..self.rules.len())
            .filter_map(|place| self.look_at(place, worker, headers, ports))
            .collect()
    }

    fn look_at(
        &self,
        place: usize,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Option<Look> {
        let rule = self.rules.get(place)?;
        let mut request = Request::new(headers);
        let matches = rule.matcher.matches(&mut request, ports);
        let key = rule.key.look(&mut request, ports);
        let level = self.fingerprint(place, worker, headers, ports).map(|fingerprint| {
            let (buckets, now) = (buckets(rule, self.crew.count(), self.since), ports.now());
            let bucket: Bucket = match rule.scope {
                RuleScope::Process => buckets.look(fingerprint, now, ports),
                RuleScope::Worker(_) => buckets.look(fingerprint, now, &mut worker.local),
            };
            let available = bucket.available(buckets.rate, now);
            let wait = if available > 0 { 0 } else { bucket.wait(buckets.rate, now) };
            Level { available, max: buckets.rate.max, wait }
        });
        let (id, mode) = (rule.id.clone(), rule.mode);
        Some(Look { id, mode, matches, stops: rule.stops, key, level })
    }

    fn fingerprint(
        &self,
        place: usize,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Option<Fingerprint> {
        let rule = self.rules.get(place)?;
        let secret = worker.secret(ports)?;
        let mut request = Request::new(headers);
        match rule.key.of(&mut request, ports, &secret, rule.scope_of_keys) {
            KeyOutcome::Found(fingerprint) => Some(fingerprint),
            KeyOutcome::Skip | KeyOutcome::Reject => None,
        }
    }

    /// Leaves so many tokens in the bucket that a request has at a rule. False where there is no such
    /// rule, or the request has no key there.
    pub fn leave(
        &self,
        rule: &str,
        tokens: u64,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> bool {
        let Some(place) = self.rules.iter().position(|known| known.id == rule) else {
            return false;
        };
        let Some(fingerprint) = self.fingerprint(place, worker, headers, ports) else {
            return false;
        };
        let Some(rule) = self.rules.get(place) else { return false };
        let (buckets, now) = (buckets(rule, self.crew.count(), self.since), ports.now());
        match rule.scope {
            RuleScope::Process => buckets.leave(fingerprint, tokens, now, ports),
            RuleScope::Worker(_) => buckets.leave(fingerprint, tokens, now, &mut worker.local),
        }
    }

    /// What the rules said to the last request, each once, and its key there: these counts are then not
    /// written as metrics.
    pub fn take_outcomes(
        &mut self,
        headers: &HeaderMap,
        ports: &mut impl Ports,
        mut say: impl FnMut(&str, Outcome, &KeyLook),
    ) {
        let Limiter { rules, found, counters, .. } = self;
        for place in found.iter().map(|rule| *rule as usize) {
            let Some(rule) = rules.get(place) else { continue };
            let mut key = None;
            counters.take(place, |outcome| {
                let key =
                    key.get_or_insert_with(|| rule.key.look(&mut Request::new(headers), ports));
                say(&rule.id, outcome, key);
            });
        }
    }
}
