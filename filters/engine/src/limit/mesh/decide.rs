//! A decision of a rule whose limit an engine keeps: its lease, else the engine, else what the policy says
//! of an engine that is silent.

use super::desk::{Answered, Query, Say};
use super::rule::MeshRule;
use crate::core::effects::Effects;
use crate::core::key::Fingerprint;
use crate::core::ports::Ports;
use crate::core::request::Request;
use crate::limit::bucket::{Ask, Take};
use crate::limit::decide::{Bench, Note, Taken, Verdict, failed, on_error};
use crate::limit::metrics::Step;
use crate::limit::plan::{Decision, ResponsePlan, Waiting};
use crate::limit::reply::Exceeded;
use crate::limit::rule::Rule;
use crate::limit::worker::Worker;

impl<'r> Bench<'r> {
    pub fn query(&self, rule: &'r Rule, mesh: &'r MeshRule, ask: Ask) -> Query<'r> {
        Query {
            settings: &mesh.settings,
            rule: &mesh.place,
            sets: rule.sets,
            fingerprint: ask.fingerprint,
            hits: u32::try_from(ask.tokens).unwrap_or(u32::MAX),
            limit: mesh.rate.max,
            now: self.moment.steady,
            waits_until: self.waited.as_ref().map(|waited| waited.waiting.until),
        }
    }

    pub fn ask_engine(
        &mut self,
        place: usize,
        (rule, mesh): (&'r Rule, &'r MeshRule),
        fingerprint: Fingerprint,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Verdict {
        let tokens = rule.cost.of_request(request.headers);
        let ask = Ask { fingerprint, rate: mesh.rate, tokens, reserve: 0 };
        let hits = |remaining| Taken { rule: place, ask, remaining, is_hit: true };
        let mut step = Step::Lease;
        if let Some(waited) = &mut self.waited {
            let is_asker = waited.waiting.rule == place;
            if is_asker && waited.answered == Answered::Granted {
                waited.waiting.granted.push(place);
            }
            if waited.waiting.granted.contains(&place) {
                self.noted.push((place, Note::Step(Step::Engine)));
                self.taken.push(hits(0));
                return Verdict::Admit;
            }
            if is_asker && waited.answered == Answered::Failed {
                return self.fall_back(place, (rule, mesh), ask, worker, ports);
            }
            step = if is_asker { Step::Engine } else { Step::Lease };
        }
        let query = self.query(rule, mesh, ask);
        let (secret, scope) = (self.secret, rule.scope_of_keys);
        let say = worker.desk.ask(
            &query,
            &mut |ports| {
                if rule.key.is_empty() {
                    return vec![("rule".into(), rule.id.as_bytes().to_vec())];
                }
                let mut entries = Vec::new();
                let mut show = |part: usize, value: &[u8]| {
                    entries.push(mesh.entry(part, rule.key.part(part), value));
                };
                rule.key.of_shown(request, ports, &secret, scope, &mut show);
                entries
            },
            ports,
        );
        let (contention, evictions) = worker.desk.take_effort();
        self.counters.effort(place, contention, evictions);
        match say {
            Say::Wait { token } => return Verdict::Wait(token),
            Say::Silent => return self.fall_back(place, (rule, mesh), ask, worker, ports),
            Say::Failed => return failed(rule),
            Say::Hits { .. } | Say::Refused { .. } => {}
        }
        self.noted.push((place, Note::Step(step)));
        match say {
            Say::Refused { wait } => {
                let exceeded = Exceeded::Quota { allowance: rule.allowance(mesh.rate), wait };
                self.exceeded(rule, exceeded, fingerprint, ports)
            }
            Say::Hits { left } => {
                self.taken.push(hits(left.into()));
                Verdict::Admit
            }
            _ => Verdict::Admit,
        }
    }

    /// The engine is silent: the safe bucket, then `on_error`.
    fn fall_back(
        &mut self,
        place: usize,
        (rule, mesh): (&'r Rule, &'r MeshRule),
        ask: Ask,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Verdict {
        let Some(safe) = mesh.safe else { return on_error(rule, mesh.settings.denies) };
        let ask = Ask { rate: safe, ..ask };
        match self.take(place, rule, ask, worker, ports) {
            Take::Admitted { remaining } => {
                self.noted.push((place, Note::Step(Step::Safe)));
                self.taken.push(Taken { rule: place, ask, remaining, is_hit: false });
                Verdict::Admit
            }
            Take::Refused { wait } if mesh.settings.denies => {
                self.noted.push((place, Note::Step(Step::Safe)));
                let exceeded = Exceeded::Quota { allowance: rule.allowance(safe), wait };
                self.exceeded(rule, exceeded, ask.fingerprint, ports)
            }
            Take::Refused { .. } => on_error(rule, false),
            Take::Failed => failed(rule),
        }
    }

    /// Nothing is decided: what buckets gave goes back, what engines granted is kept for the request.
    pub fn wait(
        mut self,
        place: usize,
        token: u32,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Decision {
        let Some(mesh) = self.rules.get(place).and_then(|rule| rule.mesh.as_ref()) else {
            return Decision::default();
        };
        let granted = self.taken.extract_if(.., |item| item.is_hit);
        let granted: Vec<usize> = granted.map(|item| item.rule).collect();
        self.give_back(worker, ports);
        let first = self.moment.steady.saturating_add(mesh.settings.timeout);
        let until = self.waited.map_or(first, |waited| waited.waiting.until);
        let waiting = Waiting { token, rule: place, until, granted };
        Decision {
            effects: Effects { waits_for: Some(token), ..Effects::default() },
            response: Some(ResponsePlan { waiting: Some(waiting), ..ResponsePlan::default() }),
        }
    }
}
