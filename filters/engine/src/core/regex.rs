//! Regular expressions over bytes, linear in the input and bounded in size.
//!
//! The PikeVM of `regex-automata` without Unicode tables: the smallest engine that keeps the linear
//! bound, and a third of the module size that the full `regex` crate would cost.

use std::cell::RefCell;

use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

/// States cost time for every byte of input: this is room for some hundred of them.
const MAX_NFA_BYTES: usize = 64 * 1024;

/// Longer values do not match. With the bound above one search stays in the milliseconds.
const MAX_INPUT: usize = 4096;

pub struct Regex {
    vm: PikeVM,
    cache: RefCell<Cache>,
}

impl Regex {
    /// The pattern has to match the whole value.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        // Checked alone first, so that `a)(b` cannot escape the group around it.
        let compile = |pattern: &str| {
            PikeVM::builder()
                .syntax(syntax::Config::new().unicode(false).utf8(false))
                .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_NFA_BYTES)))
                .build(pattern)
                .map_err(|_| {
                    String::from(
                        "must be a regular expression in RE2's syntax, without look-around, \
                         back-references and Unicode classes, and not too large",
                    )
                })
        };
        compile(pattern)?;
        let vm = compile(&format!(r"\A(?:{pattern})\z"))?;
        let cache = RefCell::new(vm.create_cache());
        Ok(Regex { vm, cache })
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        // The cache is free: nothing in a search comes back here.
        let Ok(mut cache) = self.cache.try_borrow_mut() else { return false };
        value.len() <= MAX_INPUT
            && self.vm.is_match(&mut cache, Input::new(value).anchored(Anchored::Yes))
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
