//! A decision on one bucket: the worker's lease, else the shared set under compare-and-set.

use std::rc::Rc;

use super::calendar::{Filling, Moment};
use super::gcra::{Bucket, Rate, lease_end};
use super::lease::{Lease, LeaseTable};
use super::slots::{Now, Set, Slot, Taken};
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
    pub filling: Filling,
    /// Of the keys that no override means.
    pub rate: Rate,
    /// When the rates came into force.
    pub since: Moment,
    /// The table before an edit of its size.
    pub before: Option<Before>,
    /// How many workers share the buckets; 0 where nothing is leased: a worker's own buckets are at
    /// hand, and a lease would outlive a quota of the calendar.
    pub workers: u32,
    pub moment: Moment,
}

/// What a request wants of its bucket.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub fingerprint: Fingerprint,
    /// The rule's, or that of an override.
    pub rate: Rate,
    /// What the request costs. At least 1.
    pub tokens: u64,
    /// Tokens that the request must leave in the bucket.
    pub reserve: u64,
}

impl Buckets<'_> {
    fn to(&self, rate: Rate) -> Now {
        Now { rate, filling: self.filling, since: self.since, moment: self.moment }
    }

    /// Time until a bucket that has not so many tokens has them.
    fn wait(&self, bucket: &Bucket, rate: Rate, tokens: u64, now: Nanos) -> Nanos {
        match self.filling {
            Filling::Steady => bucket.wait(rate, tokens, now),
            Filling::Calendar(calendar) => calendar.rest(now, self.moment.wall),
        }
    }

    /// Time until a bucket of which so many tokens are left is full.
    pub fn reset(&self, rate: Rate, remaining: u64) -> Nanos {
        match self.filling {
            Filling::Steady => rate.per_token.saturating_mul(rate.max.saturating_sub(remaining)),
            Filling::Calendar(calendar) => {
                let wall = self.moment.wall;
                calendar.rest(calendar.start(wall), wall)
            }
        }
    }

    /// For a request whose cost its response will tell.
    pub fn bill(&self, ask: Ask, max_debt: Option<u64>) -> Bill {
        let Ask { fingerprint, tokens: paid, .. } = ask;
        let set = self.place(fingerprint);
        Bill { rule: Rc::clone(self.rule), set, fingerprint, paid, max_debt }
    }

    fn place(&self, fingerprint: Fingerprint) -> u32 {
        place(fingerprint, self.sets)
    }

    /// The key of the set where a table of another size had the bucket.
    fn place_before(&self, fingerprint: Fingerprint) -> Option<Vec<u8>> {
        let before = self.before.filter(|before| self.moment.steady < before.until)?;
        Some(set_key(self.rule, place(fingerprint, before.sets)))
    }

    /// Brings a slot that is new to its set to what it was in the table before. Gives the time by which
    /// its bucket counts, where it was there.
    fn fetch(
        &self,
        set: &mut Set,
        slot: &mut Slot,
        ask: Ask,
        store: &mut dyn SharedStore,
    ) -> Option<Nanos> {
        let (old, taken) = self.moved(ask, store)?;
        slot.bucket = taken.slot.bucket;
        // It may be in debt there.
        set.raise(slot, taken.slot.terms(&old).ceiling);
        set.overdraft = set.overdraft.or_later(old.overdraft, self.moment.steady);
        Some(taken.now)
    }

    fn moved(&self, ask: Ask, store: &mut dyn SharedStore) -> Option<(Set, Taken)> {
        let (bytes, _) = store.get(&self.place_before(ask.fingerprint)?)?;
        let mut set = Set::read(&bytes)?;
        set.rescale(self.to(self.rate));
        let is_known = set.slots.iter().any(|slot| slot.fingerprint == ask.fingerprint);
        is_known.then(|| {
            let taken = set.take(ask.fingerprint, self.to(ask.rate));
            (set, taken)
        })
    }

    /// Found there again after another edit, the bucket would be out of date.
    fn forget_before(&self, fingerprint: Fingerprint, store: &mut dyn SharedStore) {
        if let Some(key) = self.place_before(fingerprint) {
            update(&key, store, &|set| set.known(fingerprint, self.moment).map(|_| ()));
        }
    }

    /// The most that one worker may hold beside the token it spends at once.
    fn most_leased(&self, rate: Rate) -> u64 {
        let divisor = LEASE_DIVISOR.saturating_mul(self.workers.into());
        rate.max.checked_div(divisor).unwrap_or(0)
    }

    /// Makes the set of a rule that has one alone.
    pub fn prepare(&self, store: &mut dyn SharedStore) {
        load(&set_key(self.rule, 0), self.filling, self.rate, store);
    }

    /// Takes what the request costs.
    pub fn take(
        &self,
        ask: Ask,
        store: &mut dyn SharedStore,
        leases: &mut LeaseTable,
        effort: &mut Effort,
    ) -> Take {
        let Ask { fingerprint, rate, tokens, reserve } = ask;
        let now = self.moment.steady;
        let mut lease = if self.workers > 0 { leases.find(fingerprint) } else { None };
        if let Some(lease) = lease.as_deref_mut().filter(|lease| lease.tokens > 0)
            && lease.spend(ask, now)
        {
            let level = lease.level.saturating_add(lease.tokens.into());
            return Take::Admitted { remaining: level.saturating_sub(reserve) };
        }
        let key = set_key(self.rule, self.place(fingerprint));
        let mut bytes = Vec::new();
        let most_leased = self.most_leased(rate);
        let wanted = lease.as_deref().map_or(0, |lease| lease.appetite_at(now));
        for _ in 0..TRIES {
            let Some((mut set, cas)) = load(&key, self.filling, self.rate, store) else {
                return Take::Failed;
            };
            let is_rescaled = set.rescale(self.to(self.rate));
            let taken = set.take(fingerprint, self.to(rate));
            let Taken { mut slot, is_new, evicted, now: mut at, is_changed } = taken;
            let fetched = if is_new { self.fetch(&mut set, &mut slot, ask, store) } else { None };
            let is_moved = fetched.is_some();
            at = fetched.unwrap_or(at);
            if let Some(lease) = lease.as_deref().filter(|lease| lease.granted > 0) {
                // Whatever it has not spent comes back: its time is over, or its policy.
                slot.bucket.release(rate, lease.epoch, lease.granted, lease.tokens, at);
            }
            let available = slot.bucket.available(rate, at);
            let needed = tokens.saturating_add(reserve);
            let Some(free) = available.checked_sub(needed) else {
                let wait = self.wait(&set.without_overdraft(&slot, now), rate, needed, at);
                // A refusal changes nothing and is not written, but for what else has changed. When
                // another worker was first, it wrote the same.
                if is_rescaled || is_changed || is_moved {
                    set.put(slot);
                    set.write(&mut bytes);
                    let written = store.set(&key, &bytes, cas).is_ok();
                    if let Some(lease) = lease.filter(|_| written) {
                        (lease.granted, lease.tokens) = (0, 0);
                    }
                    if is_moved && written {
                        self.forget_before(fingerprint, store);
                    }
                }
                return Take::Refused { wait };
            };
            let most = most_leased.min(free / LEASE_SHARE);
            let extra = u32::try_from(most).unwrap_or(u32::MAX).min(wanted);
            slot.bucket.take(rate, tokens, extra);
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
            if is_moved {
                self.forget_before(fingerprint, store);
            }
            effort.evictions = effort.evictions.saturating_add(u64::from(evicted));
            let held = Lease {
                fingerprint,
                rate,
                tokens: extra,
                granted: extra,
                epoch,
                ends: lease_end(epoch),
                level: available.saturating_sub(tokens).saturating_sub(extra.into()),
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
            return Take::Admitted { remaining: free };
        }
        Take::Failed
    }

    /// The bucket of a key as it stands in the store: its tokens, and the time until there are as many as
    /// the request wants.
    #[cfg(any(test, feature = "sim"))]
    pub fn look(&self, ask: Ask, store: &mut dyn SharedStore) -> (u64, Nanos) {
        let found = store.get(&set_key(self.rule, self.place(ask.fingerprint)));
        let set = found.and_then(|(bytes, _)| Set::read(&bytes));
        let mut set = set.unwrap_or_else(|| Set::new(self.filling, self.rate));
        set.rescale(self.to(self.rate));
        let Taken { mut slot, is_new, mut now, .. } = set.take(ask.fingerprint, self.to(ask.rate));
        if is_new && let Some(at) = self.fetch(&mut set, &mut slot, ask, store) {
            now = at;
        }
        let bucket = set.without_overdraft(&slot, self.moment.steady);
        let available = bucket.available(ask.rate, now);
        let needed = ask.tokens.saturating_add(ask.reserve);
        let has_enough = available >= needed;
        (available, if has_enough { 0 } else { self.wait(&bucket, ask.rate, needed, now) })
    }

    /// Leaves so many tokens in the bucket of a key. False where the store refuses.
    #[cfg(any(test, feature = "sim"))]
    pub fn leave(&self, ask: Ask, tokens: u64, store: &mut dyn SharedStore) -> bool {
        let key = set_key(self.rule, self.place(ask.fingerprint));
        let Some((mut set, cas)) = load(&key, self.filling, self.rate, store) else { return false };
        set.rescale(self.to(self.rate));
        let Taken { mut slot, now, .. } = set.take(ask.fingerprint, self.to(ask.rate));
        slot.bucket.set_used(ask.rate, ask.rate.max.saturating_sub(tokens), now);
        set.put(slot);
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        store.set(&key, &bytes, cas).is_ok()
    }

    /// Gives back what [`Buckets::take`] gave and that was not spent after all. When the store is
    /// contended it is lost, which refuses one request too many and admits none.
    pub fn give_back(&self, ask: Ask, store: &mut dyn SharedStore, leases: &mut LeaseTable) {
        let fingerprint = ask.fingerprint;
        if self.workers > 0
            && let Some(lease) = leases.find(fingerprint)
            && lease.rate == ask.rate
            && self.moment.steady < lease.ends
            && let Ok(tokens) = u32::try_from(ask.tokens)
            && tokens <= lease.granted.saturating_sub(lease.tokens)
        {
            lease.tokens = lease.tokens.saturating_add(tokens);
            return;
        }
        let key = set_key(self.rule, self.place(fingerprint));
        update(&key, store, &|set| {
            let (mut slot, now) = set.known(fingerprint, self.moment)?;
            slot.bucket.give_back(slot.rate(set), ask.tokens, now);
            set.put(slot);
            Some(())
        });
    }
}

/// A request that was admitted, and what it costs will be known with its response.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    pub rule: Rc<[u8]>,
    pub set: u32,
    pub fingerprint: Fingerprint,
    /// Tokens that it took.
    pub paid: u64,
    /// How far the bucket may owe; as much as it holds where the policy does not say.
    pub max_debt: Option<u64>,
}

impl Bill {
    /// Charges the rest of the cost, or gives back what was too much. It is charged whatever rate the
    /// policy has now; a bucket that was forgotten meanwhile is charged nothing. False where other
    /// workers were first each time.
    pub fn settle(&self, cost: u64, moment: Moment, store: &mut dyn SharedStore) -> bool {
        update(&set_key(&self.rule, self.set), store, &|set| {
            let (mut slot, now) = set.known(self.fingerprint, moment)?;
            let rate = slot.rate(set);
            if cost > self.paid {
                let max_debt = self.max_debt.unwrap_or(rate.max);
                slot.bucket.charge(rate, cost.saturating_sub(self.paid), max_debt, now);
                set.raise(&mut slot, rate.max.saturating_add(max_debt));
            } else {
                slot.bucket.give_back(rate, self.paid.saturating_sub(cost), now);
            }
            set.put(slot);
            Some(())
        })
    }
}

/// Returns what a lease has not spent. A token is a token under whatever rate the policy has now.
pub fn return_lease(lease: &Lease, now: Nanos, store: &mut dyn SharedStore) {
    let key = set_key(&lease.rule, lease.set);
    update(&key, store, &|set| {
        // An edit has made it a quota of the calendar: what was leased is used.
        if set.filling != Filling::Steady {
            return None;
        }
        let (mut slot, now) = set.known(lease.fingerprint, Moment { steady: now, wall: 0 })?;
        slot.bucket.release(slot.rate(set), lease.epoch, lease.granted, lease.tokens, now);
        set.put(slot);
        Some(())
    });
}

/// Changes a set that is there. False where that may be tried again.
fn update(
    key: &[u8],
    store: &mut dyn SharedStore,
    change: &dyn Fn(&mut Set) -> Option<()>,
) -> bool {
    let mut bytes = Vec::new();
    for _ in 0..TRIES {
        let Some((value, cas)) = store.get(key) else { return true };
        let Some(mut set) = Set::read(&value) else { return true };
        if change(&mut set).is_none() {
            return true;
        }
        set.write(&mut bytes);
        if store.set(key, &bytes, cas) != Err(SetError::Mismatch) {
            return true;
        }
    }
    false
}

fn place(fingerprint: Fingerprint, sets: u32) -> u32 {
    let place = fingerprint.checked_rem(sets.into()).unwrap_or(0);
    u32::try_from(place).unwrap_or(0)
}

/// The set and its version, created if need be. A set on a missing key succeeds whatever the
/// version says, so a new set is written empty and read again. A worker that stops between the look
/// and that write undoes what others took from the set meanwhile, once in the life of the set; a
/// rule without a key has its set made on the main thread and is spared.
fn load(
    key: &[u8],
    filling: Filling,
    rate: Rate,
    store: &mut dyn SharedStore,
) -> Option<(Set, u32)> {
    let new = || Set::new(filling, rate);
    for _ in 0..2 {
        if let Some((bytes, cas)) = store.get(key) {
            return Some((Set::read(&bytes).unwrap_or_else(new), cas));
        }
        let mut bytes = Vec::new();
        new().write(&mut bytes);
        store.set(key, &bytes, BLIND).ok()?;
    }
    None
}
