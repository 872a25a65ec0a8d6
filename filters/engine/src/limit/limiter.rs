//! The section `rate_limit` of a policy, at work.

use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::at_limit::QuotaHeaders;
use weir_protos::v1::{Policy, direction, mode};

use super::bucket::{Ask, Bill, Buckets, Effort, Take};
use super::calendar::{Filling, Moment};
use super::cost::ResponseCost;
use super::crew::Crew;
use super::flight::{Flight, Start};
use super::metrics::{Counters, Outcome};
use super::overrides::Terms;
use super::reply::{Exceeded, draft_03, limit_item, policy_item, state_unavailable};
use super::rule::{Rule, RuleScope};
use super::table::resize;
use super::worker::Worker;
use crate::core::answer::{
    Client, Degrade, DegradeWay, RESOURCE_EXHAUSTED, degraded, missing_key, seconds,
};
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::index::Index;
use crate::core::key::{Fingerprint, KeyOutcome, Secret, sticky_share};
use crate::core::policy::Common;
use crate::core::ports::{Clock, Metrics, Nanos, Ports, Rng, SharedStore, labels as labels_of};
use crate::core::reply::{LocalReply, trace_id};
use crate::core::request::Request;
use crate::core::rules::{Ids, check_unindexed};

/// More rules than this are a mistake, or work for a service.
const MAX_RULES: usize = 10_000;

/// How often the gauge of requests in flight is renewed. 0.5 s.
const TELL_FLIGHTS: Nanos = 500_000_000;

/// What is to be done with a request, and with its response.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    pub effects: Effects,
    /// What the response headers will need, where they need anything.
    pub response: Option<ResponsePlan>,
}

#[derive(Debug, Default, PartialEq)]
pub struct ResponsePlan {
    pub headers: Vec<(String, String)>,
    pub quota: Option<Quota>,
    /// What the response will say of the cost.
    pub bills: Vec<PendingBill>,
    /// What is in flight until the stream ends.
    pub flights: Vec<HeldFlight>,
}

#[derive(Debug, PartialEq)]
pub struct HeldFlight {
    flight: Flight,
    /// It ends as well when the stream becomes a tunnel.
    ends_with_upgrade: Option<Upgrade>,
}

/// What the request asks to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Upgrade,
    Connect,
}

#[derive(Debug, PartialEq)]
pub struct PendingBill {
    bill: Bill,
    cost: Rc<ResponseCost>,
    /// The bucket is the worker's own.
    is_local: bool,
}

/// Quota headers for a response that goes through.
#[derive(Debug, PartialEq)]
pub struct Quota {
    pub policy: String,
    pub limit: String,
    /// The fewest tokens left under any of the rules.
    pub remaining: u64,
    pub draft_03: Vec<(String, String)>,
}

impl ResponsePlan {
    /// Whether the plan depends on what the upstream sent.
    pub fn reads_response(&self) -> bool {
        let may_upgrade = |held: &HeldFlight| held.ends_with_upgrade.is_some();
        self.quota.is_some() || !self.bills.is_empty() || self.flights.iter().any(may_upgrade)
    }

    /// Ends what is in flight, when the stream is over.
    pub fn end(self, worker: &mut Worker, ports: &mut (impl SharedStore + Clock)) {
        for held in &self.flights {
            worker.flights.end(&held.flight, ports.now(), ports);
        }
    }

    fn end_upgraded(
        &mut self,
        worker: &mut Worker,
        upstream: &HeaderMap,
        ports: &mut (impl SharedStore + Clock),
    ) {
        let status = upstream.get(b":status").unwrap_or_default();
        let is_tunnel = |upgrade| match upgrade {
            Upgrade::Upgrade => status == b"101",
            Upgrade::Connect => status.first() == Some(&b'2'),
        };
        let upgraded = |held: &mut HeldFlight| held.ends_with_upgrade.is_some_and(is_tunnel);
        for held in self.flights.extract_if(.., upgraded) {
            worker.flights.end(&held.flight, ports.now(), ports);
        }
    }

    /// Charges what the response says that it cost, and gives its edits.
    pub fn respond(
        &mut self,
        worker: &mut Worker,
        upstream: &HeaderMap,
        ports: &mut (impl SharedStore + Clock),
    ) -> Vec<HeaderEdit> {
        if self.flights.iter().any(|held| held.ends_with_upgrade.is_some()) {
            self.end_upgraded(worker, upstream, ports);
        }
        if !self.bills.is_empty() {
            let moment = Moment { steady: ports.now(), wall: ports.wall() };
            for PendingBill { bill, cost, is_local } in std::mem::take(&mut self.bills) {
                let Some(cost) = cost.of(&bill, upstream) else { continue };
                if is_local {
                    bill.settle(cost, moment, &mut worker.local);
                } else if !bill.settle(cost, moment, ports) {
                    worker.settle_later(bill, cost);
                }
            }
        }
        self.edits(upstream)
    }

    /// The edits, given what the upstream sent. Quota headers of the upstream's stay where they are
    /// the stricter ones: an intermediary should not loosen them
    /// (draft-ietf-httpapi-ratelimit-headers-10, section 6.3).
    fn edits(&mut self, upstream: &HeaderMap) -> Vec<HeaderEdit> {
        let headers = std::mem::take(&mut self.headers).into_iter();
        let mut edits: Vec<HeaderEdit> =
            headers.map(|(name, value)| HeaderEdit::Set(name, value)).collect();
        let Some(quota) = self.quota.take() else { return edits };
        let stricter = |name: &[u8], read: fn(&[u8]) -> Option<u64>| {
            upstream.all(name).filter_map(read).any(|remaining| remaining <= quota.remaining)
        };
        if !stricter(b"ratelimit", fewest_remaining) {
            edits.push(HeaderEdit::Set("ratelimit-policy".into(), quota.policy));
            edits.push(HeaderEdit::Set("ratelimit".into(), quota.limit));
        }
        if !stricter(b"x-ratelimit-remaining", number) {
            edits.extend(
                quota.draft_03.into_iter().map(|(name, value)| HeaderEdit::Set(name, value)),
            );
        }
        edits
    }
}

/// The least `r` of the items of a `RateLimit` field.
fn fewest_remaining(field: &[u8]) -> Option<u64> {
    let parameters = field.split(|byte| matches!(byte, b',' | b';'));
    parameters.filter_map(|part| number(part.trim_ascii().strip_prefix(b"r=")?)).min()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

pub struct Limiter {
    common: Common,
    rules: Vec<Rule>,
    index: Index,
    counters: Counters,
    crew: Crew,
    /// Rules with this number or a higher one share a label.
    labelled: usize,
    /// Attribute that marks a request as charged.
    mark: String,
    splits: bool,
    /// Rules that count what is in flight, and when the count was last told.
    counts_flights: Vec<usize>,
    told_at: Option<Nanos>,
    /// Rules whose costs are headers.
    priced: Vec<usize>,
    /// When the policy came into force.
    since: Moment,
    // Kept for their memory: the candidates and the tokens of the request in hand.
    found: Vec<u32>,
    taken: Vec<Taken>,
    allowed: Vec<usize>,
    flights: Vec<HeldFlight>,
}

/// A token taken for the request in hand.
#[derive(Clone, Copy, Debug)]
struct Taken {
    rule: usize,
    ask: Ask,
    remaining: u64,
}

impl Limiter {
    /// `plugin` is the name under which Envoy runs the filter; `vm` tells this worker from others.
    pub fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Limiter, FieldError> {
        let common = Common::compile(policy, plugin)?;
        let section = policy.rate_limit()?;
        let path = "policy.rate_limit";
        if section.mesh.is_some() {
            let remedy = "is not built in this version; remove it";
            return Err(FieldError::at(format!("{path}.mesh"), remedy));
        }
        if section.rules.len() > MAX_RULES {
            let remedy = "rules: must be at most 10000";
            return Err(FieldError::value(format!("{path}.rules"), section.rules.len(), remedy));
        }
        let defaults = common.match_defaults(direction::Value::Inbound);
        let mut ids = Ids::default();
        let mut rules = Vec::with_capacity(section.rules.len());
        for (place, rule) in section.rules.iter().enumerate() {
            let path = format!("{path}.rules[{place}]");
            let compiled = Rule::compile(rule, &path, &common, section.mode(), &defaults)?;
            ids.insert(&rule.id, place, &path)?;
            rules.extend(compiled);
        }
        let index = Index::build(rules.iter().map(|rule| &rule.matcher));
        let id = |rule: usize| rules.get(rule).map(|rule| rule.id.as_str());
        check_unindexed(&index, id, &format!("{path}.rules"))?;
        Ok(Limiter {
            counters: Counters::new(rules.len()),
            crew: Crew::new(&common.identity.state_prefix, vm),
            labelled: labelled(&rules, common.max_series),
            mark: format!("weir.charged.{}", common.identity.state_prefix),
            splits: rules.iter().any(|rule| rule.scope == RuleScope::Worker(None)),
            counts_flights: (0..rules.len())
                .filter(|rule| rules.get(*rule).is_some_and(|rule| rule.in_flight.is_some()))
                .collect(),
            told_at: None,
            priced: (0..rules.len())
                .filter(|rule| rules.get(*rule).is_some_and(|rule| rule.cost.reads_headers()))
                .collect(),
            since: Moment { steady: 0, wall: 0 },
            found: Vec::new(),
            taken: Vec::new(),
            allowed: Vec::new(),
            flights: Vec::new(),
            rules,
            index,
            common,
        })
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// The attribute that marks a request as charged; it has to live as long as the request.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Makes what workers would otherwise race to make: the process secret, and the buckets of
    /// rules without a key, full as they would be found. To be called while a policy is configured:
    /// that happens on the main thread before any worker sees the policy. What is there already is
    /// never touched.
    pub fn prepare(&mut self, worker: &mut Worker, ports: &mut (impl SharedStore + Rng + Clock)) {
        worker.prepare(ports);
        let since = Moment { steady: ports.now(), wall: ports.wall() };
        self.since = since;
        for rule in &mut self.rules {
            if let Some(in_flight) = &rule.in_flight {
                in_flight.place.prepare(ports);
            }
            if !rule.has_bucket {
                continue;
            }
            if !rule.key.is_empty() {
                rule.before = resize(&rule.state, rule.sets, rule.fill_time(), since.steady, ports);
            } else if rule.scope == RuleScope::Process {
                buckets(rule, 1, since, since).prepare(ports);
            }
        }
    }

    pub fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Decision {
        let Limiter {
            common,
            rules,
            index,
            counters,
            crew,
            mark,
            found,
            taken,
            allowed,
            flights,
            since,
            counts_flights,
            ..
        } = self;
        let mut request = Request::new(headers);
        index.candidates(&request, found);
        if found.is_empty() {
            return Decision::default();
        }
        if common.is_exempt(&mut request, ports) {
            counters.exempt();
            return Decision::default();
        }
        // Envoy sets this header when a redirect of the upstream's makes it run the chain again,
        // but a client inside the mesh may set it as well: only the mark proves it.
        let is_redirected = headers.get(b"x-envoy-original-url").is_some()
            && ports.attribute(mark.as_bytes()).is_some();
        if is_redirected {
            counters.redirected();
            // It is charged already, but its first flight is over.
            if counts_flights.is_empty() {
                return Decision::default();
            }
        }
        let Some(secret) = worker.secret(ports) else { return Decision::default() };
        let now = ports.now();
        crew.serve(now, ports);
        taken.clear();
        allowed.clear();
        flights.clear();
        let bench = Bench {
            workers: crew.count(),
            since: *since,
            moment: since.after(now),
            has_wall: false,
            is_redirected,
            rules,
            found,
            taken,
            allowed,
            flights,
            counters,
            secret,
        };
        bench.decide(worker, &mut request, ports)
    }

    /// Slow work, ten times a second: idle leases, the count of workers, metrics.
    pub fn tick(&mut self, ports: &mut (impl Ports + Metrics)) {
        let now = ports.now();
        if !self.rules.is_empty() {
            self.crew.tick(self.splits, now, ports);
        }
        self.tell_flights(now, ports);
        self.flush(ports);
    }

    /// How many requests are in flight under each rule that limits them: of all workers together, as
    /// they have told.
    fn tell_flights(&mut self, now: Nanos, ports: &mut (impl SharedStore + Metrics)) {
        if self.told_at.is_some_and(|at| now.abs_diff(at) < TELL_FLIGHTS) {
            return;
        }
        self.told_at = Some(now);
        for place in &self.counts_flights {
            let Some(rule) = self.rules.get(*place) else { continue };
            let total = rule.in_flight.as_ref().and_then(|it| it.place.total(now, ports));
            if let Some(total) = total.filter(|_| *place < self.labelled) {
                let labels = [("policy", &*self.common.identity.policy), ("rule", &*rule.id)];
                ports.gauge(&format!("{}weir_rate_limit_in_flight", labels_of(&labels)), total);
            }
        }
    }

    /// Writes the counters that have gathered.
    pub fn flush(&mut self, metrics: &mut impl Metrics) {
        let Limiter { rules, counters, labelled, common, priced, .. } = self;
        for (place, rule) in priced.iter().filter_map(|rule| Some((*rule, rules.get(*rule)?))) {
            counters.bad_costs(place, rule.cost.take_odd());
        }
        let label = |rule: usize| match rules.get(rule) {
            Some(rule_at) if rule < *labelled => rule_at.id.as_str(),
            _ => "other",
        };
        counters.flush(&common.identity.policy, label, metrics);
    }
}

/// All that one decision works with.
struct Bench<'r> {
    rules: &'r [Rule],
    found: &'r [u32],
    taken: &'r mut Vec<Taken>,
    /// Rules that let the request pass without a token.
    allowed: &'r mut Vec<usize>,
    flights: &'r mut Vec<HeldFlight>,
    counters: &'r mut Counters,
    workers: u32,
    since: Moment,
    moment: Moment,
    /// The wall clock was read; else it is as far on as the steady one.
    has_wall: bool,
    /// The request was charged when it came the first time.
    is_redirected: bool,
    secret: Secret,
}

/// What a rule says to a request.
enum Verdict {
    /// A token was taken, or the key needs none.
    Admit,
    /// The rule has no say, for the reason that is counted.
    Pass(Outcome),
    Refuse(Refusal),
}

impl<'r> Bench<'r> {
    fn decide(
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
                Verdict::Pass(outcome) => {
                    self.counters.record(place, outcome);
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
                    self.counters.record(place, refused.outcome);
                    decision.say(refused.word, rule);
                    match refused.action {
                        Action::Reply(reply) => {
                            self.give_back(worker, ports);
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
        decision.effects.is_charged = !self.taken.is_empty();
        let admitted = self.taken.iter().map(|item| item.rule);
        for rule in admitted.chain(self.allowed.iter().copied()) {
            self.counters.record(rule, Outcome::Admitted);
        }
        let bills = self.bills();
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

    fn ask(
        &mut self,
        place: usize,
        rule: &'r Rule,
        worker: &mut Worker,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Verdict {
        let enforces = rule.mode == mode::Value::Enforce;
        let (key, terms) = self.key(rule, request, ports);
        let fingerprint = match key {
            KeyOutcome::Found(fingerprint) => fingerprint,
            KeyOutcome::Skip => return Verdict::Pass(Outcome::Skipped),
            KeyOutcome::Reject if enforces => return Verdict::Refuse(Refusal::MissingKey),
            KeyOutcome::Reject => return Verdict::Pass(Outcome::ShadowLimited),
        };
        let headers = request.headers;
        let reserve = |most: u64| {
            rule.priority.as_ref().map_or(0, |priority| priority.reserve(headers, most))
        };
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
                    self.taken.push(Taken { rule: place, ask, remaining });
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
            let upgrade = upgrade(request).filter(|_| in_flight.excludes_upgrades);
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

    fn take(
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
            RuleScope::Process => buckets.take(ask, ports, leases, &mut effort),
            RuleScope::Worker(_) => buckets.take(ask, &mut worker.local, leases, &mut effort),
        };
        self.counters.effort(place, effort.contention, effort.evictions);
        take
    }

    /// The limit is met: whether the request feels it.
    fn exceeded(
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
        let key = rule.key.of_shown(request, ports, secret, scope, |part, value| {
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
    fn give_back(&mut self, worker: &mut Worker, ports: &mut impl Ports) {
        for item in &*self.taken {
            self.return_token(item, worker, ports);
        }
        for held in self.flights.drain(..) {
            worker.flights.end(&held.flight, self.moment.steady, ports);
        }
    }

    fn return_token(&self, item: &Taken, worker: &mut Worker, store: &mut impl SharedStore) {
        let Some(rule) = self.rules.get(item.rule) else { return };
        let (buckets, leases) = (self.buckets(rule), &mut worker.leases);
        match rule.scope {
            RuleScope::Process => buckets.give_back(item.ask, store, leases),
            RuleScope::Worker(_) => buckets.give_back(item.ask, &mut worker.local, leases),
        }
    }

    /// What the response is to tell the cost of.
    fn bills(&self) -> Vec<PendingBill> {
        let billed = self.taken.iter().filter_map(|item| {
            let rule = self.rules.get(item.rule)?;
            let cost = Rc::clone(rule.cost.of_response()?);
            let bill = self.buckets(rule).bill(item.ask, cost.max_debt);
            Some(PendingBill { bill, cost, is_local: rule.scope != RuleScope::Process })
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
fn failed(rule: &Rule) -> Verdict {
    if rule.mode == mode::Value::Enforce && rule.denies_on_error {
        Verdict::Refuse(Refusal::Unavailable)
    } else {
        Verdict::Pass(Outcome::ErrorAllowed)
    }
}

fn upgrade(request: &Request<'_>) -> Option<Upgrade> {
    if request.method == b"CONNECT" {
        return Some(Upgrade::Connect);
    }
    request.headers.get(b"upgrade").map(|_| Upgrade::Upgrade)
}

impl Decision {
    /// What the access log will say.
    fn say(&mut self, word: &str, rule: &Rule) {
        self.effects.state = Some(format!("{word} rule={}", rule.id));
    }
}

/// How many rules have a label of their own in metrics.
fn labelled(rules: &[Rule], max_series: u32) -> usize {
    let within = |series: &mut u32, rule: &Rule| {
        *series = series.saturating_add(rule.series());
        Some(*series <= max_series)
    };
    rules.iter().scan(0, within).take_while(|fits| *fits).count()
}

fn buckets(rule: &Rule, workers: u32, since: Moment, moment: Moment) -> Buckets<'_> {
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

enum Refusal {
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

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
