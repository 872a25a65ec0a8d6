use super::super::tests::{SPAN, TRACE, contexts, span_id, trace_id};
use super::*;
use proptest::prelude::*;

fn carried(sampled: Option<bool>, is_debug: bool) -> Option<Carried> {
    let (trace_id, span_id) = (Some(trace_id()), Some(span_id()));
    Some(Carried { trace_id, span_id, sampled, is_debug, is_random: false })
}

fn alone(sampled: bool, is_debug: bool) -> Option<Carried> {
    Some(Carried { sampled: Some(sampled), is_debug, ..Carried::default() })
}

#[test]
fn the_sentences_on_one_header() {
    let ids = format!("{TRACE}-{SPAN}");
    for (quotation, value, expected) in [
        ("Single Header: the last two fields are optional", ids.clone(), carried(None, false)),
        ("Single: Defer is absence of the sampling field", ids.clone(), carried(None, false)),
        ("Single: Accept: 1", format!("{ids}-1"), carried(Some(true), false)),
        ("Single: Deny: 0", format!("{ids}-0"), carried(Some(false), false)),
        ("Single: Debug: d", format!("{ids}-d"), carried(Some(true), true)),
        ("Single: a single hex character", format!("{ids}-2"), None),
        ("Single: a single hex character", format!("{ids}-true"), None),
        ("Single: a single hex character", format!("{ids}-"), None),
        (
            "Single: ParentSpanId in the final position",
            format!("{ids}-1-{SPAN}"),
            carried(Some(true), false),
        ),
        ("Single: ParentSpanId is the 16 lower-hex characters", format!("{ids}-1-{TRACE}"), None),
        ("Single: ParentSpanId in the final position", format!("{ids}-{SPAN}"), None),
        ("Single: four fields", format!("{ids}-1-{SPAN}-1"), None),
        ("Single: A deny decision may omit identifiers", "0".to_string(), alone(false, false)),
        ("Single: state can also be sent on its own", "1".to_string(), alone(true, false)),
        ("Single: state can also be sent on its own", "d".to_string(), alone(true, true)),
        ("Single: Unless … the SpanId is required", TRACE.to_string(), None),
        ("Single: Unless … the TraceId is required", format!("-{SPAN}-1"), None),
        ("Single: lower-hex", format!("{}-{SPAN}", TRACE.to_uppercase()), None),
        ("TraceId: 32 or 16", format!("{}-{SPAN}", &TRACE[1..]), None),
        ("SpanId: 16 lower-hex characters", format!("{TRACE}-{}", &SPAN[1..]), None),
        ("zero is no id", format!("{}-{SPAN}", "0".repeat(32)), None),
        ("zero is no id", format!("{TRACE}-{}", "0".repeat(16)), None),
        ("hyphen delimited", "-".to_string(), None),
        ("hyphen delimited", String::new(), None),
    ] {
        assert_eq!(parse_single(value.as_bytes()), expected, "{quotation}: {value}");
    }
    // "TraceId: 64 or 128-bit in length".
    let short = parse_single(format!("{}-{SPAN}-1", &TRACE[16..]).as_bytes()).unwrap();
    assert_eq!(short.trace_id.unwrap().get(), 0xa3ce_929d_0e0e_4736);
}

#[test]
fn the_sentences_on_several_headers() {
    let read = |sampled: Option<&str>, flags: Option<&str>| {
        let (trace_id, span_id) = (Some(TRACE.as_bytes()), Some(SPAN.as_bytes()));
        let (sampled, flags) = (sampled.map(str::as_bytes), flags.map(str::as_bytes));
        let multi = Multi { trace_id, span_id, sampled, flags };
        (multi.parse(), Multi { trace_id: None, span_id: None, ..multi }.parse())
    };
    for (quotation, sampled, flags, expected, without_ids) in [
        ("Multiple: Absent means defer", None, None, carried(None, false), None),
        (
            "Multiple: accept … as X-B3-Sampled: 1",
            Some("1"),
            None,
            carried(Some(true), false),
            alone(true, false),
        ),
        (
            "Multiple: and a deny as X-B3-Sampled: 0",
            Some("0"),
            None,
            carried(Some(false), false),
            alone(false, false),
        ),
        (
            "Multiple: may accept true",
            Some("true"),
            None,
            carried(Some(true), false),
            alone(true, false),
        ),
        (
            "Multiple: or false",
            Some("false"),
            None,
            carried(Some(false), false),
            alone(false, false),
        ),
        (
            "Multiple: Debug implies an accept decision",
            None,
            Some("1"),
            carried(Some(true), true),
            alone(true, true),
        ),
        (
            "Multiple: Debug implies an accept decision",
            Some("0"),
            Some("1"),
            carried(Some(true), true),
            alone(true, true),
        ),
        (
            "FAQ: no other flags were added",
            Some("0"),
            Some("2"),
            carried(Some(false), false),
            alone(false, false),
        ),
        ("Multiple: accept or deny", Some("d"), None, None, None),
        ("Multiple: accept or deny", Some(""), None, None, None),
    ] {
        assert_eq!(read(sampled, flags), (expected, without_ids), "{quotation}");
    }
    let ids = |trace: Option<&str>, span: Option<&str>| {
        let (trace_id, span_id) = (trace.map(str::as_bytes), span.map(str::as_bytes));
        Multi { trace_id, span_id, sampled: Some(b"1"), flags: None }.parse().is_some()
    };
    for (quotation, trace, span, valid) in [
        ("TraceId: 32 or 16 lower-hex characters", Some(&TRACE[16..]), Some(SPAN), true),
        ("TraceId: is required", None, Some(SPAN), false),
        ("SpanId: is required", Some(TRACE), None, false),
        ("SpanId: lower-hex", Some(TRACE), Some("00F067AA0BA902B7"), false),
        ("TraceId: 32 or 16", Some(""), Some(SPAN), false),
    ] {
        assert_eq!(ids(trace, span), valid, "{quotation}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(context in contexts()) {
        let expected = Carried {
            trace_id: Some(context.trace_id),
            span_id: Some(context.span_id),
            sampled: Some(context.sampled),
            is_debug: context.is_debug,
            is_random: false,
        };
        prop_assert_eq!(parse_single(write_single(&context).as_bytes()), Some(expected));
        let headers = write_multi(&context);
        let get = |name: &str| {
            headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_bytes())
        };
        prop_assert_eq!(get("x-b3-parentspanid"), None);
        prop_assert!(get("x-b3-sampled").is_none() || get("x-b3-flags").is_none());
        let multi = Multi {
            trace_id: get("x-b3-traceid"),
            span_id: get("x-b3-spanid"),
            sampled: get("x-b3-sampled"),
            flags: get("x-b3-flags"),
        };
        prop_assert_eq!(multi.parse(), Some(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse_single(&value);
        let value = Some(&value[..]);
        let _ = Multi { trace_id: value, span_id: value, sampled: None, flags: value }.parse();
    }
}
