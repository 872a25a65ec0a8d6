//! The section `mesh` of a policy, checked.

use std::cell::Cell;

use weir_protos::v1::rate_limit_rule::OnError;
use weir_protos::v1::{Mesh, mesh};
use weir_protos::{Duration, FieldError};

use crate::core::checks;
use crate::core::ports::Nanos;
use crate::limit::gcra::Rate;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

/// What a request may be made to wait: longer than a few round trips within a data centre, short beside
/// what a request takes.
const TIMEOUT: Nanos = 20 * MS;

/// A quarter of a lease is left when the next one is fetched: 60 ms, three times the timeout, and five
/// calls a second.
const AHEAD: Nanos = 250 * MS;

/// The shortest window that engines know is a second.
const MAX_AGE: Nanos = S;

/// So that all proxies together hold at most a quarter of the limit in leases.
const LEASE_SHARE: u64 = 4;
const MOST_BY_DEFAULT: u64 = 1000;

#[derive(Debug)]
pub struct Settings {
    pub cluster: String,
    pub domain: String,
    pub timeout: Nanos,
    most: Option<u32>,
    pub ahead: Nanos,
    pub max_age: Nanos,
    /// In hundredths of a percent; 0: there is no safe bucket.
    safe_share: u32,
    pub instances: u32,
    pub denies: bool,
    /// The key of shared data that tells whether the engine speaks.
    pub place: Vec<u8>,
    counts: Cell<CallCounts>,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    pub granted: u64,
    pub over_limit: u64,
    pub failed: u64,
    /// Answers that were none.
    pub nonsense: u64,
}

impl Settings {
    #[cold]
    pub fn compile(source: &Mesh, state_prefix: &str, path: &str) -> Result<Settings, FieldError> {
        let name = |field: &str, text: &str| {
            let path = format!("{path}.{field}");
            match text {
                "" => Err(FieldError::at(path, "is missing; give a name")),
                text if text.len() > 256 => {
                    Err(FieldError::value(path, text.len(), "bytes: must be at most 256"))
                }
                text => Ok(text.to_string()),
            }
        };
        let time = |field: &str, given: Option<&Duration>, least, most, default| {
            let path = format!("{path}.{field}");
            checks::duration(given, least..=most, &path).map(|time| time.unwrap_or(default))
        };
        let count = |field: &str, given: Option<u32>, most: u32| match given {
            Some(count) if !(1..=most).contains(&count) => {
                let remedy = format!("must be from 1 to {most}");
                Err(FieldError::value(format!("{path}.{field}"), count, remedy))
            }
            given => Ok(given),
        };
        let none = mesh::Lease::default();
        let lease = source.lease.as_ref().unwrap_or(&none);
        let safe = source.safe_share_percent.unwrap_or(0.0);
        let safe_share = checks::percent(safe, &format!("{path}.safe_share_percent"))?;
        let instances = count("instances", source.instances, 100_000)?;
        if safe_share > 0 && instances.is_none() {
            let remedy = "is missing; a safe share is divided by the number of proxies, give it";
            return Err(FieldError::at(format!("{path}.instances"), remedy));
        }
        Ok(Settings {
            cluster: name("cluster", &source.cluster)?,
            domain: name("domain", &source.domain)?,
            timeout: time("timeout", source.timeout.as_ref(), MS, S, TIMEOUT)?,
            most: count("lease.max", lease.max, 1_000_000)?,
            ahead: time("lease.ahead", lease.ahead.as_ref(), 10 * MS, 10 * S, AHEAD)?,
            max_age: time("lease.max_age", lease.max_age.as_ref(), 10 * MS, 60 * S, MAX_AGE)?,
            safe_share,
            instances: instances.unwrap_or(1),
            denies: source.on_error() == OnError::Deny,
            place: format!("{state_prefix}/rl/mesh").into_bytes(),
            counts: Cell::default(),
        })
    }

    pub fn count(&self, which: impl FnOnce(&mut CallCounts) -> &mut u64) {
        let mut counts = self.counts.get();
        let count = which(&mut counts);
        *count = count.saturating_add(1);
        self.counts.set(counts);
    }

    /// Hands over what has been counted.
    pub fn take_counts(&self) -> CallCounts {
        self.counts.take()
    }

    /// The most to fetch at once for a limit of so many.
    pub fn most(&self, limit: u64) -> u32 {
        self.most.unwrap_or_else(|| {
            let share = limit.checked_div(LEASE_SHARE.saturating_mul(self.instances.into()));
            u32::try_from(share.unwrap_or(0).clamp(1, MOST_BY_DEFAULT)).unwrap_or(1)
        })
    }

    /// The bucket that a proxy falls back to, if the policy gives it one.
    pub fn safe(&self, rate: Rate) -> Option<Rate> {
        let share = u128::from(self.safe_share);
        if share == 0 {
            return None;
        }
        let whole = u128::from(self.instances).saturating_mul(10_000);
        let max = u128::from(rate.max).saturating_mul(share).checked_div(whole)?;
        let per_token = u128::from(rate.per_token).saturating_mul(whole).div_ceil(share);
        Some(Rate {
            max: u64::try_from(max).unwrap_or(u64::MAX).max(1),
            per_token: u64::try_from(per_token).unwrap_or(u64::MAX),
        })
    }
}
