//! `baggage` against `opentelemetry_sdk`'s `BaggagePropagator`: keys and decoded values. Ours carries
//! members as they came, so what is compared is what the one who reads them in the end is told.

use std::collections::BTreeMap;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage as Theirs, BaggageExt};
use opentelemetry_sdk::propagation::BaggagePropagator;
use percent_encoding::percent_decode;
use proptest::prelude::*;
use weir_engine::core::baggage::Baggage;

use crate::common::{Instead, Row, Table, extract, inject, texts};

type Values = BTreeMap<String, String>;

const TABLE: Table<Values> = Table {
    ours: |line| {
        let baggage = Baggage::parse(std::iter::once(line.as_bytes()));
        let value = |bytes: &[u8]| percent_decode(bytes).decode_utf8_lossy().into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // "The last wins" is theirs' way to make a map of a list.
        baggage.members().map(|member| (text(member.key()), value(member.value()))).collect()
    },
    theirs: read_theirs,
    rows: &[
        Row {
            sentence: "\"MUST propagate all list-members\" of up to 64 (3.3.2); more MAY be dropped",
            example: "a=1,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,b=1",
            instead: Instead::Takes(|line| line.split(',').take(64).collect::<Vec<_>>().join(",")),
        },
        Row {
            sentence: "property = key OWS \"=\" OWS value / key OWS (3.3.1)",
            example: "a=1;b c",
            instead: Instead::Takes(|line| {
                each(line, |member| Some(member.split(';').next().unwrap_or_default().to_string()))
            }),
        },
        Row {
            sentence: "\"Parsers MUST NOT assume that the equal sign is only used to separate key and \
                       value\" (3.3.1.3)",
            example: "a=1=2",
            instead: Instead::Takes(|line| {
                each(line, |member| {
                    let mut parts = member.split('=');
                    match (parts.next(), parts.next()) {
                        (Some(key), Some(value)) => Some(format!("{key}={value}")),
                        _ => Some(member.into()),
                    }
                })
            }),
        },
        Row {
            sentence: "key = token (3.3.1.2), where `%` stands for itself",
            example: "%61=1",
            instead: Instead::Takes(|line| {
                each(line, |member| match member.split_once('=') {
                    Some((key, value)) => {
                        let key = percent_decode(key.as_bytes()).decode_utf8().ok()?;
                        let is_separator = |it: char| matches!(it, ',' | ';' | '=');
                        // What is no token after decoding is no key to theirs either.
                        let key = key.trim();
                        (!key.contains(is_separator)).then(|| format!("{key}={value}"))
                    }
                    None => Some(member.into()),
                })
            }),
        },
        Row {
            sentence: "value = *baggage-octet (3.3.1); octets that are no UTF-8 \"MUST be replaced with \
                       the replacement code point\" (3.3.1.3)",
            example: "a=b c,d=%ff,e=%20f",
            instead: Instead::Takes(|line| {
                each(line, |member| match member.split_once('=') {
                    Some((key, value)) => {
                        let value = percent_decode(value.as_bytes()).decode_utf8().ok()?;
                        let octets = value.trim().bytes().map(|byte| format!("%{byte:02X}"));
                        Some(format!("{key}={}", octets.collect::<String>()))
                    }
                    None => Some(member.into()),
                })
            }),
        },
    ],
};

fn each(line: &str, change: impl Fn(&str) -> Option<String>) -> String {
    line.split(',').filter_map(change).collect::<Vec<_>>().join(",")
}

fn read_theirs(line: &str) -> Values {
    let context = extract(&BaggagePropagator::new(), &[("baggage", line)]);
    let members = context.baggage().iter();
    members.map(|(key, (value, _))| (key.to_string(), value.to_string())).collect()
}

#[test]
fn rows_are_needed() {
    TABLE.rows_are_needed();
}

/// "MUST propagate all" of up to 8192 bytes (3.3.2). Of more theirs keeps none, ours what fits.
#[test]
fn of_what_is_too_long_ours_keeps_what_fits() {
    let line = format!("a=1,b={},c=3", "x".repeat(8190));
    assert!(read_theirs(&line).is_empty());
    let mut baggage = Baggage::parse(std::iter::once(line.as_bytes()));
    baggage.limit(64, 8192);
    assert_eq!(baggage.write(), "a=1,c=3");
}

fn valid() -> impl Strategy<Value = String> + Clone {
    let key =
        prop_oneof![4 => "[!#$&'*+.^_`|~0-9A-Za-z-]{1,5}", 1 => "[a-c]", 1 => "(%4[0-9]|a){1,2}"];
    let value = prop_oneof![4 => "[!#-+--:<-\\[\\]-~]{0,6}", 2 => "(%[0-9a-fA-F]{2}|[a-z]){0,4}"];
    let property =
        prop_oneof![3 => Just(String::new()), 1 => " ?; ?[a-z]{1,3}( ?= ?[a-z0-9%]{0,3})?"];
    let member = (key, value, property, "[ \t]?").prop_map(|(key, value, property, blank)| {
        format!("{blank}{key}{blank}={blank}{value}{property}{blank}")
    });
    prop_oneof![
        6 => prop::collection::vec(member, 0..6),
        1 => prop::collection::vec("[a-z]{2}=[0-9]", 60..70),
    ]
    .prop_map(|members| members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn theirs_reads_what_ours_reads(line in texts(valid(), ",;=%\"\\(é")) {
        TABLE.check(&line)?;
    }

    /// What goes on says to theirs what the lines that came say, as far as these are members at all.
    #[test]
    fn theirs_reads_what_ours_writes(line in valid(), key in "[a-z.]{1,4}", value in "[a-z é\"%,;=\\\\]{0,12}") {
        let mut baggage = Baggage::parse(std::iter::once(line.as_bytes()));
        prop_assert_eq!(baggage.invalid(), 0);
        baggage.limit(64, 8192);
        prop_assert_eq!(read_theirs(&baggage.write()), read_theirs(&line));
        baggage.limit(63, 8192);
        baggage.set(&key, value.as_bytes());
        let written = read_theirs(&baggage.write());
        prop_assert_eq!(written.get(&key).map(String::as_str), Some(value.trim()));
    }

    /// But for "%" and backslash, which theirs does not encode although they "MUST be
    /// percent-encoded" (3.3.1.3).
    #[test]
    fn ours_reads_what_theirs_writes(
        members in prop::collection::btree_map("[a-z.]{1,4}", "[!-\\[\\]-~é]{0,12}", 0..6),
    ) {
        let members: Values =
            members.into_iter().map(|(key, value)| (key, value.replace('%', ""))).collect();
        let mut theirs = Theirs::new();
        for (key, value) in &members {
            let _ = theirs.insert(key.clone(), value.clone());
        }
        let written = inject(&BaggagePropagator::new(), &Context::new().with_baggage(theirs));
        prop_assert_eq!((TABLE.ours)(written.get("baggage").map_or("", String::as_str)), members);
    }
}
