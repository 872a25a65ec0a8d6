//! OpenTelemetry's own member of `tracestate`, the key `ot` ("TraceState Handling"):
//! `th:c;rv:d1a2b3c4d5e6f7;other:value`.

use super::{ascii, lower_hex, split_once};
use crate::trace::threshold::Threshold;

pub const KEY: &str = "ot";
/// "The complete list length MUST NOT exceed 256 characters".
const CHARACTERS: usize = 256;
/// `rv` has exactly 14 digits: 56 bits.
const RANDOMNESS_DIGITS: usize = 14;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ot<'a> {
    /// The sampling threshold of whoever decided last.
    pub threshold: Option<Threshold>,
    /// Randomness that someone put beside an id that has none. 56 bits; never to be overwritten.
    pub randomness: Option<u64>,
    /// The value that was read, for the sub-keys that are not ours.
    rest: &'a [u8],
}

impl<'a> Ot<'a> {
    /// Reads the member's value. An invalid `th` or `rv` is as good as none.
    pub fn parse(value: &'a [u8]) -> Ot<'a> {
        let first = |key: &[u8]| {
            sub_keys(value).find(|(name, _, _)| *name == key).map(|(_, value, _)| value)
        };
        Ot {
            threshold: first(b"th").and_then(Threshold::parse),
            randomness: first(b"rv")
                .filter(|rv| rv.len() == RANDOMNESS_DIGITS)
                .and_then(|rv| lower_hex(rv).and_then(|number| u64::try_from(number).ok())),
            rest: value,
        }
    }

    /// The member's value; `None` when nothing is left of it. What makes it too long goes from the
    /// right, whole sub-keys only, and never ours: a threshold that is missing or stale would make
    /// every count that is extrapolated from it wrong.
    pub fn write(&self) -> Option<String> {
        let mut value = String::new();
        // A threshold that nothing passes belongs to no trace that is kept.
        if let Some(th) = self.threshold.and_then(Threshold::th) {
            value.push_str("th:");
            value.push_str(&th);
        }
        if let Some(randomness) = self.randomness {
            let separator = if value.is_empty() { "" } else { ";" };
            value.push_str(&format!("{separator}rv:{randomness:014x}"));
        }
        for (key, _, whole) in sub_keys(self.rest) {
            if key == b"th" || key == b"rv" {
                continue;
            }
            let size = value.len().saturating_add(1).saturating_add(whole.len());
            // The first one has no separator.
            if size > CHARACTERS.saturating_add(usize::from(value.is_empty())) {
                break;
            }
            if !value.is_empty() {
                value.push(';');
            }
            value.push_str(ascii(whole));
        }
        (!value.is_empty()).then_some(value)
    }
}

/// The well-formed sub-keys: key, value and both as they stand.
fn sub_keys(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    value.split(|byte| *byte == b';').filter_map(|whole| {
        let (key, value) = split_once(whole, b':')?;
        let is_key = key.first().is_some_and(u8::is_ascii_lowercase)
            && key.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let is_value =
            value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        (is_key && is_value).then_some((key, value, whole))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn threshold(th: &str) -> Option<Threshold> {
        Threshold::parse(th.as_bytes())
    }

    /// "TraceState Handling" and "TraceState: Probability Sampling".
    #[test]
    fn the_sentences() {
        for (quotation, value, th, rv, written) in [
            (
                "a semicolon separated list",
                "th:c;rv:0123456789abcd",
                threshold("c"),
                Some(0x01_2345_6789_abcd),
                Some("th:c;rv:0123456789abcd"),
            ),
            (
                "th: indicates that no traces are being rejected",
                "th:0",
                threshold("0"),
                None,
                Some("th:0"),
            ),
            ("th: between 1 and 14 hexadecimal digits", "th:000000000000000", None, None, None),
            ("th: between 1 and 14 hexadecimal digits", "th:", None, None, None),
            ("th: hexadecimal digits", "th:xyz", None, None, None),
            ("th: trailing zeros are left out", "th:c00", threshold("c"), None, Some("th:c")),
            ("rv: exactly 14 lower-case hexadecimal digits", "rv:0123", None, None, None),
            (
                "rv: exactly 14 lower-case hexadecimal digits",
                "rv:00000000000000",
                None,
                Some(0),
                Some("rv:00000000000000"),
            ),
            (
                "preserve existing values of other concerns",
                "p:8;th:8;r:62",
                threshold("8"),
                None,
                Some("th:8;p:8;r:62"),
            ),
            (
                "the used keys MUST be unique: the first counts",
                "th:8;th:c",
                threshold("8"),
                None,
                Some("th:8"),
            ),
            ("list-member = key \":\" value", "th;x;:y;a:b", None, None, Some("a:b")),
            ("key = lcalpha *(lcalpha / DIGIT)", "A:1;1a:2;a1:3", None, None, Some("a1:3")),
            (
                "chr = ucalpha / lcalpha / DIGIT / . / _ / -",
                "a:Zz9._-;b:x y;c:%",
                None,
                None,
                Some("a:Zz9._-"),
            ),
            ("value = *(chr)", "a:", None, None, Some("a:")),
            ("an empty list", "", None, None, None),
        ] {
            let ot = Ot::parse(value.as_bytes());
            assert_eq!((ot.threshold, ot.randomness), (th, rv), "{quotation}: {value}");
            assert_eq!(ot.write().as_deref(), written, "{quotation}: {value}");
        }
    }

    #[test]
    fn what_is_not_kept_has_no_threshold() {
        let mut ot = Ot::parse(b"th:8;a:b");
        ot.threshold = Some(Threshold::NEVER);
        assert_eq!(ot.write().as_deref(), Some("a:b"));
    }

    /// "MUST NOT exceed 256 characters".
    #[test]
    fn others_make_room_for_us() {
        let filled = format!("a:{};b:{}", "x".repeat(126), "y".repeat(125));
        assert_eq!(filled.len(), 256);
        let mut ot = Ot::parse(filled.as_bytes());
        assert_eq!(ot.write(), Some(filled.clone()));
        ot.threshold = threshold("c");
        assert_eq!(ot.write(), Some(format!("th:c;a:{}", "x".repeat(126))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            th in proptest::option::of(0_u64..1 << 56),
            rv in proptest::option::of(0_u64..1 << 56),
            rest in "([a-z]{1,3}:[a-zA-Z0-9._-]{0,90};){0,5}",
        ) {
            let th = th.and_then(|number| threshold(&format!("{number:014x}")));
            let ot = Ot { threshold: th, randomness: rv, ..Ot::parse(rest.as_bytes()) };
            let written = ot.write();
            prop_assert!(written.as_ref().is_none_or(|value| value.len() <= 256));
            let written = written.unwrap_or_default();
            let again = Ot::parse(written.as_bytes());
            prop_assert_eq!((again.threshold, again.randomness), (th, rv));
            prop_assert_eq!(again.write().unwrap_or_default(), written.as_str());
        }

        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Ot::parse(&value).write();
        }
    }
}
