//! `tracestate` against `opentelemetry_sdk`'s `TraceContextPropagator`: the members that are left.

use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use proptest::prelude::*;
use weir_engine::trace::formats::tracestate::{Own, TraceState};

use crate::common::{Instead, Row, Table, extract, texts};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The members as one line, or nothing where the header is not to be used.
const TABLE: Table<String> = Table {
    ours: |line| {
        let state = TraceState::parse(std::iter::once(line.as_bytes()));
        state.map(|state| state.write(Own::Keep)).unwrap_or_default()
    },
    // What only theirs takes is told in the characters that the row put in its place.
    theirs: |line| plain(&header(line)),
    rows: &[
        Row {
            sentence: "\"There can be a maximum of 32 list-members in a list\" (3.3.1.1)",
            example: "a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1,k=1,l=1,m=1,n=1,o=1,p=1,q=1,r=1,s=1,\
                      t=1,u=1,v=1,w=1,x=1,y=1,z=1,0=1,1=1,2=1,3=1,4=1,5=1,6=1",
            instead: Instead::Takes(|line| line.split(',').take(32).collect::<Vec<_>>().join(",")),
        },
        Row {
            sentence: "value = 0*255(chr) nblk-chr, chr without \"=\" (3.3.1.3.2)",
            example: "foo==1",
            instead: Instead::Takes(|line| {
                each(line, |member| match member.split_once('=') {
                    Some((key, value)) => format!("{key}={}", value.trim_start_matches('=')),
                    None => member.to_string(),
                })
            }),
        },
        Row {
            sentence: "key = ( lcalpha / DIGIT ) 0*255( ... ), value = 0*255(chr) nblk-chr, chr = \
                       %x20 / nblk-chr (3.3.1.3)",
            example: "=1,foo=,bar=caf\u{e9}",
            instead: Instead::Takes(plain),
        },
        Row {
            sentence: "key = ( lcalpha / DIGIT ) 0*255( lcalpha / DIGIT / \"_\" / \"-\" / \"*\" / \
                       \"/\" / \"@\" ) (3.3.1.3.1, 2026-06)",
            example: "foo@@bar=1",
            instead: Instead::Says(|line, state| {
                let keys = line.split(',').filter_map(|member| member.split_once('='));
                let is_refused = keys.into_iter().any(|(key, _)| has_other_tenant(trim(key)));
                if is_refused { String::new() } else { state }
            }),
        },
    ],
};

/// The tenant grammar of Level 1, with 13 characters of a system where it had 14.
fn has_other_tenant(key: &str) -> bool {
    let Some((tenant, system)) = key.split_once('@') else { return false };
    let starts_well = system.is_empty()
        || system.starts_with(|it: char| it.is_ascii_lowercase() || it.is_ascii_digit());
    !tenant.is_empty() && (system.contains('@') || system.len() > 13 || !starts_well)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn each(line: &str, change: impl Fn(&str) -> String) -> String {
    line.split(',').map(|member| change(trim(member))).collect::<Vec<_>>().join(",")
}

/// Digits and underscores where theirs lets anything stand.
fn plain(line: &str) -> String {
    each(line, |member| match member.split_once('=') {
        Some((key, value)) => {
            let key = if key.is_empty() { "0" } else { key };
            let value = if value.is_empty() { "_" } else { value };
            let kept = value.bytes().map(|byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '_',
            });
            format!("{key}={}", kept.collect::<String>())
        }
        None => member.to_string(),
    })
}

fn header(line: &str) -> String {
    let headers = [("traceparent", TRACEPARENT), ("tracestate", line)];
    let context = extract(&TraceContextPropagator::new(), &headers);
    context.span().span_context().trace_state().header()
}

#[test]
fn rows_are_needed() {
    TABLE.rows_are_needed();
}

/// "Vendors SHOULD propagate at least 512 characters of a combined header" (3.3.1.5): ours at most
/// that, theirs all.
#[test]
fn ours_cuts_what_is_longer_than_512_characters() {
    let member = |key: &str| format!("{key}={}", "x".repeat(98));
    let line = ["a", "b", "c", "d", "e", "f"].map(member).join(",");
    assert_eq!(header(&line), line);
    let kept = ["a", "b", "c", "d", "e"].map(member).join(",");
    assert_eq!((TABLE.ours)(&line), kept);
}

fn valid() -> impl Strategy<Value = String> + Clone {
    let key = prop_oneof![
        3 => "[a-z0-9][a-z0-9_*/-]{0,4}",
        1 => "[a-z0-9]{1,3}@[a-z0-9_]{0,14}",
        1 => "[a-z0-9]{1,3}[a-z@_]{1,4}",
    ];
    let member = (key, "[ -+--<>-~]{0,4}[!-+--<>-~]", "[ \t]{0,1}");
    let member = member.prop_map(|(key, value, blank)| format!("{blank}{key}={value}{blank}"));
    let long = prop::collection::vec("[a-z]{1,2}=[0-9]", 28..36);
    prop_oneof![
        4 => prop::collection::vec(member, 0..6),
        1 => long,
    ]
    .prop_map(|members| members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn theirs_reads_what_ours_reads(line in texts(valid(), ",=@_A")) {
        TABLE.check(&line)?;
    }

    #[test]
    fn theirs_reads_what_ours_writes(line in valid(), value in "[!-+--<>-~]{1,20}") {
        // The grammar of keys with tenants has a row of its own.
        let line = line.replace('@', "_");
        let state = TraceState::parse(std::iter::once(line.as_bytes())).unwrap_or_default();
        let written = state.write(Own::Set("ot", &value));
        prop_assert_eq!(header(&written), written);
    }
}
