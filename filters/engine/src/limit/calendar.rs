//! Quotas that come back whole at a boundary of the calendar.
//!
//! Such a bucket is the same point in time as any other, read by a clock that stands still within a
//! window and jumps at its end: "now" is the start of the window, and a token is a nanosecond. What
//! was used is the distance from there, no window is so full that it reaches into the next, and at a
//! boundary nothing is used. So leases aside, all that holds for a bucket holds for a quota.

use weir_protos::FieldError;
use weir_protos::v1::RateLimitRule;
use weir_protos::v1::rate_limit_rule::Calendar as Source;

use super::gcra::Rate;
use crate::core::ports::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// No place on earth is further from UTC. In minutes.
const MAX_OFFSET: i16 = 14 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Minute,
    Hour,
    Day,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    pub period: Period,
    /// Minutes east of UTC.
    pub offset: i16,
}

/// How buckets come by their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filling {
    /// One by one, as time goes on.
    #[default]
    Steady,
    Calendar(Calendar),
}

/// Both clocks: that of steady buckets, and that of calendars, which may step.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub steady: Nanos,
    pub wall: Nanos,
}

impl Moment {
    /// Later by the steady clock, and by the wall clock if nobody has moved it.
    pub fn after(self, steady: Nanos) -> Moment {
        let passed = steady.saturating_sub(self.steady);
        Moment { steady, wall: self.wall.saturating_add(passed) }
    }
}

impl Filling {
    #[cold]
    pub fn compile(source: &RateLimitRule, path: &str) -> Result<Filling, FieldError> {
        let period = match source.calendar() {
            Source::Unspecified => None,
            Source::Minute => Some(Period::Minute),
            Source::Hour => Some(Period::Hour),
            Source::Day => Some(Period::Day),
        };
        let path = format!("{path}.utc_offset");
        let given = &source.utc_offset;
        let Some(period) = period else {
            if given.is_empty() {
                return Ok(Filling::Steady);
            }
            let remedy = "goes with `calendar` alone; remove it";
            return Err(FieldError::value(path, format_args!("{given:?}"), remedy));
        };
        let offset = if given.is_empty() { Some(0) } else { offset(given) };
        let Some(offset) = offset else {
            let remedy = r#"must be hours and minutes from UTC, such as "+08:00" or "-03:30", at most 14 hours"#;
            return Err(FieldError::value(path, format_args!("{given:?}"), remedy));
        };
        Ok(Filling::Calendar(Calendar { period, offset }))
    }

    /// As it lies in shared data; 0 is what there was before calendars.
    pub fn to_bytes(self) -> [u8; 3] {
        let Filling::Calendar(calendar) = self else { return [0; 3] };
        let period = match calendar.period {
            Period::Minute => 1,
            Period::Hour => 2,
            Period::Day => 3,
        };
        let [low, high] = calendar.offset.to_le_bytes();
        [period, low, high]
    }

    pub fn from_bytes([period, low, high]: [u8; 3]) -> Option<Filling> {
        let offset = i16::from_le_bytes([low, high]);
        let period = match period {
            0 if offset == 0 => return Some(Filling::Steady),
            1 => Period::Minute,
            2 => Period::Hour,
            3 => Period::Day,
            _ => return None,
        };
        let is_ours = (-MAX_OFFSET..=MAX_OFFSET).contains(&offset);
        is_ours.then_some(Filling::Calendar(Calendar { period, offset }))
    }

    /// What "now" is to a bucket that nobody has used.
    pub fn now(self, moment: Moment) -> Nanos {
        match self {
            Filling::Steady => moment.steady,
            Filling::Calendar(calendar) => calendar.start(moment.wall),
        }
    }
}

fn offset(text: &str) -> Option<i16> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two_digits = |text: &str, below: i16| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i16>().ok().filter(|number| is_plain && *number < below)
    };
    let total = two_digits(hours, 24)?.checked_mul(60)?.checked_add(two_digits(minutes, 60)?)?;
    (total <= MAX_OFFSET).then_some(total.checked_mul(sign)?)
}

impl Calendar {
    /// A quota of so many tokens.
    pub fn rate(max: u64) -> Rate {
        Rate { per_token: 1, max }
    }

    pub fn length(self) -> Nanos {
        match self.period {
            Period::Minute => 60 * SECOND,
            Period::Hour => 3600 * SECOND,
            Period::Day => 86_400 * SECOND,
        }
    }

    /// The start of the window that a time lies in.
    pub fn start(self, wall: Nanos) -> Nanos {
        let east = i64::from(self.offset).saturating_mul(60_000_000_000);
        let local = wall.saturating_add_signed(east);
        let into = local.checked_rem(self.length()).unwrap_or(0);
        local.saturating_sub(into).saturating_add_signed(east.saturating_neg())
    }

    /// From a time until the end of the window that starts at `start`.
    pub fn rest(self, start: Nanos, wall: Nanos) -> Nanos {
        start.saturating_add(self.length()).saturating_sub(wall)
    }

    /// The start of the window that a bucket counts in; true where the bucket had to be changed.
    ///
    /// The wall clock may step. Back over one boundary: the bucket goes on in its window, so that a
    /// quota is not had twice; what is left of it may still be used. Further back, that window is too
    /// far away to wait for: what was used counts in the present one.
    pub fn bring(self, full_at: &mut Nanos, wall: Nanos) -> (Nanos, bool) {
        let (now, own) = (self.start(wall), self.start(*full_at));
        if own <= now {
            (now, false)
        } else if own.saturating_sub(now) <= self.length() {
            (own, false)
        } else {
            *full_at = now.saturating_add(full_at.saturating_sub(own));
            (now, true)
        }
    }

    /// What was used of a bucket in a window that is not over.
    pub fn used(self, full_at: Nanos, wall: Nanos) -> u64 {
        let own = self.start(full_at);
        if self.rest(own, wall) == 0 { 0 } else { full_at.saturating_sub(own) }
    }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
