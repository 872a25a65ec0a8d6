//! How buckets lie in shared data.
//!
//! Shared data has no delete and no listing, so a keyed rule owns a fixed number of values, each a
//! set of a few slots: a decision is one get and one compare-and-set, and whatever keys a client
//! sends, nothing grows. A set that is full forgets the bucket that is nearest to full: a full one
//! is forgotten without any effect, and otherwise the least is given away. (Forgetting the idlest
//! instead would let a flood of one-off keys push out a key that is at its limit.)

use super::calendar::{Filling, Moment};
use super::gcra::{Bucket, Rate, epoch, epoch_end};
use super::overdraft::Overdraft;
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// Slots of a set. Eight keep the chance small that a set overflows while the table has room, and a
/// value of 264 bytes costs hardly more to copy than a small one.
pub const WAYS: usize = 8;

/// The largest `max_tokens` that a policy may have, the largest cost, and the largest debt.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// A full bucket and the largest debt.
const MAX_CEILING: u64 = 2 * MAX_TOKENS;

const VERSION: u8 = 1;
const HEADER: usize = 32;
const SLOT: usize = 28;
const OWN: usize = 24;

/// Epochs are compared wrapping.
const HALF: u32 = u32::MAX / 2;

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Of all slots.
    pub filling: Filling,
    /// Of the slots that have no terms of their own.
    pub terms: Terms,
    pub overdraft: Overdraft,
    pub slots: Vec<Slot>,
}

/// How buckets fill, and how far they can have been used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The rate under which the buckets were written.
    pub rate: Rate,
    /// The largest `max` that they have had, with the debt that they may be in: none was ever used
    /// further.
    pub ceiling: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    pub fingerprint: Fingerprint,
    pub bucket: Bucket,
    /// Where an override gives the key another rate than the rest.
    pub own: Option<Terms>,
}

/// A slot taken out of its set.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub slot: Slot,
    /// The set did not know the key.
    pub is_new: bool,
    /// A bucket that was not full was forgotten to make room.
    pub evicted: bool,
    /// The time by which the bucket counts.
    pub now: Nanos,
    /// The slot is to be written whatever else happens: the clock stepped back, or the rate changed.
    pub is_changed: bool,
}

/// What the policy says of a key's bucket now.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub rate: Rate,
    pub filling: Filling,
    /// When the rate came into force.
    pub since: Moment,
    pub moment: Moment,
}

impl Terms {
    pub fn new(rate: Rate) -> Terms {
        Terms { rate, ceiling: rate.max }
    }

    fn read(numbers: &mut Reader<'_>) -> Option<Terms> {
        let rate = Rate { per_token: numbers.u64()?, max: numbers.u64()? };
        let ceiling = numbers.u64()?;
        let is_ours = rate.per_token > 0 && rate.max > 0 && ceiling <= MAX_CEILING;
        is_ours.then_some(Terms { rate, ceiling })
    }

    fn write(&self, out: &mut Vec<u8>) {
        for number in [self.rate.per_token, self.rate.max, self.ceiling] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// What they are until an overdraft ends.
    fn during(self, overdraft: Overdraft) -> Terms {
        let ceiling = if overdraft.is_open() { MAX_CEILING } else { self.ceiling };
        Terms { ceiling, ..self }
    }

    /// The terms after these. What is used beyond a quota's successor is an overdraft, with an end.
    fn succeeded(self, from: Filling, to: Now) -> Terms {
        let is_overdraft = from != to.filling && to.filling == Filling::Steady;
        let kept = if is_overdraft { 0 } else { self.ceiling };
        Terms { rate: to.rate, ceiling: kept.max(to.rate.max) }
    }

    /// Takes a bucket over to other terms: use stays use, and what comes back after that comes at the
    /// new rate. Gives the end of the bucket's window, where it leaves a calendar in debt.
    #[inline(never)]
    fn rescale(&self, from: Filling, bucket: &mut Bucket, to: Now) -> Nanos {
        let Now { rate, filling, .. } = to;
        let at = to.taken_over(bucket.epoch);
        let now = filling.now(at);
        let used = match (from, filling) {
            (Filling::Steady, Filling::Steady) => {
                bucket.settle(self.rate, self.ceiling, now);
                bucket.rescale(self.rate, rate, now);
                return 0;
            }
            // A token is a token, whatever the quota.
            (Filling::Calendar(_), Filling::Calendar(_)) if from == filling => return 0,
            (Filling::Steady, Filling::Calendar(_)) => {
                bucket.settle(self.rate, self.ceiling, at.steady);
                bucket.used(self.rate, at.steady)
            }
            (Filling::Calendar(calendar), _) => calendar.used(bucket.tat, at.wall),
        };
        let window = match from {
            Filling::Calendar(calendar) if used > rate.max => {
                at.steady.saturating_add(calendar.rest(calendar.start(bucket.tat), at.wall))
            }
            _ => 0,
        };
        bucket.set_used(rate, used, now);
        bucket.settle_by(rate, used, now, at.steady);
        window
    }
}

impl Now {
    /// As of when a bucket is taken over that was written in an epoch: as of the edit, so that what
    /// has come back since came at the new rate. But where it was written after the edit, by workers
    /// that still ran another policy, it is taken as it stands: they may turn it to and fro, and no
    /// time may count twice. Of the edit's own epoch it is not known which, and its end serves both.
    fn taken_over(&self, written: u32) -> Moment {
        let Now { since, moment, .. } = *self;
        let at = match written.wrapping_sub(epoch(since.steady)) {
            0 => epoch_end(since.steady),
            1..HALF => return moment,
            _ => since.steady,
        };
        if at < moment.steady { since.after(at) } else { moment }
    }
}

/// Brings a slot to the present. Gives the time by which its bucket counts, and whether the slot was
/// changed by more than time.
#[inline(never)]
fn bring(
    filling: Filling,
    terms: Terms,
    overdraft: Overdraft,
    slot: &mut Slot,
    moment: Moment,
) -> (Nanos, bool) {
    let Terms { rate, ceiling } = slot.own.unwrap_or(terms).during(overdraft);
    match filling {
        Filling::Steady => (moment.steady, slot.bucket.settle(rate, ceiling, moment.steady)),
        Filling::Calendar(calendar) => {
            let (now, is_changed) = calendar.bring(&mut slot.bucket.tat, moment.wall);
            slot.bucket.settle_by(rate, ceiling, now, moment.steady);
            (now, is_changed)
        }
    }
}

impl Slot {
    /// The terms of the bucket in its set.
    pub fn terms(&self, set: &Set) -> Terms {
        self.own.unwrap_or(set.terms)
    }

    /// The rate of the bucket in its set.
    pub fn rate(&self, set: &Set) -> Rate {
        self.terms(set).rate
    }

    fn without_overdraft(&self, terms: Terms, overdraft: Overdraft, now: Nanos) -> Bucket {
        let Terms { rate, ceiling } = self.own.unwrap_or(terms);
        let furthest = overdraft.end(now).saturating_add(rate.time_of(ceiling));
        Bucket { tat: self.bucket.tat.min(furthest), ..self.bucket }
    }
}

impl Set {
    pub fn new(filling: Filling, rate: Rate) -> Set {
        let (terms, overdraft) = (Terms::new(rate), Overdraft::default());
        Set { filling, terms, overdraft, slots: Vec::with_capacity(1) }
    }

    /// `None` for what is not ours: another format, or a stranger's value. After the version come a
    /// bit for each slot, which tells whether its own terms follow it, and how the buckets fill.
    pub fn read(bytes: &[u8]) -> Option<Set> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let (version, rest) = header.split_at_checked(8)?;
        let &[VERSION, with_own, period, low, high, ref overdraft @ ..] = version else {
            return None;
        };
        let overdraft = Overdraft::from_bytes(overdraft.try_into().ok()?);
        let filling = Filling::from_bytes([period, low, high])?;
        let own_bytes = (with_own.count_ones() as usize).saturating_mul(OWN);
        let slot_bytes = body.len().checked_sub(own_bytes)?;
        let count = slot_bytes / SLOT;
        if count > WAYS || slot_bytes % SLOT != 0 {
            return None;
        }
        let terms = Terms::read(&mut Reader(rest))?;
        let mut slots = Vec::with_capacity(count.saturating_add(1));
        let mut numbers = Reader(body);
        for place in 0..count {
            let fingerprint = numbers.u64()?;
            let bucket = Bucket {
                tat: numbers.u64()?,
                epoch: numbers.u32()?,
                leased_now: numbers.u32()?,
                leased_before: numbers.u32()?,
            };
            let has_own = (with_own >> place) & 1 == 1;
            let own = if has_own { Some(Terms::read(&mut numbers)?) } else { None };
            slots.push(Slot { fingerprint, bucket, own });
        }
        // A bit of a slot that is not there has left bytes unread.
        numbers.0.is_empty().then_some(Set { filling, terms, overdraft, slots })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let bits = self.slots.iter().rev();
        let with_own = bits.fold(0_u8, |bits, slot| (bits << 1) | u8::from(slot.own.is_some()));
        let [period, low, high] = self.filling.to_bytes();
        out.extend_from_slice(&[VERSION, with_own, period, low, high]);
        out.extend_from_slice(&self.overdraft.to_bytes());
        self.terms.write(out);
        for Slot { fingerprint, bucket, own } in &self.slots {
            out.extend_from_slice(&fingerprint.to_le_bytes());
            out.extend_from_slice(&bucket.tat.to_le_bytes());
            for number in [bucket.epoch, bucket.leased_now, bucket.leased_before] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            if let Some(own) = own {
                own.write(out);
            }
        }
    }

    /// Takes the set over to other terms; slots with a rate of their own keep it, as far as it goes
    /// with how the set is filled now. True where the set changed.
    pub fn rescale(&mut self, to: Now) -> bool {
        let has_ended = self.end_overdraft(to.moment.steady);
        let Set { filling, terms, overdraft, slots } = self;
        if terms.rate == to.rate && *filling == to.filling {
            return has_ended;
        }
        let (from, mut window) = (*filling, 0);
        for slot in slots.iter_mut() {
            let old = match slot.own {
                None => terms.during(*overdraft),
                Some(own) if from != to.filling => own.during(*overdraft),
                Some(_) => continue,
            };
            let max = slot.own.map_or(to.rate.max, |own| own.rate.max);
            let to = Now { rate: Rate { max, ..to.rate }, ..to };
            window = old.rescale(from, &mut slot.bucket, to).max(window);
            slot.own = slot.own.map(|_| old.succeeded(from, to));
        }
        if from != to.filling {
            *terms = terms.during(*overdraft);
            *overdraft = Overdraft::until(window);
        }
        *terms = terms.succeeded(from, to);
        *filling = to.filling;
        self.end_overdraft(to.moment.steady);
        true
    }

    /// Whether an overdraft is over, and all owe no more than they may.
    fn end_overdraft(&mut self, now: Nanos) -> bool {
        let has_ended = self.overdraft.is_open() && self.overdraft.end(now) <= now;
        if has_ended {
            let Set { terms, overdraft, slots, .. } = self;
            for slot in slots {
                slot.bucket = slot.without_overdraft(*terms, *overdraft, now);
            }
            self.overdraft = Overdraft::default();
        }
        has_ended
    }

    /// The bucket of a slot as it will be once the overdraft has ended.
    pub fn without_overdraft(&self, slot: &Slot, now: Nanos) -> Bucket {
        match self.overdraft.is_open() {
            true => slot.without_overdraft(self.terms, self.overdraft, now),
            false => slot.bucket,
        }
    }

    /// Takes the settled slot of a key out of the set, to be changed and put back with
    /// [`Set::put`]. A key that the set does not know gets a full bucket.
    pub fn take(&mut self, fingerprint: Fingerprint, to: Now) -> Taken {
        let moment = to.moment;
        if let Some(place) = self.slots.iter().position(|slot| slot.fingerprint == fingerprint) {
            let mut slot = self.slots.swap_remove(place);
            let is_adopted = self.adopt(&mut slot, to);
            let (now, is_stepped) = self.bring(&mut slot, moment);
            let is_changed = is_adopted | is_stepped;
            return Taken { slot, is_new: false, evicted: false, now, is_changed };
        }
        let mut evicted = false;
        if self.slots.len() >= WAYS {
            let Set { filling, terms, overdraft, slots } = self;
            // By tokens: where rates differ, time would tell a slow bucket from a fast one.
            let mut used = |slot: &mut Slot| {
                let (now, _) = bring(*filling, *terms, *overdraft, slot, moment);
                let rate = slot.own.unwrap_or(*terms).rate;
                (slot.bucket.used(rate, now), slot.bucket.tat, slot.bucket.is_full(now))
            };
            let nearest = slots.iter_mut().map(&mut used).enumerate().min_by_key(|(_, it)| *it);
            if let Some((place, (.., is_full))) = nearest {
                evicted = !is_full;
                slots.swap_remove(place);
            }
        }
        let now = to.filling.now(moment);
        let own = (to.rate != self.terms.rate).then(|| Terms::new(to.rate));
        let bucket = Bucket { epoch: epoch(moment.steady), ..Bucket::full(now) };
        let slot = Slot { fingerprint, bucket, own };
        Taken { slot, is_new: true, evicted, now, is_changed: false }
    }

    fn bring(&self, slot: &mut Slot, moment: Moment) -> (Nanos, bool) {
        bring(self.filling, self.terms, self.overdraft, slot, moment)
    }

    /// Notes that a slot of the set may be used up to `ceiling`.
    pub fn raise(&mut self, slot: &mut Slot, ceiling: u64) {
        let terms = slot.own.as_mut().unwrap_or(&mut self.terms);
        terms.ceiling = terms.ceiling.max(ceiling.min(MAX_CEILING));
    }

    pub fn put(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// The settled slot of a key, if the set knows it, at the rate that it has; and the time by which
    /// its bucket counts.
    pub fn known(&mut self, fingerprint: Fingerprint, moment: Moment) -> Option<(Slot, Nanos)> {
        let place = self.slots.iter().position(|slot| slot.fingerprint == fingerprint)?;
        let mut slot = self.slots.swap_remove(place);
        let (now, _) = self.bring(&mut slot, moment);
        Some((slot, now))
    }

    /// Takes a slot over to the rate that its key has now. True where that is another one.
    fn adopt(&mut self, slot: &mut Slot, to: Now) -> bool {
        let terms = slot.own.unwrap_or(self.terms);
        let is_other = terms.rate != to.rate;
        if is_other {
            terms.during(self.overdraft).rescale(self.filling, &mut slot.bucket, to);
        }
        let ceiling = terms.ceiling.max(to.rate.max);
        if to.rate == self.terms.rate {
            slot.own = None;
            self.terms.ceiling = self.terms.ceiling.max(ceiling);
        } else {
            slot.own = Some(Terms { rate: to.rate, ceiling });
        }
        is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_token: 1000, max: 10 };

    fn at(now: Nanos) -> Now {
        Now { rate: RATE, filling: Filling::Steady, since: moment(0), moment: moment(now) }
    }

    fn moment(steady: Nanos) -> Moment {
        Moment { steady, wall: 0 }
    }

    fn filled(used: &[u64]) -> Set {
        let mut set = Set::new(Filling::Steady, RATE);
        for (fingerprint, used) in (0..).zip(used) {
            let mut slot = set.take(fingerprint, at(0)).slot;
            (0..*used).for_each(|_| slot.bucket.take(RATE, 1, 0));
            set.put(slot);
        }
        set
    }

    #[test]
    fn the_bucket_nearest_to_full_is_forgotten() {
        let mut set = filled(&[5, 9, 1, 5, 5, 5, 5, 5]);
        let taken = set.take(77, at(0));
        set.put(taken.slot);
        assert!(taken.evicted);
        assert!(set.known(2, moment(0)).is_none() && set.known(1, moment(0)).is_some());
        // Two tokens later key 77 is full again, and goes without being missed.
        let mut set = filled(&[5, 9, 3, 5, 5, 5, 5, 5]);
        assert!(set.take(77, at(0)).evicted);
        let mut set = filled(&[5, 9, 3, 5, 5, 5, 5, 5]);
        assert!(!set.take(77, at(3000)).evicted);
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
        let mut zero = bytes.clone();
        zero[8..16].fill(0);
        assert_eq!(Set::read(&zero), None);
        // Terms of a slot that is not there.
        let mut more = bytes;
        more[1] = 8;
        more.extend([1; OWN]);
        assert_eq!(Set::read(&more), None);
    }

    /// What a module without overrides wrote is read, and what this one writes without them it reads.
    #[test]
    fn sets_without_own_terms_are_as_they_were() {
        let set = filled(&[3]);
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        assert_eq!((bytes.len(), &bytes[..8]), (HEADER + SLOT, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    }

    #[test]
    fn a_key_with_a_rate_of_its_own_lives_among_the_others() {
        let fast = Rate { per_token: 10, max: 100 };
        let own = |now| Now { rate: fast, ..at(now) };
        let mut set = filled(&[5, 2]);
        let taken = set.take(9, own(0));
        assert_eq!((taken.is_new, taken.slot.rate(&set)), (true, fast));
        let mut slot = taken.slot;
        (0..40).for_each(|_| slot.bucket.take(fast, 1, 0));
        set.put(slot);
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        let mut set = Set::read(&bytes).unwrap();
        assert_eq!(set.known(0, moment(0)).unwrap().0.bucket.available(RATE, 0), 5);
        // The override goes: 40 used of what are ten now.
        let taken = set.take(9, at(0));
        assert!(taken.is_changed && taken.slot.own.is_none());
        assert_eq!(taken.slot.bucket.used(RATE, 0), 40);
        assert_eq!(set.terms.ceiling, 100);
        // And comes back: 60 are left.
        set.put(taken.slot);
        assert_eq!(set.take(9, own(0)).slot.bucket.available(fast, 0), 60);
    }

    #[test]
    fn the_least_is_given_away_in_tokens() {
        let fast = Rate { per_token: 1, max: 1000 };
        let mut set = filled(&[5, 5, 5, 5, 5, 5, 5]);
        let mut slot = set.take(50, Now { rate: fast, ..at(0) }).slot;
        (0..500).for_each(|_| slot.bucket.take(fast, 1, 0));
        set.put(slot);
        assert!(set.take(77, at(0)).evicted);
        assert!(set.known(50, moment(0)).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            if let Some(set) = Set::read(&bytes) {
                let mut again = Vec::new();
                set.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
