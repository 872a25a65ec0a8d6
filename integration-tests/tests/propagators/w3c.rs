//! `traceparent` against `opentelemetry_sdk`'s `TraceContextPropagator`.

use opentelemetry::trace::TraceFlags;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use proptest::prelude::*;
use weir_engine::trace::formats::w3c;

use crate::common::{Instead, Read, Row, Table, as_number, as_theirs, contexts, inject, texts};
use crate::common::{ours, read_of, theirs};

const TABLE: Table<Option<Read>> = Table {
    ours: |line| ours(w3c::parse(line.as_bytes())),
    theirs: |line| theirs(&TraceContextPropagator::new(), &[("traceparent", line)], None),
    rows: &[
        Row {
            sentence: "OWS = *( SP / HTAB ) (RFC 9110, 5.6.3), and no other white space",
            example: "\u{a0}00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            instead: Instead::Takes(|line| line.trim().to_string()),
        },
        Row {
            sentence: "version = 2HEXDIGLC (3.2.2)",
            example: "CC-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            instead: Instead::Takes(|line| match line.split_once('-') {
                Some((version, rest)) => format!("{}-{rest}", version.to_ascii_lowercase()),
                None => line.to_string(),
            }),
        },
        Row {
            sentence: "2HEXDIGLC, 32HEXDIGLC, 16HEXDIGLC, 2HEXDIGLC (3.2.2)",
            example: "0-+4bf92f3577b34da6a3ce929d0e0e4736-f067aa0ba902b7-1",
            instead: Instead::Takes(|line| {
                let digits = [2, 32, 16, 2].into_iter().map(Some).chain(std::iter::repeat(None));
                let fields = line.split('-').zip(digits).map(|(field, digits)| match digits {
                    Some(digits) if !field.bytes().any(|it| it.is_ascii_uppercase()) => {
                        as_number(field, digits)
                    }
                    _ => field.to_string(),
                });
                fields.collect::<Vec<_>>().join("-")
            }),
        },
        Row {
            sentence: "version-format = trace-id \"-\" parent-id \"-\" trace-flags (3.2.2.1)",
            example: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            instead: Instead::Takes(|line| match line.strip_suffix('-') {
                Some(whole) if line.starts_with("00-") && is_whole(whole) => whole.to_string(),
                _ => line.to_string(),
            }),
        },
        Row {
            sentence: "lines combine \"by appending each subsequent field line value [...] separated \
                       by a comma\" (RFC 9110, 5.3), so these are two values",
            example: "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x, 00-1-1-00",
            instead: Instead::Takes(|line| match line.match_indices('-').nth(3) {
                Some((end, _)) if line[end..].contains(',') && is_whole(&line[..end]) => {
                    if line.starts_with("00-") { line } else { &line[..end] }.to_string()
                }
                _ => line.to_string(),
            }),
        },
    ],
};

/// Four fields, and no blank at the end that would be taken for white space around the line.
fn is_whole(line: &str) -> bool {
    line.split('-').count() == 4 && !line.ends_with([' ', '\t'])
}

#[test]
fn rows_are_needed() {
    TABLE.rows_are_needed();
}

fn valid() -> impl Strategy<Value = String> + Clone {
    let version = prop_oneof![4 => Just("00".to_string()), 1 => "[0-9a-f]{2}"];
    let flags = prop_oneof![3 => "0[0-3]", 1 => "[0-9a-f]{2}"];
    let more = prop_oneof![4 => Just(String::new()), 1 => "-[a-z0-9.-]{0,6}"];
    (version, "[0-9a-f]{32}", "[0-9a-f]{16}", flags, more).prop_map(
        |(version, trace, span, flags, more)| format!("{version}-{trace}-{span}-{flags}{more}"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn theirs_reads_what_ours_reads(line in texts(valid(), "-fF9g,.")) {
        TABLE.check(&line)?;
    }

    #[test]
    fn theirs_reads_what_ours_writes(context in contexts()) {
        let line = w3c::write(&context);
        prop_assert_eq!((TABLE.theirs)(&line), read_of(&context));
    }

    /// Theirs clears the random flag, which Level 2 asks to be kept (3.2.2.5.2).
    #[test]
    fn ours_reads_what_theirs_writes(context in contexts()) {
        let sampled = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let flags = sampled | TraceFlags::new(if context.is_random { 2 } else { 0 });
        let written = inject(&TraceContextPropagator::new(), &as_theirs(&context, flags));
        let line = &written["traceparent"];
        prop_assert_eq!((TABLE.ours)(line), read_of(&context));
        prop_assert!(!w3c::parse(line.as_bytes()).unwrap().is_random);
    }
}
