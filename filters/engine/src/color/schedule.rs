//! When a rule holds, and how its first share grows: a pure function of the clock and the policy, so
//! that every instance agrees.

use weir_protos::FieldError;
use weir_protos::v1::Schedule as Source;

use crate::core::ports::Nanos;

const S: i64 = 1_000_000_000;
const MAX_STEPS: usize = 32;

/// Nanoseconds since 1970.
type Instant = i64;

#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    end: Instant,
    full: u16,
    growth: Growth,
}

#[derive(Debug)]
enum Growth {
    None,
    Ramp {
        from: Instant,
        to: Instant,
    },
    /// In order of time.
    Steps(Vec<(Instant, u16)>),
}

impl Schedule {
    /// `full` is the first share's weight.
    #[cold]
    pub fn compile(source: &Source, full: u16, path: &str) -> Result<Schedule, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let or = |text: &str, default: Instant, field: &str| {
            if text.is_empty() { Ok(default) } else { time(text, &at(field)) }
        };
        let (start, end) =
            (or(&source.start, Instant::MIN, "start")?, or(&source.end, Instant::MAX, "end")?);
        if end <= start {
            let remedy = "must be after `start`";
            return Err(FieldError::value(at("end"), format_args!("{:?}", source.end), remedy));
        }
        if source.ramp.is_some() && !source.steps.is_empty() {
            return Err(FieldError::at(at("steps"), "excludes `ramp`; keep one of the two"));
        }
        let growth = if let Some(ramp) = &source.ramp {
            let (from, to) = (time(&ramp.from, &at("ramp.from"))?, time(&ramp.to, &at("ramp.to"))?);
            if to <= from {
                let remedy = "must be after `from`";
                return Err(FieldError::value(
                    at("ramp.to"),
                    format_args!("{:?}", ramp.to),
                    remedy,
                ));
            }
            Growth::Ramp { from, to }
        } else if source.steps.is_empty() {
            Growth::None
        } else {
            Growth::Steps(steps(source, full, path)?)
        };
        Ok(Schedule { start, end, full, growth })
    }

    /// Basis points of the first share at this time; `None` where the rule does not hold.
    pub fn first_weight(&self, wall: Nanos) -> Option<u16> {
        let now = Instant::try_from(wall).unwrap_or(Instant::MAX);
        if now < self.start || now >= self.end {
            return None;
        }
        Some(match &self.growth {
            Growth::None => self.full,
            Growth::Ramp { from, to } => {
                let gone = i128::from(now.clamp(*from, *to)).saturating_sub(i128::from(*from));
                let whole = i128::from(*to).saturating_sub(i128::from(*from)).max(1);
                let share = gone.saturating_mul(i128::from(self.full)).checked_div(whole);
                share.and_then(|share| u16::try_from(share).ok()).unwrap_or(0)
            }
            Growth::Steps(steps) => {
                let last = steps.iter().rev().find(|(at, _)| *at <= now);
                last.map_or(0, |(_, weight)| *weight)
            }
        })
    }
}

#[cold]
fn steps(source: &Source, full: u16, path: &str) -> Result<Vec<(Instant, u16)>, FieldError> {
    if source.steps.len() > MAX_STEPS {
        let path = format!("{path}.steps");
        return Err(FieldError::value(path, source.steps.len(), "steps: must be at most 32"));
    }
    let mut steps: Vec<(Instant, u16)> = Vec::with_capacity(source.steps.len());
    for (place, step) in source.steps.iter().enumerate() {
        let path = format!("{path}.steps[{place}]");
        let at = time(&step.at, &format!("{path}.at"))?;
        if steps.last().is_some_and(|(before, _)| *before >= at) {
            let remedy = "must be after the step before it";
            return Err(FieldError::value(
                format!("{path}.at"),
                format_args!("{:?}", step.at),
                remedy,
            ));
        }
        let weight = u16::try_from(step.weight).ok().filter(|weight| *weight <= full);
        let weight = weight.ok_or_else(|| {
            let remedy = format!("must be from 0 to {full}, the first share's weight");
            FieldError::value(format!("{path}.weight"), step.weight, remedy)
        })?;
        steps.push((at, weight));
    }
    Ok(steps)
}

#[cold]
fn time(text: &str, path: &str) -> Result<Instant, FieldError> {
    parse(text.as_bytes()).ok_or_else(|| {
        let remedy = "must be a time of RFC 3339, such as 2026-11-28T00:00:00+08:00";
        FieldError::value(path, format_args!("{text:?}"), remedy)
    })
}

/// RFC 3339 section 5.6, `date-time`. A leap second counts as the second after it.
pub fn parse(text: &[u8]) -> Option<Instant> {
    let (head, rest) = text.split_at_checked(19)?;
    let digits = |from: usize, count: usize| -> Option<i64> {
        let part = head.get(from..from.checked_add(count)?)?;
        let is_number = part.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(part).ok().filter(|_| is_number)?.parse().ok()
    };
    let is = |at: usize, bytes: &[u8]| head.get(at).is_some_and(|byte| bytes.contains(byte));
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !separated || !in_range {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
            let (digits, zone) = rest.split_at_checked(end).filter(|_| end > 0)?;
            let places = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
            let nanos = places.fold(0_i64, |nanos, digit| {
                nanos.wrapping_mul(10).wrapping_add(i64::from(digit.wrapping_sub(b'0')))
            });
            (nanos, zone)
        }
        None => (0, rest),
    };
    let seconds = days_since_1970(year, month, day)
        .checked_mul(86_400)?
        .checked_add(hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?)?
        .checked_add(second)?
        .checked_sub(offset(zone)?)?;
    seconds.checked_mul(S)?.checked_add(fraction)
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = match zone.split_first()? {
        (b'Z' | b'z', []) => return Some(0),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1_i64, rest),
        _ => return None,
    };
    let [a, b, b':', c, d] = rest else { return None };
    let number = |tens: &u8, ones: &u8| -> Option<i64> {
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte.wrapping_sub(b'0')));
        Some(digit(tens)?.wrapping_mul(10).wrapping_add(digit(ones)?))
    };
    let (hours, minutes) = (number(a, b)?, number(c, d)?);
    let seconds = hours.wrapping_mul(3600).wrapping_add(minutes.wrapping_mul(60));
    (hours <= 23 && minutes <= 59).then(|| seconds.wrapping_mul(sign))
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// By the calendar in which a year begins in March, so that the leap day is its last.
#[allow(clippy::arithmetic_side_effects)] // Years have four digits.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_protos::v1::schedule::{Ramp, Step};

    const NOON: &str = "2026-11-28T12:00:00Z";

    fn nanos(text: &str) -> Nanos {
        Nanos::try_from(parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2026-11-28T00:00:00+08:00", 1_795_795_200),
            ("2026-11-27T16:00:00Z", 1_795_795_200),
            ("2026-11-27t10:30:00-05:30", 1_795_795_200),
            ("2024-12-31T23:59:60Z", 1_735_689_600),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(seconds * S), "{text}");
        }
        assert_eq!(parse(b"1970-01-01T00:00:00.25Z"), Some(S / 4));
        for text in [
            "",
            "2026-11-28",
            "2026-11-28T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T00:00:00+8:00",
            "2026-11-28T00:00:00.Z",
            "26-11-28T00:00:00Z",
            "2026-11-28T00:00:00Zx",
            "+026-11-28T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2100-02-29T00:00:00Z",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn start_end_ramp_and_steps() {
        let compile = |source: Source| Schedule::compile(&source, 1000, "p").unwrap();
        let hour = 3_600_000_000_000;
        let bounded = compile(Source {
            start: NOON.into(),
            end: "2026-11-28T13:00:00Z".into(),
            ..Source::default()
        });
        let noon = nanos(NOON);
        for (now, weight) in [
            (noon - 1, None),
            (noon, Some(1000)),
            (noon + hour - 1, Some(1000)),
            (noon + hour, None),
        ] {
            assert_eq!(bounded.first_weight(now), weight);
        }
        let ramp = Ramp { from: NOON.into(), to: "2026-11-28T22:00:00Z".into() };
        let ramp = compile(Source { ramp: Some(ramp), ..Source::default() });
        for (now, weight) in [
            (noon - 1, 0),
            (noon, 0),
            (noon + hour, 100),
            (noon + 5 * hour, 500),
            (noon + 10 * hour, 1000),
            (noon + 99 * hour, 1000),
        ] {
            assert_eq!(ramp.first_weight(now), Some(weight));
        }
        let step = |at: &str, weight| Step { at: at.into(), weight };
        let steps = vec![
            step(NOON, 100),
            step("2026-11-28T14:00:00Z", 1000),
            step("2026-11-28T15:00:00Z", 0),
        ];
        let steps = compile(Source { steps, ..Source::default() });
        for (now, weight) in
            [(noon - 1, 0), (noon, 100), (noon + 2 * hour, 1000), (noon + 3 * hour, 0)]
        {
            assert_eq!(steps.first_weight(now), Some(weight));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_time_or_none(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }

        /// Every day has the day after it behind it.
        #[test]
        fn days_follow_each_other(year in 1_i64..9999, month in 1_i64..=12, day in 1_i64..=31) {
            prop_assume!(day <= days_in(year, month));
            let next = if day < days_in(year, month) { (year, month, day + 1) }
                else if month < 12 { (year, month + 1, 1) } else { (year + 1, 1, 1) };
            prop_assert_eq!(days_since_1970(next.0, next.1, next.2), days_since_1970(year, month, day) + 1);
        }

        #[test]
        fn a_ramp_never_shrinks(a in 0_u64..40_000, b in 0_u64..40_000) {
            let ramp = Ramp { from: NOON.into(), to: "2026-11-28T22:00:00Z".into() };
            let schedule = Schedule::compile(&Source { ramp: Some(ramp), ..Source::default() }, 10_000, "p").unwrap();
            let at = |seconds: u64| schedule.first_weight(nanos(NOON) + seconds * 1_000_000_000);
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
        }
    }
}
