//! Client-side throttling: instead of opening and closing, a share of the calls is refused that
//! follows how many of them are not accepted ("Site Reliability Engineering", chapter 21).
//!
//! In a window of this mode `total` counts requests when they arrive, refused ones included, since
//! a count made when they end would lag behind by as long as a failing upstream takes; `failed`
//! counts the accepted ones, and `slow` those that turned out to say nothing either way.

use weir_protos::FieldError;
use weir_protos::v1::Adaptive;

use super::window::Sums;
use crate::core::checks::percent;

/// The book's own: the upstream gets at most twice what it accepts.
const DEFAULT_K: f64 = 2.0;

/// As failsafe's throttler: what still gets through tells when the upstream is well again.
const DEFAULT_MOST: f64 = 90.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// In thousandths.
    k: u64,
    /// The largest share that is refused, in hundredths of a percent.
    most: u32,
}

impl Throttle {
    #[cold]
    pub fn compile(
        source: Option<&Adaptive>,
        is_adaptive: bool,
        path: &str,
    ) -> Result<Option<Throttle>, FieldError> {
        if !is_adaptive {
            return match source {
                Some(_) => {
                    Err(FieldError::at(path, "goes with strategy ADAPTIVE alone; remove it"))
                }
                None => Ok(None),
            };
        }
        let source = source.copied().unwrap_or_default();
        let k = source.k.unwrap_or(DEFAULT_K);
        if !(1.0..=10.0).contains(&k) {
            return Err(FieldError::number(format!("{path}.k"), k, "must be from 1 to 10"));
        }
        let share = source.max_rejection_percent.unwrap_or(DEFAULT_MOST);
        let path = format!("{path}.max_rejection_percent");
        let most = percent(share, &path)?;
        if most < 100 {
            return Err(FieldError::number(path, share, "must be from 1 to 100"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 1 to 10.
        let k = (k * 1000.0).round() as u64;
        Ok(Some(Throttle { k, most }))
    }

    /// Whether the next call is refused: `random` against
    /// `max(0, (requests - k x accepted) / (requests + 1))`, below which share it falls that often.
    pub fn refuses(&self, sums: Sums, minimum_calls: u32, random: u64) -> bool {
        let requests = u64::from(sums.total.saturating_sub(sums.slow));
        if requests < minimum_calls.into() {
            return false;
        }
        // Both sides of the fraction in thousandths.
        let accepted = u64::from(sums.failed).saturating_mul(self.k);
        let excess = requests.saturating_mul(1000).saturating_sub(accepted);
        let all = requests.saturating_add(1).saturating_mul(1000);
        let draw = random >> 33;
        // draw / 2^31 < excess / all, without a fraction; all fits 43 bits.
        let is_below = u128::from(draw).saturating_mul(all.into())
            < u128::from(excess).saturating_mul(1 << 31);
        let is_allowed = draw.saturating_mul(10_000) < u64::from(self.most) << 31;
        is_below && is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(throttle: Throttle, requests: u32, accepted: u32) -> f64 {
        let sums = Sums { total: requests, failed: accepted, slow: 0 };
        let refused =
            (0..10_000_u64).filter(|n| throttle.refuses(sums, 1, n * (u64::MAX / 10_000))).count();
        refused as f64 / 10_000.0
    }

    #[test]
    fn the_share_is_the_books() {
        let throttle = |k| Throttle { k, most: 10_000 };
        for (k, requests, accepted) in [
            (2.0, 100_u32, 100_u32),
            (2.0, 100, 50),
            (2.0, 100, 49),
            (2.0, 100, 10),
            (2.0, 100, 0),
            (1.1, 100, 90),
            (1.1, 1000, 500),
            (1.0, 10, 9),
        ] {
            let (r, a) = (f64::from(requests), f64::from(accepted));
            let expected = ((r - k * a) / (r + 1.0)).max(0.0);
            let found = share(throttle((k * 1000.0) as u64), requests, accepted);
            assert!((found - expected).abs() < 0.001, "{k} {requests} {accepted}: {found}");
        }
        let capped = Throttle { k: 2000, most: 9000 };
        assert!((share(capped, 1000, 0) - 0.9).abs() < 0.001);
    }

    #[test]
    fn too_few_calls_and_calls_that_say_nothing_refuse_none() {
        let throttle = Throttle { k: 2000, most: 10_000 };
        assert!(!throttle.refuses(Sums { total: 19, failed: 0, slow: 0 }, 20, 0));
        assert!(throttle.refuses(Sums { total: 20, failed: 0, slow: 0 }, 20, 0));
        assert!(!throttle.refuses(Sums { total: 100, failed: 0, slow: 90 }, 20, 0));
    }
}
