//! The size of the store over edits of `max_records`.
//!
//! An id's set follows from the number of sets, so another number puts it elsewhere. Workers take
//! an edit at different times; until the last has, and all that was recorded before has expired,
//! both places count. The size is the process's, not a policy's: filters that disagree on it follow
//! the one that was configured last, or they would never find each other's records.

use std::ops::Range;

use super::set::Set;
use crate::core::bytes::Reader;
use crate::core::key::set_key;
use crate::core::ports::{BLIND, Cas, Nanos, SetError, SharedStore};

/// More than the time between the first and the last worker's taking of an edit.
const STRAGGLERS: Nanos = 10_000_000_000;

/// More sets than any policy may ask for mean bytes that are not ours.
const MAX_SETS: u32 = 1 << 20;

const TRIES: u32 = 8;

/// What stands in shared data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// A power of two.
    pub sets: u32,
    /// The number before the last edit; 0 for none.
    before: u32,
    /// From then on `before` no longer counts.
    until: Nanos,
    ttl: Nanos,
    /// Sets that have been made.
    made: u32,
}

impl Size {
    /// Before anything is noted.
    pub fn of(sets: u32, ttl: Nanos) -> Size {
        Size { sets, ttl, ..Size::default() }
    }

    /// The sizes that count, the one in force last.
    pub fn in_force(&self, now: Nanos) -> impl Iterator<Item = u32> + use<> {
        let has_before = self.before > 0 && self.before != self.sets && now < self.until;
        [has_before.then_some(self.before), Some(self.sets)].into_iter().flatten()
    }

    /// As another policy would have it.
    fn edited(self, sets: u32, ttl: Nanos, now: Nanos) -> Size {
        let edited = Size { ttl, made: self.made.max(sets), ..self };
        if self.sets == sets {
            return edited;
        }
        let until = now.saturating_add(self.ttl.max(ttl)).saturating_add(STRAGGLERS);
        Size { sets, before: self.sets, until, ..edited }
    }

    fn read(bytes: &[u8]) -> Option<Size> {
        let mut reader = Reader(bytes);
        let (sets, before, made) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (until, ttl) = (reader.u64()?, reader.u64()?);
        let is_ours = sets.is_power_of_two()
            && [sets, before, made].iter().all(|number| *number <= MAX_SETS)
            && reader.0.is_empty();
        is_ours.then_some(Size { sets, before, until, ttl, made })
    }

    fn write(&self) -> Vec<u8> {
        let sizes = [self.sets, self.before, self.made].map(u32::to_le_bytes).concat();
        let times = [self.until, self.ttl].map(u64::to_le_bytes).concat();
        [sizes, times].concat()
    }
}

/// The size as it is noted.
pub fn noted(prefix: &[u8], store: &mut impl SharedStore) -> Option<(Size, Cas)> {
    let (bytes, cas) = store.get(&key(prefix))?;
    Some((Size::read(&bytes)?, cas))
}

/// Notes the size of a policy, and makes the sets that have never been made. To be called while a
/// policy is configured: on the main thread first, so that nobody races to make one. A worker finds
/// the note in place, and all is done for it.
pub fn prepare(
    prefix: &[u8],
    sets: u32,
    ttl: Nanos,
    now: Nanos,
    store: &mut impl SharedStore,
) -> Size {
    let mut size = Size::of(sets, ttl);
    for _ in 0..TRIES {
        let found = noted(prefix, store);
        let (known, cas) = found.unwrap_or((size, BLIND));
        size = known.edited(sets, ttl, now);
        if found.is_some() && size == known {
            break;
        }
        if make(prefix, known.made..sets, store).is_err() {
            // Whoever comes next tries again, and a set that is missing is made on its first use.
            break;
        }
        match store.set(&key(prefix), &size.write(), cas) {
            Err(SetError::Mismatch) => {}
            Ok(()) | Err(SetError::Failed) => break,
        }
    }
    size
}

/// Makes sets where they are missing. There is no create-if-absent, so two workers that made one
/// at the time of its first record could lose that.
fn make(prefix: &[u8], sets: Range<u32>, store: &mut impl SharedStore) -> Result<(), SetError> {
    let mut empty = Vec::new();
    Set::default().write(&mut empty);
    for place in sets {
        let key = set_key(prefix, place);
        if store.get(&key).is_none() {
            store.set(&key, &empty, BLIND)?;
        }
    }
    Ok(())
}

fn key(prefix: &[u8]) -> Vec<u8> {
    [prefix, b"table"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Process;

    const S: Nanos = 1_000_000_000;

    fn in_force(size: Size, now: Nanos) -> Vec<u32> {
        size.in_force(now).collect()
    }

    #[test]
    fn a_worker_finds_all_done() {
        let process = Process::start();
        let mut store = process.store.handle();
        let size = prepare(b"p/", 64, 60 * S, 0, &mut store);
        assert_eq!((in_force(size, 0), store.size().0), (vec![64], 65));
        let before = store.operations();
        assert_eq!(prepare(b"p/", 64, 60 * S, 9, &mut store), size);
        assert_eq!(store.operations(), (before.0 + 1, before.1));
    }

    #[test]
    fn both_places_count_until_all_before_has_expired() {
        let process = Process::start();
        let mut store = process.store.handle();
        prepare(b"p/", 64, 60 * S, 0, &mut store);
        let size = prepare(b"p/", 16, 30 * S, 100 * S, &mut store);
        assert_eq!(in_force(size, 100 * S), [64, 16]);
        assert_eq!(in_force(size, 169 * S), [64, 16]);
        assert_eq!(in_force(size, 170 * S), [16]);
        // Back: nothing is made anew, and both count again.
        let before = store.operations();
        let size = prepare(b"p/", 64, 30 * S, 170 * S, &mut store);
        assert_eq!(in_force(size, 171 * S), [16, 64]);
        assert_eq!(store.operations(), (before.0 + 1, before.1 + 1));
        assert_eq!(noted(b"p/", &mut store).map(|(noted, _)| noted), Some(size));
    }

    #[test]
    fn what_stands_there_already_is_kept() {
        let process = Process::start();
        let mut store = process.store.handle();
        store.set(&set_key(b"p/", 3), b"kept", BLIND).unwrap();
        store.set(b"p/table", b"a stranger's", BLIND).unwrap();
        prepare(b"p/", 8, S, 0, &mut store);
        assert_eq!(store.get(&set_key(b"p/", 3)).unwrap().0, b"kept");
        assert_eq!(store.size().0, 9);
    }
}
