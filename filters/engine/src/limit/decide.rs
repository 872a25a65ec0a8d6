//! One decision: a request meets the rules in order.

use std::rc::Rc;

use weir_protos::v1::at_limit::QuotaHeaders;
use weir_protos::v1::mode;

use super::bucket::{Ask, Buckets, Effort, Take};
use super::calendar::{Filling, Moment};
use super::flight::Start;
use super::mesh::Answered;
use super::metrics::{Counters, Outcome, Step};
use super::overrides::Terms;
use super::plan::{Decision, HeldFlight, PendingBill, Quota, Upgrade, Waiting};
use super::reply::{Exceeded, draft_03, limit_item, policy_item, state_unavailable};
use super::rule::{Rule, RuleScope};
use super::worker::Worker;
use crate::core::answer::{
    Client, Degrade, DegradeWay, RESOURCE_EXHAUSTED, degraded, missing_key, seconds,
};
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::key::{Fingerprint, KeyOutcome, Secret, sticky_share};
use crate::core::ports::{Ports, SharedStore};
use crate::core::reply::{LocalReply, trace_id};
use crate::core::request::Request;

/// A token taken for the request in hand.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub rule: usize,
    pub ask: Ask,
    pub remaining: u64,
    /// A hit of an engine's, not a token of a bucket.
    pub is_hit: bool,
}

/// What is counted once the request is decided.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    Outcome(Outcome),
    Step(Step),
}

/// A request that has waited for an engine.
#[derive(Debug)]
pub struct Waited {
    pub waiting: Waiting,
    pub answered: Answered,
}

/// All that one decision works with.
pub struct Bench<'r> {
    pub rules: &'r [Rule],
    pub found: &'r [u32],
    pub taken: &'r mut Vec<Taken>,
    /// Rules that let the request pass without a token.
    pub allowed: &'r mut Vec<usize>,
    pub flights: &'r mut Vec<HeldFlight>,
    pub counters: &'r mut Counters,
    pub noted: &'r mut Vec<(usize, Note)>,
    pub waited: Option<Waited>,
    pub workers: u32,
    pub since: Moment,
    pub moment: Moment,
    /// The wall clock was read; else it is as far on as the steady one.
    pub has_wall: bool,
    /// The request was charged when it came the first time.
    pub is_redirected: bool,
    /// What its response will tell the cost of.
    pub owed: Vec<PendingBill>,
    pub secret: Secret,
}

/// What a rule says to a request.
pub enum Verdict {
    /// A token was taken, or the key needs none.
    Admit,
    /// An engine has to answer first.
    Wait(u32),
    /// The rule has no say, for the reason that is counted.
    Pass(Outcome),
    Refuse(Refusal),
}

impl<'r> Bench<'r> {
    pub fn decide(
        mut self,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Decision {
        let mut decision = Decision::default();
        for place in self.found.iter().map(|rule| *rule as usize) {
            let Some(rule) = self.rules.get(place) else { continue };
            if !rule.matcher.matches(request, ports) {
                continue;
            }
            match self.ask(place, rule, worker, request, ports) {
                Verdict::Admit => {}
                Verdict::Wait(token) => return self.wait(place, token, worker, ports),
                Verdict::Pass(outcome) => {
                    self.noted.push((place, Note::Outcome(outcome)));
                    match outcome {
                        Outcome::ShadowLimited => decision.say("shadow", rule),
                        Outcome::ErrorAllowed => decision.say("error", rule),
                        // The rule does not apply, so it does not end the search either.
                        _ => continue,
                    }
                }
                Verdict::Refuse(refusal) => {
                    let trace_id = trace_id(request);
                    let client = Client { is_grpc: request.is_grpc(), trace_id };
                    let refused = refuse(rule, refusal, client, ports.random());
                    self.noted.push((place, Note::Outcome(refused.outcome)));
                    decision.say(refused.word, rule);
                    match refused.action {
                        Action::Reply(reply) => {
                            self.give_back(worker, ports);
                            self.count();
                            let state = decision.effects.state;
                            let effects =
                                Effects { reply: Some(reply), state, ..Effects::default() };
                            return Decision { effects, response: None };
                        }
                        Action::GoOn { request_header, response_header } => {
                            let (name, value) = request_header;
                            decision.effects.headers.push(HeaderEdit::Set(name, value));
                            decision.response.get_or_insert_default().headers.push(response_header);
                        }
                    }
                }
            }
            if rule.stops {
                break;
            }
        }
        self.count();
        decision.effects.is_charged = !self.taken.is_empty();
        let admitted = self.taken.iter().map(|item| item.rule);
        for rule in admitted.chain(self.allowed.iter().copied()) {
            self.counters.record(rule, Outcome::Admitted);
        }
        let mut bills = self.bills();
        bills.append(&mut self.owed);
        if !bills.is_empty() {
            decision.response.get_or_insert_default().bills = bills;
        }
        if !self.flights.is_empty() {
            let plan = decision.response.get_or_insert_default();
            plan.flights = std::mem::take(self.flights);
        }
        if let Some(quota) = self.quota() {
            decision.response.get_or_insert_default().quota = Some(quota);
        }
        decision
    }

    fn count(&mut self) {
        for (place, note) in self.noted.drain(..) {
            match note {
                Note::Outcome(outcome) => self.counters.record(place, outcome),
                Note::Step(step) => self.counters.step(place, step),
            }
        }
    }

    fn ask(
        &mut self,
        place: usize,
        rule: &'r Rule,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Verdict {
        if self.is_redirected && rule.in_flight.is_none() {
            // It had its say when the request came the first time.
            return Verdict::Admit;
        }
        let enforces = rule.mode == mode::Value::Enforce;
        let (key, terms) = self.key(rule, request, ports);
        let fingerprint = match key {
            KeyOutcome::Found(fingerprint) => fingerprint,
            KeyOutcome::Skip => return Verdict::Pass(Outcome::Skipped),
            KeyOutcome::Reject if enforces => return Verdict::Refuse(Refusal::MissingKey),
            KeyOutcome::Reject => return Verdict::Pass(Outcome::ShadowLimited),
        };
        let headers = request.headers;
        let reserve = |most: u64| rule.reserve(headers, most);
        let rate = match terms {
            Some(Terms::Unlimited) => {
                if !self.is_redirected {
                    self.allowed.push(place);
                }
                return Verdict::Admit;
            }
            Some(Terms::Rate(rate)) => rate,
            None => rule.rate,
        };
        if let Some(mesh) = &rule.mesh {
            return self.ask_engine(place, (rule, mesh), fingerprint, worker, request, ports);
        }
        if rule.has_bucket && !self.is_redirected {
            let rate = rule.share_of(rate, self.workers);
            let ask = Ask {
                fingerprint,
                rate,
                tokens: rule.cost.of_request(request.headers),
                reserve: reserve(rate.max),
            };
            match self.take(place, rule, ask, worker, ports) {
                Take::Admitted { remaining } => {
                    self.taken.push(Taken { rule: place, ask, remaining, is_hit: false });
                }
                Take::Refused { wait } => {
                    let allowance = rule.allowance(ask.rate);
                    return self.exceeded(
                        rule,
                        Exceeded::Quota { allowance, wait },
                        fingerprint,
                        ports,
                    );
                }
                Take::Failed => return failed(rule),
            }
        } else if !self.is_redirected {
            self.allowed.push(place);
        }
        let Some(in_flight) = &rule.in_flight else { return Verdict::Admit };
        let most = rule.most_in_flight(in_flight.most, self.workers);
        let most = most.saturating_sub(u32::try_from(reserve(most.into())).unwrap_or(u32::MAX));
        let (now, mut contention) = (self.moment.steady, 0);
        let (start, flight) =
            worker.flights.start(&in_flight.place, fingerprint, most, now, ports, &mut contention);
        self.counters.effort(place, contention, 0);
        if let Some(flight) = flight {
            let upgrade = Upgrade::of(request).filter(|_| in_flight.excludes_upgrades);
            self.flights.push(HeldFlight { flight, ends_with_upgrade: upgrade });
            return Verdict::Admit;
        }
        // The token of this very rule was not spent after all.
        if let Some(item) = self.taken.pop_if(|item| item.rule == place) {
            self.return_token(&item, worker, ports);
        }
        self.allowed.pop_if(|rule| *rule == place);
        match start {
            Start::Full => self.exceeded(rule, Exceeded::InFlight { most }, fingerprint, ports),
            _ => failed(rule),
        }
    }

    pub fn take(
        &mut self,
        place: usize,
        rule: &'r Rule,
        ask: Ask,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Take {
        if rule.filling != Filling::Steady && !std::mem::replace(&mut self.has_wall, true) {
            self.moment.wall = ports.wall();
        }
        let (buckets, leases) = (self.buckets(rule), &mut worker.leases);
        let mut effort = Effort::default();
        let take = match rule.scope {
            RuleScope::Process | RuleScope::Mesh => buckets.take(ask, ports, leases, &mut effort),
            RuleScope::Worker(_) => buckets.take(ask, &mut worker.local, leases, &mut effort),
        };
        self.counters.effort(place, effort.contention, effort.evictions);
        take
    }

    /// The limit is met: whether the request feels it.
    pub fn exceeded(
        &self,
        rule: &Rule,
        exceeded: Exceeded,
        fingerprint: Fingerprint,
        ports: &mut impl Ports,
    ) -> Verdict {
        let share = if rule.key.is_empty() { ports.random() } else { fingerprint };
        if rule.mode == mode::Value::Enforce && sticky_share(share) < rule.enforced {
            Verdict::Refuse(Refusal::Limit(exceeded))
        } else {
            Verdict::Pass(Outcome::ShadowLimited)
        }
    }

    /// The key of the request, and what an override says of it.
    fn key(
        &self,
        rule: &'r Rule,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> (KeyOutcome, Option<Terms>) {
        let (secret, scope) = (&self.secret, rule.scope_of_keys);
        let Some(overrides) = &rule.overrides else {
            return (rule.key.of(request, ports, secret, scope), None);
        };
        let mut terms = None;
        let key = rule.key.of_shown(request, ports, secret, scope, &mut |part, value| {
            if part == overrides.part() {
                terms = overrides.find(value);
            }
        });
        (key, terms)
    }

    fn buckets(&self, rule: &'r Rule) -> Buckets<'r> {
        buckets(rule, self.workers, self.since, self.moment)
    }

    /// A refusal takes nothing: what other rules gave goes back before the reply.
    pub fn give_back(&mut self, worker: &mut Worker, ports: &mut impl Ports) {
        for item in &*self.taken {
            self.return_token(item, worker, ports);
        }
        for held in self.flights.drain(..) {
            worker.flights.end(&held.flight, self.moment.steady, ports);
        }
    }

    fn return_token(&self, item: &Taken, worker: &mut Worker, store: &mut impl SharedStore) {
        let Some(rule) = self.rules.get(item.rule) else { return };
        if let Some(mesh) = rule.mesh.as_ref().filter(|_| item.is_hit) {
            return self.query(rule, mesh, item.ask).give_back(store);
        }
        let (buckets, leases) = (self.buckets(rule), &mut worker.leases);
        match rule.scope {
            RuleScope::Process | RuleScope::Mesh => buckets.give_back(item.ask, store, leases),
            RuleScope::Worker(_) => buckets.give_back(item.ask, &mut worker.local, leases),
        }
    }

    /// What the response is to tell the cost of.
    fn bills(&self) -> Vec<PendingBill> {
        let billed = self.taken.iter().filter_map(|item| {
            let rule = self.rules.get(item.rule)?;
            let cost = Rc::clone(rule.cost.of_response()?);
            let bill = self.buckets(rule).bill(item.ask, cost.max_debt);
            Some(PendingBill { bill, cost, is_local: matches!(rule.scope, RuleScope::Worker(_)) })
        });
        billed.collect()
    }

    /// Quota headers of the rules that want them on every response.
    fn quota(&self) -> Option<Quota> {
        let mut quota: Option<Quota> = None;
        for item in &*self.taken {
            let Some(rule) = self.rules.get(item.rule) else { continue };
            if rule.at_limit.quota_headers != QuotaHeaders::Always {
                continue;
            }
            let allowance = rule.allowance(item.ask.rate);
            let reset = seconds(
                self.buckets(rule)
                    .reset(item.ask.rate, item.remaining.saturating_add(item.ask.reserve)),
            );
            let policy = policy_item(&rule.id, allowance);
            let limit = limit_item(&rule.id, item.remaining, reset);
            let draft_03 = || draft_03(&rule.id, allowance, item.remaining, reset).to_vec();
            let with_draft_03 = rule.at_limit.draft_03;
            match &mut quota {
                None => {
                    let draft_03 = if with_draft_03 { draft_03() } else { Vec::new() };
                    quota = Some(Quota { policy, limit, remaining: item.remaining, draft_03 });
                }
                Some(quota) => {
                    quota.policy = format!("{}, {policy}", quota.policy);
                    quota.limit = format!("{}, {limit}", quota.limit);
                    // The old headers hold one window: the one closest to its end.
                    let is_closest = item.remaining < quota.remaining || quota.draft_03.is_empty();
                    if with_draft_03 && is_closest {
                        quota.draft_03 = draft_03();
                    }
                    quota.remaining = quota.remaining.min(item.remaining);
                }
            }
        }
        quota
    }
}

/// Shared state could not be had, and the rule decides.
pub fn failed(rule: &Rule) -> Verdict {
    on_error(rule, rule.denies_on_error)
}

pub fn on_error(rule: &Rule, denies: bool) -> Verdict {
    if rule.mode == mode::Value::Enforce && denies {
        Verdict::Refuse(Refusal::Unavailable)
    } else {
        Verdict::Pass(Outcome::ErrorAllowed)
    }
}

impl Decision {
    /// What the access log will say.
    fn say(&mut self, word: &str, rule: &Rule) {
        self.effects.state = Some(format!("{word} rule={}", rule.id));
    }
}

/// The buckets of a rule, for one of so many workers.
pub fn buckets(rule: &Rule, workers: u32, since: Moment, moment: Moment) -> Buckets<'_> {
    let leases = rule.scope == RuleScope::Process && rule.filling == Filling::Steady;
    Buckets {
        rule: &rule.state,
        sets: rule.sets,
        filling: rule.filling,
        rate: rule.share_of(rule.rate, workers),
        since,
        before: rule.before,
        workers: if leases { workers.max(1) } else { 0 },
        moment,
    }
}

pub enum Refusal {
    Limit(Exceeded),
    MissingKey,
    Unavailable,
}

struct Refused {
    outcome: Outcome,
    word: &'static str,
    action: Action,
}

enum Action {
    Reply(LocalReply),
    GoOn { request_header: (String, String), response_header: (String, String) },
}

fn refuse(rule: &Rule, refusal: Refusal, client: Client<'_>, random: u64) -> Refused {
    let reply = |outcome, word, reply| Refused { outcome, word, action: Action::Reply(reply) };
    match refusal {
        Refusal::MissingKey => {
            reply(Outcome::Rejected, "rejected", missing_key("rate limit", &rule.id, client))
        }
        Refusal::Unavailable => {
            reply(Outcome::ErrorDenied, "error", state_unavailable(&rule.id, client))
        }
        Refusal::Limit(exceeded) => {
            let degrade = rule.at_limit.degrade.as_ref();
            if let Some(Degrade { marker, way: DegradeWay::RequestHeader(name, value) }) = degrade {
                let action = Action::GoOn {
                    request_header: (name.clone(), value.clone()),
                    response_header: (marker.clone(), rule.id.clone()),
                };
                return Refused { outcome: Outcome::Degraded, word: "degraded", action };
            }
            match degrade.and_then(|way| degraded(&rule.id, way, RESOURCE_EXHAUSTED, client)) {
                Some(answer) => reply(Outcome::Degraded, "degraded", answer),
                None => {
                    let refusal = rule.at_limit.refusal(&rule.id, exceeded, client, random);
                    reply(Outcome::Limited, "limited", refusal)
                }
            }
        }
    }
}
