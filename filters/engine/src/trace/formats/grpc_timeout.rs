//! Times that are left, on the wire: `grpc-timeout` (gRPC over HTTP/2, "Requests") and whole
//! milliseconds.

use super::decimal;
use crate::core::ports::Nanos;

/// `TimeoutValue`: "at most 8 digits".
const DIGITS: usize = 8;
const MOST: Nanos = 99_999_999;

/// `TimeoutUnit`, from the finest.
const UNITS: [(u8, Nanos); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads a time. `0` is read although the protocol says "positive integer": whether no time is
/// left or the sender meant none at all is the caller's to decide. What 64 bits do not hold (584
/// years) is the most they hold.
pub fn parse(value: &[u8]) -> Option<Nanos> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| name == unit)?;
    Some(decimal(digits, DIGITS)?.saturating_mul(*nanos))
}

/// The finest unit whose value has 8 digits, rounded down: the next hop never gets more time than
/// there is.
pub fn write(time: Nanos) -> String {
    let fitting = UNITS.iter().find(|(_, nanos)| time.checked_div(*nanos).unwrap_or(0) <= MOST);
    // 64 bits of nanoseconds are 5 million hours, so hours always fit.
    let (unit, nanos) = fitting.copied().unwrap_or((b'H', 3_600_000_000_000));
    format!("{}{}", time.checked_div(nanos).unwrap_or(0), char::from(unit))
}

/// Whole milliseconds, in 1 to 10 digits and nothing else: up to 115 days.
pub fn milliseconds(value: &[u8]) -> Option<u64> {
    decimal(value, 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sentences() {
        for (quotation, value, nanos) in [
            ("Hour → \"H\"", "2H", Some(7_200_000_000_000)),
            ("Minute → \"M\"", "2M", Some(120_000_000_000)),
            ("Second → \"S\"", "2S", Some(2_000_000_000)),
            ("Millisecond → \"m\"", "2m", Some(2_000_000)),
            ("Microsecond → \"u\"", "2u", Some(2_000)),
            ("Nanosecond → \"n\"", "2n", Some(2)),
            ("at most 8 digits", "99999999n", Some(99_999_999)),
            ("at most 8 digits", "00000001S", Some(1_000_000_000)),
            ("at most 8 digits", "100000000n", None),
            ("positive integer: 0 is the caller's to judge", "0S", Some(0)),
            ("positive integer", "-1S", None),
            ("positive integer", "+1S", None),
            ("positive integer", "1.5S", None),
            ("integer as ASCII string", "S", None),
            ("TimeoutValue TimeoutUnit", "1", None),
            ("TimeoutValue TimeoutUnit", "1 S", None),
            ("TimeoutValue TimeoutUnit", "1s", None),
            ("TimeoutValue TimeoutUnit", "1SS", None),
            ("TimeoutValue TimeoutUnit", "", None),
            ("past 64 bits", "99999999H", Some(u64::MAX)),
        ] {
            assert_eq!(parse(value.as_bytes()), nanos, "{quotation}: {value}");
        }
    }

    #[test]
    fn the_finest_unit_that_fits() {
        for (nanos, written) in [
            (0, "0n"),
            (99_999_999, "99999999n"),
            (100_000_000, "100000u"),
            (99_999_999_999, "99999999u"),
            (100_000_000_000, "100000m"),
            (99_999_999_999_999, "99999999m"),
            (100_000_000_000_000, "100000S"),
            (u64::MAX, "5124095H"),
        ] {
            assert_eq!(write(nanos), written);
        }
    }

    #[test]
    fn whole_milliseconds() {
        for (value, time) in [
            ("1000", Some(1000)),
            ("0", Some(0)),
            ("9999999999", Some(9_999_999_999)),
            ("10000000000", None),
            ("", None),
            ("1s", None),
            (" 1", None),
            ("-1", None),
            ("1.0", None),
        ] {
            assert_eq!(milliseconds(value.as_bytes()), time, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_never_later(time in any::<u64>(), bits in 0_u32..64) {
            let time = time >> bits;
            let written = write(time);
            prop_assert!(written.len() <= 9);
            let read = parse(written.as_bytes()).unwrap();
            // At least six digits stay, so rounding takes less than 1/100 000 of the time.
            prop_assert!(read <= time && time - read <= time / 100_000);
            prop_assert_eq!(parse(write(read).as_bytes()), Some(read));
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..14)) {
            let _ = (parse(&value), milliseconds(&value));
        }
    }
}
