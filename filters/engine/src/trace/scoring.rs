//! The section `sampling.scoring`: a sum of weights, and three bands.

use weir_protos::FieldError;
use weir_protos::v1::{Scoring as Source, direction};

use super::threshold::{Probability, Threshold};
use crate::core::matcher::Matcher;
use crate::core::policy::Common;
use crate::core::ports::Attributes;
use crate::core::request::Request;
use crate::core::statuses::Statuses;

/// Each is looked at for every new trace.
const MAX_WEIGHTS: usize = 64;

/// Scores are counted in ten-thousandths, so that sums of decimal fractions are exact: 0.3 + 0.5 is
/// 0.8 and not a little more.
const ONE: f64 = 10_000.0;

#[derive(Debug)]
pub struct Scoring {
    weights: Vec<(Matcher, i32)>,
    statuses: Vec<(Statuses, i32)>,
}

/// How much of what scores so is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    All,
    OneInTen,
    None,
}

impl Band {
    /// Above 0.8 all, above 0.3 one in ten; the bounds themselves belong to the band below.
    pub fn of(score: i32) -> Band {
        match score {
            8001.. => Band::All,
            3001.. => Band::OneInTen,
            _ => Band::None,
        }
    }

    pub fn threshold(self) -> Threshold {
        let percent = match self {
            Band::All => 100.0,
            Band::OneInTen => 10.0,
            Band::None => 0.0,
        };
        Probability::from_percent(percent).map_or(Threshold::NEVER, Probability::threshold)
    }
}

impl Scoring {
    #[cold]
    pub fn compile(source: &Source, common: &Common, path: &str) -> Result<Scoring, FieldError> {
        for (field, count) in
            [("weights", source.weights.len()), ("statuses", source.statuses.len())]
        {
            if count > MAX_WEIGHTS {
                let path = format!("{path}.{field}");
                return Err(FieldError::value(path, count, "entries: must be at most 64"));
            }
        }
        if source.weights.is_empty() && source.statuses.is_empty() {
            return Err(FieldError::at(path, "must have `weights` or `statuses`"));
        }
        let defaults = common.match_defaults(direction::Value::Any).plain();
        let weights = source.weights.iter().enumerate().map(|(place, weight)| {
            let path = format!("{path}.weights[{place}]");
            if weight.r#match.is_none() {
                let remedy = "is missing; say which requests weigh this much";
                return Err(FieldError::at(format!("{path}.match"), remedy));
            }
            let matcher =
                Matcher::compile(weight.r#match.as_ref(), &format!("{path}.match"), &defaults)?;
            Ok((matcher, points(weight.weight, &format!("{path}.weight"))?))
        });
        let statuses = source.statuses.iter().enumerate().map(|(place, weight)| {
            let path = format!("{path}.statuses[{place}]");
            let list = format!("{path}.http_statuses");
            let statuses = Statuses::compile(&weight.http_statuses, &list)?;
            let statuses = statuses.ok_or_else(|| {
                FieldError::at(list, "is missing; say which statuses weigh this much")
            })?;
            Ok((statuses, points(weight.weight, &format!("{path}.weight"))?))
        });
        Ok(Scoring {
            weights: weights.collect::<Result<_, _>>()?,
            statuses: statuses.collect::<Result<_, _>>()?,
        })
    }

    pub fn of_request<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) -> i32 {
        let holds = self.weights.iter().filter(|(matcher, _)| matcher.matches(request, attributes));
        holds.fold(0, |score, (_, points)| score.saturating_add(*points))
    }

    pub fn asks_for_status(&self) -> bool {
        !self.statuses.is_empty()
    }

    /// Whether a span is kept once its status is known.
    pub fn is_kept(&self, score: i32, status: u16, randomness: u64) -> bool {
        let holds = self.statuses.iter().filter(|(statuses, _)| statuses.has(status));
        let score = holds.fold(score, |score, (_, points)| score.saturating_add(*points));
        Band::of(score).threshold().is_kept(randomness)
    }
}

#[cold]
fn points(weight: f64, path: &str) -> Result<i32, FieldError> {
    let points = (weight * ONE).round();
    if !(-ONE..=ONE).contains(&points) || (weight * ONE - points).abs() > 1e-6 {
        let remedy = "must be from -1 to 1 in steps of 0.0001";
        return Err(FieldError::number(path, weight, remedy));
    }
    #[allow(clippy::cast_possible_truncation)] // Within 10 000.
    Ok(points as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_belong_to_the_band_below() {
        let points = |weight| points(weight, "p").unwrap();
        for (score, band) in [
            (points(0.3), Band::None),
            (points(0.3001), Band::OneInTen),
            (points(0.8), Band::OneInTen),
            (points(0.3) + points(0.5), Band::OneInTen),
            (points(0.1) + points(0.2), Band::None),
            (points(0.8001), Band::All),
            (points(-1.0), Band::None),
        ] {
            assert_eq!(Band::of(score), band, "{score}");
        }
    }

    #[test]
    fn weights_are_checked() {
        for weight in [1.1, -1.01, 0.00001, f64::NAN, f64::INFINITY] {
            assert!(points(weight, "p").is_err(), "{weight}");
        }
    }
}
