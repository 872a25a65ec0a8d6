//! One rule of the policy, checked and ready.

use std::ops::RangeInclusive;
use std::rc::Rc;

use weir_protos::v1::rate_limit_rule::{OnError, OnMatch, Scope};
use weir_protos::v1::{RateLimitRule, mode};
use weir_protos::{Duration, FieldError};

use super::calendar::{Calendar, Filling};
use super::cost::Cost;
use super::crew::MOST_WORKERS;
use super::flight::Place;
use super::gcra::Rate;
use super::mesh::{MeshRule, Settings};
use super::metrics::{SERIES_PER_RULE, STEPS};
use super::overrides::Overrides;
use super::priority::Priority;
use super::reply::{Allowance, AtLimit};
use super::table::{Before, Extent};
use crate::core::answer::seconds;
use crate::core::checks::{self, Seconds};
use crate::core::headers::HeaderMap;
use crate::core::key::{self, Fingerprint, Key};
use crate::core::matcher::{MatchDefaults, Matcher};
use crate::core::policy::{Common, effective_mode};
use crate::core::ports::Nanos;
use crate::core::rules::rule_id;

/// Keys that a rule remembers unless the policy says otherwise.
const DEFAULT_MAX_KEYS: u32 = 10_000;

/// Slots are provided twice over, so that a table at its `max_keys` still rarely has a full set.
const KEYS_PER_SET: u32 = 4;

/// A bucket that takes longer to fill is a mistake in a unit.
const MAX_FILL_TIME: Nanos = 366 * 86_400 * 1_000_000_000;

/// What an interval may be: a millisecond to a day.
const FILL_INTERVAL: RangeInclusive<Nanos> = 1_000_000..=86_400_000_000_000;

/// 10 million tokens a second: more than a proxy can pass, and the arithmetic in nanoseconds is
/// still within a percent there.
const MIN_PER_TOKEN: Nanos = 100;

#[derive(Debug)]
pub struct Rule {
    pub id: String,
    pub mode: mode::Value,
    /// In hundredths of a percent.
    pub enforced: u32,
    pub matcher: Matcher,
    pub stops: bool,
    pub key: Key,
    /// Without one, requests are limited by those in flight alone.
    pub has_bucket: bool,
    pub filling: Filling,
    pub rate: Rate,
    pub overrides: Option<Overrides>,
    pub cost: Cost,
    pub in_flight: Option<InFlight>,
    pub priority: Option<Priority>,
    pub scope: RuleScope,
    /// With `scope: MESH`. What is said of buckets means the safe one then.
    pub mesh: Option<MeshRule>,
    /// Sets of the rule's table; 1 for a rule without a key.
    pub sets: u32,
    /// Filled in when the policy comes into force.
    pub before: Option<Before>,
    pub denies_on_error: bool,
    pub at_limit: AtLimit,
    /// The start of the keys of its state.
    pub state: Rc<[u8]>,
    /// The same as a number.
    pub scope_of_keys: Fingerprint,
}

/// A limit of requests in flight.
#[derive(Debug)]
pub struct InFlight {
    pub most: u32,
    /// A tunnel is out of it once it stands.
    pub excludes_upgrades: bool,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleScope {
    Process,
    Mesh,
    /// With the number of workers, where the policy gives it.
    Worker(Option<u32>),
}

impl Rule {
    /// `None` for a rule that is off.
    #[cold]
    pub fn compile(
        source: &RateLimitRule,
        path: &str,
        common: &Common,
        section: mode::Value,
        defaults: &MatchDefaults,
        engine: Option<&Rc<Settings>>,
    ) -> Result<Option<Rule>, FieldError> {
        rule_id(&source.id, &format!("{path}.id"))?;
        let key = Key::compile(&source.key, &common.color_header, &format!("{path}.key"))?;
        let max_keys = source.max_keys.unwrap_or(DEFAULT_MAX_KEYS);
        if !(1..=1_000_000).contains(&max_keys) {
            return Err(FieldError::value(
                format!("{path}.max_keys"),
                max_keys,
                "must be from 1 to 1000000",
            ));
        }
        let sets =
            if key.is_empty() { 1 } else { max_keys.div_ceil(KEYS_PER_SET).next_power_of_two() };
        let filling = Filling::compile(source, path)?;
        let fields = Fields::of(source);
        let has_bucket =
            source.max_concurrent.is_none() || fields.is_any() || filling != Filling::Steady;
        let rate = match has_bucket {
            true => rate(fields, filling, path)?,
            false => Rate::new(1, 1, FILL_INTERVAL.into_inner().0),
        };
        if source.cost.is_some() && !has_bucket {
            let remedy = "needs a bucket; give max_tokens and fill_interval, or calendar";
            return Err(FieldError::at(format!("{path}.cost"), remedy));
        }
        let overrides = Overrides::compile(source, &key, filling, path)?;
        if let (false, Some(place)) =
            (has_bucket, source.overrides.iter().position(|it| !it.unlimited))
        {
            let remedy = "gives a bucket where the rule has none; give the rule max_tokens and \
                          fill_interval, or `unlimited: true` here";
            return Err(FieldError::at(format!("{path}.overrides[{place}]"), remedy));
        }
        let smallest = overrides.as_ref().map_or(rate.max, |them| them.smallest().min(rate.max));
        let cost = Cost::compile(source.cost.as_ref(), smallest, path)?;
        let slowest = overrides.as_ref().map_or(0, Overrides::slowest).max(rate.per_token);
        check_debt(&cost, slowest, path)?;
        let scope = scope(source, path)?;
        let state = format!("{}/rl/{}/", common.identity.state_prefix, source.id);
        let mesh = match scope {
            RuleScope::Mesh => Some(MeshRule::compile(source, engine, rate, &state, path)?),
            _ => None,
        };
        let bucket = has_bucket.then_some((smallest, cost.constant));
        let flights = source.max_concurrent.map(|most| (u64::from(most), 1));
        let limits: Vec<_> = bucket.into_iter().chain(flights).collect();
        let priority = Priority::compile(source.priority.as_ref(), &limits, path)?;
        let rule = Rule {
            mode: effective_mode(&[common.mode, section, source.mode()]),
            enforced: enforced(source, path)?,
            matcher: Matcher::compile(source.r#match.as_ref(), &format!("{path}.match"), defaults)?,
            stops: source.on_match() == OnMatch::Stop,
            has_bucket,
            in_flight: in_flight(source, &state, key.is_empty(), scope, path)?,
            priority,
            filling,
            rate: mesh.as_ref().and_then(|mesh| mesh.safe).unwrap_or(rate),
            overrides,
            cost,
            key,
            scope,
            mesh,
            sets,
            before: None,
            denies_on_error: source.on_error() == OnError::Deny,
            at_limit: AtLimit::compile(source, path)?,
            scope_of_keys: key::scope(state.as_bytes()),
            state: state.into_bytes().into(),
            id: source.id.clone(),
        };
        Ok((rule.mode != mode::Value::Off).then_some(rule))
    }

    /// What of a bucket's rate is for one of `workers`.
    pub fn share_of(&self, rate: Rate, workers: u32) -> Rate {
        match self.scope {
            RuleScope::Process | RuleScope::Mesh => rate,
            RuleScope::Worker(given) => {
                let share = rate.split(given.unwrap_or(workers));
                let share = match self.filling {
                    Filling::Steady => share,
                    Filling::Calendar(_) => Calendar::rate(share.max),
                };
                // A request that fits into no worker's share would never pass.
                Rate { max: share.max.max(self.cost.constant), ..share }
            }
        }
    }

    /// How many requests may be in flight in one of `workers`, or in all.
    pub fn most_in_flight(&self, most: u32, workers: u32) -> u32 {
        match self.scope {
            RuleScope::Process | RuleScope::Mesh => most,
            RuleScope::Worker(given) => {
                most.checked_div(given.unwrap_or(workers)).unwrap_or(most).max(1)
            }
        }
    }

    /// What requests of low priority have to leave in a bucket. A request can always have what it costs.
    pub fn reserve(&self, headers: &HeaderMap, most: u64) -> u64 {
        let reserve = self.priority.as_ref().map_or(0, |priority| priority.reserve(headers, most));
        reserve.min(most.saturating_sub(self.cost.constant))
    }

    /// What clients are told of a bucket with this rate.
    pub fn allowance(&self, rate: Rate) -> Allowance {
        let window = match self.filling {
            Filling::Steady => rate.fill_time(),
            Filling::Calendar(calendar) => calendar.length(),
        };
        Allowance { tokens: rate.max, seconds: seconds(window) }
    }

    /// The most series of metrics that the rule can have.
    pub fn series(&self) -> u32 {
        SERIES_PER_RULE
            .saturating_add(u32::from(self.cost.reads_headers()))
            .saturating_add(u32::from(self.in_flight.is_some()))
            .saturating_add(if self.mesh.is_some() { STEPS } else { 0 })
    }

    /// How far the rule's buckets may be used, and how slowly they fill.
    pub fn extent(&self) -> Extent {
        if let Filling::Calendar(calendar) = self.filling {
            // A wall clock that stepped back leaves a bucket in the window after this one.
            let window = calendar.length().saturating_mul(2);
            return Extent { window, ..Extent::default() };
        }
        let overrides = self.overrides.as_ref();
        let largest = overrides.map_or(0, Overrides::largest).max(self.rate.max);
        let debt = self.cost.of_response().map_or(0, |cost| cost.max_debt.unwrap_or(largest));
        let workers = match self.scope {
            RuleScope::Process | RuleScope::Mesh => 1,
            RuleScope::Worker(given) => given.unwrap_or(MOST_WORKERS).into(),
        };
        let slowest = overrides.map_or(0, Overrides::slowest).max(self.rate.per_token);
        Extent {
            tokens: largest.saturating_add(debt),
            per_token: slowest.saturating_mul(workers),
            window: 0,
        }
    }
}

/// What makes a rate, of a rule or of an override.
#[derive(Clone, Copy)]
pub struct Fields<'p> {
    pub max_tokens: Option<u64>,
    pub tokens_per_fill: Option<u64>,
    pub fill_interval: Option<&'p Duration>,
}

impl<'p> Fields<'p> {
    fn is_any(self) -> bool {
        self.max_tokens.is_some() || self.tokens_per_fill.is_some() || self.fill_interval.is_some()
    }

    fn of(source: &'p RateLimitRule) -> Fields<'p> {
        let RateLimitRule { max_tokens, tokens_per_fill, fill_interval, .. } = source;
        Fields {
            max_tokens: *max_tokens,
            tokens_per_fill: *tokens_per_fill,
            fill_interval: fill_interval.as_ref(),
        }
    }
}

/// More in flight than this no proxy carries.
const MAX_IN_FLIGHT: u32 = 1_000_000;

#[cold]
fn in_flight(
    source: &RateLimitRule,
    state: &str,
    is_unkeyed: bool,
    scope: RuleScope,
    path: &str,
) -> Result<Option<InFlight>, FieldError> {
    let Some(most) = source.max_concurrent else {
        if source.exclude_upgrades {
            let remedy = "goes with `max_concurrent` alone; remove it";
            return Err(FieldError::value(format!("{path}.exclude_upgrades"), true, remedy));
        }
        return Ok(None);
    };
    if !(1..=MAX_IN_FLIGHT).contains(&most) {
        let path = format!("{path}.max_concurrent");
        return Err(FieldError::value(path, most, "must be from 1 to 1000000"));
    }
    // Counted by other keys, or in one worker alone, it is another count.
    let by = if is_unkeyed { "all" } else { "key" };
    let within = if scope == RuleScope::Process { "process" } else { "worker" };
    let place = Place {
        rule: format!("{state}flight/{by}/{within}/").into_bytes().into(),
        is_keyed: !is_unkeyed,
        is_local: scope != RuleScope::Process,
    };
    Ok(Some(InFlight { most, excludes_upgrades: source.exclude_upgrades, place }))
}

#[cold]
pub fn rate(source: Fields<'_>, filling: Filling, path: &str) -> Result<Rate, FieldError> {
    let count = |field: &str, value: Option<u64>, default: Option<u64>| {
        let path = format!("{path}.{field}");
        let Some(value) = value.or(default) else {
            return Err(FieldError::at(path, "is missing; give a number from 1 to 1000000000"));
        };
        if !(1..=1_000_000_000).contains(&value) {
            return Err(FieldError::value(path, value, "must be from 1 to 1000000000"));
        }
        Ok(value)
    };
    let max_tokens = count("max_tokens", source.max_tokens, None)?;
    if let Filling::Calendar(_) = filling {
        for (field, is_set) in [
            ("tokens_per_fill", source.tokens_per_fill.is_some()),
            ("fill_interval", source.fill_interval.is_some()),
        ] {
            if is_set {
                let remedy = "does not go with `calendar`, which fills the bucket whole; remove it";
                return Err(FieldError::at(format!("{path}.{field}"), remedy));
            }
        }
        return Ok(Calendar::rate(max_tokens));
    }
    let tokens_per_fill = count("tokens_per_fill", source.tokens_per_fill, Some(1))?;
    let path = format!("{path}.fill_interval");
    let interval = checks::duration(source.fill_interval, FILL_INTERVAL, &path)?;
    let Some(nanos) = interval else {
        return Err(FieldError::at(path, r#"is missing; it must be from "0.001s" to "86400s""#));
    };
    let written = Seconds(nanos);
    let rate = Rate::new(max_tokens, tokens_per_fill, nanos);
    if rate.per_token < MIN_PER_TOKEN {
        let remedy = format!(
            "is too short for {tokens_per_fill} tokens; at most 10000000 come back a second"
        );
        return Err(FieldError::value(path, written, remedy));
    }
    if u128::from(rate.per_token).saturating_mul(max_tokens.into()) > MAX_FILL_TIME.into() {
        let remedy = format!(
            "is too long: {max_tokens} tokens would take over a year to come back; \
             raise tokens_per_fill or lower max_tokens"
        );
        return Err(FieldError::value(path, written, remedy));
    }
    Ok(rate)
}

/// What is owed comes back within the time that a bucket may take to fill.
#[cold]
fn check_debt(cost: &Cost, per_token: Nanos, path: &str) -> Result<(), FieldError> {
    let Some(debt) = cost.of_response().and_then(|response| response.max_debt) else {
        return Ok(());
    };
    if u128::from(per_token).saturating_mul(debt.into()) > MAX_FILL_TIME.into() {
        let remedy = "is too much: it would take over a year to come back; lower it";
        return Err(FieldError::value(format!("{path}.cost.max_debt"), debt, remedy));
    }
    Ok(())
}

#[cold]
fn scope(source: &RateLimitRule, path: &str) -> Result<RuleScope, FieldError> {
    if let Some(workers) = source.workers {
        let path = format!("{path}.workers");
        if !(1..=1024).contains(&workers) {
            return Err(FieldError::value(path, workers, "must be from 1 to 1024"));
        }
        if source.scope() != Scope::Worker {
            return Err(FieldError::value(
                path,
                workers,
                "goes with `scope: WORKER` alone; remove it",
            ));
        }
    }
    Ok(match source.scope() {
        Scope::Worker => RuleScope::Worker(source.workers),
        Scope::Mesh => RuleScope::Mesh,
        _ => RuleScope::Process,
    })
}

#[cold]
fn enforced(source: &RateLimitRule, path: &str) -> Result<u32, FieldError> {
    checks::percent(source.enforced_percent.unwrap_or(100.0), &format!("{path}.enforced_percent"))
}
