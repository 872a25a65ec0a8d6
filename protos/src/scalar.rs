//! Scalars of proto3-JSON: from what stands in the document to what goes on the wire.

use prost::encoding::encode_varint;

/// A scalar as the document spells it.
#[derive(Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
}

impl std::fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Unsigned(value) => value.fmt(f),
            Scalar::Negative(value) => value.fmt(f),
            // serde_json has the digits of a float in the module already; core's would add 12 KB.
            Scalar::Float(value) => f.write_str(&number(*value)),
            Scalar::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// The shortest decimal text of a number.
pub(crate) fn number(value: f64) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

impl Scalar<'_> {
    /// Istio hands every number over as a double and JavaScript tools write 64-bit integers as
    /// strings, so both are read; a fraction, a sign or more than `max` is refused.
    pub(crate) fn unsigned(self, max: u64) -> Result<u64, String> {
        // Above 2^53 a double no longer says which integer was meant.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let value = match self {
            Scalar::Unsigned(value) => Some(value),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Scalar::Float(value) if (0.0..=EXACT).contains(&value) && value.trunc() == value => {
                Some(value as u64)
            }
            Scalar::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        };
        value
            .filter(|value| *value <= max)
            .ok_or_else(|| format!("must be a whole number from 0 to {max}"))
    }

    pub(crate) fn double(self) -> Result<f64, String> {
        #[allow(clippy::cast_precision_loss)]
        let value = match self {
            Scalar::Unsigned(value) => value as f64,
            Scalar::Negative(value) => value as f64,
            Scalar::Float(value) => value,
            _ => return Err("must be a number".into()),
        };
        if value.is_finite() { Ok(value) } else { Err("must be a finite number".into()) }
    }

    pub(crate) fn bool(self) -> Result<bool, String> {
        match self {
            Scalar::Bool(value) => Ok(value),
            _ => Err("must be true or false".into()),
        }
    }

    /// Seconds and nanoseconds of a duration such as `"1.5s"`.
    pub(crate) fn duration(self) -> Result<(u64, u32), String> {
        let Scalar::Text(text) = self else {
            return Err(r#"must be a duration with its unit, such as "1.5s""#.into());
        };
        parse_duration(text).ok_or_else(|| {
            r#"must be a duration in seconds, from "0s" to "315576000000s", such as "1.5s" or "0.1s""#.into()
        })
    }
}

/// `google.protobuf.Duration` in JSON: decimal seconds with at most nine places and an `s`.
fn parse_duration(text: &str) -> Option<(u64, u32)> {
    const MAX_SECONDS: u64 = 315_576_000_000;
    let number = text.strip_suffix('s')?;
    let (whole, places) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 9 {
        return None;
    }
    let seconds = whole.parse::<u64>().ok().filter(|seconds| *seconds <= MAX_SECONDS)?;
    let mut nanos = 0_u32;
    for place in 0..9 {
        let digit =
            places.as_bytes().get(place).map_or(0, |byte| u32::from(byte.wrapping_sub(b'0')));
        nanos = nanos.saturating_mul(10).saturating_add(digit);
    }
    Some((seconds, nanos))
}

/// The body of a `google.protobuf.Duration` message.
pub(crate) fn encode_duration((seconds, nanos): (u64, u32), out: &mut Vec<u8>) {
    use prost::encoding::{WireType, encode_key};
    encode_key(1, WireType::Varint, out);
    encode_varint(seconds, out);
    encode_key(2, WireType::Varint, out);
    encode_varint(u64::from(nanos), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0s", Some((0, 0))),
            ("1.5s", Some((1, 500_000_000))),
            ("0.000000001s", Some((0, 1))),
            ("60s", Some((60, 0))),
            ("1", None),
            ("1ms", None),
            ("-1s", None),
            ("1.s", None),
            (".5s", None),
            ("1.0000000001s", None),
            ("99999999999999999999s", None),
            ("1e3s", None),
            ("", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers_in_every_spelling() {
        assert_eq!(Scalar::Unsigned(5).unsigned(10), Ok(5));
        assert_eq!(Scalar::Float(100.0).unsigned(1000), Ok(100));
        assert_eq!(Scalar::Text("18446744073709551615").unsigned(u64::MAX), Ok(u64::MAX));
        for refused in [
            Scalar::Float(0.5),
            Scalar::Float(-1.0),
            Scalar::Float(1e300),
            Scalar::Negative(-1),
            Scalar::Text(""),
            Scalar::Text("+1"),
            Scalar::Text("1.0"),
            Scalar::Bool(true),
            Scalar::Unsigned(11),
        ] {
            assert!(refused.unsigned(10).is_err(), "{refused}");
        }
    }
}
