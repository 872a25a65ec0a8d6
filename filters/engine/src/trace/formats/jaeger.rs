//! Jaeger's `uber-trace-id` (jaegertracing.io, "Propagation Format"):
//! `{trace id}:{span id}:{parent span id}:{flags}`.
//!
//! Lenient about case and missing zeros: "base16" without a case, and "Receivers MUST accept
//! hex-strings shorter than 32 characters and 0-pad them on the left".

use super::any_hex;
use crate::trace::context::{Carried, SpanContext, SpanId, TraceId};

const SAMPLED: u128 = 1;
const DEBUG: u128 = 2;

pub fn parse(value: &[u8]) -> Option<Carried> {
    let mut rest = Some(value);
    let mut field = || {
        let (field, after) = split_at_colon(rest?);
        rest = after;
        Some(field)
    };
    let trace_id = TraceId::new(any_hex(field()?)?)?;
    let span_id = SpanId::new(u64::try_from(any_hex(field()?)?).ok()?)?;
    // "Deprecated, most Jaeger clients ignore on the receiving side".
    let _parent = field()?;
    let flags = field()?;
    if rest.is_some() || flags.len() > 2 {
        return None;
    }
    let flags = any_hex(flags)?;
    let sampled = flags & SAMPLED != 0;
    Some(Carried {
        trace_id: Some(trace_id),
        span_id: Some(span_id),
        sampled: Some(sampled),
        is_random: false,
        // "Debug flag should only be set when the sampled flag is set": without it, it is nothing.
        is_debug: sampled && flags & DEBUG != 0,
    })
}

/// The parent is 0, as it has long been deprecated.
pub fn write(context: &SpanContext) -> String {
    let flags = match (context.is_debug, context.sampled) {
        (true, _) => SAMPLED | DEBUG,
        (false, true) => SAMPLED,
        (false, false) => 0,
    };
    format!("{}:{}:0:{flags:x}", context.trace_id, context.span_id)
}

/// The field before the next colon, and what is behind it. Some clients wrote the header URL
/// encoded.
fn split_at_colon(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    for place in 0..text.len() {
        let (field, rest) = text.split_at(place);
        if let [b':', after @ ..] | [b'%', b'3', b'A' | b'a', after @ ..] = rest {
            return (field, Some(after));
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SPAN, TRACE, contexts, span_id, trace_id};
    use super::*;
    use proptest::prelude::*;

    /// "Propagation Format", "Value".
    #[test]
    fn the_sentences() {
        let ids = format!("{TRACE}:{SPAN}");
        for (quotation, value, expected) in [
            (
                "{trace-id}:{span-id}:{parent-span-id}:{flags}",
                format!("{ids}:0:1"),
                Some((true, false)),
            ),
            ("{trace-id}:{span-id}:{parent-span-id}:{flags}", format!("{ids}:1"), None),
            ("{trace-id}:{span-id}:{parent-span-id}:{flags}", format!("{ids}:0:1:1"), None),
            ("{trace-id}:{span-id}:{parent-span-id}:{flags}", format!("{ids}:0:1:"), None),
            ("{trace-id}:{span-id}:{parent-span-id}:{flags}", String::new(), None),
            (
                "parent: clients ignore on the receiving side",
                format!("{ids}:{SPAN}:1"),
                Some((true, false)),
            ),
            (
                "parent: clients ignore on the receiving side",
                format!("{ids}::1"),
                Some((true, false)),
            ),
            (
                "flags: One byte bitmap, as one or two hex digits",
                format!("{ids}:0:01"),
                Some((true, false)),
            ),
            ("flags: One byte bitmap, as one or two hex digits", format!("{ids}:0:001"), None),
            ("flags: One byte bitmap, as one or two hex digits", format!("{ids}:0:"), None),
            ("flags: One byte bitmap, as one or two hex digits", format!("{ids}:0:x"), None),
            ("flags: bit mask 0x01 is \"sampled\"", format!("{ids}:0:0"), Some((false, false))),
            ("flags: bit mask 0x02 is \"debug\"", format!("{ids}:0:3"), Some((true, true))),
            (
                "should only be set when the sampled flag is set",
                format!("{ids}:0:2"),
                Some((false, false)),
            ),
            (
                "flags: bit mask 0x08 is \"firehose\", not ours",
                format!("{ids}:0:f9"),
                Some((true, false)),
            ),
            ("span-id: Value of 0 is not valid", format!("{TRACE}:0:0:1"), None),
            ("span-id: 64-bit", format!("{TRACE}:1{SPAN}:0:1"), None),
            ("trace-id: Value of 0 is not valid", format!("0:{SPAN}:0:1"), None),
            ("trace-id: 128-bit", format!("0{ids}:0:1"), None),
            ("trace-id: base16", format!("x{}:0:1", &ids[1..]), None),
            ("trace-id: base16", format!("{}:0:1", ids.to_uppercase()), Some((true, false))),
            ("URL encoded", format!("{ids}:0:1").replace(':', "%3A"), Some((true, false))),
            ("URL encoded", format!("{ids}:0:1").replace(':', "%3a"), Some((true, false))),
            ("URL encoded", format!("{ids}:0:1").replace(':', "%3"), None),
        ] {
            let expected = expected.map(|(sampled, is_debug)| Carried {
                trace_id: Some(trace_id()),
                span_id: Some(span_id()),
                sampled: Some(sampled),
                is_random: false,
                is_debug,
            });
            assert_eq!(parse(value.as_bytes()), expected, "{quotation}: {value}");
        }
        // "Can be variable length, shorter values are 0-padded on the left".
        let short = parse(b"abc:1:0:1").unwrap();
        assert_eq!(short.trace_id.unwrap().get(), 0xabc);
        assert_eq!(short.span_id.unwrap().get(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(context in contexts(), encoded in any::<bool>()) {
            let written = write(&context);
            let written = if encoded { written.replace(':', "%3A") } else { written };
            prop_assert_eq!(parse(written.as_bytes()), Some(Carried {
                trace_id: Some(context.trace_id),
                span_id: Some(context.span_id),
                sampled: Some(context.sampled),
                is_random: false,
                is_debug: context.is_debug,
            }));
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&value);
        }
    }
}
