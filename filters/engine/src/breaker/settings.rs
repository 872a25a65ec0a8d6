//! The numbers by which a breaker goes, checked.

use weir_protos::FieldError;
use weir_protos::v1::circuit_breaker_rule::Strategy;
use weir_protos::v1::{CircuitBreakerRule, Window as Source};

use super::adaptive::Throttle;
use super::window::Shape;
use crate::core::checks::{Seconds, duration, percent};
use crate::core::ports::Nanos;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// Hystrix' and linkerd's: long enough to hold calls, short enough that old ones do not weigh.
const DEFAULT_WINDOW: Shape = Shape::Time { buckets: 10, width: S };

/// Fewer calls say too little: with 20, 50 % is out of reach of chance at a healthy 1 %.
const DEFAULT_MINIMUM_CALLS: u32 = 20;

const DEFAULT_FAILURE_RATE: f64 = 50.0;
const DEFAULT_OPEN: Nanos = 30 * S;
const DEFAULT_MAX_OPEN: Nanos = 300 * S;
const DEFAULT_MULTIPLIER: f64 = 2.0;

/// So that the proxies of a fleet do not all probe at once.
const DEFAULT_JITTER_PERCENT: u32 = 10;
const DEFAULT_PROBES: u32 = 5;
const DEFAULT_MAX_WAIT: Nanos = 30 * S;

/// Kept with each breaker, at 24 bytes a probe in flight.
const MAX_PROBES: u32 = 64;
const MIN_BUCKET: Nanos = 10 * MS;
const MAX_COUNT: u32 = 1000;
const DAY: Nanos = 86_400 * S;
const HOUR: Nanos = 3_600 * S;

/// Shares are in hundredths of a percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub shape: Shape,
    pub minimum_calls: u32,
    pub failure_rate: Option<u32>,
    pub slow_after: Option<Nanos>,
    pub slow_rate: Option<u32>,
    pub consecutive: Option<u32>,
    pub open: Nanos,
    /// In thousandths.
    pub multiplier: u64,
    pub max_open: Nanos,
    pub jitter_percent: u32,
    pub probes: u32,
    pub probe_success: u32,
    pub max_wait: Nanos,
    pub throttle: Option<Throttle>,
}

impl Settings {
    #[cold]
    pub fn compile(rule: &CircuitBreakerRule, path: &str) -> Result<Settings, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let share = |field: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(None) };
            let share = percent(value, &at(field))?;
            if share == 0 {
                return Err(FieldError::number(at(field), value, "must be over 0 and up to 100"));
            }
            Ok(Some(share))
        };
        let whole = |field: &str, value: Option<u32>, range: std::ops::RangeInclusive<u32>| {
            let Some(value) = value else { return Ok(None) };
            if !range.contains(&value) {
                let remedy = format!("must be from {} to {}", range.start(), range.end());
                return Err(FieldError::value(at(field), value, remedy));
            }
            Ok(Some(value))
        };
        let time = |field: &str, value, range| duration(value, range, &at(field));

        let is_adaptive = rule.strategy() == Strategy::Adaptive;
        let shape = shape(rule.window.as_ref(), is_adaptive, &at("window"))?;
        let minimum_calls = whole("minimum_calls", rule.minimum_calls, 1..=1_000_000)?;
        if let (Some(minimum), Shape::Count(calls)) = (minimum_calls, shape)
            && minimum > calls.into()
        {
            let remedy =
                format!("must be at most window.count, which is {calls}: no more calls are kept");
            return Err(FieldError::value(at("minimum_calls"), minimum, remedy));
        }
        let minimum_calls = minimum_calls.unwrap_or(match shape {
            Shape::Count(calls) => DEFAULT_MINIMUM_CALLS.min(calls.into()),
            Shape::Time { .. } => DEFAULT_MINIMUM_CALLS,
        });
        let failure_rate = percent(
            rule.failure_rate_percent.unwrap_or(DEFAULT_FAILURE_RATE),
            &at("failure_rate_percent"),
        )?;
        let slow_after = time("slow_call_duration", rule.slow_call_duration.as_ref(), MS..=HOUR)?;
        let slow_rate = share("slow_call_rate_percent", rule.slow_call_rate_percent)?;
        match (slow_after, slow_rate) {
            (Some(_), None) => {
                let remedy = "is missing; with slow_call_duration, give the share of slow calls that trips, e.g. 50";
                return Err(FieldError::at(at("slow_call_rate_percent"), remedy));
            }
            (None, Some(_)) => {
                let remedy = r#"is missing; with slow_call_rate_percent, give the time past which a call is slow, e.g. "1s""#;
                return Err(FieldError::at(at("slow_call_duration"), remedy));
            }
            _ => {}
        }
        let consecutive = whole("consecutive_failures", rule.consecutive_failures, 1..=1_000_000)?;
        if failure_rate == 0 && slow_rate.is_none() && consecutive.is_none() && !is_adaptive {
            let remedy = "turns the only thing off that could open this breaker; \
                          give slow_call_rate_percent or consecutive_failures, or a rate over 0";
            return Err(FieldError::value(at("failure_rate_percent"), 0, remedy));
        }
        let open = time("open_duration", rule.open_duration.as_ref(), 100 * MS..=DAY)?
            .unwrap_or(DEFAULT_OPEN);
        let max_open = time("max_open_duration", rule.max_open_duration.as_ref(), 100 * MS..=DAY)?;
        if let Some(most) = max_open.filter(|most| *most < open) {
            let remedy = "must be at least open_duration, or be left out";
            return Err(FieldError::value(at("max_open_duration"), Seconds(most), remedy));
        }
        let multiplier = rule.backoff_multiplier.unwrap_or(DEFAULT_MULTIPLIER);
        if !(1.0..=10.0).contains(&multiplier) {
            let remedy = "must be from 1 to 10";
            return Err(FieldError::number(at("backoff_multiplier"), multiplier, remedy));
        }
        let settings = Settings {
            shape,
            minimum_calls,
            failure_rate: (failure_rate > 0).then_some(failure_rate),
            slow_after,
            slow_rate,
            consecutive,
            open,
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 1 to 10.
            multiplier: (multiplier * 1000.0).round() as u64,
            max_open: max_open.unwrap_or(DEFAULT_MAX_OPEN.max(open)),
            jitter_percent: whole("jitter_percent", rule.jitter_percent, 0..=100)?
                .unwrap_or(DEFAULT_JITTER_PERCENT),
            probes: whole("half_open_probes", rule.half_open_probes, 1..=MAX_PROBES)?
                .unwrap_or(DEFAULT_PROBES),
            probe_success: share("half_open_success_percent", rule.half_open_success_percent)?
                .unwrap_or(10_000),
            max_wait: time("half_open_max_wait", rule.half_open_max_wait.as_ref(), 100 * MS..=HOUR)?
                .unwrap_or(DEFAULT_MAX_WAIT),
            throttle: Throttle::compile(rule.adaptive.as_ref(), is_adaptive, &at("adaptive"))?,
        };
        if is_adaptive {
            refuse_what_adaptive_lacks(rule, path)?;
        }
        Ok(settings)
    }

    pub fn is_adaptive(&self) -> bool {
        self.throttle.is_some()
    }

    /// The n-th lengthened opening: as it counts, and stretched at random.
    pub fn opening(&self, level: u8, random: u64) -> (Nanos, Nanos) {
        let mut base = self.open;
        for _ in 0..level {
            if base >= self.max_open {
                break;
            }
            base = (base / 1000).saturating_mul(self.multiplier);
        }
        let base = base.min(self.max_open);
        let spread = (base / 100).saturating_mul(self.jitter_percent.into());
        let extra = random.checked_rem(spread.saturating_add(1)).unwrap_or(0);
        (base, base.saturating_add(extra))
    }

    pub fn longest_opening(&self) -> Nanos {
        self.max_open
    }
}

#[cold]
fn shape(source: Option<&Source>, is_adaptive: bool, path: &str) -> Result<Shape, FieldError> {
    let Some(source) = source else { return Ok(DEFAULT_WINDOW) };
    match (source.count, &source.time) {
        (Some(calls), None) => {
            let path = format!("{path}.count");
            if is_adaptive {
                let remedy = "does not go with strategy ADAPTIVE; give window.time";
                return Err(FieldError::value(path, calls, remedy));
            }
            let fits = u16::try_from(calls).ok().filter(|_| (1..=MAX_COUNT).contains(&calls));
            fits.map(Shape::Count).ok_or_else(|| {
                FieldError::value(
                    path,
                    calls,
                    "must be from 1 to 1000; for more calls give window.time",
                )
            })
        }
        (None, Some(time)) => {
            let buckets = time.buckets.unwrap_or(10);
            let fits = u8::try_from(buckets).ok().filter(|_| (1..=60).contains(&buckets));
            let Some(buckets) = fits else {
                let path = format!("{path}.time.buckets");
                return Err(FieldError::value(path, buckets, "must be from 1 to 60"));
            };
            let path = format!("{path}.time.duration");
            let Some(length) = duration(time.duration.as_ref(), 100 * MS..=HOUR, &path)? else {
                return Err(FieldError::at(path, r#"is missing; give one such as "10s""#));
            };
            let width = length.checked_div(buckets.into()).unwrap_or(0);
            if width < MIN_BUCKET {
                let remedy = format!("is too short for {buckets} buckets: none may be under 10 ms");
                return Err(FieldError::value(path, Seconds(length), remedy));
            }
            Ok(Shape::Time { buckets, width })
        }
        _ => Err(FieldError::at(path, "must have one of: count, time")),
    }
}

/// There are no states in ADAPTIVE mode for these to speak of.
#[cold]
fn refuse_what_adaptive_lacks(rule: &CircuitBreakerRule, path: &str) -> Result<(), FieldError> {
    let fields = [
        ("failure_rate_percent", rule.failure_rate_percent.is_some()),
        ("slow_call_rate_percent", rule.slow_call_rate_percent.is_some()),
        ("consecutive_failures", rule.consecutive_failures.is_some()),
        ("open_duration", rule.open_duration.is_some()),
        ("backoff_multiplier", rule.backoff_multiplier.is_some()),
        ("max_open_duration", rule.max_open_duration.is_some()),
        ("jitter_percent", rule.jitter_percent.is_some()),
        ("half_open_probes", rule.half_open_probes.is_some()),
        ("half_open_success_percent", rule.half_open_success_percent.is_some()),
        ("half_open_max_wait", rule.half_open_max_wait.is_some()),
        ("open_on_header", rule.open_on_header.is_some()),
    ];
    match fields.iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => {
            let remedy = "does not go with strategy ADAPTIVE; remove it";
            Err(FieldError::at(format!("{path}.{field}"), remedy))
        }
        None => Ok(()),
    }
}
