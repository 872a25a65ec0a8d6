//! How records lie in shared data: a value holds a set of a few.
//!
//! A set is read without its records, which stay bytes until one is asked for. So a look-up decodes
//! one record, and a write leaves what newer modules wrote beside it as it is.

use std::borrow::Cow;

use super::record::{MAX_RECORD, Record};
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// Records of a set. With eight, a store at its bound forgets few that others would have had room
/// for.
pub const WAYS: usize = 8;

const VERSION: u8 = 1;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The id of one request.
    Request = 0,
    /// The id of a session, with what its newest request had.
    Session = 1,
    /// Requests of different traces have the id, so nothing is restored by it.
    Ambiguous = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    pub fingerprint: Fingerprint,
    pub recorded_at: Nanos,
    pub state: State,
    record: Cow<'a, [u8]>,
}

impl Way<'_> {
    pub fn new(
        fingerprint: Fingerprint,
        now: Nanos,
        state: State,
        record: &Record,
    ) -> Way<'static> {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        Way { fingerprint, recorded_at: now, state, record: Cow::Owned(bytes) }
    }

    /// `None` for what is not ours.
    pub fn record(&self) -> Option<Record> {
        Record::read(&self.record)
    }

    /// Workers read the clock at slightly different times, so a record may be of the near future.
    /// One from further ahead was made before the clock stepped back.
    pub fn is_live(&self, now: Nanos, ttl: Nanos) -> bool {
        now.abs_diff(self.recorded_at) < ttl
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set<'a> {
    ways: Vec<Way<'a>>,
}

impl<'a> Set<'a> {
    pub fn ways(&self) -> &[Way<'a>] {
        &self.ways
    }

    pub fn find(&self, fingerprint: Fingerprint) -> Option<&Way<'a>> {
        self.ways.iter().find(|way| way.fingerprint == fingerprint)
    }

    /// Puts a way in, in place of an older one of the same id. True where a live one had to make
    /// room: the oldest, as it is the next to expire and its request the likeliest to be over.
    pub fn put(&mut self, way: Way<'a>, now: Nanos, ttl: Nanos) -> bool {
        self.ways.retain(|old| old.fingerprint != way.fingerprint && old.is_live(now, ttl));
        let is_full = self.ways.len() >= WAYS;
        if is_full {
            let ages = self.ways.iter().enumerate();
            if let Some((place, _)) = ages.min_by_key(|(_, way)| way.recorded_at) {
                self.ways.swap_remove(place);
            }
        }
        self.ways.push(way);
        is_full
    }

    /// `None` for what is not ours: another format, or a stranger's value.
    pub fn read(bytes: &'a [u8]) -> Option<Set<'a>> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let count = usize::from(reader.u8()?);
        if count > WAYS {
            return None;
        }
        let mut ways = Vec::with_capacity(WAYS);
        for _ in 0..count {
            let (fingerprint, recorded_at) = (reader.u64()?, reader.u64()?);
            let state = match reader.u8()? {
                0 => State::Request,
                1 => State::Session,
                2 => State::Ambiguous,
                _ => return None,
            };
            let size = usize::from(reader.u16()?);
            if size > MAX_RECORD {
                return None;
            }
            let record = Cow::Borrowed(reader.take(size)?);
            ways.push(Way { fingerprint, recorded_at, state, record });
        }
        reader.0.is_empty().then_some(Set { ways })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[VERSION, u8::try_from(self.ways.len()).unwrap_or(0)]);
        for way in &self.ways {
            out.extend_from_slice(&way.fingerprint.to_le_bytes());
            out.extend_from_slice(&way.recorded_at.to_le_bytes());
            out.push(way.state as u8);
            out.extend_from_slice(&u16::try_from(way.record.len()).unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&way.record);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::records;
    use super::*;

    fn way(fingerprint: Fingerprint, now: Nanos) -> Way<'static> {
        Way::new(fingerprint, now, State::Request, &Record::default())
    }

    #[test]
    fn a_full_set_forgets_the_expired_and_then_the_oldest() {
        let mut set = Set::default();
        for n in 0..8 {
            assert!(!set.put(way(n, 100 + n), 100 + n, 1000));
        }
        assert!(set.put(way(8, 200), 200, 1000));
        assert!(set.find(0).is_none() && set.find(1).is_some());
        // An id that is known takes no other's place.
        assert!(!set.put(way(1, 300), 300, 1000));
        assert!(set.put(way(9, 301), 301, 1000));
        assert!(set.find(2).is_none() && set.find(1).is_some());
        // At 1104, those of 103 and 104 have expired.
        assert!(!set.put(way(10, 1104), 1104, 1000));
        assert!(set.find(3).is_none() && set.find(4).is_none() && set.find(5).is_some());
    }

    #[test]
    fn what_is_not_ours_is_absent() {
        let mut one = Vec::new();
        Set { ways: vec![way(1, 2)] }.write(&mut one);
        assert!(Set::read(&one).is_some());
        for cut in 0..one.len() {
            assert_eq!(Set::read(&one[..cut]), None, "{cut}");
        }
        let with = |place: usize, byte: u8| {
            let mut bytes = one.clone();
            bytes[place] = byte;
            bytes
        };
        for bytes in [with(0, 2), with(1, 9), with(18, 3), with(19, 0xff), with(1, 0)] {
            assert_eq!(Set::read(&bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            records in proptest::collection::vec((any::<u64>(), any::<u64>(), records()), 0..12),
        ) {
            let mut set = Set::default();
            for (fingerprint, at, record) in &records {
                set.put(Way::new(*fingerprint, *at, State::Session, record), *at, u64::MAX);
            }
            let mut bytes = Vec::new();
            set.write(&mut bytes);
            let read = Set::read(&bytes).unwrap();
            prop_assert_eq!(&read, &set);
            if let Some((fingerprint, _, record)) = records.last() {
                let found = read.find(*fingerprint).unwrap().record();
                prop_assert_eq!(found.as_ref(), Some(record));
            }
        }
    }
}
