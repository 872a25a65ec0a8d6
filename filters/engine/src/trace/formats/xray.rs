//! AWS X-Ray's `x-amzn-trace-id` (X-Ray Developer Guide, "Tracing header"):
//! `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`.

use super::{ascii, lower_hex, lower_hex_64, split_once, trim_ows};
use crate::trace::context::{Carried, SpanContext, SpanId, TraceId};

/// What a header with the fields of others may grow to. Ours take 75; load balancers and Lambda add
/// `Self` and `Lineage`, which are shorter than this together.
const CHARACTERS: usize = 512;

/// Reads the header; of a field that stands twice the first. Fields of others are skipped.
pub fn parse(value: &[u8]) -> Option<Carried> {
    let field = |name: &[u8]| fields(value).find(|(it, _)| *it == name).map(|(_, value)| value);
    let trace_id = root(field(b"Root")?)?;
    let span_id = match field(b"Parent") {
        // A load balancer starts a trace without a segment of its own.
        None => None,
        Some(parent) => Some(SpanId::new(lower_hex_64(parent)?)?),
    };
    let sampled = match field(b"Sampled") {
        Some(b"1") => Some(true),
        Some(b"0") => Some(false),
        // `?` asks the one who reads it to decide.
        _ => None,
    };
    Some(Carried { trace_id: Some(trace_id), span_id, sampled, ..Carried::default() })
}

/// With the fields of others in `incoming`, as long as they are printable and there is room.
pub fn write(context: &SpanContext, incoming: Option<&[u8]>) -> String {
    let id = context.trace_id.get();
    let (seconds, rest) = (id >> 96, id & ((1 << 96) - 1));
    let (parent, sampled) = (context.span_id, u8::from(context.sampled));
    let mut line = format!("Root=1-{seconds:08x}-{rest:024x};Parent={parent};Sampled={sampled}");
    for (name, value) in fields(incoming.unwrap_or_default()) {
        let is_ours = matches!(name, b"Root" | b"Parent" | b"Sampled");
        let is_printable = name.iter().chain(value).all(u8::is_ascii_graphic);
        let size = name.len().saturating_add(value.len()).saturating_add(2);
        let fits = line.len().saturating_add(size) <= CHARACTERS;
        if !is_ours && is_printable && !name.is_empty() && fits {
            line.push(';');
            line.push_str(ascii(name));
            line.push('=');
            line.push_str(ascii(value));
        }
    }
    line
}

fn fields(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|byte| *byte == b';').filter_map(|field| split_once(trim_ows(field), b'='))
}

/// `1-{8 digits}-{24 digits}`: together the trace id. The first part is a time in X-Ray, and no
/// more than eight digits to everyone else.
fn root(value: &[u8]) -> Option<TraceId> {
    let (seconds, rest) = split_once(value.strip_prefix(b"1-")?, b'-')?;
    if seconds.len() != 8 || rest.len() != 24 {
        return None;
    }
    TraceId::new((lower_hex(seconds)? << 96) | lower_hex(rest)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SPAN, contexts, span_id, trace_id};
    use super::*;
    use proptest::prelude::*;

    const ROOT: &str = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736";

    /// X-Ray Developer Guide, "Tracing header", and OpenTelemetry's X-Ray propagator.
    #[test]
    fn the_sentences() {
        let parent = format!("Parent={SPAN}");
        let full = format!("{ROOT};{parent};Sampled=1");
        let with = |from: &str, to: &str| full.replacen(from, to, 1);
        for (quotation, value, expected) in [
            ("Root=…;Parent=…;Sampled=1", full.clone(), Some((true, Some(true)))),
            (
                "the parent ID and sampling decision are optional",
                ROOT.to_string(),
                Some((false, None)),
            ),
            ("the root is required", format!("{parent};Sampled=1"), None),
            ("Sampled: 0", format!("{ROOT};Sampled=0"), Some((false, Some(false)))),
            (
                "Sampled=?: made by the downstream service",
                with("Sampled=1", "Sampled=?"),
                Some((true, None)),
            ),
            ("Sampled: anything else is unknown", full.clone() + "1", Some((true, None))),
            (
                "fields in any order",
                format!("Sampled=1;{parent};Self=1-2-3;{ROOT}"),
                Some((true, Some(true))),
            ),
            ("blanks around fields", full.replace(';', " ; "), Some((true, Some(true)))),
            ("Currently, only \"1\" is valid", with("=1-", "=2-"), None),
            ("timestamp: 32-bit number in base16", with("=1-4", "=1-"), None),
            ("UUID: 96-bit", with("77b3", "77b"), None),
            ("base16", with("77b3", "77bg"), None),
            ("base16, in lower case", with("77b3", "77B3"), None),
            ("zero is no id", "Root=1-00000000-000000000000000000000000".to_string(), None),
            ("Parent: 64 bits", with("Parent=0", "Parent="), None),
            ("Parent: 64 bits", with(SPAN, "0000000000000000"), None),
            ("names are whole", with("Root", "Roots"), None),
            ("", String::new(), None),
        ] {
            let expected = expected.map(|(has_span, sampled)| Carried {
                trace_id: Some(trace_id()),
                span_id: has_span.then(span_id),
                sampled,
                ..Carried::default()
            });
            assert_eq!(parse(value.as_bytes()), expected, "{quotation}: {value}");
        }
    }

    #[test]
    fn the_fields_of_others_go_on() {
        let context = SpanContext {
            trace_id: trace_id(),
            span_id: span_id(),
            sampled: false,
            is_random: true,
            is_debug: false,
        };
        let ours = format!("{ROOT};Parent={SPAN};Sampled=0");
        assert_eq!(write(&context, None), ours);
        let long = format!("Long={}", "x".repeat(500));
        for (incoming, kept) in [
            (
                "Root=1-2-3;Sampled=1;Self=1-67891234-12456789abcdef012345678;Lineage=a:1|b:2",
                ";Self=1-67891234-12456789abcdef012345678;Lineage=a:1|b:2",
            ),
            ("Parent=1;Parent=2", ""),
            ("no field;=1;a b=1;c=\u{e9};d=1\r\nevil: 1;e=", ";e="),
            (&format!("{long};a=1"), ";a=1"),
        ] {
            let written = write(&context, Some(incoming.as_bytes()));
            assert_eq!(written, format!("{ours}{kept}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            context in contexts(),
            incoming in proptest::collection::vec(any::<u8>(), 0..80),
            fields in "([A-Z][a-z]{0,5}=[!-~]{0,40};){0,20}",
        ) {
            for incoming in [&incoming[..], fields.as_bytes()] {
                let written = write(&context, Some(incoming));
                prop_assert!(written.len() <= CHARACTERS);
                prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(parse(written.as_bytes()), Some(Carried {
                    trace_id: Some(context.trace_id),
                    span_id: Some(context.span_id),
                    sampled: Some(context.sampled),
                    ..Carried::default()
                }));
                prop_assert_eq!(write(&context, Some(written.as_bytes())), written);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = parse(&value);
        }
    }
}
