//! The breakers as a request finds them, for people who ask why. Nothing is decided and nothing counted.

use std::rc::Rc;

use weir_protos::v1::circuit_breaker_rule::State as Forced;
use weir_protos::v1::mode;

use super::Breaker;
use crate::breaker::Worker;
use crate::breaker::cell::{Reason, State};
use crate::breaker::metrics::Outcome;
use crate::breaker::rule::Rule;
use crate::breaker::shared::{self, Change, change};
use crate::core::headers::HeaderMap;
use crate::core::key::{Fingerprint, KeyLook, KeyOutcome};
use crate::core::ports::{Nanos, Ports};
use crate::core::request::Request;

/// One rule and one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub id: String,
    pub mode: mode::Value,
    /// What the policy says of the state.
    pub forced: Forced,
    /// Whether the rule means the request.
    pub matches: bool,
    /// Whether no later rule is looked at.
    pub stops: bool,
    pub key: KeyLook,
    /// Of the request's breaker, where it has one.
    pub state: Option<State>,
    /// Why it is not closed, and for how long it stays open.
    pub reason: &'static str,
    pub opens_for: Nanos,
    /// Calls in the window: all, failed, slow.
    pub calls: [u32; 3],
}

impl Breaker {
    /// All rules that are not off, in order.
    pub fn look(
        &self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Vec<Look> {
        self.rules.iter().map(|rule| look_at(rule, worker, headers, ports)).collect()
    }

    /// Puts the breaker that a request meets at a rule into a state. False where there is no such
    /// rule, or the request has no key there.
    pub fn put(
        &self,
        rule: &str,
        state: State,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> bool {
        let Some(rule) = self.rules.iter().find(|known| known.id == rule) else { return false };
        let Some(fingerprint) = fingerprint(rule, worker, headers, ports) else { return false };
        let (now, open) = (ports.now(), rule.settings.open);
        let put = change(rule, fingerprint, now, ports, |cell, log| {
            if state != State::Closed {
                cell.open_for(open, cell.generation, now, log);
                // Why most of them open.
                cell.reason = Reason::FailureRate;
            }
            if state == State::HalfOpen {
                // By the first call that comes after it.
                cell.until = now;
            }
            Change { result: (), writes: true }
        });
        put.is_some()
    }

    /// What the rules said to the last request, each once, and its key there: these counts are then not
    /// written as metrics.
    pub fn take_outcomes(
        &self,
        headers: &HeaderMap,
        ports: &mut impl Ports,
        mut say: impl FnMut(&str, Outcome, &KeyLook),
    ) {
        for rule in self.found.iter().filter_map(|place| self.rules.get(*place as usize)) {
            let mut key = None;
            rule.counts.take(|outcome| {
                let key =
                    key.get_or_insert_with(|| rule.key.look(&mut Request::new(headers), ports));
                say(&rule.id, outcome, key);
            });
        }
    }
}

fn look_at(
    rule: &Rc<Rule>,
    worker: &mut Worker,
    headers: &HeaderMap,
    ports: &mut impl Ports,
) -> Look {
    let mut request = Request::new(headers);
    let matches = rule.matcher.matches(&mut request, ports);
    let key = rule.key.look(&mut request, ports);
    let now = ports.now();
    let cell = fingerprint(rule, worker, headers, ports)
        .map(|fingerprint| shared::look(rule, fingerprint, ports));
    let state = cell.as_ref().map(|cell| match cell.state {
        State::Open if cell.until <= now => State::HalfOpen,
        state => state,
    });
    let calls = cell.clone().map(|mut cell| cell.window.sums(now)).unwrap_or_default();
    Look {
        id: rule.id.clone(),
        mode: rule.mode,
        forced: rule.forced,
        matches,
        stops: rule.stops,
        key,
        state,
        reason: cell.as_ref().map_or("", |cell| cell.reason.word()),
        opens_for: cell.map_or(0, |cell| cell.until.saturating_sub(now)),
        calls: [calls.total, calls.failed, calls.slow],
    }
}

fn fingerprint(
    rule: &Rule,
    worker: &mut Worker,
    headers: &HeaderMap,
    ports: &mut impl Ports,
) -> Option<Fingerprint> {
    if rule.key.is_empty() {
        return Some(rule.scope);
    }
    let secret = worker.secret.get(ports)?;
    let mut request = Request::new(headers);
    match rule.key.of(&mut request, ports, &secret, rule.scope) {
        KeyOutcome::Found(fingerprint) => Some(fingerprint),
        KeyOutcome::Skip | KeyOutcome::Reject => None,
    }
}
