//! Datadog's headers (Datadog documentation, "Trace Context Propagation"): decimal ids of 64 bits;
//! the upper half of a longer trace id travels among the tags, as `_dd.p.tid`.

use super::{ascii, decimal, lower_hex_64, split_once, trim_ows};
use crate::trace::context::{Carried, SpanContext, SpanId, TraceId};

const UPPER_HALF: &[u8] = b"_dd.p.tid";
/// What Datadog's tracers carry by default (`DD_TRACE_X_DATADOG_TAGS_MAX_LENGTH`); they drop the
/// whole header when it is longer.
const TAGS: usize = 512;
/// 2^64 - 1 has twenty digits.
const DIGITS: usize = 20;

/// The values of `x-datadog-trace-id`, `-parent-id`, `-sampling-priority` and `-tags`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    pub trace_id: Option<&'a [u8]>,
    pub parent_id: Option<&'a [u8]>,
    pub priority: Option<&'a [u8]>,
    pub tags: Option<&'a [u8]>,
}

impl Headers<'_> {
    /// Nothing without a trace id. A parent of 0, or none, is what a tracer sends that has no span
    /// yet. An upper half that cannot be read counts as 0, as it does in Datadog's tracers.
    pub fn parse(&self) -> Option<Carried> {
        let lower = decimal(self.trace_id?, DIGITS)?;
        let upper = tags(self.tags.unwrap_or_default())
            .find(|(name, _, _)| *name == UPPER_HALF)
            .and_then(|(_, value, _)| lower_hex_64(value))
            .unwrap_or_default();
        let trace_id = TraceId::new((u128::from(upper) << 64) | u128::from(lower))?;
        let span_id = match self.parent_id {
            None => None,
            Some(parent) => SpanId::new(decimal(parent, DIGITS)?),
        };
        let sampled = match self.priority {
            Some(b"1" | b"2") => Some(true),
            Some(b"0" | b"-1") => Some(false),
            _ => None,
        };
        Some(Carried { trace_id: Some(trace_id), span_id, sampled, ..Carried::default() })
    }
}

/// With the other tags of the header that came, as long as there is room for them.
pub fn write(context: &SpanContext, incoming_tags: Option<&[u8]>) -> Vec<(&'static str, String)> {
    let id = context.trace_id.get();
    #[allow(clippy::cast_possible_truncation)] // The halves are what is wanted.
    let (upper, lower) = ((id >> 64) as u64, id as u64);
    // 2 is a person's decision, 0 and 1 are a sampler's.
    let priority = match (context.is_debug, context.sampled) {
        (true, _) => "2",
        (false, true) => "1",
        (false, false) => "0",
    };
    let mut headers = vec![
        ("x-datadog-trace-id", lower.to_string()),
        ("x-datadog-parent-id", context.span_id.get().to_string()),
        ("x-datadog-sampling-priority", priority.to_string()),
    ];
    // The upper half first, so that it is never what does not fit.
    let mut line = if upper == 0 { String::new() } else { format!("_dd.p.tid={upper:016x}") };
    for (name, _, tag) in tags(incoming_tags.unwrap_or_default()) {
        let size = line.len().saturating_add(1).saturating_add(tag.len());
        if name == UPPER_HALF || size > TAGS {
            continue;
        }
        if !line.is_empty() {
            line.push(',');
        }
        line.push_str(ascii(tag));
    }
    if !line.is_empty() {
        headers.push(("x-datadog-tags", line));
    }
    headers
}

/// The well-formed tags: name, value and both as they stand. Names have no blank; values may.
fn tags(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    line.split(|byte| *byte == b',').filter_map(|tag| {
        let tag = trim_ows(tag);
        let (name, value) = split_once(tag, b'=')?;
        let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        let is_value = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
        (is_name && is_value).then_some((name, value, tag))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{contexts, span_id, trace_id};
    use super::*;
    use proptest::prelude::*;

    const LOWER: &str = "11803532876627986230";
    const PARENT: &str = "67667974448284343";

    fn read(
        trace: &str,
        parent: Option<&str>,
        priority: Option<&str>,
        tags: Option<&str>,
    ) -> Option<Carried> {
        Headers {
            trace_id: Some(trace.as_bytes()),
            parent_id: parent.map(str::as_bytes),
            priority: priority.map(str::as_bytes),
            tags: tags.map(str::as_bytes),
        }
        .parse()
    }

    /// "Trace Context Propagation" and the tracers' `tid` tag ("high order 64 bits").
    #[test]
    fn the_sentences() {
        let tid = "_dd.p.dm=-4, _dd.p.tid=4bf92f3577b34da6";
        let low = 0xa3ce_929d_0e0e_4736;
        let all = trace_id().get();
        for (quotation, trace, tags, expected) in [
            ("decimal, the low order 64 bits", LOWER, None, Some(low)),
            ("tid: hex encoded high order 64 bits", LOWER, Some(tid), Some(all)),
            ("tid: malformed counts as 0", LOWER, Some("_dd.p.tid=4BF92F3577B34DA6"), Some(low)),
            ("tid: malformed counts as 0", LOWER, Some("_dd.p.tid=4bf9"), Some(low)),
            ("tags: key=value pairs", LOWER, Some("x,_dd.p.tid"), Some(low)),
            ("unsigned 64-bit", "18446744073709551616", None, None),
            ("decimal", "0x1", None, None),
            ("decimal", "-1", None, None),
            ("decimal", "", None, None),
            ("0 is no id", "0", None, None),
        ] {
            let carried = read(trace, Some(PARENT), None, tags);
            let id = carried.and_then(|it| it.trace_id).map(TraceId::get);
            assert_eq!(id, expected, "{quotation}: {trace} {tags:?}");
        }
        for (quotation, priority, sampled) in [
            ("-1: user reject", Some("-1"), Some(false)),
            ("0: auto reject", Some("0"), Some(false)),
            ("1: auto keep", Some("1"), Some(true)),
            ("2: user keep", Some("2"), Some(true)),
            ("absent: left to who comes next", None, None),
            ("anything else: as if absent", Some("3"), None),
            ("anything else: as if absent", Some(""), None),
        ] {
            let carried = read(LOWER, Some(PARENT), priority, None).unwrap();
            assert_eq!(carried.sampled, sampled, "{quotation}");
            assert_eq!(carried.span_id, Some(span_id()));
        }
        assert_eq!(read(LOWER, None, None, None).unwrap().span_id, None);
        assert_eq!(read(LOWER, Some("0"), None, None).unwrap().span_id, None);
        assert_eq!(read(LOWER, Some("x"), None, None), None);
        assert_eq!(Headers { parent_id: Some(b"1"), ..Headers::default() }.parse(), None);
    }

    #[test]
    fn other_tags_go_on() {
        let mut context = SpanContext {
            trace_id: trace_id(),
            span_id: span_id(),
            sampled: true,
            is_random: true,
            is_debug: false,
        };
        let tags = |context: &SpanContext, incoming: &str| {
            let headers = write(context, Some(incoming.as_bytes()));
            headers.into_iter().find(|(name, _)| *name == "x-datadog-tags").map(|(_, line)| line)
        };
        let ours = "_dd.p.tid=4bf92f3577b34da6";
        assert_eq!(tags(&context, ""), Some(ours.to_string()));
        assert_eq!(
            tags(&context, "_dd.p.dm=-4,_dd.p.tid=1,x=a b=,broken,\u{e9}=1,y=\r\n"),
            Some(format!("{ours},_dd.p.dm=-4,x=a b="))
        );
        let long = format!("a={},b=1", "x".repeat(500));
        assert_eq!(tags(&context, &long), Some(format!("{ours},b=1")));
        context.trace_id = TraceId::new(5).unwrap();
        assert_eq!(tags(&context, "_dd.p.tid=4bf92f3577b34da6"), None);
        assert_eq!(tags(&context, "a=1,_dd.p.tid=0000000000000000"), Some("a=1".to_string()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            context in contexts(),
            raw in proptest::collection::vec(any::<u8>(), 0..60),
            tags in "([a-z._]{1,9}=[ -~]{0,60},){0,12}",
        ) {
            for tags in [&raw[..], tags.as_bytes()] {
                let headers = write(&context, Some(tags));
                let get = |name: &str| {
                    headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_bytes())
                };
                let tags = get("x-datadog-tags");
                prop_assert!(tags.is_none_or(|line| line.len() <= TAGS));
                let read = Headers {
                    trace_id: get("x-datadog-trace-id"),
                    parent_id: get("x-datadog-parent-id"),
                    priority: get("x-datadog-sampling-priority"),
                    tags,
                };
                prop_assert_eq!(read.parse(), Some(Carried {
                    trace_id: Some(context.trace_id),
                    span_id: Some(context.span_id),
                    sampled: Some(context.sampled),
                    ..Carried::default()
                }));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let value = Some(&value[..]);
            for trace_id in [value, Some(b"1")] {
                let _ = Headers { trace_id, parent_id: value, priority: value, tags: value }.parse();
            }
        }
    }
}
