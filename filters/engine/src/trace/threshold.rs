//! Consistent probability sampling (OpenTelemetry, "TraceState: Probability Sampling" and
//! "TraceState Handling"): one threshold for each probability, compared with 56 bits that all hops
//! of a trace share. Hops with different probabilities then keep nested sets of traces.
//!
//! The arithmetic is exact: with doubles, 10 % would give a wrong last digit.

use std::fmt::Write;

use super::formats::lower_hex;

/// 2^56: how many values the randomness takes.
const RANGE_BITS: u32 = 56;
const DIGITS: usize = 14;

/// A probability as the exact quotient of two integers, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probability {
    part: u128,
    whole: u128,
}

impl Probability {
    /// Decimals of a percentage that can still matter. The shortest decimal form of a double has at
    /// most 17 significant digits, so one with more decimals than this is below 10^-19 %, far
    /// below 2^-56, the least probability that a threshold can express.
    const DECIMALS: usize = 36;

    /// A percentage, taken as the decimal number that a person would write for it: `0.1` is a
    /// thousandth, not the double next to a thousandth. `None` outside of 0 to 100.
    pub fn from_percent(percent: f64) -> Option<Probability> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        // `{}` writes the fewest digits that give the same double again, without an exponent.
        let text = percent.abs().to_string();
        let (integer, decimals) = text.split_once('.').unwrap_or((&text, ""));
        if decimals.len() > Probability::DECIMALS {
            return Probability::from_fraction(0, 1);
        }
        let mut part = 0_u128;
        for digit in integer.chars().chain(decimals.chars()) {
            part = part.checked_mul(10)?.checked_add(u128::from(digit.to_digit(10)?))?;
        }
        let places = u32::try_from(decimals.len()).ok()?;
        Probability::from_fraction(part, 10_u128.checked_pow(places)?.checked_mul(100)?)
    }

    /// `part` out of `whole`; `None` above 1, or when the whole is 0 or too big to be doubled.
    pub fn from_fraction(part: u128, whole: u128) -> Option<Probability> {
        let fits = whole != 0 && part <= whole && whole <= u128::MAX / 2;
        fits.then_some(Probability { part, whole })
    }

    /// `round((1 - p) * 2^56)`, half up.
    pub fn threshold(self) -> Threshold {
        // Long division, one binary digit at a time: the product would not fit into 128 bits.
        let mut rest = self.whole.saturating_sub(self.part);
        if rest == self.whole {
            return Threshold::NEVER;
        }
        let mut quotient = 0_u64;
        for _ in 0..=RANGE_BITS {
            rest = rest.saturating_mul(2);
            quotient <<= 1;
            if rest >= self.whole {
                rest = rest.saturating_sub(self.whole);
                quotient |= 1;
            }
        }
        // There is one digit more than needed: the half.
        Threshold((quotient >> 1).saturating_add(quotient & 1))
    }
}

/// How much of the 56-bit range is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

impl Threshold {
    /// Nothing is rejected.
    pub const ALWAYS: Threshold = Threshold(0);
    /// Everything is rejected. It has no form on the wire, as nothing that is kept has it.
    pub const NEVER: Threshold = Threshold(1 << RANGE_BITS);

    pub fn get(self) -> u64 {
        self.0
    }

    /// `randomness` is the trace's: 56 bits.
    pub fn is_kept(self, randomness: u64) -> bool {
        randomness >= self.0
    }

    /// The value of `th`: 14 hexadecimal digits without trailing zeros. `None` for `NEVER`.
    pub fn th(self) -> Option<String> {
        if self >= Threshold::NEVER {
            return None;
        }
        let mut digits = String::with_capacity(DIGITS);
        let _ = write!(digits, "{:014x}", self.0);
        digits.truncate(digits.trim_end_matches('0').len().max(1));
        Some(digits)
    }

    /// The value of `th`: 1 to 14 digits in lower case, extended with zeros on the right.
    pub fn parse(th: &[u8]) -> Option<Threshold> {
        let missing = DIGITS.checked_sub(th.len())?;
        let number = u64::try_from(lower_hex(th)?).ok()?;
        Some(Threshold(number << missing.saturating_mul(4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: u64 = (1 << 56) - 1;

    #[test]
    fn the_vectors() {
        let text = include_str!("../../../../integration-tests/vectors/sampling-threshold.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let p = case["p"].as_str().unwrap();
            let (part, whole) = p.split_once('/').unwrap_or((p, "1"));
            let (part, whole) = (part.parse().unwrap(), whole.parse().unwrap());
            let threshold = Probability::from_fraction(part, whole).unwrap().threshold();
            assert_eq!(format!("{:014x}", threshold.get()), case["threshold14"], "{p}");
            assert_eq!(threshold.th().unwrap(), case["th"], "{p}");
            let again = Threshold::parse(case["th"].as_str().unwrap().as_bytes());
            assert_eq!(again, Some(threshold), "{p}");
        }
    }

    #[test]
    fn percentages_are_what_a_person_wrote() {
        for (percent, th) in [
            (100.0, Some("0")),
            (50.0, Some("8")),
            (25.0, Some("c")),
            (10.0, Some("e6666666666666")),
            (1.0, Some("fd70a3d70a3d71")),
            (0.1, Some("ffbe76c8b43958")),
            (99.99, Some("00068db8bac711")),
            // 2^-56, rounded to a double: the last threshold that rejects not everything.
            (1.387_778_780_781_445_7e-15, Some("ffffffffffffff")),
            (1e-17, None),
            (f64::MIN_POSITIVE, None),
            (0.0, None),
            (-0.0, None),
        ] {
            let threshold = Probability::from_percent(percent).unwrap().threshold();
            assert_eq!(threshold.th().as_deref(), th, "{percent}");
        }
        for percent in [-0.1, 100.000_000_1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Probability::from_percent(percent), None, "{percent}");
        }
        assert_eq!(Probability::from_fraction(1, 0), None);
        assert_eq!(Probability::from_fraction(2, 1), None);
    }

    /// "TraceState Handling", `th`.
    #[test]
    fn the_sentences() {
        for (quotation, th, threshold) in [
            ("no traces are being rejected", "0", Some(0)),
            ("extend the value with trailing zeros", "c", Some(0xc0_0000_0000_0000)),
            ("extend the value with trailing zeros", "00000001", Some(0x100_0000)),
            ("between 1 and 14 hexadecimal digits", "ffffffffffffff", Some(MASK)),
            ("between 1 and 14 hexadecimal digits", "000000000000000", None),
            ("between 1 and 14 hexadecimal digits", "", None),
            ("hexadecimal digits", "g", None),
            ("Lowercase … direct lexicographical comparison", "C", None),
        ] {
            let read = Threshold::parse(th.as_bytes());
            assert_eq!(read.map(Threshold::get), threshold, "{quotation}");
        }
        // "When the randomness value is less than the rejection threshold, … not sampled".
        let half = Threshold::parse(b"8").unwrap();
        assert!(half.is_kept(1 << 55) && !half.is_kept((1 << 55) - 1));
        assert!(Threshold::ALWAYS.is_kept(0) && !Threshold::NEVER.is_kept(MASK));
    }

    proptest! {
        #[test]
        fn kept_at_one_is_kept_at_every_greater(
            a in 0.0_f64..=100.0, b in 0.0_f64..=100.0, randomness in 0..=MASK,
        ) {
            let kept = |percent| {
                Probability::from_percent(percent).unwrap().threshold().is_kept(randomness)
            };
            prop_assert!(!kept(a.min(b)) || kept(a.max(b)));
        }

        #[test]
        fn the_same_as_with_wide_products(part in 0_u128..=1 << 70, more in 0_u128..=1 << 70) {
            let whole = part + more;
            prop_assume!(whole != 0);
            let exact = ((more << 57) + whole) / (whole << 1);
            let threshold = Probability::from_fraction(part, whole).unwrap().threshold();
            prop_assert_eq!(u128::from(threshold.get()), exact);
        }

        #[test]
        fn what_is_written_is_read(number in 0..=MASK, zeros in 0_u32..14) {
            let threshold = Threshold(number >> (4 * zeros) << (4 * zeros));
            prop_assert_eq!(Threshold::parse(threshold.th().unwrap().as_bytes()), Some(threshold));
        }

        #[test]
        fn any_bytes_are_read_or_refused(th in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(threshold) = Threshold::parse(&th) {
                prop_assert!(threshold < Threshold::NEVER);
            }
        }

        #[test]
        fn any_double_is_a_probability_or_refused(percent in any::<f64>()) {
            if let Some(probability) = Probability::from_percent(percent) {
                prop_assert!(probability.threshold() <= Threshold::NEVER);
            }
        }
    }
}
