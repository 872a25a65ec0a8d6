//! `x-request-id` as a source of a trace id.

use super::any_hex;
use crate::core::uuid::{HYPHENS, VERSION, VERSION_AT};
use crate::trace::context::TraceId;

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
        }
        assert_ne!(parse(of('7').as_bytes()), Some(trace_id()));
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
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 30..38)) {
            let _ = parse(&value);
        }
    }
}
