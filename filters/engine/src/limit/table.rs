//! The size of a rule's table over edits of `max_keys`.
//!
//! A key's set follows from the number of sets, so another number puts the key elsewhere. An edit
//! must not refill a bucket: the number before is remembered in shared data for as long as buckets
//! from then can still be short of tokens, and a key that is new to its set is looked for there. One
//! table back, no further: a bucket that nobody asks for between two such edits is forgotten.

use crate::core::ports::{BLIND, Nanos, SharedStore};

/// The table before the last change of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub sets: u32,
    /// From then on all its buckets are full.
    pub until: Nanos,
}

/// What stands in shared data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    sets: u32,
    before: u32,
    until: Nanos,
    /// The longest that a bucket of the present table may take to fill, under any rate it has had.
    fill_time: Nanos,
}

/// Notes the size of a rule's table; gives the table before it, where that still matters. No
/// bucket takes longer than `fill_time` to fill. To be called while a policy is configured: on the
/// main thread first, so that nobody races.
pub fn resize(
    rule: &[u8],
    sets: u32,
    fill_time: Nanos,
    now: Nanos,
    store: &mut impl SharedStore,
) -> Option<Before> {
    let key = [rule, b"table"].concat();
    let found = store.get(&key).and_then(|(bytes, _)| Record::read(&bytes));
    let mut record = found.unwrap_or(Record { sets, ..Record::default() });
    if record.sets != sets {
        // Under the old rate or the new one, whichever is slower.
        let until = now.saturating_add(record.fill_time.max(fill_time));
        record = Record { sets, before: record.sets, until, ..record };
    }
    record.fill_time = record.fill_time.max(fill_time);
    if found != Some(record) {
        // Without the note an edit of `max_keys` refills buckets, which is no reason to refuse it.
        let _ = store.set(&key, &record.write(), BLIND);
    }
    let Record { before, until, .. } = record;
    (before > 0 && now < until).then_some(Before { sets: before, until })
}

impl Record {
    fn read(bytes: &[u8]) -> Option<Record> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let (sets, rest) = bytes.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (fill_time, _) = rest.split_first_chunk()?;
        Some(Record {
            sets: u32::from_le_bytes(*sets),
            before: u32::from_le_bytes(*before),
            until: u64::from_le_bytes(*until),
            fill_time: u64::from_le_bytes(*fill_time),
        })
    }

    fn write(self) -> Vec<u8> {
        let sizes = [self.sets, self.before].map(u32::to_le_bytes).concat();
        let times = [self.until, self.fill_time].map(u64::to_le_bytes).concat();
        [sizes, times].concat()
    }
}
