//! The size of a rule's table over edits of `max_keys`.
//!
//! A key's set follows from the number of sets, so another number puts the key elsewhere. An edit
//! must not refill a bucket: the number before is remembered in shared data for as long as buckets
//! from then can still be short of tokens, and a key that is new to its set is looked for there. One
//! table back, no further: a bucket that nobody asks for between two such edits is forgotten.

use crate::core::bytes::Reader;
use crate::core::ports::{BLIND, Nanos, SharedStore};

/// The table before the last change of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub sets: u32,
    /// From then on all its buckets are full.
    pub until: Nanos,
}

/// The furthest that buckets may be from full: so many tokens that come back so slowly, and the windows
/// of a quota. Of several policies the largest of each, since an edit mixes them: what was used of a large
/// bucket comes back at the rate of a slow one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// With what may be owed.
    pub tokens: u64,
    pub per_token: Nanos,
    pub window: Nanos,
}

impl Extent {
    fn and(self, other: Extent) -> Extent {
        Extent {
            tokens: self.tokens.max(other.tokens),
            per_token: self.per_token.max(other.per_token),
            window: self.window.max(other.window),
        }
    }

    fn fill_time(self) -> Nanos {
        self.per_token.saturating_mul(self.tokens).saturating_add(self.window)
    }
}

/// What stands in shared data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    sets: u32,
    before: u32,
    until: Nanos,
    /// Of the rule's buckets under all policies that it has had.
    extent: Extent,
}

/// Notes the size of a rule's table; gives the table before it, where that still matters. To be called
/// while a policy is configured: on the main thread first, so that nobody races.
pub fn resize(
    rule: &[u8],
    sets: u32,
    extent: Extent,
    now: Nanos,
    store: &mut impl SharedStore,
) -> Option<Before> {
    let key = [rule, b"table"].concat();
    let found = store.get(&key).and_then(|(bytes, _)| Record::read(&bytes));
    let mut record = found.unwrap_or(Record { sets, ..Record::default() });
    record.extent = record.extent.and(extent);
    if record.sets != sets {
        let until = now.saturating_add(record.extent.fill_time());
        record = Record { sets, before: record.sets, until, ..record };
    }
    if found != Some(record) {
        // Without the note an edit of `max_keys` refills buckets, which is no reason to refuse it.
        let _ = store.set(&key, &record.write(), BLIND);
    }
    let Record { before, until, .. } = record;
    (before > 0 && now < until).then_some(Before { sets: before, until })
}

impl Record {
    /// A record of an older module ends with one time, the longest that a bucket took to fill.
    fn read(bytes: &[u8]) -> Option<Record> {
        let mut numbers = Reader(bytes);
        let (sets, before, until) = (numbers.u32()?, numbers.u32()?, numbers.u64()?);
        let window = numbers.u64()?;
        let (tokens, per_token) = match numbers.0.len() {
            0 => (0, 0),
            _ => (numbers.u64()?, numbers.u64()?),
        };
        let extent = Extent { tokens, per_token, window };
        numbers.0.is_empty().then_some(Record { sets, before, until, extent })
    }

    fn write(self) -> Vec<u8> {
        let Extent { tokens, per_token, window } = self.extent;
        let sizes = [self.sets, self.before].map(u32::to_le_bytes).concat();
        let times = [self.until, window, tokens, per_token].map(u64::to_le_bytes).concat();
        [sizes, times].concat()
    }
}
