//! The rules as a request finds them, for people who ask why. Nothing is decided and nothing taken.

use weir_protos::v1::mode;

use super::{Limiter, RuleScope, buckets};
use crate::core::headers::HeaderMap;
use crate::core::key::{KeyLook, KeyOutcome};
use crate::core::ports::{Nanos, Ports};
use crate::core::request::Request;
use crate::limit::Worker;
use crate::limit::bucket::{Ask, Buckets};
use crate::limit::calendar::Moment;
use crate::limit::metrics::Outcome;
use crate::limit::overrides::Terms;
use crate::limit::rule::Rule;

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
    /// An engine keeps the limit; see [`Limiter::stand_in`].
    pub is_mesh: bool,
    /// Of the request's bucket, where it has one.
    pub level: Option<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub available: u64,
    pub max: u64,
    /// Until there are as many as the request wants; 0 where there are.
    pub wait: Nanos,
}

impl Limiter {
    /// Where no engine is: one bucket, as the rule says, stands for the limit that it would keep.
    pub fn stand_in(&mut self) {
        for rule in &mut self.rules {
            if let Some(mesh) = rule.mesh.take() {
                rule.rate = mesh.rate;
            }
        }
    }

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
        let level = self.ask(rule, worker, headers, ports).map(|ask| {
            let buckets = self.buckets(rule, ports);
            let (available, wait) = match rule.scope {
                RuleScope::Process | RuleScope::Mesh => buckets.look(ask, ports),
                RuleScope::Worker(_) => buckets.look(ask, &mut worker.local),
            };
            Level { available, max: ask.rate.max, wait }
        });
        let (id, mode) = (rule.id.clone(), rule.mode);
        let is_mesh = rule.scope == RuleScope::Mesh;
        Some(Look { id, mode, matches, stops: rule.stops, key, is_mesh, level })
    }

    /// What the request wants of its bucket, where it has one.
    fn ask(
        &self,
        rule: &Rule,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Option<Ask> {
        if !rule.has_bucket {
            return None;
        }
        let secret = worker.secret(ports)?;
        let mut request = Request::new(headers);
        let mut terms = None;
        let scope = rule.scope_of_keys;
        let key = rule.key.of_shown(&mut request, ports, &secret, scope, &mut |part, value| {
            let overrides = rule.overrides.as_ref().filter(|them| them.part() == part);
            terms = overrides.and_then(|overrides| overrides.find(value)).or(terms);
        });
        let KeyOutcome::Found(fingerprint) = key else { return None };
        let rate = match terms {
            Some(Terms::Unlimited) => return None,
            Some(Terms::Rate(rate)) => rate,
            None => rule.rate,
        };
        let rate = rule.share_of(rate, self.crew.count());
        let reserve = rule.reserve(headers, rate.max);
        Some(Ask { fingerprint, rate, tokens: rule.cost.of_request(headers), reserve })
    }

    fn buckets<'r>(&self, rule: &'r Rule, ports: &mut impl Ports) -> Buckets<'r> {
        let moment = Moment { steady: ports.now(), wall: ports.wall() };
        buckets(rule, self.crew.count(), self.since, moment)
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
        let Some(rule) = self.rules.iter().find(|known| known.id == rule) else { return false };
        let Some(ask) = self.ask(rule, worker, headers, ports) else { return false };
        let buckets = self.buckets(rule, ports);
        match rule.scope {
            RuleScope::Process | RuleScope::Mesh => buckets.leave(ask, tokens, ports),
            RuleScope::Worker(_) => buckets.leave(ask, tokens, &mut worker.local),
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
