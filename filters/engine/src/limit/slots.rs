//! How buckets lie in shared data.
//!
//! Shared data has no delete and no listing, so a keyed rule owns a fixed number of values, each a
//! set of a few slots: a decision is one get and one compare-and-set, and whatever keys a client
//! sends, nothing grows. A set that is full forgets the bucket that is nearest to full: a full one
//! is forgotten without any effect, and otherwise the least is given away. (Forgetting the idlest
//! instead would let a flood of one-off keys push out a key that is at its limit.)

use super::gcra::{Bucket, Rate, epoch};
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// Slots of a set. Eight keep the chance small that a set overflows while the table has room, and a
/// value of 264 bytes costs hardly more to copy than a small one.
pub const WAYS: usize = 8;

/// The largest `max_tokens` that a policy may have.
pub const MAX_TOKENS: u64 = 1_000_000_000;

const VERSION: u8 = 1;
const HEADER: usize = 32;
const SLOT: usize = 28;

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The rate under which the slots were written.
    pub rate: Rate,
    /// The largest `max` that the set has had: no bucket was ever used further.
    pub ceiling: u64,
    pub slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    pub fingerprint: Fingerprint,
    pub bucket: Bucket,
}

/// A slot taken out of its set.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub slot: Slot,
    /// The set did not know the key.
    pub is_new: bool,
    /// A bucket that was not full was forgotten to make room.
    pub evicted: bool,
    /// The clock stepped back; the bucket is to be written whatever else happens.
    pub has_stepped: bool,
}

impl Set {
    pub fn new(rate: Rate) -> Set {
        Set { rate, ceiling: rate.max, slots: Vec::with_capacity(1) }
    }

    /// `None` for what is not ours: another format, or a stranger's value.
    pub fn read(bytes: &[u8]) -> Option<Set> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let (version, rest) = header.split_at_checked(8)?;
        let count = body.len() / SLOT;
        if version != [VERSION, 0, 0, 0, 0, 0, 0, 0] || count > WAYS || body.len() % SLOT != 0 {
            return None;
        }
        let mut numbers = Reader(rest);
        let rate = Rate { per_token: numbers.u64()?, max: numbers.u64()? };
        let ceiling = numbers.u64()?;
        if rate.per_token == 0 || rate.max == 0 || ceiling > MAX_TOKENS {
            return None;
        }
        let mut slots = Vec::with_capacity(count.saturating_add(1));
        let mut numbers = Reader(body);
        for _ in 0..count {
            let fingerprint = numbers.u64()?;
            let bucket = Bucket {
                tat: numbers.u64()?,
                epoch: numbers.u32()?,
                leased_now: numbers.u32()?,
                leased_before: numbers.u32()?,
            };
            slots.push(Slot { fingerprint, bucket });
        }
        Some(Set { rate, ceiling, slots })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        for number in [self.rate.per_token, self.rate.max, self.ceiling] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for Slot { fingerprint, bucket } in &self.slots {
            out.extend_from_slice(&fingerprint.to_le_bytes());
            out.extend_from_slice(&bucket.tat.to_le_bytes());
            for number in [bucket.epoch, bucket.leased_now, bucket.leased_before] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// Takes the set over to another rate, which is in force since `since`: use stays use, and what
    /// comes back after that comes at the new rate. True where the set changed.
    pub fn rescale(&mut self, rate: Rate, since: Nanos, now: Nanos) -> bool {
        if self.rate == rate {
            return false;
        }
        for slot in &mut self.slots {
            // A worker that still runs the old policy may have written later than that.
            let is_newer =
                slot.bucket.epoch.wrapping_sub(epoch(since)).wrapping_sub(1) < u32::MAX / 2;
            let at = if is_newer { now } else { since.min(now) };
            slot.bucket.settle(self.rate, self.ceiling, at);
            slot.bucket.rescale(self.rate, rate, at);
        }
        self.rate = rate;
        self.ceiling = self.ceiling.max(rate.max);
        true
    }

    /// Takes the settled slot of a key out of the set, to be changed and put back with
    /// [`Set::put`]. A key that the set does not know gets a full bucket.
    pub fn take(&mut self, fingerprint: Fingerprint, now: Nanos) -> Taken {
        let (rate, ceiling) = (self.rate, self.ceiling);
        if let Some(place) = self.slots.iter().position(|slot| slot.fingerprint == fingerprint) {
            let mut slot = self.slots.swap_remove(place);
            let has_stepped = slot.bucket.settle(rate, ceiling, now);
            return Taken { slot, is_new: false, evicted: false, has_stepped };
        }
        let mut evicted = false;
        if self.slots.len() >= WAYS {
            for slot in &mut self.slots {
                slot.bucket.settle(rate, ceiling, now);
            }
            let nearest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.bucket.tat);
            if let Some((place, slot)) = nearest {
                evicted = !slot.bucket.is_full(now);
                self.slots.swap_remove(place);
            }
        }
        let slot = Slot { fingerprint, bucket: Bucket::full(now) };
        Taken { slot, is_new: true, evicted, has_stepped: false }
    }

    pub fn put(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// The settled slot of a key, if the set knows it.
    pub fn known(&mut self, fingerprint: Fingerprint, now: Nanos) -> Option<Slot> {
        let known = self.slots.iter().any(|slot| slot.fingerprint == fingerprint);
        known.then(|| self.take(fingerprint, now).slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_token: 1000, max: 10 };

    fn filled(used: &[u64]) -> Set {
        let mut set = Set::new(RATE);
        for (fingerprint, used) in (0..).zip(used) {
            let mut slot = set.take(fingerprint, 0).slot;
            (0..*used).for_each(|_| slot.bucket.take(RATE, 0));
            set.put(slot);
        }
        set
    }

    #[test]
    fn the_bucket_nearest_to_full_is_forgotten() {
        let mut set = filled(&[5, 9, 1, 5, 5, 5, 5, 5]);
        let taken = set.take(77, 0);
        set.put(taken.slot);
        assert!(taken.evicted);
        assert!(set.known(2, 0).is_none() && set.known(1, 0).is_some());
        // Two tokens later key 77 is full again, and goes without being missed.
        let mut set = filled(&[5, 9, 3, 5, 5, 5, 5, 5]);
        assert!(set.take(77, 0).evicted);
        let mut set = filled(&[5, 9, 3, 5, 5, 5, 5, 5]);
        assert!(!set.take(77, 3000).evicted);
    }

    #[test]
    fn strangers_are_not_read() {
        let mut bytes = Vec::new();
        filled(&[1, 2]).write(&mut bytes);
        assert_eq!(Set::read(&bytes), Some(filled(&[1, 2])));
        assert_eq!(Set::read(b""), None);
        assert_eq!(Set::read(&bytes[1..]), None);
        assert_eq!(Set::read(&bytes[..bytes.len() - 1]), None);
        let mut later = bytes.clone();
        later[0] = 2;
        assert_eq!(Set::read(&later), None);
        let mut zero = bytes;
        zero[8..16].fill(0);
        assert_eq!(Set::read(&zero), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(set) = Set::read(&bytes) {
                let mut again = Vec::new();
                set.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
