//! Times as people write them.

use weir_engine::color::schedule;
use weir_engine::core::ports::Nanos;

const S: Nanos = 1_000_000_000;

/// RFC 3339, by the parser of the policy's own times.
pub fn parse(text: &str) -> Result<Nanos, String> {
    schedule::parse(text.as_bytes())
        .and_then(|nanos| Nanos::try_from(nanos).ok())
        .ok_or_else(|| "must be a time of RFC 3339, such as 2026-11-28T00:00:00+08:00".into())
}

pub fn now() -> Nanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX))
}

/// In UTC, to the second.
pub fn show(nanos: Nanos) -> String {
    let seconds = nanos / S;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Of days since 1970, by the calendar in which a year begins in March.
fn date(days: u64) -> (u64, u64, u64) {
    // 400 years have 146097 days; the era began 719468 days before 1970.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

/// A length of time, in the unit that suits it.
pub fn length(nanos: Nanos) -> String {
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ if nanos < 120 * S => {
            format!("{}.{} s", nanos / S, nanos / (S / 10) % 10)
        }
        _ if nanos < 7200 * S => format!("{} min", nanos / (60 * S)),
        _ => format!("{} h", nanos / (3600 * S)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59Z",
            "2024-12-31T00:00:00Z",
            "2026-03-01T12:34:56Z",
            "2100-03-01T00:00:00Z",
        ] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
        // Every day of some centuries.
        for day in 0..100_000 {
            let shown = show(day * 86_400 * S);
            assert_eq!(parse(&shown).unwrap(), day * 86_400 * S, "{shown}");
        }
    }
}
