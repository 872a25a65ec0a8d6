//! The rules of each section, as the request meets them.

use serde_json::{Value, json};
use weir_engine::breaker::cell::State;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::key::KeyLook;
use weir_protos::FieldError;
use weir_protos::v1::circuit_breaker_rule::State as Forced;
use weir_protos::v1::{KeyPart, Policy, mode};

use crate::proxy::{Module, Proxy};
use crate::{clock, keys};

/// One rule.
pub struct Rule {
    pub id: String,
    pub is_off: bool,
    pub matches: bool,
    /// What stands behind it, in words.
    pub about: Vec<String>,
    /// The same for programs.
    pub facts: Value,
    /// What the module counted for it; filled in after its decision.
    pub outcomes: Vec<String>,
}

/// The rules of a module before it decides.
pub fn look(
    module: Module,
    policy: &Policy,
    proxy: &mut Proxy,
    headers: &HeaderMap,
) -> Result<Vec<Rule>, FieldError> {
    let all: Vec<(String, mode::Value, Vec<KeyPart>)> = match module {
        Module::Trace => {
            let sampling = policy.trace()?.unwrap_or_default().sampling.unwrap_or_default();
            let rule =
                |rule: weir_protos::v1::SamplingRule| (rule.id, mode::Value::Enforce, Vec::new());
            sampling.rules.into_iter().map(rule).collect()
        }
        Module::Color => {
            let rules = policy.traffic_color()?.rules.into_iter();
            rules.map(|rule| (rule.id.clone(), rule.mode(), rule.key)).collect()
        }
        Module::Limit => {
            let rules = policy.rate_limit()?.rules.into_iter();
            rules.map(|rule| (rule.id.clone(), rule.mode(), rule.key)).collect()
        }
        Module::Breaker => {
            let rules = policy.circuit_breaker()?.rules.into_iter();
            rules.map(|rule| (rule.id.clone(), rule.mode(), rule.key)).collect()
        }
    };
    let mut looks = looks(module, proxy, headers, &all).into_iter().peekable();
    let rules = all.iter().map(|(id, _, _)| {
        // The engine leaves out what is off.
        looks.next_if(|look| look.id == *id).unwrap_or_else(|| Rule {
            id: id.clone(),
            is_off: true,
            matches: false,
            about: Vec::new(),
            facts: json!({}),
            outcomes: Vec::new(),
        })
    });
    Ok(rules.collect())
}

type Listed = (String, mode::Value, Vec<KeyPart>);

fn looks(module: Module, proxy: &mut Proxy, headers: &HeaderMap, all: &[Listed]) -> Vec<Rule> {
    let ports = &mut proxy.ports;
    let parts = |id: &str| {
        all.iter().find(|(known, _, _)| known == id).map_or(&[][..], |(_, _, parts)| parts)
    };
    match module {
        Module::Trace => {
            let looks = proxy.tracer.as_ref().map(|tracer| tracer.look(headers, ports));
            let rule = |(id, matches)| Rule::new(id, mode::Value::Enforce, matches);
            looks.unwrap_or_default().into_iter().map(rule).collect()
        }
        Module::Color => {
            let looks = proxy.painter.as_ref().map(|painter| painter.look(headers, ports));
            looks.unwrap_or_default().into_iter().map(color).collect()
        }
        Module::Limit => {
            let worker = &mut proxy.limit_worker;
            let looks = proxy.limiter.as_ref().map(|limiter| limiter.look(worker, headers, ports));
            let rule = |look: weir_engine::limit::Look| {
                let parts = parts(&look.id);
                limit(look, parts)
            };
            looks.unwrap_or_default().into_iter().map(rule).collect()
        }
        Module::Breaker => {
            let worker = &mut proxy.breaker_worker;
            let looks = proxy.breaker.as_ref().map(|breaker| breaker.look(worker, headers, ports));
            let rule = |look: weir_engine::breaker::Look| {
                let parts = parts(&look.id);
                breaker(look, parts)
            };
            looks.unwrap_or_default().into_iter().map(rule).collect()
        }
    }
}

impl Rule {
    fn new(id: String, mode: mode::Value, matches: bool) -> Rule {
        let mut rule = Rule {
            id,
            is_off: false,
            matches,
            about: Vec::new(),
            facts: json!({}),
            outcomes: Vec::new(),
        };
        if mode == mode::Value::Shadow {
            rule.say("in shadow".into(), "mode", "SHADOW".into());
        }
        rule
    }

    fn say(&mut self, words: String, name: &str, value: Value) {
        self.about.push(words);
        self.note(name, value);
    }

    fn note(&mut self, name: &str, value: Value) {
        if let Some(facts) = self.facts.as_object_mut() {
            facts.insert(name.to_string(), value);
        }
    }

    fn key(&mut self, parts: &[KeyPart], look: &KeyLook) {
        match keys::read(parts, look) {
            Ok(key) if key.is_empty() => {}
            Ok(key) => {
                let words: Vec<String> =
                    key.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                // Two parts may have one name, so this is a list.
                let pairs: Vec<Value> =
                    key.into_iter().map(|(name, value)| json!([name, value])).collect();
                self.say(format!("key {}", words.join(", ")), "key", pairs.into());
            }
            Err((part, rejects)) => {
                let then = if rejects { "the rule refuses" } else { "the rule does not apply" };
                self.say(format!("no {part}, so {then}"), "missing_key_part", part.into());
            }
        }
    }
}

fn limit(look: weir_engine::limit::Look, parts: &[KeyPart]) -> Rule {
    let mut rule = Rule::new(look.id, look.mode, look.matches);
    if !look.matches {
        return rule;
    }
    rule.key(parts, &look.key);
    if let Some(level) = look.level {
        let next = match level.wait {
            0 => String::new(),
            wait => format!(", next in {}", clock::length(wait)),
        };
        let words = format!("{} of {} tokens{next}", level.available, level.max);
        let seconds = std::time::Duration::from_nanos(level.wait).as_secs_f64();
        rule.say(words, "tokens", level.available.into());
        rule.note("max_tokens", level.max.into());
        rule.note("wait_seconds", seconds.into());
    }
    if look.is_mesh {
        rule.say("one bucket stands for the engine".into(), "stands_for_engine", true.into());
    }
    if look.stops {
        rule.say("ends the search".into(), "stops", true.into());
    }
    rule
}

fn breaker(look: weir_engine::breaker::Look, parts: &[KeyPart]) -> Rule {
    let mut rule = Rule::new(look.id, look.mode, look.matches);
    if !look.matches {
        return rule;
    }
    rule.key(parts, &look.key);
    let forced = match look.forced {
        Forced::Disabled => Some("disabled"),
        Forced::ForcedOpen => Some("forced open"),
        _ => None,
    };
    let [all, failed, slow] = look.calls;
    let state = match (forced, look.state) {
        (Some(forced), _) => forced.to_string(),
        (None, None) => return rule,
        (None, Some(State::Closed)) => {
            rule.note("calls", json!({ "all": all, "failed": failed, "slow": slow }));
            format!("closed, {failed} of {all} calls failed")
        }
        (None, Some(State::HalfOpen)) => "half-open".into(),
        (None, Some(State::Open)) => {
            format!("open for {} by {}", clock::length(look.opens_for), look.reason)
        }
    };
    let word = match (forced, look.state) {
        (Some(forced), _) => forced,
        (None, Some(State::Open)) => "open",
        (None, Some(State::HalfOpen)) => "half-open",
        _ => "closed",
    };
    rule.say(state, "state", word.into());
    if look.stops {
        rule.say("ends the search".into(), "stops", true.into());
    }
    rule
}

fn color(look: weir_engine::color::Look) -> Rule {
    let mut rule = Rule::new(look.id, look.mode, look.matches);
    if !look.matches {
        return rule;
    }
    if look.is_tripped {
        rule.say("turned off by its guard".into(), "is_tripped", true.into());
    }
    let Some(first) = look.first_weight else {
        rule.say("not at this time".into(), "holds", false.into());
        return rule;
    };
    if let Some(color) = look.color {
        rule.say(format!("gives {color} to all"), "color", color.into());
        return rule;
    }
    match look.bucket {
        Some(bucket) => rule.say(format!("bucket {bucket} of 10000"), "bucket", bucket.into()),
        None if look.sticks => {
            let words = "no key: a random one goes into a cookie".into();
            rule.say(words, "bucket", Value::Null);
        }
        None => rule.say("no key, so no color".into(), "bucket", Value::Null),
    }
    let mut ranges = Vec::new();
    let mut facts = Vec::new();
    for (place, share) in look.shares.iter().enumerate() {
        // The first share is the one that schedules and the rate move.
        let weight = if place == 0 { first.min(share.weight) } else { share.weight };
        let end = share.start.saturating_add(weight);
        ranges.push(format!("{} below {end}", share.color));
        if share.start > 0 {
            ranges.pop();
            ranges.push(format!("{} from {} below {end}", share.color, share.start));
        }
        facts.push(json!({ "color": share.color, "from": share.start, "below": end }));
    }
    rule.say(ranges.join(", "), "shares", facts.into());
    rule
}
