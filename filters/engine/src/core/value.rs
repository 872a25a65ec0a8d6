//! Tests of one value.

use weir_protos::FieldError;
use weir_protos::v1::{NumberMatch, ValueMatch, value_match::Operator};

use super::regex::Regex;

#[derive(Debug)]
pub enum ValueTest {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(Regex),
    Present(bool),
    In(OneOf),
    Number(Vec<(Bound, Decimal)>),
}

/// Values in order, each once. A set of the standard library's sorts them in a way that costs 20 KB.
#[derive(Debug)]
pub struct OneOf(Vec<Box<[u8]>>);

impl OneOf {
    pub fn new<'v>(values: impl Iterator<Item = &'v [u8]>) -> OneOf {
        let mut values: Vec<Box<[u8]>> = values.map(Into::into).collect();
        values.sort_unstable();
        values.dedup();
        OneOf(values)
    }

    fn has(&self, value: &[u8]) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(value)).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|value| &**value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    Eq,
    Gt,
    Ge,
    Lt,
    Le,
}

/// A decimal number in units of 10^-9: exact for every integer that a policy can hold.
pub type Decimal = i128;

impl ValueTest {
    #[cold]
    pub fn compile(test: &ValueMatch, path: &str) -> Result<ValueTest, FieldError> {
        let Some(operator) = &test.operator else {
            let remedy =
                "must have one of: exact, prefix, suffix, contains, regex, present, in, number";
            return Err(FieldError::at(path, remedy));
        };
        let filled = |field: &str, text: &str| {
            if text.is_empty() {
                let remedy = "must not be empty: every value would match; use `present: true`";
                return Err(FieldError::value(format!("{path}.{field}"), "\"\"", remedy));
            }
            Ok(text.as_bytes().into())
        };
        Ok(match operator {
            Operator::Exact(text) => ValueTest::Exact(text.as_bytes().into()),
            Operator::Prefix(text) => ValueTest::Prefix(filled("prefix", text)?),
            Operator::Suffix(text) => ValueTest::Suffix(filled("suffix", text)?),
            Operator::Contains(text) => ValueTest::Contains(filled("contains", text)?),
            Operator::Regex(text) => ValueTest::Regex(Regex::new(text).map_err(|remedy| {
                FieldError::value(format!("{path}.regex"), format_args!("{text:?}"), remedy)
            })?),
            Operator::Present(present) => ValueTest::Present(*present),
            Operator::In(list) if list.values.is_empty() => {
                return Err(FieldError::at(
                    format!("{path}.in.values"),
                    "must have at least one value",
                ));
            }
            Operator::In(list) => {
                ValueTest::In(OneOf::new(list.values.iter().map(String::as_bytes)))
            }
            Operator::Number(number) => ValueTest::Number(bounds(number, path)?),
        })
    }

    /// Whether the value is to be compared as a number and is none.
    pub fn is_odd(&self, value: &[u8]) -> bool {
        matches!(self, ValueTest::Number(_)) && decimal(value).is_none()
    }

    pub fn holds(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return matches!(self, ValueTest::Present(false)) };
        match self {
            ValueTest::Exact(text) => **text == *value,
            ValueTest::Prefix(text) => value.starts_with(text),
            ValueTest::Suffix(text) => value.ends_with(text),
            ValueTest::Contains(text) => value.windows(text.len()).any(|part| *part == **text),
            ValueTest::Regex(regex) => regex.is_match(value),
            ValueTest::Present(present) => *present,
            ValueTest::In(values) => values.has(value),
            ValueTest::Number(bounds) => decimal(value).is_some_and(|number| {
                bounds.iter().all(|(bound, limit)| match bound {
                    Bound::Eq => number == *limit,
                    Bound::Gt => number > *limit,
                    Bound::Ge => number >= *limit,
                    Bound::Lt => number < *limit,
                    Bound::Le => number <= *limit,
                })
            }),
        }
    }
}

#[cold]
fn bounds(number: &NumberMatch, path: &str) -> Result<Vec<(Bound, Decimal)>, FieldError> {
    let all = [
        ("eq", Bound::Eq, number.eq),
        ("gt", Bound::Gt, number.gt),
        ("ge", Bound::Ge, number.ge),
        ("lt", Bound::Lt, number.lt),
        ("le", Bound::Le, number.le),
    ];
    let mut bounds = Vec::new();
    for (name, bound, limit) in all {
        let Some(limit) = limit else { continue };
        // Integers above 2^53 are not exact in a double, which is what a policy carries.
        if limit.abs() > 9_007_199_254_740_992.0 {
            let remedy = "must be between -2^53 and 2^53";
            return Err(FieldError::number(format!("{path}.number.{name}"), limit, remedy));
        }
        #[allow(clippy::cast_possible_truncation)] // Within 2^53.
        let (whole, rest) = (limit.trunc() as i64, (limit.fract() * 1e9).round() as i64);
        let whole = i128::from(whole).saturating_mul(1_000_000_000);
        bounds.push((bound, whole.saturating_add(i128::from(rest))));
    }
    if bounds.is_empty() {
        return Err(FieldError::at(
            format!("{path}.number"),
            "must have one of: eq, gt, ge, lt, le",
        ));
    }
    Ok(bounds)
}

/// `-12.5` and the like: an optional sign, at most 18 digits, an optional fraction. Anything else
/// is no number. Digits past the ninth of a fraction are cut.
fn decimal(value: &[u8]) -> Option<Decimal> {
    let (negative, digits) = match value.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next());
    let all_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !all_digits(whole) || whole.len() > 18 || !fraction.is_none_or(all_digits) {
        return None;
    }
    let mut number: Decimal = 0;
    let places = fraction.unwrap_or_default().iter().chain(std::iter::repeat(&b'0')).take(9);
    for digit in whole.iter().chain(places) {
        number = number.saturating_mul(10).saturating_add(i128::from(digit.wrapping_sub(b'0')));
    }
    Some(if negative { number.saturating_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(ge: f64, lt: f64) -> ValueTest {
        let bounds = NumberMatch { ge: Some(ge), lt: Some(lt), ..Default::default() };
        ValueTest::compile(&ValueMatch { operator: Some(Operator::Number(bounds)) }, "p").unwrap()
    }

    #[test]
    fn numbers() {
        let test = number(25.0, 1_000_000.5);
        for (value, holds) in [
            ("25", true),
            ("24.999999999", false),
            ("1000000.4", true),
            ("1000000.5", false),
            ("025", true),
            ("-25", false),
            ("2e3", false),
            ("0x30", false),
            ("30 ", false),
            ("", false),
            (".5", false),
            ("30.", false),
            ("9999999999999999999", false),
            ("NaN", false),
        ] {
            assert_eq!(test.holds(Some(value.as_bytes())), holds, "{value}");
        }
        assert!(!test.holds(None));
        assert!(number(-1.5, 0.0).holds(Some(b"-1.5")) && !number(-1.5, 0.0).holds(Some(b"-1.6")));
    }

    #[test]
    fn absence_matches_only_as_absence() {
        let present = |is| ValueTest::Present(is);
        assert!(present(false).holds(None) && !present(false).holds(Some(b"")));
        assert!(present(true).holds(Some(b"")) && !present(true).holds(None));
        assert!(!ValueTest::Exact((*b"").into()).holds(None));
        assert!(ValueTest::Contains((*b"\xff").into()).holds(Some(b"a\xffb")));
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(a in -(1_i64 << 53)..(1_i64 << 53), b in -(1_i64 << 53)..(1_i64 << 53)) {
            #[allow(clippy::cast_precision_loss)]
            let test = ValueTest::Number(bounds(&NumberMatch { ge: Some(b as f64), ..Default::default() }, "").unwrap());
            prop_assert_eq!(test.holds(Some(a.to_string().as_bytes())), a >= b);
        }

        #[test]
        fn any_bytes_are_compared(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = number(0.0, 1.0).holds(Some(&bytes));
        }
    }
}
