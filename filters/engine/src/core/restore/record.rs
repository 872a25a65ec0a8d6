//! One record: what is restored on the calls of one request.
//!
//! Tag, length, value, so that an older module passes over what a newer one writes.

use crate::core::bytes::Reader;
use crate::core::ports::Nanos;

/// Bytes of a record. A trace, a deadline, a color and a tracestate of the 512 bytes that the W3C
/// asks everybody to carry need 600; a common baggage fits beside them. Twice as much would double
/// what a full store takes: eight of these are one value, copied on each look and each write.
pub const MAX_RECORD: usize = 1024;

const VERSION: u8 = 1;

const TRACE: u8 = 1;
const DEADLINE: u8 = 2;
const COLOR: u8 = 3;
const TRACESTATE: u8 = 4;
const SW8: u8 = 5;
const SW8_CORRELATION: u8 = 6;
const BAGGAGE: u8 = 7;
const SEEN_COLOR: u8 = 8;

const HAS_DECISION: u8 = 1;
const IS_SAMPLED: u8 = 2;
const IS_RANDOM: u8 = 4;
const IS_DEBUG: u8 = 8;

/// A trace context, whatever the form it came in. The ids are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    /// The parent of the spans to come.
    pub span_id: u64,
    /// `None`: the decision is left to whoever comes next.
    pub sampled: Option<bool>,
    pub is_random: bool,
    pub is_debug: bool,
}

/// What a request carried. A text is a header's value in any bytes; `None` says nothing of the
/// field, while an empty text says that the request came without it, and replaces an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub trace: Option<Trace>,
    /// By the monotonic clock.
    pub deadline: Option<Nanos>,
    /// As the color filter decided.
    pub color: Option<Vec<u8>>,
    /// What stood in the header, where somebody else saw it: on this hop it may be a stand-in.
    pub seen_color: Option<Vec<u8>>,
    pub tracestate: Option<Vec<u8>>,
    pub sw8: Option<Vec<u8>>,
    pub sw8_correlation: Option<Vec<u8>>,
    pub baggage: Option<Vec<u8>>,
}

impl Record {
    /// Takes a newer record of the same request in: the newer field wins. What was taken in before
    /// may come again and changes nothing then.
    pub fn merge(&mut self, newer: Record) {
        // The later deadline counts, so that no request is cut short because of another. None is the
        // latest of all, unless the record is of a filter that knows of no deadlines.
        let is_endless = |record: &Record| record.trace.is_some() && record.deadline.is_none();
        self.deadline = match is_endless(self) || is_endless(&newer) {
            true => None,
            false => self.deadline.max(newer.deadline),
        };
        self.trace = newer.trace.or(self.trace);
        for ((_, field), (_, newer)) in self.texts_mut().into_iter().zip(newer.texts()) {
            if let Some(newer) = newer {
                *field = Some(newer.clone());
            }
        }
    }

    /// The color to restore.
    pub fn any_color(&self) -> Option<&Vec<u8>> {
        self.color.as_ref().or(self.seen_color.as_ref())
    }

    /// As the one who restores reads it: an empty text is none.
    pub fn without_empty(mut self) -> Record {
        for (_, text) in self.texts_mut() {
            *text = text.take().filter(|text| !text.is_empty());
        }
        self
    }

    /// `None` for what is not ours: another format, or a stranger's value.
    pub fn read(bytes: &[u8]) -> Option<Record> {
        let mut reader = Reader(bytes);
        if bytes.len() > MAX_RECORD || reader.u8()? != VERSION {
            return None;
        }
        let mut record = Record::default();
        while !reader.0.is_empty() {
            let tag = reader.u8()?;
            let size = reader.u16()?;
            let mut value = Reader(reader.take(size.into())?);
            match tag {
                TRACE => record.trace = Some(read_trace(&mut value)?),
                DEADLINE => record.deadline = Some(value.u64()?),
                _ => {
                    let mut texts = record.texts_mut().into_iter();
                    let Some((_, field)) = texts.find(|(known, _)| *known == tag) else { continue };
                    *field = Some(std::mem::take(&mut value.0).to_vec());
                }
            }
            if !value.0.is_empty() {
                return None;
            }
        }
        Some(record)
    }

    /// Appends the record. Fields that do not fit are left out whole, the least important first.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(VERSION);
        if let Some(trace) = &self.trace {
            let mut value = [0; TRACE_SIZE];
            let numbers =
                trace.trace_id.to_le_bytes().into_iter().chain(trace.span_id.to_le_bytes());
            let bytes = numbers.chain([trace_flags(trace)]);
            value.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
            put(out, start, TRACE, &value);
        }
        if let Some(deadline) = self.deadline {
            put(out, start, DEADLINE, &deadline.to_le_bytes());
        }
        for (tag, text) in self.texts() {
            if let Some(text) = text {
                put(out, start, tag, text);
            }
        }
    }

    /// In order of importance: an early field displaces a later one where both do not fit.
    fn texts(&self) -> [(u8, &Option<Vec<u8>>); 6] {
        [
            (COLOR, &self.color),
            (SEEN_COLOR, &self.seen_color),
            (TRACESTATE, &self.tracestate),
            (SW8, &self.sw8),
            (SW8_CORRELATION, &self.sw8_correlation),
            (BAGGAGE, &self.baggage),
        ]
    }

    fn texts_mut(&mut self) -> [(u8, &mut Option<Vec<u8>>); 6] {
        [
            (COLOR, &mut self.color),
            (SEEN_COLOR, &mut self.seen_color),
            (TRACESTATE, &mut self.tracestate),
            (SW8, &mut self.sw8),
            (SW8_CORRELATION, &mut self.sw8_correlation),
            (BAGGAGE, &mut self.baggage),
        ]
    }
}

const TRACE_SIZE: usize = 25;

fn read_trace(value: &mut Reader<'_>) -> Option<Trace> {
    let (low, high, span_id, flags) = (value.u64()?, value.u64()?, value.u64()?, value.u8()?);
    let trace_id = (u128::from(high) << 64) | u128::from(low);
    let is = |bit: u8| flags & bit != 0;
    (trace_id != 0 && span_id != 0).then_some(Trace {
        trace_id,
        span_id,
        sampled: is(HAS_DECISION).then_some(is(IS_SAMPLED)),
        is_random: is(IS_RANDOM),
        is_debug: is(IS_DEBUG),
    })
}

fn trace_flags(trace: &Trace) -> u8 {
    let bits = [
        (HAS_DECISION, trace.sampled.is_some()),
        (IS_SAMPLED, trace.sampled == Some(true)),
        (IS_RANDOM, trace.is_random),
        (IS_DEBUG, trace.is_debug),
    ];
    bits.iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (bit, _)| flags | bit)
}

fn put(out: &mut Vec<u8>, start: usize, tag: u8, value: &[u8]) {
    let Ok(size) = u16::try_from(value.len()) else { return };
    let end = out.len().saturating_add(value.len()).saturating_add(3);
    if end.saturating_sub(start) <= MAX_RECORD {
        out.push(tag);
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn trace(trace_id: u128, span_id: u64) -> Trace {
        Trace { trace_id, span_id, sampled: Some(true), is_random: true, is_debug: false }
    }

    /// A text of so many bytes.
    fn long(size: usize) -> Option<Vec<u8>> {
        Some(vec![b'x'; size])
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        bytes
    }

    fn again(record: &Record) -> Record {
        Record::read(&written(record)).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_left_out_in_order_of_importance() {
        let whole = Record {
            trace: Some(trace(1, 2)),
            deadline: Some(3),
            color: long(40),
            seen_color: None,
            tracestate: long(512),
            sw8: long(100),
            sw8_correlation: long(100),
            baggage: long(180),
        };
        assert_eq!(again(&whole), whole);
        let without = |without: fn(&mut Record)| {
            let mut record = whole.clone();
            without(&mut record);
            record
        };
        let given = Record { baggage: long(300), ..whole.clone() };
        assert_eq!(again(&given), without(|r| r.baggage = None));
        // Whole or not at all, and what is smaller still finds its place.
        let given = Record { sw8: long(600), ..whole.clone() };
        assert_eq!(again(&given), without(|r| r.sw8 = None));
        let given = Record { color: long(5000), tracestate: long(70_000), ..whole.clone() };
        assert_eq!(again(&given), without(|r| (r.color, r.tracestate) = (None, None)));
        assert!(written(&given).len() <= MAX_RECORD);
    }

    #[test]
    fn tags_of_newer_modules_are_passed_over() {
        let record = Record { deadline: Some(9), color: long(3), ..Record::default() };
        let mut bytes = written(&record);
        bytes.splice(1..1, [200, 2, 0, 7, 7]);
        bytes.extend([201, 0, 0]);
        assert_eq!(Record::read(&bytes), Some(record));
    }

    #[test]
    fn what_is_not_ours_is_absent() {
        let zero = Record { trace: Some(trace(0, 1)), ..Record::default() };
        let cases: [&[u8]; 7] = [
            b"",
            &[VERSION + 1],
            &[VERSION, DEADLINE, 8, 0, 1],
            &[VERSION, DEADLINE, 9, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[VERSION, COLOR, 1],
            &[VERSION, TRACE, 1, 0, 1],
            &written(&zero),
        ];
        for bytes in cases {
            assert_eq!(Record::read(bytes), None, "{bytes:?}");
        }
        assert_eq!(Record::read(&[VERSION]), Some(Record::default()));
    }

    #[test]
    fn the_newer_field_and_the_later_deadline_win() {
        let with = |deadline| Record { trace: Some(trace(1, 1)), deadline, ..Record::default() };
        let alone = |deadline| Record { deadline, ..Record::default() };
        let merged = |mut old: Record, new| {
            old.merge(new);
            old.deadline
        };
        assert_eq!(merged(with(Some(5)), with(Some(3))), Some(5));
        assert_eq!(merged(with(Some(3)), with(Some(5))), Some(5));
        assert_eq!(merged(with(Some(3)), with(None)), None, "no deadline is the latest");
        assert_eq!(merged(with(None), with(Some(3))), None);
        assert_eq!(merged(with(Some(3)), alone(None)), Some(3));
        assert_eq!(merged(alone(None), with(Some(3))), Some(3));
        assert_eq!(merged(alone(Some(3)), with(None)), None);

        let mut record = Record { color: long(1), baggage: long(2), ..with(None) };
        record.merge(Record { color: long(3), tracestate: long(4), ..Record::default() });
        let expected =
            Record { color: long(3), tracestate: long(4), baggage: long(2), ..with(None) };
        assert_eq!(record, expected);
        record.merge(Record { color: long(0), ..Record::default() });
        assert_eq!(record.without_empty(), Record { color: None, ..expected });
    }

    pub fn records() -> impl Strategy<Value = Record> {
        let text = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..120));
        let trace = (1_u128..=u128::MAX, 1_u64..=u64::MAX, any::<(Option<bool>, bool, bool)>());
        let trace = trace.prop_map(|(trace_id, span_id, (sampled, is_random, is_debug))| Trace {
            trace_id,
            span_id,
            sampled,
            is_random,
            is_debug,
        });
        let texts = (text(), text(), text(), text(), text(), text());
        (proptest::option::of(trace), any::<Option<u64>>(), texts).prop_map(
            |(trace, deadline, (color, seen_color, tracestate, sw8, sw8_correlation, baggage))| {
                Record {
                    trace,
                    deadline,
                    color,
                    seen_color,
                    tracestate,
                    sw8,
                    sw8_correlation,
                    baggage,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in records()) {
            prop_assert_eq!(again(&record), record);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = VERSION;
            if let Some(record) = Record::read(&bytes) {
                prop_assert_eq!(again(&record), record);
            }
        }
    }
}
