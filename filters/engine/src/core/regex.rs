//! Regular expressions over bytes, linear in the input and bounded in size.
//!
//! `regex-lite` is the smallest engine with the linear bound: half the size of `regex-automata`'s
//! PikeVM. It works on text, so each byte is handed over as the character of that number, in the
//! pattern as in the value; ASCII, which is nearly all there is, stays as it is.

use std::borrow::Cow;

/// States cost time for every byte of input: this is room for some hundred of them.
const MAX_SIZE: usize = 64 * 1024;

/// Longer values do not match. With the bound above one search stays in the milliseconds.
const MAX_INPUT: usize = 4096;

pub struct Regex(regex_lite::Regex);

impl Regex {
    /// The pattern has to match the whole value.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        let compile = |pattern: &str| {
            regex_lite::RegexBuilder::new(pattern).size_limit(MAX_SIZE).build().map_err(|_| {
                String::from(
                    "must be a regular expression in RE2's syntax, without look-around, \
                     back-references and Unicode classes, and not too large",
                )
            })
        };
        let pattern = as_text(pattern.as_bytes());
        // Checked alone first, so that `a)(b` cannot escape the group around it.
        compile(&pattern)?;
        compile(&format!(r"^(?:{pattern})$")).map(Regex)
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        value.len() <= MAX_INPUT && self.0.is_match(&as_text(value))
    }
}

/// Bytes as the characters of the same numbers.
fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regex")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values_as_bytes() {
        let regex = Regex::new("a+|b").unwrap();
        assert!(regex.is_match(b"aaa") && regex.is_match(b"b"));
        assert!(!regex.is_match(b"ab") && !regex.is_match(b"") && !regex.is_match(b"a\n"));
        assert!(Regex::new(r"\xff.").unwrap().is_match(b"\xff\xfe"));
        assert!(Regex::new("é+x").unwrap().is_match("éx".as_bytes()));
        assert!(!Regex::new("(?m)a").unwrap().is_match(b"b\na\nb"));
        assert!(Regex::new("(?i)ABC").unwrap().is_match(b"aBc"));
    }

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        for pattern in ["(", "a)(b", r"(a)\1", "(?=a)", "a{5000}{5000}", "(?P<n>", r"\pL"] {
            assert!(Regex::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_long_value_does_not_match() {
        let regex = Regex::new("a*").unwrap();
        assert!(regex.is_match(&[b'a'; MAX_INPUT]));
        assert!(!regex.is_match(&[b'a'; MAX_INPUT + 1]));
    }
}
