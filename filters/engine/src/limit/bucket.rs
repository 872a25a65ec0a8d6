//! A decision on one bucket: the worker's lease, else the shared set under compare-and-set.

use std::rc::Rc;

use super::gcra::{Bucket, Rate, lease_end};
use super::lease::{Lease, LeaseTable};
use super::slots::{Set, Taken};
use super::table::Before;
use crate::core::key::{Fingerprint, set_key};
use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

/// Real traffic on one key needs 1.02 tries; past this the policy decides (`on_error`).
const TRIES: u32 = 8;

/// A leased token is given out for at most this share of what is in the bucket, so that a bucket
/// that runs low is shared out one by one.
const LEASE_SHARE: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Take {
    /// `remaining`: whole tokens left, as far as this worker knows.
    Admitted { remaining: u64 },
    /// `wait`: until a token is there.
    Refused { wait: Nanos },
    /// Shared state could not be had.
    Failed,
}

/// What happened on the way, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    pub contention: u64,
    pub evictions: u64,
}

/// A worker may hold `max / (LEASE_DIVISOR x workers)` tokens of a bucket, so all workers together
/// hold at most an eighth.
const LEASE_DIVISOR: u64 = 8;

/// Where the buckets of a rule lie and how they fill.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// The start of the keys of the rule's sets.
    pub rule: &'a Rc<[u8]>,
    pub sets: u32,
    pub rate: Rate,
    /// When the rate came into force.
    pub since: Nanos,
    /// The table before an edit of its size.
    pub before: Option<Before>,
    /// How many workers share the buckets; 0 where they are one worker's own, which leases nothing.
    pub workers: u32,
}

impl Buckets<'_> {
    fn place(&self, fingerprint: Fingerprint) -> u32 {
        place(fingerprint, self.sets)
    }

    /// The key of the set where a table of another size had the bucket.
    fn place_before(&self, fingerprint: Fingerprint, now: Nanos) -> Option<Vec<u8>> {
        let before = self.before.filter(|before| now < before.until)?;
        Some(set_key(self.rule, place(fingerprint, before.sets)))
    }

    /// The bucket of a key that is new to its set, as it was in the table before.
    fn moved(
        &self,
        fingerprint: Fingerprint,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> Option<Bucket> {
        let (bytes, _) = store.get(&self.place_before(fingerprint, now)?)?;
        let mut set = Set::read(&bytes)?;
        set.rescale(self.rate, self.since, now);
        set.known(fingerprint, now).map(|slot| slot.bucket)
    }

    /// Found there again after another edit, the bucket would be out of date.
    fn forget_before(&self, fingerprint: Fingerprint, now: Nanos, store: &mut impl SharedStore) {
        if let Some(key) = self.place_before(fingerprint, now) {
            update(&key, store, |set| set.known(fingerprint, now).map(|_| ()));
        }
    }

    /// The most that one worker may hold beside the token it spends at once.
    fn most_leased(&self) -> u64 {
        let divisor = LEASE_DIVISOR.saturating_mul(self.workers.into());
        self.rate.max.checked_div(divisor).unwrap_or(0)
    }

    /// Makes the set of a rule that has one alone.
    pub fn prepare(&self, store: &mut impl SharedStore) {
        load(&set_key(self.rule, 0), self.rate, store);
    }

    /// Takes one token.
    pub fn take(
        &self,
        fingerprint: Fingerprint,
        now: Nanos,
        store: &mut impl SharedStore,
        leases: &mut LeaseTable,
        effort: &mut Effort,
    ) -> Take {
        let mut lease = if self.workers > 0 { leases.find(fingerprint) } else { None };
        if let Some(lease) = lease.as_deref_mut().filter(|lease| lease.tokens > 0)
            && lease.spend(self.rate, now)
        {
            return Take::Admitted { remaining: lease.level.saturating_add(lease.tokens.into()) };
        }
        let key = set_key(self.rule, self.place(fingerprint));
        let mut bytes = Vec::new();
        let most_leased = self.most_leased();
        let wanted = lease.as_deref().map_or(0, |lease| lease.appetite_at(now));
        for _ in 0..TRIES {
            let Some((mut set, cas)) = load(&key, self.rate, store) else { return Take::Failed };
            let is_rescaled = set.rescale(self.rate, self.since, now);
            let Taken { mut slot, is_new, evicted, has_stepped } = set.take(fingerprint, now);
            let moved = if is_new { self.moved(fingerprint, now, store) } else { None };
            slot.bucket = moved.unwrap_or(slot.bucket);
            if let Some(lease) = lease.as_deref().filter(|lease| lease.granted > 0) {
                // Whatever it has not spent comes back: its time is over, or its policy.
                slot.bucket.release(self.rate, lease.epoch, lease.granted, lease.tokens, now);
            }
            let available = slot.bucket.available(self.rate, now);
            if available == 0 {
                let wait = slot.bucket.wait(self.rate, now);
                // A refusal changes nothing and is not written, but for what else has changed. When
                // another worker was first, it wrote the same.
                if is_rescaled || has_stepped || moved.is_some() {
                    set.put(slot);
                    set.write(&mut bytes);
                    let written = store.set(&key, &bytes, cas).is_ok();
                    if let Some(lease) = lease.filter(|_| written) {
                        (lease.granted, lease.tokens) = (0, 0);
                    }
                    if moved.is_some() && written {
                        self.forget_before(fingerprint, now, store);
                    }
                }
                return Take::Refused { wait };
            }
            let most = most_leased.min(available.saturating_sub(1) / LEASE_SHARE);
            let extra = u32::try_from(most).unwrap_or(u32::MAX).min(wanted);
            slot.bucket.take(self.rate, extra);
            let epoch = slot.bucket.epoch;
            set.put(slot);
            set.write(&mut bytes);
            match store.set(&key, &bytes, cas) {
                Ok(()) => {}
                Err(SetError::Mismatch) => {
                    effort.contention = effort.contention.saturating_add(1);
                    continue;
                }
                Err(SetError::Failed) => return Take::Failed,
            }
            if moved.is_some() {
                self.forget_before(fingerprint, now, store);
            }
            effort.evictions = effort.evictions.saturating_add(u64::from(evicted));
            let remaining = available.saturating_sub(1);
            let held = Lease {
                fingerprint,
                rate: self.rate,
                tokens: extra,
                granted: extra,
                epoch,
                ends: lease_end(epoch),
                level: remaining.saturating_sub(extra.into()),
                appetite: wanted.min(u32::try_from(most_leased).unwrap_or(u32::MAX)),
                acquired_at: now,
                used_at: now,
                rule: Rc::clone(self.rule),
                set: self.place(fingerprint),
            };
            match lease.take() {
                Some(lease) => *lease = held,
                None if most_leased > 0 => leases.follow(held),
                None => {}
            }
            return Take::Admitted { remaining };
        }
        Take::Failed
    }

    /// The bucket of a key as it stands in the store.
    #[cfg(any(test, feature = "sim"))]
    pub fn look(
        &self,
        fingerprint: Fingerprint,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> Bucket {
        let found = store.get(&set_key(self.rule, self.place(fingerprint)));
        let set = found.and_then(|(bytes, _)| Set::read(&bytes));
        let known = set.and_then(|mut set| {
            set.rescale(self.rate, self.since, now);
            set.known(fingerprint, now)
        });
        let known = known.map(|slot| slot.bucket);
        known.or_else(|| self.moved(fingerprint, now, store)).unwrap_or(Bucket::full(now))
    }

    /// Leaves so many tokens in the bucket of a key. False where the store refuses.
    #[cfg(any(test, feature = "sim"))]
    pub fn leave(
        &self,
        fingerprint: Fingerprint,
        tokens: u64,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> bool {
        let key = set_key(self.rule, self.place(fingerprint));
        let Some((mut set, cas)) = load(&key, self.rate, store) else { return false };
        set.rescale(self.rate, self.since, now);
        let mut slot = set.take(fingerprint, now).slot;
        let used = self.rate.max.saturating_sub(tokens);
        slot.bucket = Bucket::full(now);
        slot.bucket.tat = now.saturating_add(self.rate.per_token.saturating_mul(used));
        set.put(slot);
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        store.set(&key, &bytes, cas).is_ok()
    }

    /// Gives back a token that [`Buckets::take`] gave and that was not spent after all. When the
    /// store is contended the token is lost, which refuses one request too many and admits none.
    pub fn give_back(
        &self,
        fingerprint: Fingerprint,
        now: Nanos,
        store: &mut impl SharedStore,
        leases: &mut LeaseTable,
    ) {
        if self.workers > 0
            && let Some(lease) = leases.find(fingerprint)
            && lease.rate == self.rate
            && now < lease.ends
            && lease.tokens < lease.granted
        {
            lease.tokens = lease.tokens.saturating_add(1);
            return;
        }
        let key = set_key(self.rule, self.place(fingerprint));
        update(&key, store, |set| {
            let mut slot = set.known(fingerprint, now)?;
            slot.bucket.give_back(set.rate, now);
            set.put(slot);
            Some(())
        });
    }
}

/// Returns what a lease has not spent. A token is a token under whatever rate the policy has now.
pub fn return_lease(lease: &Lease, now: Nanos, store: &mut impl SharedStore) {
    let key = set_key(&lease.rule, lease.set);
    update(&key, store, |set| {
        let mut slot = set.known(lease.fingerprint, now)?;
        slot.bucket.release(set.rate, lease.epoch, lease.granted, lease.tokens, now);
        set.put(slot);
        Some(())
    });
}

/// Changes a set that is there.
fn update(key: &[u8], store: &mut impl SharedStore, change: impl Fn(&mut Set) -> Option<()>) {
    let mut bytes = Vec::new();
    for _ in 0..TRIES {
        let Some((value, cas)) = store.get(key) else { return };
        let Some(mut set) = Set::read(&value) else { return };
        if change(&mut set).is_none() {
            return;
        }
        set.write(&mut bytes);
        if store.set(key, &bytes, cas) != Err(SetError::Mismatch) {
            return;
        }
    }
}

fn place(fingerprint: Fingerprint, sets: u32) -> u32 {
    let place = fingerprint.checked_rem(sets.into()).unwrap_or(0);
    u32::try_from(place).unwrap_or(0)
}

/// The set and its version, created if need be. A set on a missing key succeeds whatever the
/// version says, so a new set is written empty and read again. A worker that stops between the look
/// and that write undoes what others took from the set meanwhile, once in the life of the set; a
/// rule without a key has its set made on the main thread and is spared.
fn load(key: &[u8], rate: Rate, store: &mut impl SharedStore) -> Option<(Set, u32)> {
    for _ in 0..2 {
        if let Some((bytes, cas)) = store.get(key) {
            return Some((Set::read(&bytes).unwrap_or_else(|| Set::new(rate)), cas));
        }
        let mut bytes = Vec::new();
        Set::new(rate).write(&mut bytes);
        store.set(key, &bytes, BLIND).ok()?;
    }
    None
}
