//! The span of this hop.

use std::ops::Deref;
use std::rc::Rc;

use crate::core::ports::Nanos;
use crate::trace::context::{SpanContext, SpanId};

/// Bytes of a text. Enough for a path that a person reads, and for any id.
pub const MAX_TEXT: usize = 256;

/// Ours, the decisions of the filters, and 16 of the policy are fewer.
const MAX_ATTRIBUTES: usize = 64;

/// What everybody is to carry (W3C Trace Context Level 2, section 3.3.1.5). A longer one is left
/// out: a part of it may mean something else.
const MAX_TRACESTATE: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
}

/// Of an attribute: ours, or of the policy, which all spans share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Known(&'static str),
    Given(Rc<str>),
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Name::Known(name) => name,
            Name::Given(name) => name,
        }
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Name {
        Name::Known(name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(cut(text.as_bytes()))
    }
}

impl From<&[u8]> for Value {
    fn from(text: &[u8]) -> Value {
        Value::Text(cut(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Bool(is)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: SpanContext,
    pub parent: Option<SpanId>,
    pub(super) tracestate: String,
    pub kind: Kind,
    pub name: String,
    /// By the wall clock.
    pub start: Nanos,
    pub end: Nanos,
    pub(super) attributes: Vec<(Name, Value)>,
    /// Attributes for which there was no room.
    pub dropped_attributes: u32,
    pub is_error: bool,
}

impl Span {
    /// The wall clock may step; no span ends before it starts.
    pub fn new(
        context: SpanContext,
        parent: Option<SpanId>,
        kind: Kind,
        start: Nanos,
        end: Nanos,
    ) -> Span {
        Span {
            context,
            parent,
            tracestate: String::new(),
            kind,
            name: String::new(),
            start,
            end: end.max(start),
            attributes: Vec::with_capacity(12),
            dropped_attributes: 0,
            is_error: false,
        }
    }

    pub fn set_tracestate(&mut self, tracestate: &[u8]) {
        let fits = tracestate.len() <= MAX_TRACESTATE;
        let text = std::str::from_utf8(tracestate).ok().filter(|_| fits);
        self.tracestate = text.unwrap_or_default().to_string();
    }

    /// Adds an attribute. OTLP wants each name once, which is the caller's to see to.
    pub fn add(&mut self, name: impl Into<Name>, value: impl Into<Value>) {
        if self.attributes.len() < MAX_ATTRIBUTES {
            self.attributes.push((name.into(), value.into()));
        } else {
            self.dropped_attributes = self.dropped_attributes.saturating_add(1);
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }
}

/// A text of at most [`MAX_TEXT`] bytes; what is not UTF-8 is replaced.
pub fn cut(bytes: &[u8]) -> String {
    let mut end = bytes.len().min(MAX_TEXT);
    // Not within a character: its further bytes are 10xxxxxx, at most three of them.
    for _ in 0..3 {
        if bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end = end.saturating_sub(1);
        }
    }
    let mut text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    // A replacement takes three bytes in place of one.
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::context::TraceId;

    pub fn span(number: u64) -> Span {
        let context = SpanContext {
            trace_id: TraceId::new(1).unwrap(),
            span_id: SpanId::new(number).unwrap(),
            sampled: true,
            is_random: true,
            is_debug: false,
        };
        Span::new(context, None, Kind::Server, 1, 2)
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut(b"short"), "short");
        assert_eq!(cut(&[b'x'; 300]), "x".repeat(256));
        for (lead, char) in [(255, "é"), (254, "€"), (253, "😀"), (254, "😀")] {
            let text = format!("{}{char}{}", "x".repeat(lead), "y".repeat(100));
            assert_eq!(cut(text.as_bytes()), "x".repeat(lead), "{char}");
        }
        assert_eq!(cut(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(cut(&[0xff; 300]).chars().count(), 85);
    }

    #[test]
    fn attributes_are_bounded() {
        let mut span = span(1);
        for _ in 0..100 {
            span.add("x", 1);
        }
        assert_eq!((span.attributes.len(), span.dropped_attributes), (64, 36));
    }

    #[test]
    fn a_tracestate_is_kept_whole_or_not_at_all() {
        let mut span = span(1);
        for (given, kept) in [(&b"a=1"[..], "a=1"), (&[b'x'; 513], ""), (b"a=\xff", "")] {
            span.set_tracestate(given);
            assert_eq!(span.tracestate, kept);
        }
    }

    #[test]
    fn a_step_of_the_wall_clock() {
        let span = Span::new(span(1).context, None, Kind::Server, 50, 20);
        assert_eq!((span.start, span.end), (50, 50));
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_bounded_text(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let text = cut(&bytes);
            prop_assert!(text.len() <= MAX_TEXT);
            let whole = String::from_utf8_lossy(&bytes);
            prop_assert!(whole.len() > MAX_TEXT || text == whole);
        }

        #[test]
        fn texts_lose_no_more_than_they_must(text in "[a-é€😀]{0,200}") {
            let cut = cut(text.as_bytes());
            prop_assert!(text.starts_with(&cut));
            prop_assert!(cut.len() == text.len() || cut.len() > MAX_TEXT - 4);
        }
    }
}
