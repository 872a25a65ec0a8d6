//! The section `rate_limit` of a policy, at work.

use weir_protos::FieldError;
use weir_protos::v1::at_limit::QuotaHeaders;
use weir_protos::v1::{Policy, direction, mode};

use super::bucket::{Buckets, Effort, Take};
use super::crew::Crew;
use super::gcra::Rate;
use super::metrics::{Counters, Outcome, SERIES_PER_RULE};
use super::reply::{draft_03, limit_item, policy_item, state_unavailable};
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
use crate::core::ports::{Clock, Metrics, Nanos, Ports, Rng, SharedStore};
use crate::core::reply::{LocalReply, trace_id};
use crate::core::request::Request;
use crate::core::rules::{Ids, check_unindexed};

/// More rules than this are a mistake, or work for a service.
const MAX_RULES: usize = 10_000;

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
    /// The edits, given what the upstream sent. Quota headers of the upstream's stay where they are
    /// the stricter ones: an intermediary should not loosen them
    /// (draft-ietf-httpapi-ratelimit-headers-10, section 6.3).
    pub fn edits(self, upstream: &HeaderMap) -> Vec<HeaderEdit> {
        let mut edits: Vec<HeaderEdit> =
            self.headers.into_iter().map(|(name, value)| HeaderEdit::Set(name, value)).collect();
        let Some(quota) = self.quota else { return edits };
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
    /// When the policy came into force.
    since: Nanos,
    // Kept for their memory: the candidates and the tokens of the request in hand.
    found: Vec<u32>,
    taken: Vec<Taken>,
}

/// A token taken for the request in hand.
#[derive(Clone, Copy, Debug)]
struct Taken {
    rule: usize,
    fingerprint: Fingerprint,
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
            labelled: (common.max_series / SERIES_PER_RULE) as usize,
            mark: format!("weir.charged.{}", common.identity.state_prefix),
            splits: rules.iter().any(|rule| rule.scope == RuleScope::Worker(None)),
            since: 0,
            found: Vec::new(),
            taken: Vec::new(),
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
        self.since = ports.now();
        for rule in &mut self.rules {
            if !rule.key.is_empty() {
                rule.before = resize(&rule.state, rule.sets, rule.rate, self.since, ports);
            } else if rule.scope == RuleScope::Process {
                buckets(rule, 1, self.since).prepare(ports);
            }
        }
    }

    pub fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Decision {
        let Limiter { common, rules, index, counters, crew, mark, found, taken, since, .. } = self;
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
        if headers.get(b"x-envoy-original-url").is_some()
            && ports.attribute(mark.as_bytes()).is_some()
        {
            counters.redirected();
            return Decision::default();
        }
        let Some(secret) = worker.secret(ports) else { return Decision::default() };
        let now = ports.now();
        crew.serve(now, ports);
        taken.clear();
        let workers = crew.count();
        let bench = Bench { rules, found, taken, counters, workers, since: *since, secret, now };
        bench.decide(worker, &mut request, ports)
    }

    /// Slow work, ten times a second: idle leases, the count of workers, metrics.
    pub fn tick(&mut self, ports: &mut (impl Ports + Metrics)) {
        let now = ports.now();
        if !self.rules.is_empty() {
            self.crew.tick(self.splits, now, ports);
        }
        self.flush(ports);
    }

    /// Writes the counters that have gathered.
    pub fn flush(&mut self, metrics: &mut impl Metrics) {
        let Limiter { rules, counters, labelled, common, .. } = self;
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
    counters: &'r mut Counters,
    workers: u32,
    since: Nanos,
    secret: Secret,
    now: Nanos,
}

/// What a rule says to a request.
enum Verdict {
    /// A token was taken.
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
        for item in &*self.taken {
            self.counters.record(item.rule, Outcome::Admitted);
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
        let fingerprint = match rule.key.of(request, ports, &self.secret, rule.scope_of_keys) {
            KeyOutcome::Found(fingerprint) => fingerprint,
            KeyOutcome::Skip => return Verdict::Pass(Outcome::Skipped),
            KeyOutcome::Reject if enforces => return Verdict::Refuse(Refusal::MissingKey),
            KeyOutcome::Reject => return Verdict::Pass(Outcome::ShadowLimited),
        };
        let (buckets, leases, now) = (self.buckets(rule), &mut worker.leases, self.now);
        let mut effort = Effort::default();
        let take = match rule.scope {
            RuleScope::Process => buckets.take(fingerprint, now, ports, leases, &mut effort),
            RuleScope::Worker(_) => {
                buckets.take(fingerprint, now, &mut worker.local, leases, &mut effort)
            }
        };
        self.counters.effort(place, effort.contention, effort.evictions);
        match take {
            Take::Admitted { remaining } => {
                self.taken.push(Taken { rule: place, fingerprint, remaining });
                Verdict::Admit
            }
            Take::Refused { wait } => {
                let share = if rule.key.is_empty() { ports.random() } else { fingerprint };
                if enforces && sticky_share(share) < rule.enforced {
                    Verdict::Refuse(Refusal::Limit { wait, rate: buckets.rate })
                } else {
                    Verdict::Pass(Outcome::ShadowLimited)
                }
            }
            Take::Failed if enforces && rule.denies_on_error => {
                Verdict::Refuse(Refusal::Unavailable)
            }
            Take::Failed => Verdict::Pass(Outcome::ErrorAllowed),
        }
    }

    fn buckets(&self, rule: &'r Rule) -> Buckets<'r> {
        buckets(rule, self.workers, self.since)
    }

    /// A refusal takes nothing: what other rules gave goes back before the reply.
    fn give_back(&self, worker: &mut Worker, store: &mut impl SharedStore) {
        for item in &*self.taken {
            let Some(rule) = self.rules.get(item.rule) else { continue };
            let (buckets, leases) = (self.buckets(rule), &mut worker.leases);
            match rule.scope {
                RuleScope::Process => buckets.give_back(item.fingerprint, self.now, store, leases),
                RuleScope::Worker(_) => {
                    buckets.give_back(item.fingerprint, self.now, &mut worker.local, leases);
                }
            }
        }
    }

    /// Quota headers of the rules that want them on every response.
    fn quota(&self) -> Option<Quota> {
        let mut quota: Option<Quota> = None;
        for item in &*self.taken {
            let Some(rule) = self.rules.get(item.rule) else { continue };
            if rule.at_limit.quota_headers != QuotaHeaders::Always {
                continue;
            }
            let rate = rule.rate_for(self.workers);
            let used = rate.max.saturating_sub(item.remaining);
            let reset = seconds(rate.per_token.saturating_mul(used));
            let policy = policy_item(&rule.id, rate);
            let limit = limit_item(&rule.id, item.remaining, reset);
            let draft_03 = || draft_03(&rule.id, rate, item.remaining, reset).to_vec();
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

impl Decision {
    /// What the access log will say.
    fn say(&mut self, word: &str, rule: &Rule) {
        self.effects.state = Some(format!("{word} rule={}", rule.id));
    }
}

fn buckets(rule: &Rule, workers: u32, since: Nanos) -> Buckets<'_> {
    let shared_by = match rule.scope {
        RuleScope::Process => workers.max(1),
        RuleScope::Worker(_) => 0,
    };
    let (state, rate) = (&rule.state, rule.rate_for(workers));
    Buckets { rule: state, sets: rule.sets, rate, since, before: rule.before, workers: shared_by }
}

enum Refusal {
    Limit { wait: Nanos, rate: Rate },
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
        Refusal::Limit { wait, rate } => {
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
                    let refusal = rule.at_limit.refusal(&rule.id, rate, wait, client, random);
                    reply(Outcome::Limited, "limited", refusal)
                }
            }
        }
    }
}

#[cfg(any(test, feature = "sim"))]
#[path = "look.rs"]
mod look;
#[cfg(any(test, feature = "sim"))]
pub use look::{Level, Look};

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
