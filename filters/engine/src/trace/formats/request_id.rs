//! `x-request-id` as a source of a trace id, and new request ids: UUIDs (RFC 9562).

use std::borrow::Cow;

use super::any_hex;
use crate::trace::context::TraceId;

/// Where the form has its hyphens (section 4: 8-4-4-4-12).
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The digit of the version. Envoy puts its sampling decision there: `9`, `a` and `b` beside `4`, and
/// each hop may write it anew.
const VERSION_AT: usize = 14;
const VERSION: u128 = 0xf << 76;

/// The 128 bits of a UUID, or of 32 digits. Of any version: what an id means to its maker does not
/// matter here. Where Envoy wrote its decision the version counts as 4, so that every hop reads the
/// same id.
pub fn parse(value: &[u8]) -> Option<TraceId> {
    let number = match value.len() {
        32 => any_hex(value)?,
        36 => {
            let mut digits = [0_u8; 32];
            let mut slots = digits.iter_mut();
            for (place, byte) in value.iter().enumerate() {
                if HYPHENS.contains(&place) {
                    if *byte != b'-' {
                        return None;
                    }
                } else {
                    *slots.next()? = *byte;
                }
            }
            any_hex(&digits)?
        }
        _ => return None,
    };
    let is_envoys = value.len() == 36 && value.get(VERSION_AT).is_some_and(|v| b"9ab".contains(v));
    TraceId::new(if is_envoys { (number & !VERSION) | (0x4 << 76) } else { number })
}

/// The same id whatever Envoy's sampling decision made of its version on the way: what a record is
/// found by. Other ids are themselves.
pub fn stable(id: &[u8]) -> Cow<'_, [u8]> {
    let is_uuid = id.len() == 36 && HYPHENS.iter().all(|place| id.get(*place) == Some(&b'-'));
    let mut id = Cow::Borrowed(id);
    if is_uuid && id.get(VERSION_AT).is_some_and(|version| b"9ab".contains(version)) {
        id.to_mut().iter_mut().skip(VERSION_AT).take(1).for_each(|version| *version = b'4');
    }
    id
}

/// A UUID of version 4 (section 5.4) out of 128 random bits, six of which give way.
pub fn uuid(random: u128) -> String {
    const VARIANT: u128 = 0b11 << 62;
    let number = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0b10 << 62);
    let part = |shift: u32, digits: u32| {
        let mask = 1_u128.checked_shl(digits.saturating_mul(4)).unwrap_or(0).saturating_sub(1);
        (number >> shift) & mask
    };
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TRACE, trace_id};
    use super::*;
    use proptest::prelude::*;

    /// Envoy's `envoy.request_id.uuid` packs the trace reason into the version.
    #[test]
    fn envoys_decision_makes_no_other_id() {
        let of = |version: char| format!("4bf92f35-77b3-{version}da6-a3ce-929d0e0e4736");
        for version in ['9', 'a', 'b', '4'] {
            assert_eq!(parse(of(version).as_bytes()), Some(trace_id()), "{version}");
            assert_eq!(*stable(of(version).as_bytes()), *of('4').as_bytes(), "{version}");
        }
        assert_ne!(parse(of('7').as_bytes()), Some(trace_id()));
        assert_eq!(*stable(of('7').as_bytes()), *of('7').as_bytes());
        assert_eq!(*stable(b"order-9"), *b"order-9");
    }

    /// RFC 9562.
    #[test]
    fn the_sentences() {
        let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
        for (quotation, value, valid) in [
            ("4: 8-4-4-4-12", uuid.to_string(), true),
            ("4: all uppercase, all lowercase, or mixed case", uuid.to_uppercase(), true),
            ("4: a simple hexadecimal string, without hyphens", TRACE.to_string(), true),
            ("4: hexDigit", uuid.replace('f', "g"), false),
            ("4: 8-4-4-4-12", uuid.replace("35-77", "-3577"), false),
            ("4: 8-4-4-4-12", uuid.replacen('-', "0", 1), false),
            ("4: 8-4-4-4-12", format!("{{{uuid}}}"), false),
            ("4: 8-4-4-4-12", uuid[1..].to_string(), false),
            ("5.9: Nil UUID", "00000000-0000-0000-0000-000000000000".to_string(), false),
            ("", String::new(), false),
        ] {
            let expected = valid.then(trace_id);
            assert_eq!(parse(value.as_bytes()), expected, "{quotation}: {value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(random in any::<u128>()) {
            let written = uuid(random);
            prop_assert_eq!(written.len(), 36);
            let number = parse(written.as_bytes()).unwrap().get();
            // 5.4: "set to 0b0100", and the variant "set to 0b10".
            prop_assert_eq!((number >> 76) & 0xf, 4);
            prop_assert_eq!((number >> 62) & 3, 2);
            // All other bits are the random ones.
            prop_assert_eq!((number ^ random) & !(0xf << 76) & !(3 << 62), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 30..38)) {
            let _ = parse(&value);
        }
    }
}
