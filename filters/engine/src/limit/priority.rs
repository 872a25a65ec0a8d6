//! Low-priority requests are shed first: the last share of a limit is kept for the others.

use weir_protos::FieldError;
use weir_protos::v1::Priority as Source;

use crate::core::checks;
use crate::core::headers::{HeaderMap, header_name};

const DEFAULT_HEADER: &str = "qos_level";
const DEFAULT_HIGH: &str = "high";
const MAX_HIGH: usize = 16;

#[derive(Debug)]
pub struct Priority {
    header: Box<[u8]>,
    high: Vec<Box<[u8]>>,
    /// In hundredths of a percent.
    reserve: u32,
}

impl Priority {
    /// `limits` are the sizes of the rule's buckets, and of what may be in flight; `cost` is what a
    /// request takes of the former.
    #[cold]
    pub fn compile(
        source: Option<&Source>,
        limits: &[(u64, u64)],
        path: &str,
    ) -> Result<Option<Priority>, FieldError> {
        let Some(source) = source else { return Ok(None) };
        let path = format!("{path}.priority");
        let header = match source.header.as_str() {
            "" => DEFAULT_HEADER.to_string(),
            given => header_name(given).ok_or_else(|| {
                let remedy = "must be a header name, such as qos_level";
                FieldError::value(format!("{path}.header"), format_args!("{given:?}"), remedy)
            })?,
        };
        if source.high.len() > MAX_HIGH {
            let path = format!("{path}.high");
            return Err(FieldError::value(path, source.high.len(), "values: must be at most 16"));
        }
        let high: Vec<Box<[u8]>> = match source.high.as_slice() {
            [] => vec![DEFAULT_HIGH.as_bytes().into()],
            given => given.iter().map(|value| value.as_bytes().into()).collect(),
        };
        if let Some(place) = high.iter().position(|value| value.is_empty()) {
            let path = format!("{path}.high[{place}]");
            return Err(FieldError::value(path, "\"\"", "must be a value of the header"));
        }
        let path = format!("{path}.reserve_percent");
        let Some(percent) = source.reserve_percent else {
            return Err(FieldError::at(path, "is missing; give a share between 0 and 100"));
        };
        let reserve = checks::percent(percent, &path)?;
        if !(1..10_000).contains(&reserve) {
            return Err(FieldError::number(path, percent, "must be between 0 and 100"));
        }
        let priority = Priority { header: header.into_bytes().into(), high, reserve };
        for (most, cost) in limits {
            let rest = most.saturating_sub(priority.share(*most));
            if rest < *cost {
                let remedy = format!(
                    "leaves {rest} of {most} to requests of low priority, which cost {cost}; lower it"
                );
                return Err(FieldError::number(path, percent, remedy));
            }
        }
        Ok(Some(priority))
    }

    /// How much of a limit a request has to leave.
    pub fn reserve(&self, headers: &HeaderMap, most: u64) -> u64 {
        let class = headers.get_one(&self.header);
        let is_high = class.is_some_and(|class| self.high.iter().any(|high| **high == *class));
        if is_high { 0 } else { self.share(most) }
    }

    /// Rounded up, but never all of it.
    fn share(&self, most: u64) -> u64 {
        let share = most.saturating_mul(self.reserve.into()).div_ceil(10_000);
        share.min(most.saturating_sub(1))
    }
}

#[cfg(test)]
#[path = "priority_tests.rs"]
mod tests;
