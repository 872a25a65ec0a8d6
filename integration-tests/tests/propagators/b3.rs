//! B3 against `opentelemetry-zipkin`'s propagator.

// Its exporter is deprecated, and the propagator with it: it lives nowhere else.
#![allow(deprecated)]

use opentelemetry::trace::TraceFlags;
use opentelemetry_zipkin::{B3Encoding, Propagator};
use proptest::prelude::*;
use weir_engine::trace::context::SpanContext;
use weir_engine::trace::formats::b3;

use crate::common::{Instead, Read, Row, Table, as_number, as_theirs, contexts, inject, texts};
use crate::common::{ours, read_of, theirs};

const DEFERRED: TraceFlags = TraceFlags::new(2);
const DEBUG: TraceFlags = TraceFlags::new(4);

fn single_propagator() -> Propagator {
    Propagator::with_encoding(B3Encoding::SingleHeader)
}

fn multi_propagator() -> Propagator {
    Propagator::with_encoding(B3Encoding::MultipleHeader)
}

const SINGLE: Table<Option<Read>> = Table {
    ours: |line| ours(b3::parse_single(line.as_bytes())),
    theirs: |line| theirs(&single_propagator(), &[("b3", line)], Some(DEFERRED)),
    rows: &[
        Row {
            sentence: "\"a hyphen delimited string\" (Single Header): nothing is behind the last",
            example: "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-",
            instead: Instead::Takes(|line| line.strip_suffix('-').unwrap_or(line).to_string()),
        },
        Row {
            sentence: "\"32 or 16 lower-hex character TraceId\", \"16 lower-hex character SpanId\"",
            example: "+bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-1",
            instead: Instead::Takes(|line| {
                let is_id = |field: &str| matches!(field.len(), 16 | 32) && field.starts_with('+');
                let fields = line.split('-').map(|field| match is_id(field) {
                    true => as_number(field, field.len()),
                    false => field.to_string(),
                });
                fields.collect::<Vec<_>>().join("-")
            }),
        },
        Row {
            sentence: "\"Sampling State is encoded as a single hex character\"",
            example: "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-false",
            instead: Instead::Takes(|line| {
                let fields =
                    line.split('-').enumerate().map(|(place, field)| match (place, field) {
                        (2, "false") => "0",
                        _ => field,
                    });
                fields.collect::<Vec<_>>().join("-")
            }),
        },
        Row {
            sentence: "\"Debug is an emphasized accept decision that implies accept\" (Sampling State)",
            example: "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-d",
            instead: Instead::Says(|line, read| {
                let is_debug = line.split('-').nth(2) == Some("d");
                let sampled = |it: Read| if is_debug { Some(false) } else { it.sampled };
                read.map(|it| Read { sampled: sampled(it), ..it })
            }),
        },
        Row {
            sentence: "\"When the span is the root of the trace tree, there is no ParentSpanId\": zeros \
                       are none",
            example: "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-0000000000000000",
            instead: Instead::Takes(|line| match line.strip_suffix("-0000000000000000") {
                Some(rest) if rest.split('-').count() == 3 => rest.to_string(),
                _ => line.to_string(),
            }),
        },
    ],
};

/// A text of header lines stands for the headers.
fn lines(text: &str) -> Vec<(&str, &str)> {
    text.split('\n').filter_map(|line| line.split_once(": ")).collect()
}

fn line<'t>(lines: &[(&str, &'t str)], name: &str) -> Option<&'t str> {
    lines.iter().find(|(it, _)| *it == name).map(|(_, value)| *value)
}

const MULTI: Table<Option<Read>> = Table {
    ours: |text| {
        let lines = lines(text);
        let get = |name: &str| line(&lines, name).map(str::as_bytes);
        let multi = b3::Multi {
            trace_id: get("x-b3-traceid"),
            span_id: get("x-b3-spanid"),
            sampled: get("x-b3-sampled"),
            flags: get("x-b3-flags"),
        };
        ours(multi.parse())
    },
    theirs: |text| {
        // "the first value wins", where a map takes the last.
        let mut lines = lines(text);
        lines.reverse();
        theirs(&multi_propagator(), &lines, Some(DEFERRED))
    },
    rows: &[
        Row {
            sentence: "\"32 or 16 lower-hex characters\", \"16 lower-hex characters\"",
            example: "x-b3-traceid: +bf92f3577b34da6\nx-b3-spanid: +0f067aa0ba902b7\nx-b3-sampled: 1",
            instead: Instead::Takes(|text| {
                let lines = text.split('\n').map(|line| match line.split_once(": ") {
                    Some((name @ ("x-b3-traceid" | "x-b3-spanid"), id))
                        if matches!(id.len(), 16 | 32) && id.starts_with('+') =>
                    {
                        format!("{name}: {}", as_number(id, id.len()))
                    }
                    _ => line.to_string(),
                });
                lines.collect::<Vec<_>>().join("\n")
            }),
        },
        Row {
            sentence: "\"Debug is encoded as X-B3-Flags: 1\", and no other flag is said to mean a thing",
            example: "x-b3-traceid: 4bf92f3577b34da6\nx-b3-spanid: 00f067aa0ba902b7\nx-b3-flags: 0\n\
                      x-b3-sampled: 1",
            instead: Instead::Takes(|text| match line(&lines(text), "x-b3-flags") {
                Some("0") => format!("x-b3-sampled: 0\n{text}"),
                _ => text.to_string(),
            }),
        },
        Row {
            sentence: "accept is \"X-B3-Sampled: 1\" and deny is \"X-B3-Sampled: 0\": anything else is \
                       malformed, beside the debug flag too, where it should not be sent",
            example: "x-b3-traceid: 4bf92f3577b34da6\nx-b3-spanid: 00f067aa0ba902b7\nx-b3-flags: 1\n\
                      x-b3-sampled: x",
            instead: Instead::Takes(|text| match line(&lines(text), "x-b3-flags") {
                Some("1") => format!("x-b3-sampled: 1\n{text}"),
                _ => text.to_string(),
            }),
        },
    ],
};

#[test]
fn rows_are_needed() {
    SINGLE.rows_are_needed();
    MULTI.rows_are_needed();
}

fn valid_single() -> impl Strategy<Value = String> + Clone {
    let more = prop_oneof![
        Just(String::new()),
        "-[01d]",
        "-[01d]-[0-9a-f]{16}",
        Just("-1-0000000000000000".to_string()),
        Just("-false".to_string()),
    ];
    let with_ids = ("([0-9a-f]{16}|[0-9a-f]{32})-[0-9a-f]{16}", more)
        .prop_map(|(ids, more)| format!("{ids}{more}"));
    prop_oneof![9 => with_ids, 1 => "[01d]"]
}

fn valid_multi() -> impl Strategy<Value = String> + Clone {
    let maybe = |line: &'static str| prop::option::weighted(0.6, line);
    let ids = ("x-b3-traceid: ([0-9a-f]{16}|[0-9a-f]{32})", "x-b3-spanid: [0-9a-f]{16}");
    let rest = (
        maybe("x-b3-sampled: (0|1|true|false)"),
        maybe("x-b3-flags: [01]"),
        maybe("x-b3-parentspanid: [0-9a-f]{16}"),
    );
    (ids, rest).prop_map(|((trace, span), (sampled, flags, parent))| {
        let lines = [Some(trace), Some(span), sampled, flags, parent];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    })
}

fn flags(context: &SpanContext) -> TraceFlags {
    let sampled = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    if context.is_debug { sampled | DEBUG } else { sampled }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn theirs_reads_what_ours_reads_single(line in texts(valid_single(), "-dDfFg1")) {
        SINGLE.check(&line)?;
    }

    #[test]
    fn theirs_reads_what_ours_reads_multi(text in texts(valid_multi(), "-dDfFg1\n:")) {
        MULTI.check(&text)?;
    }

    #[test]
    fn theirs_reads_what_ours_writes(context in contexts()) {
        // Debug in one header is the one thing that theirs reads as a denial.
        let single = (SINGLE.theirs)(&b3::write_single(&context));
        let expected = read_of(&context).map(|it| Read {
            sampled: Some(context.sampled && !context.is_debug),
            ..it
        });
        prop_assert_eq!(single, expected);
        let lines = b3::write_multi(&context);
        let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        prop_assert_eq!((MULTI.theirs)(&lines.join("\n")), read_of(&context));
    }

    #[test]
    fn ours_reads_what_theirs_writes(context in contexts()) {
        let theirs = as_theirs(&context, flags(&context));
        let single = inject(&single_propagator(), &theirs);
        let carried = b3::parse_single(single["b3"].as_bytes());
        prop_assert_eq!(ours(carried), read_of(&context));
        prop_assert_eq!(carried.map(|it| it.is_debug), Some(context.is_debug));
        let multi = inject(&multi_propagator(), &theirs);
        let lines: Vec<String> = multi.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        prop_assert_eq!((MULTI.ours)(&lines.join("\n").to_ascii_lowercase()), read_of(&context));
    }
}
