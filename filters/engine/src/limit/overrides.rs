//! Keys with a bucket of another size or speed, or without one.
//!
//! Found by one look into a hash table and one binary search, so that ten thousand cost what ten do.

use std::collections::HashMap;
use std::net::IpAddr;

use weir_protos::FieldError;
use weir_protos::v1::{Override, RateLimitRule};

use super::calendar::Filling;
use super::gcra::Rate;
use super::rule::{Fields, rate};
use crate::core::key::Key;
use crate::core::ports::Nanos;
use crate::core::request::{mask, normal_address};
use crate::core::source::Source;

/// Values and prefixes of one rule: what fits into a policy.
const MOST: usize = 10_000;

const MAX_VALUE: usize = 1024;
const MAX_PREFIX: usize = 256;

/// What an override gives a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Terms {
    Rate(Rate),
    Unlimited,
}

#[derive(Debug)]
pub struct Overrides {
    /// The part of the key that they look at.
    part: usize,
    exact: HashMap<Box<[u8]>, Terms>,
    /// Sorted by their text.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    terms: Terms,
    /// The longest other prefix that this one begins with.
    within: Option<usize>,
}

impl Overrides {
    /// `None` for a rule without any.
    #[cold]
    pub fn compile(
        source: &RateLimitRule,
        key: &Key,
        filling: Filling,
        path: &str,
    ) -> Result<Option<Overrides>, FieldError> {
        let part = source.override_part.unwrap_or(0) as usize;
        if source.overrides.is_empty() {
            let stray = source.override_part.map(|part| {
                let remedy = "goes with `overrides` alone; remove it";
                FieldError::value(format!("{path}.override_part"), part, remedy)
            });
            return stray.map_or(Ok(None), Err);
        }
        let Some(kind) = key.part(part) else {
            if key.is_empty() {
                let remedy = "must go with `key`: they say which keys they mean";
                return Err(FieldError::at(format!("{path}.overrides"), remedy));
            }
            let remedy = "must be the place of a part of `key`, counted from 0";
            return Err(FieldError::value(format!("{path}.override_part"), part, remedy));
        };
        let count: usize = source.overrides.iter().map(values).sum();
        if count > MOST {
            let remedy = "values and prefixes: must be at most 10000 in all";
            return Err(FieldError::value(format!("{path}.overrides"), count, remedy));
        }
        let mut exact = HashMap::with_capacity(count);
        let mut prefixes = Vec::new();
        for (place, one) in source.overrides.iter().enumerate() {
            let path = format!("{path}.overrides[{place}]");
            let terms = terms(one, source, filling, &path)?;
            for (place, value) in one.exact.iter().enumerate() {
                let path = format!("{path}.exact[{place}]");
                let bytes = checked_value(value, kind, &path)?;
                if exact.insert(bytes, terms).is_some() {
                    let remedy = "must stand in one override alone; it stands in an earlier one";
                    return Err(FieldError::value(path, format_args!("{value:?}"), remedy));
                }
            }
            if !one.prefix.is_empty() {
                let path = format!("{path}.prefix");
                check_prefix(&one.prefix, kind, &path)?;
                prefixes.push((one.prefix.as_bytes().into(), terms, path));
            }
        }
        Ok(Some(Overrides { part, exact, prefixes: nest(prefixes)? }))
    }

    pub fn part(&self) -> usize {
        self.part
    }

    /// The terms of the key whose part has this value; `None` where they are the rule's own.
    pub fn find(&self, value: &[u8]) -> Option<Terms> {
        if let Some(terms) = self.exact.get(value) {
            return Some(*terms);
        }
        // A prefix of the value sorts before it, and what sorts between the two begins with that
        // prefix as well: the longest is the one right before the value, or one that it lies in.
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *value);
        let mut place = after.checked_sub(1);
        while let Some(prefix) = place.and_then(|place| self.prefixes.get(place)) {
            if value.starts_with(&prefix.text) {
                return Some(prefix.terms);
            }
            place = prefix.within;
        }
        None
    }

    /// The size of their smallest bucket.
    pub fn smallest(&self) -> u64 {
        self.rates().map(|rate| rate.max).min().unwrap_or(u64::MAX)
    }

    /// The size of their largest bucket.
    pub fn largest(&self) -> u64 {
        self.rates().map(|rate| rate.max).max().unwrap_or(0)
    }

    /// The longest that a token of theirs takes to come back.
    pub fn slowest(&self) -> Nanos {
        self.rates().map(|rate| rate.per_token).max().unwrap_or(0)
    }

    fn rates(&self) -> impl Iterator<Item = Rate> {
        let all = self.exact.values().chain(self.prefixes.iter().map(|prefix| &prefix.terms));
        all.filter_map(|terms| match terms {
            Terms::Rate(rate) => Some(*rate),
            Terms::Unlimited => None,
        })
    }
}

fn values(one: &Override) -> usize {
    one.exact.len().saturating_add(usize::from(!one.prefix.is_empty()))
}

#[cold]
fn terms(
    one: &Override,
    rule: &RateLimitRule,
    filling: Filling,
    path: &str,
) -> Result<Terms, FieldError> {
    if values(one) == 0 {
        return Err(FieldError::at(path, "must name keys; give `exact` or `prefix`"));
    }
    let has_bucket =
        one.max_tokens.is_some() || one.tokens_per_fill.is_some() || one.fill_interval.is_some();
    match (one.unlimited, has_bucket) {
        (true, false) => return Ok(Terms::Unlimited),
        (true, true) => {
            let remedy = "goes without max_tokens, tokens_per_fill and fill_interval; remove them";
            return Err(FieldError::value(format!("{path}.unlimited"), true, remedy));
        }
        (false, false) => {
            let remedy = "must give one of: unlimited, max_tokens, tokens_per_fill, fill_interval";
            return Err(FieldError::at(path, remedy));
        }
        (false, true) => {}
    }
    let fields = Fields {
        max_tokens: one.max_tokens.or(rule.max_tokens),
        tokens_per_fill: one.tokens_per_fill.or(rule.tokens_per_fill),
        fill_interval: one.fill_interval.as_ref().or(rule.fill_interval.as_ref()),
    };
    Ok(Terms::Rate(rate(fields, filling, path)?))
}

#[cold]
fn checked_value(value: &str, kind: &Source, path: &str) -> Result<Box<[u8]>, FieldError> {
    if value.len() > MAX_VALUE {
        let shown = format_args!("{} bytes:", value.len());
        return Err(FieldError::value(path, shown, "must be at most 1024"));
    }
    let Source::SourceAddress { v4_prefix, v6_prefix } = kind else {
        return Ok(value.as_bytes().into());
    };
    let wrong = |remedy: &str| FieldError::value(path, format_args!("{value:?}"), remedy);
    let address: IpAddr =
        value.parse().map_err(|_| wrong("must be an address, such as 10.0.0.7 or 2001:db8::"))?;
    let address = normal_address(address);
    let masked = mask(address, *v4_prefix, *v6_prefix);
    if masked != address {
        let remedy = format!("must be {masked}, since the key is masked");
        return Err(wrong(&remedy));
    }
    Ok(octets(masked))
}

/// As the key has them.
fn octets(address: IpAddr) -> Box<[u8]> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

#[cold]
fn check_prefix(prefix: &str, kind: &Source, path: &str) -> Result<(), FieldError> {
    if matches!(kind, Source::SourceAddress { .. }) {
        let remedy = "does not go with `source_address`; give `exact` addresses, and mask the key";
        return Err(FieldError::value(path, format_args!("{prefix:?}"), remedy));
    }
    if prefix.len() > MAX_PREFIX {
        let shown = format_args!("{} bytes:", prefix.len());
        return Err(FieldError::value(path, shown, "must be at most 256"));
    }
    Ok(())
}

/// Sorts prefixes and finds for each the one that it lies in.
#[cold]
fn nest(mut all: Vec<(Box<[u8]>, Terms, String)>) -> Result<Vec<Prefix>, FieldError> {
    all.sort_unstable_by(|(a, _, at), (b, _, other)| (a, at).cmp(&(b, other)));
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(all.len());
    for (text, terms, path) in all {
        let mut within = prefixes.len().checked_sub(1);
        while let Some(outer) = within.and_then(|place| prefixes.get(place)) {
            if text == outer.text {
                let remedy = "must stand in one override alone; it stands in another one";
                let shown = String::from_utf8_lossy(&text).into_owned();
                return Err(FieldError::value(path, format_args!("{shown:?}"), remedy));
            }
            if text.starts_with(&outer.text) {
                break;
            }
            within = outer.within;
        }
        prefixes.push(Prefix { text, terms, within });
    }
    Ok(prefixes)
}

#[cfg(test)]
#[path = "overrides_tests.rs"]
mod tests;
