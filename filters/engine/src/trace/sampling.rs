//! The section `sampling`: a trace is decided on once, and the decision is honoured downstream.

use std::cell::Cell;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::sampling::Parent;
use weir_protos::v1::{Sampling as Source, SamplingRule, direction};

use super::context::Carried;
use super::pace::Pace;
use super::propagation::OtChange;
use super::scoring::{Band, Scoring};
use super::threshold::{Probability, Threshold};
use crate::core::index::Index;
use crate::core::matcher::Matcher;
use crate::core::policy::Common;
use crate::core::ports::{Metrics, Ports, SharedStore, labels};
use crate::core::request::Request;
use crate::core::rules::{Ids, check_unindexed, rule_id};

const MAX_RULES: usize = 1000;

/// Sampled, not sampled.
pub const SERIES_PER_RULE: u32 = 2;

pub struct Sampler {
    honours_parent: bool,
    rules: Vec<Rule>,
    index: Index,
    default: Threshold,
    scoring: Option<Rc<Scoring>>,
    /// Without a word on sampling every trace is sampled, and nothing is said of a probability.
    is_silent: bool,
}

struct Rule {
    id: String,
    matcher: Matcher,
    threshold: Threshold,
    floor: Option<Pace>,
    ceiling: Option<Pace>,
    overrides: bool,
    trusted_only: bool,
    forces_envoy: bool,
    sampled: Cell<u64>,
    dropped: Cell<u64>,
}

/// What was decided, and what the rest of the way needs to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decision {
    pub is_sampled: bool,
    pub ot: OtChange,
    pub forces_envoy: bool,
    /// The score so far, where the status of the response may still raise it.
    pub score: Option<i32>,
}

/// The request as a sampler sees it.
pub struct Candidate<'c> {
    pub carried: &'c Carried,
    pub is_trusted: bool,
    /// 56 bits that are the same all along the trace.
    pub randomness: u64,
    /// Where these are none of the trace's own: to be passed on.
    pub is_own_randomness: bool,
}

impl Sampler {
    #[cold]
    pub fn compile(
        source: Option<&Source>,
        common: &Common,
        path: &str,
    ) -> Result<Sampler, FieldError> {
        let Some(source) = source else {
            return Ok(Sampler {
                honours_parent: true,
                rules: Vec::new(),
                index: Index::default(),
                default: Threshold::ALWAYS,
                scoring: None,
                is_silent: true,
            });
        };
        if source.rules.len() > MAX_RULES {
            let remedy = "rules: must be at most 1000";
            return Err(FieldError::value(format!("{path}.rules"), source.rules.len(), remedy));
        }
        if source.scoring.is_some() && source.percent.is_some() {
            let remedy = "stands in place of `percent`; keep one of the two";
            return Err(FieldError::at(format!("{path}.scoring"), remedy));
        }
        let mut ids = Ids::default();
        let mut rules = Vec::with_capacity(source.rules.len());
        for (place, rule) in source.rules.iter().enumerate() {
            let path = format!("{path}.rules[{place}]");
            rules.push(Rule::compile(rule, common, &path)?);
            ids.insert(&rule.id, place, &path)?;
        }
        let index = Index::build(rules.iter().map(|rule| &rule.matcher));
        let id = |rule: usize| rules.get(rule).map(|rule| rule.id.as_str());
        check_unindexed(&index, id, &format!("{path}.rules"))?;
        let scoring = match &source.scoring {
            Some(scoring) => {
                Some(Rc::new(Scoring::compile(scoring, common, &format!("{path}.scoring"))?))
            }
            None => None,
        };
        Ok(Sampler {
            honours_parent: source.parent() != Parent::Ignore,
            default: threshold(source.percent.unwrap_or(100.0), &format!("{path}.percent"))?,
            scoring,
            rules,
            index,
            is_silent: false,
        })
    }

    /// For what the status of the response adds.
    pub fn scoring(&self) -> Option<Rc<Scoring>> {
        self.scoring.clone().filter(|scoring| scoring.asks_for_status())
    }

    pub fn prepare(&self, store: &mut impl SharedStore) {
        for rule in &self.rules {
            rule.floor.iter().chain(&rule.ceiling).for_each(|pace| pace.prepare(store));
        }
    }

    /// `found` is kept for its memory.
    pub fn decide<'r>(
        &'r self,
        candidate: &Candidate<'_>,
        request: &mut Request<'r>,
        found: &mut Vec<u32>,
        ports: &mut impl Ports,
    ) -> Decision {
        let carried = candidate.carried;
        let parent = carried.sampled.filter(|_| self.honours_parent && candidate.is_trusted);
        if self.is_silent {
            let is_strange = candidate.is_own_randomness;
            let ot = if is_strange { OtChange::Remove } else { OtChange::Keep };
            return Decision { is_sampled: parent.unwrap_or(true), ot, ..Decision::default() };
        }
        self.index.candidates(request, found);
        let mut candidates = found.iter().filter_map(|place| self.rules.get(*place as usize));
        let rule = candidates.find(|rule| {
            (parent.is_none() || rule.overrides)
                && (candidate.is_trusted || !rule.trusted_only)
                && rule.matcher.matches(request, ports)
        });
        if let Some(rule) = rule {
            return rule.decide(candidate, ports);
        }
        if let Some(is_sampled) = parent {
            return Decision { is_sampled, ..Decision::default() };
        }
        let mut decision = Decision::default();
        let threshold = match &self.scoring {
            Some(scoring) => {
                let score = scoring.of_request(request, ports);
                decision.score = scoring.asks_for_status().then_some(score);
                Band::of(score).threshold()
            }
            None => self.default,
        };
        decision.is_sampled = threshold.is_kept(candidate.randomness);
        decision.ot = candidate.ot(decision.is_sampled.then_some(threshold));
        decision
    }

    /// The rules in order: their ids, and whether they mean the request.
    #[cfg(any(test, feature = "sim"))]
    pub fn look<'r>(
        &'r self,
        request: &mut Request<'r>,
        ports: &mut impl Ports,
    ) -> Vec<(String, bool)> {
        let each = self.rules.iter();
        each.map(|rule| (rule.id.clone(), rule.matcher.matches(request, ports))).collect()
    }

    /// Hands over what the rules counted. Rules from `labelled` on share a label.
    pub fn flush(&self, policy: &str, labelled: usize, metrics: &mut impl Metrics) {
        for (place, rule) in self.rules.iter().enumerate() {
            let id = if place < labelled { rule.id.as_str() } else { "other" };
            for (outcome, count) in [("sampled", &rule.sampled), ("dropped", &rule.dropped)] {
                let count = count.take();
                if count > 0 {
                    let labels = labels(&[("policy", policy), ("rule", id), ("outcome", outcome)]);
                    metrics.count(&format!("{labels}weir_trace_context_sampling_total"), count);
                }
            }
        }
    }
}

impl Rule {
    #[cold]
    fn compile(source: &SamplingRule, common: &Common, path: &str) -> Result<Rule, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        rule_id(&source.id, &at("id"))?;
        let defaults = common.match_defaults(direction::Value::Any).plain();
        let pace = |given: Option<f64>, field: &str| {
            let key = format!("{}/tc/{}/{field}", common.identity.state_prefix, source.id);
            given.map(|rate| Pace::compile(rate, key, &at(field))).transpose()
        };
        let floor = pace(source.floor_per_second, "floor_per_second")?;
        let ceiling = pace(source.ceiling_per_second, "ceiling_per_second")?;
        if let (Some(floor), Some(ceiling)) = (source.floor_per_second, source.ceiling_per_second)
            && floor > ceiling
        {
            let remedy = "must be at most `ceiling_per_second`";
            return Err(FieldError::number(at("floor_per_second"), floor, remedy));
        }
        Ok(Rule {
            matcher: Matcher::compile(source.r#match.as_ref(), &at("match"), &defaults)?,
            threshold: threshold(source.percent.unwrap_or(100.0), &at("percent"))?,
            floor,
            ceiling,
            overrides: source.override_parent,
            trusted_only: source.trusted_only,
            forces_envoy: source.force_envoy_tracer,
            id: source.id.clone(),
            sampled: Cell::new(0),
            dropped: Cell::new(0),
        })
    }

    fn decide(&self, candidate: &Candidate<'_>, ports: &mut impl Ports) -> Decision {
        let mut is_sampled = self.threshold.is_kept(candidate.randomness);
        // A trace that a floor or a ceiling decided on says nothing of a probability.
        let mut says_threshold = is_sampled && self.ceiling.is_none();
        if let Some(floor) = &self.floor {
            // What the probability kept counts towards the floor.
            let is_below = floor.take(ports.now(), ports);
            if !is_sampled && is_below {
                (is_sampled, says_threshold) = (true, false);
            }
        }
        if let (true, Some(ceiling)) = (is_sampled, &self.ceiling) {
            is_sampled = ceiling.take(ports.now(), ports);
        }
        let count = if is_sampled { &self.sampled } else { &self.dropped };
        count.set(count.get().saturating_add(1));
        Decision {
            is_sampled,
            ot: candidate.ot(Some(self.threshold).filter(|_| is_sampled && says_threshold)),
            forces_envoy: is_sampled && self.forces_envoy,
            score: None,
        }
    }
}

impl Candidate<'_> {
    fn ot(&self, threshold: Option<Threshold>) -> OtChange {
        let randomness = self.is_own_randomness.then_some(self.randomness);
        OtChange::Write { threshold, randomness }
    }
}

#[cold]
fn threshold(percent: f64, path: &str) -> Result<Threshold, FieldError> {
    // Below a millionth of a percent a threshold of 56 bits no longer tells percentages apart.
    let is_fit = percent == 0.0 || (0.000_001..=100.0).contains(&percent);
    let probability = Probability::from_percent(percent).filter(|_| is_fit);
    probability
        .map(Probability::threshold)
        .ok_or_else(|| FieldError::number(path, percent, "must be 0, or from 0.000001 to 100"))
}
