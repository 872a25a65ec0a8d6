//! The forms of a trace context on the wire, one file each. A parser takes the bytes of header
//! values, allocates nothing, and answers with what they say or with nothing.

pub mod b3;
pub mod datadog;
pub mod grpc_timeout;
pub mod jaeger;
pub mod ot;
pub mod request_id;
pub mod tracestate;
pub mod w3c;
pub mod xray;

pub(crate) use crate::core::request::split_once;
pub(crate) use crate::core::text::{ascii, trim_ows};

/// 1 to 32 digits, lower case only, as most of the formats demand.
pub(crate) fn lower_hex(digits: &[u8]) -> Option<u128> {
    if digits.iter().any(u8::is_ascii_uppercase) { None } else { any_hex(digits) }
}

/// 1 to 32 digits in any case.
pub(crate) fn any_hex(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    // In halves: 128 bits are slow in a module.
    let (high, low) = digits.split_at_checked(digits.len().saturating_sub(16))?;
    let half = |digits: &[u8]| {
        digits.iter().try_fold(0_u64, |number, digit| {
            let value = match digit {
                b'0'..=b'9' => digit.wrapping_sub(b'0'),
                b'a'..=b'f' => digit.wrapping_sub(b'a' - 10),
                b'A'..=b'F' => digit.wrapping_sub(b'A' - 10),
                _ => return None,
            };
            Some((number << 4) | u64::from(value))
        })
    };
    Some((u128::from(half(high)?) << 64) | u128::from(half(low)?))
}

/// Appends 16 digits: what the standard formatter does in five times the time.
#[inline(never)]
pub(crate) fn push_hex(mut number: u64, out: &mut String) {
    let mut digits = [0; 16];
    for place in digits.iter_mut().rev() {
        let digit = (number & 15) as u8;
        *place = digit.wrapping_add(if digit < 10 { b'0' } else { b'a' - 10 });
        number >>= 4;
    }
    out.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}

/// Exactly 16 digits in lower case.
pub(crate) fn lower_hex_64(digits: &[u8]) -> Option<u64> {
    if digits.len() != 16 {
        return None;
    }
    lower_hex(digits).and_then(|number| u64::try_from(number).ok())
}

/// Decimal digits and nothing else, at most as many as `most`, in 64 bits.
pub(crate) fn decimal(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(value))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::trace::context::{SpanContext, SpanId, TraceId};
    use proptest::prelude::*;

    pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    pub const SPAN: &str = "00f067aa0ba902b7";

    pub fn trace_id() -> TraceId {
        TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap()
    }

    pub fn span_id() -> SpanId {
        SpanId::new(0x00f0_67aa_0ba9_02b7).unwrap()
    }

    /// A context as this proxy makes them: a debugged trace is a sampled one.
    pub fn contexts() -> impl Strategy<Value = SpanContext> {
        (1_u128.., 1_u64.., any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(trace, span, sampled, is_random, is_debug)| SpanContext {
                trace_id: TraceId::new(trace).unwrap(),
                span_id: SpanId::new(span).unwrap(),
                sampled: sampled || is_debug,
                is_random,
                is_debug,
            },
        )
    }

    #[test]
    fn digits_and_blanks() {
        assert_eq!(trim_ows(b" \ta b\t "), b"a b");
        assert_eq!(trim_ows(b" \t "), b"");
        assert_eq!(trim_ows(b"\na\r"), b"\na\r");
        assert_eq!(lower_hex(&[b'f'; 32]), Some(u128::MAX));
        assert_eq!((lower_hex(&[b'0'; 33]), lower_hex(b""), lower_hex(b"+1")), (None, None, None));
        assert_eq!((lower_hex(b"aF"), any_hex(b"aF")), (None, Some(0xaf)));
        assert_eq!((lower_hex_64(b"1"), lower_hex_64(&[b'f'; 16])), (None, Some(u64::MAX)));
        assert_eq!(decimal(b"18446744073709551615", 20), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616", 20), None);
        assert_eq!((decimal(b"123", 2), decimal(b"-1", 9), decimal(b"", 9)), (None, None, None));
    }
}
