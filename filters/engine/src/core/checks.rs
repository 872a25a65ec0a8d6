//! Checks of values that the sections of a policy share. Here and elsewhere they are `cold`: a policy is read once,
//! and code that is not made part of each place that calls it is smaller.

use std::fmt;
use std::ops::RangeInclusive;

use weir_protos::{Duration, FieldError};

use super::ports::Nanos;

/// A percentage in hundredths.
#[cold]
pub fn percent(value: f64, path: &str) -> Result<u32, FieldError> {
    let hundredths = (value * 100.0).round();
    // A hundredth as a double is off by far less than this.
    if !(0.0..=10_000.0).contains(&hundredths) || (value * 100.0 - hundredths).abs() > 1e-6 {
        return Err(FieldError::number(path, value, "must be from 0 to 100 in steps of 0.01"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(hundredths as u32)
}

/// A duration within bounds, where one is given.
#[cold]
pub fn duration(
    value: Option<&Duration>,
    range: RangeInclusive<Nanos>,
    path: &str,
) -> Result<Option<Nanos>, FieldError> {
    let Some(value) = value else { return Ok(None) };
    let seconds = u64::try_from(value.seconds).unwrap_or(u64::MAX);
    let nanos =
        seconds.saturating_mul(1_000_000_000).saturating_add(value.nanos.unsigned_abs().into());
    if !range.contains(&nanos) {
        let remedy =
            format!("must be from {} to {}", Seconds(*range.start()), Seconds(*range.end()));
        return Err(FieldError::value(path, Seconds(nanos), remedy));
    }
    Ok(Some(nanos))
}

/// A duration as a policy writes it.
pub struct Seconds(pub Nanos);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            return write!(f, "\"{whole}s\"");
        }
        let digits = format!("{rest:09}");
        write!(f, "\"{whole}.{}s\"", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_named_as_a_policy_writes_them() {
        let range = 10_000_000..=500_000_000;
        let given = |nanos| Duration { seconds: 0, nanos };
        assert_eq!(duration(None, range.clone(), "p"), Ok(None));
        assert_eq!(duration(Some(&given(50_000_000)), range.clone(), "p"), Ok(Some(50_000_000)));
        let refused = duration(Some(&given(1_000_000)), range, "p").unwrap_err();
        assert_eq!(refused.to_string(), r#"p: "0.001s" must be from "0.01s" to "0.5s""#);
    }
}
