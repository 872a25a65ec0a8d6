//! One rule of the policy, checked and ready.

use std::cell::Cell;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::circuit_breaker_rule::{Measure, OnMatch, State as Forced, Strategy};
use weir_protos::v1::{CircuitBreakerRule, OpenOnHeader, mode};

use super::metrics::Counts;
use super::reply::WhileOpen;
use super::settings::Settings;
use super::verdict::Classes;
use crate::core::checks::{duration, percent};
use crate::core::headers::HeaderMap;
use crate::core::key::{self, Fingerprint, Key};
use crate::core::matcher::{MatchDefaults, Matcher, checked_header};
use crate::core::policy::{Common, effective_mode};
use crate::core::ports::Nanos;
use crate::core::rules::rule_id;
use crate::core::statuses::Statuses;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// Breakers that a rule remembers unless the policy says otherwise.
const DEFAULT_MAX_KEYS: u32 = 10_000;

/// A breaker takes a few hundred bytes, so this many are some tens of megabytes.
const MOST_KEYS: u32 = 100_000;

/// Slots are provided twice over, so that a table at its `max_keys` still rarely has a full set.
const KEYS_PER_SET: u32 = 4;

/// Longer than any unary call should take, far below what a probe may take.
const DEFAULT_STREAM_AFTER: Nanos = 5 * S;

const DEFAULT_MAX_HEADER_OPEN: Nanos = 300 * S;

#[derive(Debug)]
pub struct Rule {
    pub id: String,
    pub mode: mode::Value,
    /// In hundredths of a percent.
    pub enforced: u32,
    pub matcher: Matcher,
    pub stops: bool,
    pub key: Key,
    pub forced: Forced,
    pub settings: Settings,
    pub classes: Classes,
    pub counts_to_the_end: bool,
    pub stream_after: Nanos,
    pub header: Option<HeaderOpen>,
    pub while_open: WhileOpen,
    /// How old a worker's copy of a breaker may be.
    pub sync: Nanos,
    /// Sets of the rule's table; 1 for a rule without a key.
    pub sets: u32,
    /// Sets of the table before the last edit of its size.
    pub sets_before: Cell<Option<u32>>,
    /// The start of the keys of its state.
    pub state: Rc<[u8]>,
    /// The same as a number: the fingerprint of a rule without a key.
    pub scope: Fingerprint,
    pub counts: Counts,
}

/// The start of the keys of all breakers of a policy.
pub fn prefix(common: &Common) -> String {
    format!("{}/cb/", common.identity.state_prefix)
}

/// Responses that open the breaker.
#[derive(Debug)]
pub struct HeaderOpen {
    header: Box<[u8]>,
    statuses: Statuses,
    most: Nanos,
}

impl Rule {
    /// `None` for a rule that is off.
    #[cold]
    pub fn compile(
        source: &CircuitBreakerRule,
        path: &str,
        common: &Common,
        section: mode::Value,
        sync: Nanos,
        defaults: &MatchDefaults,
    ) -> Result<Option<Rule>, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        rule_id(&source.id, &at("id"))?;
        let key = Key::compile(&source.key, &common.color_header, &at("key"))?;
        let max_keys = source.max_keys.unwrap_or(DEFAULT_MAX_KEYS);
        if !(1..=MOST_KEYS).contains(&max_keys) {
            return Err(FieldError::value(at("max_keys"), max_keys, "must be from 1 to 100000"));
        }
        if key.is_empty() && source.max_keys.is_some() {
            let remedy = "goes with `key` alone; remove it";
            return Err(FieldError::value(at("max_keys"), max_keys, remedy));
        }
        // What ADAPTIVE counts means something else, so it lies elsewhere.
        let kind = if source.strategy() == Strategy::Adaptive { "a" } else { "" };
        let state = format!("{}{}/{kind}", prefix(common), source.id);
        let rule = Rule {
            mode: effective_mode(&[common.mode, section, source.mode()]),
            enforced: percent(source.enforced_percent.unwrap_or(100.0), &at("enforced_percent"))?,
            matcher: Matcher::compile(source.r#match.as_ref(), &at("match"), defaults)?,
            stops: source.on_match() == OnMatch::Stop,
            sets: if key.is_empty() {
                1
            } else {
                max_keys.div_ceil(KEYS_PER_SET).next_power_of_two()
            },
            key,
            forced: source.state(),
            settings: Settings::compile(source, path)?,
            classes: Classes::compile(source.failures.as_ref(), source.ignore.as_ref(), path)?,
            counts_to_the_end: source.measure() == Measure::Complete,
            stream_after: duration(
                source.stream_verdict_after.as_ref(),
                100 * MS..=3600 * S,
                &at("stream_verdict_after"),
            )?
            .unwrap_or(DEFAULT_STREAM_AFTER),
            header: match &source.open_on_header {
                Some(header) => Some(HeaderOpen::compile(header, &at("open_on_header"))?),
                None => None,
            },
            while_open: WhileOpen::compile(source.while_open.as_ref(), &at("while_open"))?,
            sync,
            scope: key::scope(state.as_bytes()),
            state: state.into_bytes().into(),
            sets_before: Cell::new(None),
            counts: Counts::default(),
            id: source.id.clone(),
        };
        Ok((rule.mode != mode::Value::Off).then_some(rule))
    }

    pub fn enforces(&self) -> bool {
        self.mode == mode::Value::Enforce
    }
}

impl HeaderOpen {
    #[cold]
    fn compile(source: &OpenOnHeader, path: &str) -> Result<HeaderOpen, FieldError> {
        let statuses = Statuses::compile(&source.http_statuses, &format!("{path}.http_statuses"))?;
        let longest = format!("{path}.max_duration");
        Ok(HeaderOpen {
            header: checked_header(&source.header, &format!("{path}.header"))?,
            statuses: statuses.unwrap_or(Statuses::one(503)),
            most: duration(source.max_duration.as_ref(), 100 * MS..=86_400 * S, &longest)?
                .unwrap_or(DEFAULT_MAX_HEADER_OPEN),
        })
    }

    /// For how long a response opens the breaker. Seconds only: a date would need a clock that
    /// agrees with the upstream's.
    pub fn asks(&self, status: u16, response: &HeaderMap) -> Option<Nanos> {
        if !self.statuses.has(status) {
            return None;
        }
        let text = response.get(&self.header)?.trim_ascii();
        if text.is_empty() || text.len() > 9 || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let seconds: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        (seconds > 0).then(|| seconds.saturating_mul(S).min(self.most))
    }
}
