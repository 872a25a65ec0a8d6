//! `traceparent`: W3C Trace Context Level 2, section 3.2.

use super::{lower_hex, lower_hex_64, push_hex, trim_ows};
use crate::trace::context::{Carried, SpanContext, SpanId, TraceId};

const SAMPLED: u128 = 1;
const RANDOM: u128 = 2;
/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// Reads one line. Two lines are the caller's to refuse: neither says which of them is true. Two
/// values on one line are refused here.
pub fn parse(line: &[u8]) -> Option<Carried> {
    let line = trim_ows(line);
    let (known, rest) = line.split_at_checked(LENGTH)?;
    let dashes = [2, 35, 52].iter().all(|place| known.get(*place) == Some(&b'-'));
    let version = lower_hex(known.get(..2)?)?;
    let ends = match (version, rest.first()) {
        (0xff, _) => false,
        (_, None) => true,
        (0, Some(_)) => false,
        // A later version may append fields. A comma is no part of one: it is where RFC 9110
        // section 5.3 joins lines, so there are two values.
        (_, Some(byte)) => *byte == b'-' && !rest.contains(&b','),
    };
    if !dashes || !ends {
        return None;
    }
    let trace_id = TraceId::new(lower_hex(known.get(3..35)?)?)?;
    let span_id = SpanId::new(lower_hex_64(known.get(36..52)?)?)?;
    let flags = lower_hex(known.get(53..)?)?;
    Some(Carried {
        trace_id: Some(trace_id),
        span_id: Some(span_id),
        sampled: Some(flags & SAMPLED != 0),
        is_random: flags & RANDOM != 0,
        is_debug: false,
    })
}

/// Always version 00, whatever version came (section 3.4, "Downgrade the version"), with the two
/// flags that it knows.
pub fn write(context: &SpanContext) -> String {
    let trace_id = context.trace_id.get();
    let mut line = String::with_capacity(LENGTH);
    line.push_str("00-");
    push_hex((trace_id >> 64) as u64, &mut line);
    #[allow(clippy::cast_possible_truncation)] // The lower half.
    push_hex(trace_id as u64, &mut line);
    line.push('-');
    push_hex(context.span_id.get(), &mut line);
    line.push_str(match (context.sampled, context.is_random) {
        (false, false) => "-00",
        (true, false) => "-01",
        (false, true) => "-02",
        (true, true) => "-03",
    });
    line
}

#[cfg(test)]
mod tests {
    use super::super::tests::{contexts, span_id, trace_id};
    use super::*;
    use proptest::prelude::*;

    /// Each case beside the sentence it stands for.
    #[test]
    fn the_sentences() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let later = good.replacen("00", "cc", 1);
        let with = |from: &str, to: &str| good.replacen(from, to, 1);
        let no_id = |id: &str| with(id, &"0".repeat(id.len()));
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (quotation, line, valid) in [
            ("3.2.2.2 trace-id \"-\" parent-id \"-\" trace-flags", good.to_string(), true),
            ("3.2.2 OWS: RFC 9110 5.5, no part of a value", format!(" \t{good}\t "), true),
            ("RFC 9110 5.6.3 OWS is SP or HTAB", format!("\n{good}"), false),
            ("3.2.2.1 Version ff is forbidden", with("00", "ff"), false),
            ("3.2.2.1 2HEXDIGLC", with("00", ".0"), false),
            ("3.2.2.1 2HEXDIGLC", with("00", "0"), false),
            ("3.2.2.1 2HEXDIGLC", with("00", "000"), false),
            ("3.2.2.1 lowercase hex character", with("00", "CC"), false),
            ("3.2.2.2 nothing after the flags of 00", format!("{good}-what"), false),
            ("3.2.2.2 nothing after the flags of 00", format!("{good}."), false),
            ("3.2.2.2 nothing after the flags of 00", format!("{good},{good}"), false),
            ("3.2.2.3 All zeroes forbidden", no_id(trace), false),
            ("3.2.2.3 non-allowed characters", with(trace, &trace.to_uppercase()), false),
            ("3.2.2.3 non-allowed characters", with("4b", ".b"), false),
            ("3.2.2.3 32HEXDIGLC", with("4b", "4"), false),
            ("3.2.2.3 32HEXDIGLC", with("4b", "4b0"), false),
            ("3.2.2.4 All zeroes forbidden", no_id(span), false),
            ("3.2.2.4 non-lowercase hex characters", with("b7-", "B7-"), false),
            ("3.2.2.4 16HEXDIGLC", with("b7-", "b-"), false),
            ("3.2.2.5 2HEXDIGLC", with("-01", "-1"), false),
            ("3.2.2.5 2HEXDIGLC", with("-01", "-.0"), false),
            ("3.2.2.5 2HEXDIGLC", with("-01", "-0F"), false),
            ("3.2.2 The dash is used as a delimiter", with("-", "_"), false),
            ("3.2.4 shorter than 55 characters", later.replace("-01", "-0"), false),
            ("3.2.4 either at the end of the string", later.clone(), true),
            ("3.2.4 or followed by a dash", format!("{later}-x"), true),
            ("3.2.4 or followed by a dash", format!("{later}-"), true),
            ("3.2.4 or followed by a dash", format!("{later}.x"), false),
            ("RFC 9110 5.3 separated by a comma", format!("{later}-x, {good}"), false),
            ("3.2.4 when the version prefix cannot be parsed", String::new(), false),
        ] {
            assert_eq!(parse(line.as_bytes()).is_some(), valid, "{quotation}: {line}");
        }
        assert_eq!(parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b\xff-01"), None);
    }

    #[test]
    fn the_flags() {
        let with = |flags: &str| {
            let line = format!("00-{}-{}-{flags}", trace_id(), span_id());
            let carried = parse(line.as_bytes()).unwrap();
            (carried.sampled.unwrap(), carried.is_random)
        };
        for (quotation, flags, expected) in [
            ("3.2.2.5.1 When unset, the caller did not record", "00", (false, false)),
            ("3.2.2.5.1 the least significant bit", "01", (true, false)),
            ("3.2.2.5.2 The second least significant bit", "02", (false, true)),
            ("3.2.2.5.2 both 01 and 03 represent sampled", "03", (true, true)),
            ("3.2.2.5 or 09 in hex", "09", (true, false)),
            ("3.2.2.5.3 other flags: reserved for future use", "fc", (false, false)),
            ("3.2.2.5 all 8 flags set would be ff", "ff", (true, true)),
        ] {
            assert_eq!(with(flags), expected, "{quotation}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(context in contexts()) {
            let carried = parse(write(&context).as_bytes()).unwrap();
            prop_assert_eq!(carried, Carried {
                trace_id: Some(context.trace_id),
                span_id: Some(context.span_id),
                sampled: Some(context.sampled),
                is_random: context.is_random,
                is_debug: false,
            });
        }

        #[test]
        fn any_bytes_are_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        /// "Vendors MUST set those to zero" (section 3.2.2.5.3).
        #[test]
        fn only_known_flags_go_on(flags in any::<u8>()) {
            let line = format!("00-{}-{}-{flags:02x}", trace_id(), span_id());
            let carried = parse(line.as_bytes()).unwrap();
            let context = SpanContext {
                trace_id: trace_id(),
                span_id: span_id(),
                sampled: carried.sampled.unwrap(),
                is_random: carried.is_random,
                is_debug: false,
            };
            let end = format!("-{:02x}", flags & 3);
            prop_assert!(write(&context).ends_with(&end));
        }
    }
}
