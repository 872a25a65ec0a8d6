//! What the formats have in common: both readings of one text, and texts to read.

use std::collections::HashMap;
use std::fmt::Debug;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use weir_engine::trace::context::{self, Carried};

/// What of a header both sides have a word for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub trace_id: u128,
    /// 0 for none.
    pub span_id: u64,
    /// `None`: left to whoever comes next.
    pub sampled: Option<bool>,
}

/// A decision without a trace is no span context to OpenTelemetry.
pub fn ours(carried: Option<Carried>) -> Option<Read> {
    let carried = carried?;
    Some(Read {
        trace_id: carried.trace_id?.get(),
        span_id: carried.span_id.map_or(0, context::SpanId::get),
        sampled: carried.sampled,
    })
}

/// `deferred` is the flag by which a propagator says that there is no decision.
pub fn theirs(
    propagator: &impl TextMapPropagator,
    headers: &[(&str, &str)],
    deferred: Option<TraceFlags>,
) -> Option<Read> {
    let context = extract(propagator, headers);
    let span = context.span();
    let said = span.span_context();
    let is_deferred = deferred.is_some_and(|flag| said.trace_flags() & flag == flag);
    let read = Read {
        trace_id: u128::from_be_bytes(said.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(said.span_id().to_bytes()),
        sampled: (!is_deferred).then_some(said.is_sampled()),
    };
    (read.trace_id != 0).then_some(read)
}

pub fn extract(propagator: &impl TextMapPropagator, headers: &[(&str, &str)]) -> Context {
    let line = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let headers: HashMap<String, String> = headers.iter().map(line).collect();
    propagator.extract_with_context(&Context::new(), &headers)
}

/// The headers that theirs writes.
pub fn inject(propagator: &impl TextMapPropagator, context: &Context) -> HashMap<String, String> {
    let mut headers = HashMap::new();
    propagator.inject_context(context, &mut headers);
    headers
}

/// The same context in their types.
pub fn as_theirs(context: &context::SpanContext, flags: TraceFlags) -> Context {
    let trace_id = TraceId::from(context.trace_id.get());
    let span_id = SpanId::from(context.span_id.get());
    let state = TraceState::default();
    let remote = SpanContext::new(trace_id, span_id, flags, true, state);
    Context::new().with_remote_span_context(remote)
}

/// One way in which theirs leaves the specification.
pub struct Row<T> {
    /// The sentence, and where it stands.
    pub sentence: &'static str,
    pub example: &'static str,
    pub instead: Instead<T>,
}

pub enum Instead<T> {
    /// Theirs takes the text for this one.
    Takes(fn(&str) -> String),
    /// Of a text like this theirs says something else. Gets what ours says.
    Says(fn(&str, T) -> T),
}

pub struct Table<T: 'static> {
    pub ours: fn(&str) -> T,
    pub theirs: fn(&str) -> T,
    pub rows: &'static [Row<T>],
}

impl<T: Clone + Debug + PartialEq> Table<T> {
    /// What ours reads, with theirs' ways but for that row.
    fn explained(&self, text: &str, without: Option<usize>) -> T {
        let rows = || self.rows.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let taken = rows().fold(text.to_string(), |text, (_, row)| match row.instead {
            Instead::Takes(instead) => instead(&text),
            Instead::Says(_) => text,
        });
        rows().fold((self.ours)(&taken), |read, (_, row)| match row.instead {
            Instead::Takes(_) => read,
            Instead::Says(instead) => instead(&taken, read),
        })
    }

    pub fn check(&self, text: &str) -> Result<(), TestCaseError> {
        let (ours, theirs) = (self.explained(text, None), (self.theirs)(text));
        prop_assert_eq!(ours, theirs, "{:?}", text);
        Ok(())
    }

    /// Each row's example is read differently, and is read the same again through that row.
    pub fn rows_are_needed(&self) {
        for (at, row) in self.rows.iter().enumerate() {
            let Row { sentence, example, .. } = row;
            let theirs = (self.theirs)(example);
            assert_ne!((self.ours)(example), theirs, "{sentence}: {example:?}");
            assert_ne!(self.explained(example, Some(at)), theirs, "{sentence}: {example:?}");
            assert_eq!(self.explained(example, None), theirs, "{sentence}: {example:?}");
        }
    }
}

/// Valid texts, the same with one or two changes, and any text. `special` are characters that mean
/// something in the format.
pub fn texts(
    valid: impl Strategy<Value = String> + Clone + 'static,
    special: &'static str,
) -> impl Strategy<Value = String> {
    let characters: Vec<char> = special.chars().chain("0 \t\n+é\u{a0}\u{7f}".chars()).collect();
    let change = (any::<prop::sample::Index>(), 0..5_u8, prop::sample::select(characters));
    let changed =
        (valid.clone(), prop::collection::vec(change, 1..3)).prop_map(|(text, changes)| {
            changes
                .iter()
                .fold(text, |text, (at, kind, character)| change_at(&text, at, *kind, *character))
        });
    let any_bytes = prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        3 => valid,
        5 => changed,
        1 => "[ -~]{0,80}",
        1 => any_bytes.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

fn change_at(text: &str, at: &prop::sample::Index, kind: u8, character: char) -> String {
    let mut all: Vec<char> = text.chars().collect();
    let at = at.index(all.len() + 1);
    match (kind, all.get(at).copied()) {
        (0, Some(_)) => {
            all.remove(at);
        }
        (1, Some(_)) => all[at] = character,
        (2, Some(there)) if there.is_ascii_alphabetic() => all[at] = there.to_ascii_uppercase(),
        (3, Some(there)) => all.insert(at, there),
        _ => all.insert(at, character),
    }
    all.into_iter().collect()
}

/// A context as this proxy makes them: a debugged trace is a sampled one.
pub fn contexts() -> impl Strategy<Value = context::SpanContext> {
    let ids = (1_u128.., 1_u64..);
    (ids, any::<(bool, bool, bool)>()).prop_map(|((trace, span), (sampled, random, debug))| {
        context::SpanContext {
            trace_id: context::TraceId::new(trace).unwrap(),
            span_id: context::SpanId::new(span).unwrap(),
            sampled: sampled || debug,
            is_random: random,
            is_debug: debug,
        }
    })
}

pub fn read_of(context: &context::SpanContext) -> Option<Read> {
    Some(Read {
        trace_id: context.trace_id.get(),
        span_id: context.span_id.get(),
        sampled: Some(context.sampled),
    })
}

/// A number as `from_str_radix` reads it, in so many digits: one `+` in front, any count of zeros,
/// any case. What it does not read stays as it is.
pub fn as_number(field: &str, digits: usize) -> String {
    let number = field.strip_prefix('+').unwrap_or(field);
    let significant = number.trim_start_matches('0');
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_number || significant.len() > digits {
        return field.to_string();
    }
    format!("{significant:0>digits$}")
}
