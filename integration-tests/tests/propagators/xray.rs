//! `x-amzn-trace-id` against `opentelemetry-aws`'s propagator.

use opentelemetry::trace::TraceFlags;
use opentelemetry_aws::trace::XrayPropagator;
use proptest::prelude::*;
use weir_engine::trace::formats::xray;

use crate::common::{Instead, Read, Row, Table, as_number, as_theirs, contexts, inject, texts};
use crate::common::{ours, read_of, theirs};

const DEFERRED: TraceFlags = TraceFlags::new(2);
const NAME: &str = "x-amzn-trace-id";

const TABLE: Table<Option<Read>> = Table {
    ours: |line| ours(xray::parse(line.as_bytes())),
    theirs: |line| theirs(&XrayPropagator::new(), &[(NAME, line)], Some(DEFERRED)),
    rows: &[
        Row {
            sentence: "OWS = *( SP / HTAB ) (RFC 9110, 5.6.3), and no other white space",
            example: "\u{a0}Root=1-4bf92f35-77b34da6a3ce929d0e0e4736",
            instead: Instead::Takes(|line| line.trim().to_string()),
        },
        Row {
            sentence: "\"Root=...;Parent=...;Sampled=...\" (Tracing header) has no blanks: ours reads \
                       over them, to theirs they are a part of the field",
            example: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled=1 ;",
            instead: Instead::Takes(|line| {
                let is_blank = |it: char| matches!(it, ' ' | '\t');
                each(line, |field| {
                    let inner = field.trim_matches(is_blank);
                    let start = field.len() - field.trim_start_matches(is_blank).len();
                    let end = field.len().saturating_sub(start + inner.len());
                    Some(format!("{}{inner}{}", "_".repeat(start), "_".repeat(end)))
                })
            }),
        },
        Row {
            sentence: "Name=value (Tracing header)",
            example: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled==1",
            instead: Instead::Takes(|line| {
                each(line, |field| match field.split_once('=') {
                    Some((name, value)) => {
                        Some(format!("{name}={}", value.trim_start_matches('=')))
                    }
                    None => Some(field.into()),
                })
            }),
        },
        Row {
            sentence: "\"three numbers separated by hyphens\": \"the version number, that is, 1\", \"8 \
                       hexadecimal digits\", \"24 hexadecimal digits\" (Sending trace data)",
            example: "Root=2-+4BF-92F3577b34da6a3ce929d0e0e4736-",
            instead: Instead::Takes(|line| {
                each(line, |field| {
                    Some(match field.strip_prefix("Root=") {
                        Some(root) => format!("Root={}", as_root(root)),
                        None => field.into(),
                    })
                })
            }),
        },
        Row {
            sentence: "\"in 16 hexadecimal digits\" (Segment documents, of an id)",
            example: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=F067AA0BA902B7",
            instead: Instead::Takes(|line| {
                each(line, |field| match field.strip_prefix("Parent=") {
                    Some(parent) => {
                        let number = as_number(parent, 16).to_ascii_lowercase();
                        let is_id = number.len() == 16
                            && number.bytes().all(|byte| byte.is_ascii_hexdigit())
                            && number != "0000000000000000";
                        is_id.then(|| format!("Parent={number}"))
                    }
                    None => Some(field.into()),
                })
            }),
        },
        Row {
            sentence: "a field stands once (Tracing header): of two theirs takes the last, ours the first",
            example: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled=1;Sampled=0",
            instead: Instead::Takes(|line| {
                let is_broken = |field: &&str| {
                    field.starts_with("Root=") && xray::parse(field.as_bytes()).is_none()
                };
                if let Some(broken) = line.split(';').find(is_broken) {
                    return broken.to_string();
                }
                line.split(';').rev().collect::<Vec<_>>().join(";")
            }),
        },
        Row {
            sentence: "fields of others may stand there (Tracing header), in no grammar of tracestate",
            example: "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;a.b=1",
            instead: Instead::Says(|line, read| {
                let fields = line.split(';').rev().filter_map(|field| field.split_once('='));
                let others =
                    fields.filter(|(name, _)| !matches!(*name, "Root" | "Parent" | "Sampled"));
                let is_fit = |(name, value): (&str, &str)| {
                    is_key(&name.to_ascii_lowercase())
                        && value.len() <= 256
                        && !value.contains([',', '='])
                };
                read.filter(|_| others.take(32).all(is_fit))
            }),
        },
    ],
};

/// What theirs takes for a key of tracestate; an empty one as well.
fn is_key(name: &str) -> bool {
    let letter = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let (tenant, system) = name.split_once('@').unwrap_or((name, ""));
    name.len() <= 256
        && name.chars().all(|it| letter(it) || "_-*/@".contains(it))
        && (name.is_empty() || name.starts_with(letter))
        && (system.is_empty() || system.starts_with(letter))
        && !system.contains('@')
        && system.len() <= 13
        && (!tenant.is_empty() || name.is_empty())
}

/// The fields after a change; one may go.
fn each(line: &str, change: impl Fn(&str) -> Option<String>) -> String {
    line.split(';').filter_map(change).collect::<Vec<_>>().join(";")
}

/// Theirs reads three parts, and the last two of them as one number.
fn as_root(root: &str) -> String {
    let parts: Vec<&str> = root.strip_suffix('-').unwrap_or(root).split('-').collect();
    let [_, seconds, rest] = parts[..] else { return root.to_string() };
    let number = as_number(&format!("{seconds}{rest}"), 32).to_ascii_lowercase();
    match number.len() == 32 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => format!("1-{}-{}", &number[..8], &number[8..]),
        // A number that theirs refuses must not read as one of ours.
        false => "-".to_string(),
    }
}

#[test]
fn rows_are_needed() {
    TABLE.rows_are_needed();
}

fn valid() -> impl Strategy<Value = String> + Clone {
    let root = "Root=1-[0-9a-f]{8}-[0-9a-f]{24}";
    let parent = prop::option::weighted(0.8, "Parent=[0-9a-f]{16}");
    let sampled = prop::option::weighted(0.8, "Sampled=[01?]");
    let other = prop::option::weighted(
        0.4,
        "(Self=1-[0-9a-f]{8}-[0-9a-f]{24}|Lineage=a:[0-9]|[A-z.]{1,3}=[ -~]{0,4})",
    );
    (root, parent, sampled, other, any::<bool>()).prop_map(
        |(root, parent, sampled, other, turns)| {
            let mut fields: Vec<String> =
                [Some(root), parent, sampled, other].into_iter().flatten().collect();
            if turns {
                fields.reverse();
            }
            fields.join(";")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn theirs_reads_what_ours_reads(line in texts(valid(), "-=;fFgPS,@.")) {
        TABLE.check(&line)?;
    }

    #[test]
    fn theirs_reads_what_ours_writes(context in contexts(), others in "(;[A-Z][a-z]{1,5}=[!-+--:<>-~]{1,9}){0,3}") {
        let written = xray::write(&context, Some(others.as_bytes()));
        prop_assert_eq!((TABLE.theirs)(&written), read_of(&context));
    }

    #[test]
    fn ours_reads_what_theirs_writes(context in contexts()) {
        let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let written = inject(&XrayPropagator::new(), &as_theirs(&context, flags));
        prop_assert_eq!((TABLE.ours)(&written[NAME]), read_of(&context));
    }
}
