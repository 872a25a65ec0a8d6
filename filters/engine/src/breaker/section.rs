//! The section `circuit_breaker` of a policy, at work.

use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::circuit_breaker_rule::State as Forced;
use weir_protos::v1::{Policy, direction, mode};

use super::call::Call;
use super::cell::State;
use super::metrics::{Outcome, SERIES_PER_RULE};
use super::rule::{Rule, prefix};
use super::shared;
use super::size;
use super::table::{Arrival, Ticket};
use super::verdict::Verdict;
use super::worker::Worker;
use crate::core::answer::{Client, DegradeWay, UNAVAILABLE, degraded, missing_key};
use crate::core::checks::duration;
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::index::Index;
use crate::core::key::{Fingerprint, KeyOutcome, sticky_share};
use crate::core::policy::Common;
use crate::core::ports::{Metrics, Nanos, Ports, Rng, SharedStore, labels};
use crate::core::reply::trace_id;
use crate::core::request::Request;
use crate::core::rules::{Ids, check_unindexed};

const MS: Nanos = 1_000_000;

/// Soon enough that a failing upstream is left alone, and rare enough to cost nothing.
const DEFAULT_SYNC: Nanos = 50 * MS;

/// More rules than this are a mistake.
const MAX_RULES: usize = 10_000;

/// Rules whose state is looked at for its gauge, per tick.
const GAUGES: usize = 16;

/// What is to be done with a request, and what is to be kept until it is logged.
#[derive(Debug, Default)]
pub struct Decision {
    pub effects: Effects,
    pub call: Option<Rc<Call>>,
}

pub struct Breaker {
    common: Common,
    rules: Vec<Rc<Rule>>,
    index: Index,
    sync: Nanos,
    /// Rules with this number or a higher one share a label.
    labelled: usize,
    exempt: u64,
    /// What the gauges of rules without a key say, as far as this policy wrote them.
    gauges: Vec<Option<u64>>,
    next_gauge: usize,
    found: Vec<u32>,
}

impl Breaker {
    /// `plugin` is the name under which Envoy runs the filter.
    #[cold]
    pub fn compile(policy: &Policy, plugin: &str) -> Result<Breaker, FieldError> {
        let common = Common::compile(policy, plugin)?;
        let section = policy.circuit_breaker()?;
        let path = "policy.circuit_breaker";
        if section.rules.len() > MAX_RULES {
            let remedy = "rules: must be at most 10000";
            return Err(FieldError::value(format!("{path}.rules"), section.rules.len(), remedy));
        }
        let sync = duration(
            section.sync_interval.as_ref(),
            10 * MS..=500 * MS,
            &format!("{path}.sync_interval"),
        )?
        .unwrap_or(DEFAULT_SYNC);
        let defaults = common.match_defaults(direction::Value::Outbound);
        let mut ids = Ids::default();
        let mut rules = Vec::with_capacity(section.rules.len());
        for (place, rule) in section.rules.iter().enumerate() {
            let path = format!("{path}.rules[{place}]");
            let compiled = Rule::compile(rule, &path, &common, section.mode(), sync, &defaults)?;
            ids.insert(&rule.id, place, &path)?;
            rules.extend(compiled.map(Rc::new));
        }
        let index = Index::build(rules.iter().map(|rule| &rule.matcher));
        let id = |rule: usize| rules.get(rule).map(|rule| rule.id.as_str());
        check_unindexed(&index, id, &format!("{path}.rules"))?;
        Ok(Breaker {
            labelled: (common.max_series / SERIES_PER_RULE) as usize,
            gauges: vec![None; rules.len()],
            next_gauge: 0,
            exempt: 0,
            found: Vec::new(),
            sync,
            rules,
            index,
            common,
        })
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// How often the worker has to tick.
    pub fn tick_milliseconds(&self) -> u32 {
        u32::try_from(self.sync / MS).unwrap_or(u32::MAX)
    }

    /// Makes what workers would otherwise race to make: the process secret, and the places of rules
    /// without a key. What is there already is never touched.
    pub fn prepare(&mut self, worker: &mut Worker, ports: &mut (impl SharedStore + Rng)) {
        worker.secret.prepare(ports);
        worker.enforce(prefix(&self.common).as_bytes(), &self.rules);
        for rule in &self.rules {
            if rule.key.is_empty() {
                shared::prepare(rule, ports);
            } else {
                size::note(rule, ports);
            }
        }
    }

    pub fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Decision {
        let Breaker { common, rules, index, exempt, found, .. } = self;
        let mut request = Request::new(headers);
        index.candidates(&request, found);
        if found.is_empty() {
            return Decision::default();
        }
        if common.is_exempt(&mut request, ports) {
            *exempt = exempt.saturating_add(1);
            return Decision::default();
        }
        let now = ports.now();
        Desk { rules, found, now }.decide(worker, &mut request, ports)
    }

    /// A rule's only breaker as it stands in shared data.
    #[cfg(test)]
    pub fn cell(&self, place: usize, store: &mut impl SharedStore) -> super::cell::Cell {
        shared::cell(&self.rules[place], self.rules[place].scope, store)
    }

    /// Writes the counters that have gathered, and the gauges.
    pub fn tick(&mut self, ports: &mut (impl SharedStore + Metrics)) {
        let policy = &self.common.identity.policy;
        let exempt = std::mem::take(&mut self.exempt);
        if exempt > 0 {
            let labels = labels(&[("policy", policy), ("rule", "none"), ("outcome", "exempt")]);
            ports.count(&format!("{labels}weir_circuit_breaker_requests_total"), exempt);
        }
        for (place, rule) in self.rules.iter().enumerate() {
            let label = if place < self.labelled { rule.id.as_str() } else { "other" };
            rule.counts.flush(policy, label, !rule.key.is_empty(), ports);
        }
        for _ in 0..GAUGES.min(self.rules.len()) {
            let place = self.next_gauge;
            self.next_gauge = place.saturating_add(1).checked_rem(self.rules.len()).unwrap_or(0);
            let (Some(rule), Some(written)) = (self.rules.get(place), self.gauges.get_mut(place))
            else {
                continue;
            };
            // Rules that share a label have no state in common.
            if !rule.key.is_empty() || rule.settings.is_adaptive() || place >= self.labelled {
                continue;
            }
            let state = match rule.forced {
                Forced::Disabled => 3,
                Forced::ForcedOpen => 4,
                _ if rule.mode == mode::Value::Shadow => 5,
                _ => match shared::cell(rule, rule.scope, ports).state {
                    State::Closed => 0,
                    State::Open => 1,
                    State::HalfOpen => 2,
                },
            };
            if *written != Some(state) {
                *written = Some(state);
                let labels = labels(&[("policy", policy), ("rule", &rule.id)]);
                ports.gauge(&format!("{labels}weir_circuit_breaker_state"), state);
            }
        }
    }
}

#[cfg(any(test, feature = "sim"))]
#[path = "look.rs"]
mod look;
#[cfg(any(test, feature = "sim"))]
pub use look::Look;

/// All that one decision works with.
struct Desk<'r> {
    rules: &'r [Rc<Rule>],
    found: &'r [u32],
    now: Nanos,
}

/// A rule that does not let the request through.
struct Refusal {
    wait: Nanos,
    reason: &'static str,
    ticket: Option<Ticket>,
}

impl<'r> Desk<'r> {
    fn decide(
        self,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Decision {
        let mut effects = Effects::default();
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut marker = None;
        for rule in self.found.iter().filter_map(|place| self.rules.get(*place as usize)) {
            if rule.forced == Forced::Disabled || !rule.matcher.matches(request, ports) {
                continue;
            }
            let fingerprint = match self.fingerprint(rule, worker, request, ports) {
                Some(KeyOutcome::Found(fingerprint)) => fingerprint,
                Some(KeyOutcome::Reject) => {
                    rule.counts.outcome(Outcome::MissingKey);
                    if rule.enforces() {
                        let client =
                            Client { is_grpc: request.is_grpc(), trace_id: trace_id(request) };
                        effects.reply = Some(missing_key("circuit breaker", &rule.id, client));
                        effects.state = Some(format!("rejected rule={}", rule.id));
                        break;
                    }
                    continue;
                }
                Some(KeyOutcome::Skip) => {
                    rule.counts.outcome(Outcome::Skipped);
                    continue;
                }
                None => continue,
            };
            let refusal = match self.arrive(rule, fingerprint, worker, ports) {
                Some(Arrival::Admitted(ticket)) => {
                    let is_probe = ticket.permit.is_some();
                    rule.counts.outcome(if is_probe { Outcome::Probe } else { Outcome::Admitted });
                    worker.hold(&ticket, self.now);
                    if is_probe {
                        effects.state = Some(format!("probe rule={}", rule.id));
                    }
                    tickets.push(ticket);
                    None
                }
                Some(Arrival::Refused { wait, reason, ticket }) => {
                    Some(Refusal { wait, reason, ticket })
                }
                None => None,
            };
            if let Some(refusal) = refusal {
                let share = if rule.key.is_empty() { ports.random() } else { fingerprint };
                if !rule.enforces() || sticky_share(share) >= rule.enforced {
                    rule.counts.outcome(Outcome::ShadowRejected);
                    effects.state =
                        Some(format!("shadow rule={} reason={}", rule.id, refusal.reason));
                    tickets.extend(refusal.ticket);
                } else {
                    marker = refuse(rule, &refusal, request, &mut effects, ports);
                    break;
                }
            }
            if rule.stops {
                break;
            }
        }
        // A request that goes elsewhere, or nowhere, says nothing about what these guard.
        if effects.reply.is_some() || marker.is_some() {
            for ticket in tickets.drain(..) {
                ticket.settle(Verdict::Neither, 0, self.now, worker, ports);
            }
        }
        let is_done = tickets.is_empty() && (effects.reply.is_some() || marker.is_none());
        let call = (!is_done).then(|| {
            let is_grpc = request.is_grpc();
            Rc::new(Call::new(self.now, tickets, request.headers, is_grpc, marker))
        });
        Decision { effects, call }
    }

    fn fingerprint(
        &self,
        rule: &'r Rule,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Option<KeyOutcome> {
        if rule.key.is_empty() {
            return Some(KeyOutcome::Found(rule.scope));
        }
        let secret = worker.secret.get(ports)?;
        Some(rule.key.of(request, ports, &secret, rule.scope))
    }

    fn arrive(
        &self,
        rule: &Rc<Rule>,
        fingerprint: Fingerprint,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Option<Arrival> {
        if rule.forced == Forced::ForcedOpen {
            let wait = rule.settings.open;
            return Some(Arrival::Refused { wait, reason: "forced_open", ticket: None });
        }
        worker.table.arrive(rule, fingerprint, self.now, ports)
    }
}

/// Answers in the upstream's place, or sends the request to the fallback; then gives the marker for
/// its response.
fn refuse(
    rule: &Rule,
    refusal: &Refusal,
    request: &mut Request<'_>,
    effects: &mut Effects,
    ports: &mut impl Rng,
) -> Option<(String, String)> {
    let client = Client { is_grpc: request.is_grpc(), trace_id: trace_id(request) };
    let fallback = rule.while_open.fallback.as_ref();
    let word = if fallback.is_some() { "fallback" } else { "open" };
    rule.counts.outcome(if fallback.is_some() { Outcome::Fallback } else { Outcome::Rejected });
    effects.state = Some(format!("{word} rule={} reason={}", rule.id, refusal.reason));
    if let Some(fallback) = fallback {
        if let DegradeWay::RequestHeader(name, value) = &fallback.way {
            effects.headers.push(HeaderEdit::Set(name.clone(), value.clone()));
            return Some((fallback.marker.clone(), rule.id.clone()));
        }
        effects.reply = degraded(&rule.id, fallback, UNAVAILABLE, client);
        return None;
    }
    let random = ports.random();
    effects.reply = Some(rule.while_open.refusal(&rule.id, refusal.wait, client, random));
    None
}
