//! What a simulation found, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_engine::core::ports::Nanos;
use weir_protos::FieldError;
use weir_protos::v1::rate_limit_rule::Scope;
use weir_protos::v1::{KeyPart, Policy};

use super::replay::{Fate, Replay};
use super::requests::Requests;
use super::tally::{Kind, Rule};
use crate::{clock, keys, metrics};

pub struct Outcome {
    /// When each request began, and what became of it.
    pub starts: Vec<Nanos>,
    pub fates: Vec<Fate>,
    /// Lines that were passed over.
    pub unread: u64,
    pub first_unread: Option<usize>,
    pub limits: BTreeMap<String, Rule>,
    pub breakers: BTreeMap<String, Rule>,
    /// Rules whose limit an engine keeps. One bucket stands for it, for the log is of one proxy.
    pub of_engine: BTreeSet<String>,
    /// What the keys of the rules are made of, by section and id.
    pub parts: BTreeMap<(&'static str, String), Vec<KeyPart>>,
    /// Refusals by section.
    pub replies: BTreeMap<&'static str, u64>,
    /// What the modules counted beside these.
    pub counters: BTreeMap<String, u64>,
}

impl Outcome {
    pub fn new(policy: &Policy, requests: &Requests<'_>) -> Result<Outcome, FieldError> {
        let (unread, first_unread) = requests.unread();
        let count = usize::try_from(requests.count()).unwrap_or(0);
        let limits = policy.rate_limit()?.rules;
        let of_engine = limits.iter().filter(|rule| rule.scope() == Scope::Mesh);
        let of_engine = of_engine.map(|rule| rule.id.clone()).collect();
        let limits = limits.into_iter();
        let breakers = policy.circuit_breaker()?.rules.into_iter();
        let limits = limits.map(|rule| ((LIMIT, rule.id), rule.key));
        let breakers = breakers.map(|rule| ((BREAKER, rule.id), rule.key));
        Ok(Outcome {
            parts: limits.chain(breakers).collect(),
            starts: Vec::with_capacity(count),
            fates: Vec::with_capacity(count),
            unread,
            first_unread,
            limits: BTreeMap::new(),
            breakers: BTreeMap::new(),
            of_engine,
            replies: BTreeMap::new(),
            counters: BTreeMap::new(),
        })
    }

    /// A key as a person reads it.
    fn name(&self, section: &'static str, id: &str, key: &[Vec<u8>]) -> String {
        let parts = self.parts.get(&(section, id.to_string())).map_or(&[][..], Vec::as_slice);
        let each = parts.iter().zip(key).map(|(part, value)| keys::value(part, value));
        each.collect::<Vec<_>>().join(", ")
    }

    pub fn take(&mut self, mut replay: Replay) {
        self.counters = replay.finish();
        self.limits = replay.limits;
        self.breakers = replay.breakers;
        self.replies = replay.replies;
    }

    fn refused(&self) -> u64 {
        self.replies.values().sum()
    }

    fn passed(&self) -> u64 {
        (self.fates.len() as u64).saturating_sub(self.refused())
    }

    /// Requests by color or sampling rule and what it gave.
    fn given(&self, metric: &str) -> BTreeMap<(String, String), u64> {
        let mut given = BTreeMap::new();
        for (name, count) in &self.counters {
            let counted = metrics::read(name);
            if counted.name == metric {
                let place = (counted.label("rule").into(), counted.label("outcome").into());
                *given.entry(place).or_default() += count;
            }
        }
        given
    }
}

const LIMIT: &str = "rate_limit";
const BREAKER: &str = "circuit_breaker";
const COLORS: &str = "weir_traffic_color_requests_total";
const SAMPLES: &str = "weir_trace_context_sampling_total";
const TRIPS: &str = "weir_traffic_color_guard_trips_total";

pub fn text(now: &Outcome, before: Option<&Outcome>, top: usize) -> String {
    let mut out = head(now);
    // Writing to a String cannot fail, so results are not looked at.
    for (section, rules) in [(LIMIT, &now.limits), (BREAKER, &now.breakers)] {
        if !rules.is_empty() {
            let _ = writeln!(out, "\n{section}");
        }
        let width = rules.keys().map(String::len).max().unwrap_or(0);
        for (id, rule) in rules {
            let outcomes: Vec<String> = rule
                .outcomes
                .iter()
                .map(|(outcome, count)| format!("{} {count}", outcome.replace('_', " ")))
                .collect();
            let _ = write!(out, "  {id:width$}  {}", outcomes.join(", "));
            if section == BREAKER {
                let _ = write!(out, ", opened {} times", rule.turns());
            }
            if section == LIMIT && now.of_engine.contains(id) {
                let _ = write!(out, " (one bucket stands for the engine)");
            }
            out.push('\n');
            worst(now, (section, id), rule, top, &mut out);
        }
    }
    for (section, metric) in [("traffic_color", COLORS), ("trace_context sampling", SAMPLES)] {
        let given = now.given(metric);
        if !given.is_empty() {
            let _ = writeln!(out, "\n{section}");
        }
        for ((rule, outcome), count) in given {
            let rule = if rule == "none" { "no rule" } else { &rule };
            let _ = writeln!(out, "  {rule}: {outcome} {count}");
        }
    }
    for ((rule, _), count) in now.given(TRIPS) {
        let _ = writeln!(out, "  the guard of {rule} tripped {count} times");
    }
    if let Some(before) = before {
        against(now, before, &mut out);
    }
    out
}

fn head(outcome: &Outcome) -> String {
    let (first, last) = (outcome.starts.first(), outcome.starts.last());
    let mut out = format!(
        "{} requests, {} to {}\n",
        outcome.fates.len(),
        clock::show(first.copied().unwrap_or(0)),
        clock::show(last.copied().unwrap_or(0)),
    );
    if outcome.unread > 0 {
        let line = outcome.first_unread.map(|line| format!(", the first is line {line}"));
        let line = line.unwrap_or_default();
        let _ = writeln!(out, "{} lines are none of an access log{line}", outcome.unread);
    }
    let _ = write!(out, "passed {}, refused {}", outcome.passed(), outcome.refused());
    if outcome.refused() > 0 {
        let by: Vec<String> =
            outcome.replies.iter().map(|(section, count)| format!("{section} {count}")).collect();
        let percent = percent(outcome.refused(), outcome.fates.len() as u64);
        let _ = write!(out, " ({percent:.1} %): {}", by.join(", "));
    }
    out.push('\n');
    out
}

#[allow(clippy::cast_precision_loss)] // One decimal place is shown.
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

fn worst(
    outcome: &Outcome,
    (section, id): (&'static str, &str),
    rule: &Rule,
    top: usize,
    out: &mut String,
) {
    let worst = rule.worst(top);
    // A rule without a key has one, which is nameless.
    if worst.iter().all(|(key, _)| key.is_empty()) {
        return;
    }
    let worst: Vec<_> =
        worst.into_iter().map(|(key, counts)| (outcome.name(section, id, key), counts)).collect();
    let width = worst.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let _ = writeln!(out, "    the {} worst of {} keys", worst.len(), rule.keys.len());
    for (key, counts) in worst {
        let _ = write!(out, "      {key:width$}  refused {}", counts.refused);
        if counts.shadow > 0 {
            let _ = write!(out, ", would have been {}", counts.shadow);
        }
        let _ = writeln!(out, ", admitted {}", counts.admitted);
    }
}

/// What the same requests met under the other policy.
fn against(now: &Outcome, before: &Outcome, out: &mut String) {
    let (stricter, looser) = turned(now, before);
    let _ = writeln!(out, "\nagainst the other policy");
    let _ = writeln!(out, "  refused {}, before {}", now.refused(), before.refused());
    let _ = writeln!(out, "  passed before and refused now: {stricter}");
    let _ = writeln!(out, "  refused before and passes now: {looser}");
    for (section, new, old) in
        [(LIMIT, &now.limits, &before.limits), (BREAKER, &now.breakers, &before.breakers)]
    {
        for id in both(new, old) {
            let [new, old] = [new, old].map(|rules| rules.get(id).map(sums));
            let said = |sums: Option<[u64; 3]>| match sums {
                Some([admitted, refused, shadow]) if shadow > 0 => {
                    format!("admitted {admitted}, refused {refused}, would have been {shadow}")
                }
                Some([admitted, refused, _]) => format!("admitted {admitted}, refused {refused}"),
                None => "met nobody".into(),
            };
            if new != old {
                let _ = writeln!(out, "  {section} {id}: {}; before {}", said(new), said(old));
            }
        }
    }
}

fn sums(rule: &Rule) -> [u64; 3] {
    [Kind::Admitted, Kind::Refused, Kind::Shadow].map(|kind| rule.sum(kind))
}

fn both<'r>(new: &'r BTreeMap<String, Rule>, old: &'r BTreeMap<String, Rule>) -> Vec<&'r String> {
    let mut ids: Vec<&String> = new.keys().chain(old.keys()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Requests that passed before and are refused now, and the other way round.
fn turned(now: &Outcome, before: &Outcome) -> (usize, usize) {
    let pairs = || now.fates.iter().zip(&before.fates);
    let passed = |fate: &Fate| *fate == Fate::Passed;
    (
        pairs().filter(|(now, before)| !passed(now) && passed(before)).count(),
        pairs().filter(|(now, before)| passed(now) && !passed(before)).count(),
    )
}

pub fn json(now: &Outcome, before: Option<&Outcome>, top: usize) -> Value {
    let mut value = one(now, top);
    if let (Some(before), Some(all)) = (before, value.as_object_mut()) {
        let (stricter, looser) = turned(now, before);
        all.insert("refused_now_only".into(), stricter.into());
        all.insert("refused_before_only".into(), looser.into());
        all.insert("before".into(), one(before, top));
    }
    value
}

fn one(outcome: &Outcome, top: usize) -> Value {
    let rules = |section, rules: &BTreeMap<String, Rule>, turns: &str| -> Value {
        let rule = |(id, rule): (&String, &Rule)| {
            let worst = rule.worst(top).into_iter().map(|(key, counts)| {
                json!({
                    "key": outcome.name(section, id, key),
                    "admitted": counts.admitted,
                    "refused": counts.refused,
                    "shadow": counts.shadow,
                    turns: counts.turns,
                })
            });
            let value = json!({
                "outcomes": rule.outcomes,
                "keys": rule.keys.len(),
                turns: rule.turns(),
                "worst": worst.collect::<Vec<_>>(),
            });
            (id.clone(), value)
        };
        Value::Object(rules.iter().map(rule).collect())
    };
    let given = |metric: &str| -> Vec<Value> {
        let each = outcome.given(metric).into_iter();
        each.map(|((rule, given), count)| json!({ "rule": rule, "outcome": given, "count": count }))
            .collect()
    };
    json!({
        "requests": outcome.fates.len(),
        "unread_lines": outcome.unread,
        "first": outcome.starts.first().map(|start| clock::show(*start)),
        "last": outcome.starts.last().map(|start| clock::show(*start)),
        "passed": outcome.passed(),
        "refused": outcome.refused(),
        "refused_by": outcome.replies,
        "rate_limit": rules(LIMIT, &outcome.limits, "times_exhausted"),
        "circuit_breaker": rules(BREAKER, &outcome.breakers, "times_opened"),
        "traffic_color": given(COLORS),
        "sampling": given(SAMPLES),
        "guard_trips": given(TRIPS),
    })
}
