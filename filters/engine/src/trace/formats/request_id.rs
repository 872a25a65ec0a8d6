//! `x-request-id` as a source of a trace id, and new request ids: UUIDs (RFC 9562).

use super::any_hex;
use crate::trace::context::TraceId;

/// Where the form has its hyphens (section 4: 8-4-4-4-12).
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The 128 bits of a UUID, or of 32 digits. Of any version: what an id means to its maker does not
/// matter here. Envoy puts its sampling decision into the version of those it makes (`9`, `a` and
/// `b` beside `4`), before any filter sees them; so what is read here is what goes on.
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
    TraceId::new(number)
}

/// A UUID of version 4 (section 5.4) out of 128 random bits, six of which give way.
pub fn uuid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
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
