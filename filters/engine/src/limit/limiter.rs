//! The section `rate_limit` of a policy, at work.

use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::{Policy, direction};

use super::calendar::Moment;
use super::carried;
use super::crew::Crew;
use super::decide::{Bench, Note, Taken, Waited, buckets};
use super::mesh::Settings;
use super::metrics::{Counters, flush_calls};
use super::plan::{Decision, HeldFlight, Waiting};
use super::rule::{Rule, RuleScope};
use super::table::resize;
use super::worker::Worker;
use crate::core::headers::HeaderMap;
use crate::core::index::Index;
use crate::core::policy::Common;
use crate::core::ports::{Clock, Metrics, Nanos, Ports, Rng, SharedStore, labels as labels_of};
use crate::core::request::Request;
use crate::core::rules::{Ids, check_unindexed};

/// More rules than this are a mistake, or work for a service.
const MAX_RULES: usize = 10_000;

/// How often the gauge of requests in flight is renewed. 0.5 s.
const TELL_FLIGHTS: Nanos = 500_000_000;
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
    noted: Vec<(usize, Note)>,
    /// The engine of rules with `scope: MESH`.
    mesh: Option<Rc<Settings>>,
}

impl Limiter {
    /// `plugin` is the name under which Envoy runs the filter; `vm` tells this worker from others.
    #[cold]
    pub fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Limiter, FieldError> {
        let common = Common::compile(policy, plugin)?;
        let section = policy.rate_limit()?;
        let path = "policy.rate_limit";
        let mesh = section.mesh.as_ref().map(|mesh| {
            let path = format!("{path}.mesh");
            Settings::compile(mesh, &common.identity.state_prefix, &path).map(Rc::new)
        });
        let mesh = mesh.transpose()?;
        if section.rules.len() > MAX_RULES {
            let remedy = "rules: must be at most 10000";
            return Err(FieldError::value(format!("{path}.rules"), section.rules.len(), remedy));
        }
        let defaults = common.match_defaults(direction::Value::Inbound);
        let mut ids = Ids::default();
        let mut rules = Vec::with_capacity(section.rules.len());
        for (place, rule) in section.rules.iter().enumerate() {
            let path = format!("{path}.rules[{place}]");
            let compiled =
                Rule::compile(rule, &path, &common, section.mode(), &defaults, mesh.as_ref())?;
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
            noted: Vec::new(),
            rules,
            index,
            common,
            mesh,
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
                rule.before = resize(&rule.state, rule.sets, rule.extent(), since.steady, ports);
            } else if !matches!(rule.scope, RuleScope::Worker(_)) {
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
        self.run(worker, headers, ports, None)
    }

    /// A request that waited is decided, or has to wait for another answer.
    pub fn resume(
        &mut self,
        waiting: Option<Waiting>,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Decision {
        let waited = waiting.map(|waiting| {
            let answered = worker.desk.answer_to(waiting.token);
            Waited { waiting, answered }
        });
        self.run(worker, headers, ports, waited)
    }

    fn run(
        &mut self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
        waited: Option<Waited>,
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
            noted,
            priced,
            ..
        } = self;
        let mut request = Request::new(headers);
        index.candidates(&request, found);
        if found.is_empty() && priced.is_empty() {
            return Decision::default();
        }
        // Envoy sets this header when a redirect of the upstream's makes it run the chain again,
        // but a client inside the mesh may set it as well: only the mark proves it.
        let mark =
            headers.get(b"x-envoy-original-url").and_then(|_| ports.attribute(mark.as_bytes()));
        // Where it is redirected to, other rules or none may mean it. What it owes stays.
        let bills = mark.as_ref().map_or_else(Vec::new, |mark| {
            carried::read(mark, priced.iter().filter_map(|rule| rules.get(*rule)))
        });
        if found.is_empty() {
            return Decision::owing(bills);
        }
        if common.is_exempt(&mut request, ports) {
            counters.exempt();
            return Decision::owing(bills);
        }
        let is_redirected = mark.is_some();
        if is_redirected {
            counters.redirected();
            // It is charged already, but its first flight is over.
            if counts_flights.is_empty() {
                return Decision::owing(bills);
            }
        }
        let Some(secret) = worker.secret(ports) else { return Decision::owing(bills) };
        let now = ports.now();
        crew.serve(now, ports);
        taken.clear();
        allowed.clear();
        flights.clear();
        noted.clear();
        let bench = Bench {
            workers: crew.count(),
            since: *since,
            moment: since.after(now),
            has_wall: false,
            is_redirected,
            owed: bills,
            rules,
            found,
            taken,
            allowed,
            flights,
            counters,
            noted,
            waited,
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
        let Limiter { rules, counters, labelled, common, priced, mesh, .. } = self;
        for (place, rule) in priced.iter().filter_map(|rule| Some((*rule, rules.get(*rule)?))) {
            counters.bad_costs(place, rule.cost.take_odd());
        }
        let label = |rule: usize| match rules.get(rule) {
            Some(rule_at) if rule < *labelled => rule_at.id.as_str(),
            _ => "other",
        };
        counters.flush(&common.identity.policy, label, metrics);
        if let Some(engine) = mesh {
            flush_calls(&common.identity.policy, engine.take_counts(), metrics);
        }
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

#[cfg(any(test, feature = "sim"))]
#[path = "look.rs"]
mod look;
#[cfg(any(test, feature = "sim"))]
pub use look::{Level, Look};

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
