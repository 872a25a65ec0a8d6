//! Requests in flight, counted over all workers.
//!
//! Shared data holds, for each key and VM, how many requests of the key that VM has in flight. A VM
//! writes its own number, never a difference, so a number that was lost is right again with the next
//! write. What a VM that died had in flight ends with it: a VM tells every second that it lives, and
//! the numbers of one that is silent count no longer. A number that a race at the creation of its set
//! undid is put right by the tick, which looks after a few at a time.

use std::collections::HashMap;
use std::rc::Rc;

use crate::core::bytes::Reader;
use crate::core::key::{Fingerprint, set_key};
use crate::core::ports::{BLIND, Nanos, Rng, SetError, SharedStore};

/// A VM is taken for dead when it was silent for so long. Its worker may be busy, or the machine.
pub const DEAD: Nanos = 5_000_000_000;

/// How often a VM tells that it lives.
const BEAT: Nanos = 1_000_000_000;

/// Sets of a keyed rule. A number of its own, since an edit of `max_keys` must not hide what is in
/// flight; and keys in flight are few against keys remembered.
const SETS: u32 = 1024;

/// Numbers in a set, and VMs of a rule: a value stays below 8 kB.
const MOST: usize = 256;

const TRIES: u32 = 8;

/// How many numbers of a rule a tick looks after: each costs a host call.
const CHECKED: usize = 64;
const VERSION: u8 = 1;

/// Where the numbers of a rule lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The start of the keys.
    pub rule: Rc<[u8]>,
    pub is_keyed: bool,
    /// The limit is each worker's own.
    pub is_local: bool,
}

/// A request in flight, to be ended once with [`Flights::end`].
#[derive(Debug, PartialEq)]
pub struct Flight {
    place: Place,
    fingerprint: Fingerprint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Started,
    Full,
    /// Shared state could not be had.
    Failed,
}

/// How many requests of a key one VM has in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    fingerprint: Fingerprint,
    vm: u64,
    seen: Nanos,
    count: u32,
}

/// What one worker has in flight, by rule.
#[derive(Debug, Default)]
pub struct Flights {
    /// This VM's own, at random.
    vm: Option<u64>,
    rules: HashMap<Rc<[u8]>, OfRule>,
    beaten_at: Nanos,
}

#[derive(Debug)]
struct OfRule {
    place: Place,
    /// Requests in flight by key; those that are nought go.
    counts: HashMap<Fingerprint, u32>,
    total: u32,
    /// What the list of VMs says of this one.
    told: u32,
    told_at: Nanos,
    /// VMs and when they told last, as read at a time.
    alive: Vec<Number>,
    alive_at: Option<Nanos>,
    /// Keys whose number in shared data may be another.
    unwritten: Vec<Fingerprint>,
    /// How many of the keys have been looked after in this round.
    checked: usize,
}

impl Place {
    fn set(&self, fingerprint: Fingerprint) -> Vec<u8> {
        let sets = if self.is_keyed { u64::from(SETS) } else { 1 };
        let set = fingerprint.checked_rem(sets).and_then(|set| u32::try_from(set).ok());
        set_key(&self.rule, set.unwrap_or(0))
    }

    fn alive(&self) -> Vec<u8> {
        [&self.rule, &b"alive"[..]].concat()
    }

    /// Makes what workers would otherwise race to make.
    pub fn prepare(&self, store: &mut impl SharedStore) {
        let set = (!self.is_keyed).then(|| self.set(0));
        for key in set.into_iter().chain([self.alive()]) {
            if store.get(&key).is_none() {
                let _ = store.set(&key, &[VERSION], BLIND);
            }
        }
    }

    /// Requests in flight under the rule; `None` where there never was one.
    pub fn total(&self, now: Nanos, store: &mut impl SharedStore) -> Option<u64> {
        let (bytes, _) = store.get(&self.alive())?;
        let alive = read(&bytes).into_iter().filter(|vm| is_fresh(vm.seen, now));
        Some(alive.map(|vm| u64::from(vm.count)).sum())
    }
}

impl Flights {
    /// Lets a request of a key go ahead if fewer than `most` are in flight. `contention` counts the
    /// times that another worker was first.
    pub fn start(
        &mut self,
        place: &Place,
        fingerprint: Fingerprint,
        most: u32,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
        contention: &mut u64,
    ) -> (Start, Option<Flight>) {
        let vm = *self.vm.get_or_insert_with(|| ports.random());
        let rule = self.rules.entry(Rc::clone(&place.rule)).or_insert_with(|| OfRule::new(place));
        let own = rule.counts.get(&fingerprint).copied().unwrap_or(0);
        let next = own.saturating_add(1);
        let started = if place.is_local {
            if own < most { Start::Started } else { Start::Full }
        } else {
            // Of `most`, this VM has its own already.
            let others = most.checked_sub(next);
            match others {
                Some(others) => {
                    rule.write(vm, fingerprint, next, Some(others), now, ports, contention)
                }
                None => Start::Full,
            }
        };
        if started != Start::Started {
            return (started, None);
        }
        rule.counts.insert(fingerprint, next);
        rule.total = rule.total.saturating_add(1);
        (started, Some(Flight { place: place.clone(), fingerprint }))
    }

    pub fn end(&mut self, flight: &Flight, now: Nanos, store: &mut impl SharedStore) {
        let Flight { place, fingerprint } = flight;
        let (Some(vm), Some(rule)) = (self.vm, self.rules.get_mut(&place.rule)) else { return };
        let Some(count) = rule.counts.get_mut(fingerprint) else { return };
        *count = count.saturating_sub(1);
        let left = *count;
        if left == 0 {
            rule.counts.remove(fingerprint);
        }
        rule.total = rule.total.saturating_sub(1);
        if !place.is_local {
            let written = rule.write(vm, *fingerprint, left, None, now, store, &mut 0);
            if written != Start::Started {
                rule.unwritten.push(*fingerprint);
            }
        }
    }

    /// Tells that this VM lives, and writes what could not be written.
    pub fn tick(&mut self, now: Nanos, store: &mut impl SharedStore) {
        let Some(vm) = self.vm else { return };
        // Others may have taken this VM for dead.
        let was_away = now.saturating_sub(self.beaten_at) > DEAD / 2;
        self.beaten_at = now;
        for rule in self.rules.values_mut() {
            if was_away && !rule.place.is_local {
                rule.unwritten.extend(rule.counts.keys());
            }
            // While some are known to be missing there is no looking for more.
            if !rule.place.is_local && rule.unwritten.is_empty() {
                rule.check(vm, store);
            }
            for fingerprint in std::mem::take(&mut rule.unwritten) {
                let count = rule.counts.get(&fingerprint).copied().unwrap_or(0);
                let written = rule.write(vm, fingerprint, count, None, now, store, &mut 0);
                if written != Start::Started {
                    rule.unwritten.push(fingerprint);
                }
            }
            let is_due = rule.total > 0 && now.saturating_sub(rule.told_at) >= BEAT;
            if rule.told != rule.total || is_due {
                rule.tell(vm, now, store);
            }
        }
        // Rules of policies that have gone would stay for ever.
        self.rules.retain(|_, rule| rule.total > 0 || rule.told > 0 || !rule.unwritten.is_empty());
    }
}

impl OfRule {
    fn new(place: &Place) -> OfRule {
        OfRule {
            place: place.clone(),
            counts: HashMap::new(),
            total: 0,
            told: 0,
            told_at: 0,
            alive: Vec::new(),
            alive_at: None,
            unwritten: Vec::new(),
            checked: 0,
        }
    }

    /// Looks whether this VM's numbers stand in shared data, a few keys at a time. A request that is in
    /// flight for long may not write again before it ends.
    fn check(&mut self, vm: u64, store: &mut dyn SharedStore) {
        let all = self.counts.len();
        if self.checked >= all {
            self.checked = 0;
        }
        for (fingerprint, count) in self.counts.iter().skip(self.checked).take(CHECKED) {
            let found = store.get(&self.place.set(*fingerprint)).map(|(bytes, _)| read(&bytes));
            let stands = found.unwrap_or_default().iter().any(|number| {
                (number.fingerprint, number.vm, number.count) == (*fingerprint, vm, *count)
            });
            if !stands {
                self.unwritten.push(*fingerprint);
            }
        }
        self.checked = self.checked.saturating_add(CHECKED);
    }

    /// Writes this VM's number of a key, if the others have no more in flight than `others`.
    #[allow(clippy::too_many_arguments)] // Two of them go on to the list of VMs.
    fn write(
        &mut self,
        vm: u64,
        fingerprint: Fingerprint,
        count: u32,
        others: Option<u32>,
        now: Nanos,
        store: &mut dyn SharedStore,
        contention: &mut u64,
    ) -> Start {
        let key = self.place.set(fingerprint);
        for _ in 0..TRIES {
            let Some((bytes, cas)) = store.get(&key) else {
                // Nothing to take away from. A first number is written over an empty set, not into
                // nothing: that always succeeds, also when another worker was first.
                if count == 0 {
                    return Start::Started;
                }
                if store.set(&key, &[VERSION], BLIND).is_err() {
                    return Start::Failed;
                }
                continue;
            };
            let mut numbers = read(&bytes);
            numbers.retain(|number| number.vm == vm || self.lives(number, now, store));
            let theirs = numbers.iter().filter(|it| it.fingerprint == fingerprint && it.vm != vm);
            let theirs = theirs.fold(0_u32, |sum, number| sum.saturating_add(number.count));
            if others.is_some_and(|others| theirs > others) {
                return Start::Full;
            }
            numbers.retain(|number| number.fingerprint != fingerprint || number.vm != vm);
            if count > 0 {
                numbers.push(Number { fingerprint, vm, seen: now, count });
            }
            if numbers.len() > MOST {
                return Start::Failed;
            }
            match store.set(&key, &write(&numbers), cas) {
                Ok(()) => return Start::Started,
                Err(SetError::Mismatch) => *contention = contention.saturating_add(1),
                Err(SetError::Failed) => return Start::Failed,
            }
        }
        Start::Failed
    }

    /// Whether the VM behind a number lives: it wrote the number lately, or told so.
    fn lives(&mut self, number: &Number, now: Nanos, store: &mut dyn SharedStore) -> bool {
        if is_fresh(number.seen, now) {
            return true;
        }
        if self.alive_at.is_none_or(|at| now.abs_diff(at) >= BEAT) {
            let list = store.get(&self.place.alive());
            self.alive = list.map(|(bytes, _)| read(&bytes)).unwrap_or_default();
            self.alive_at = Some(now);
        }
        self.alive.iter().any(|vm| vm.vm == number.vm && is_fresh(vm.seen, now))
    }

    /// Renews this VM's entry in the list of those that have requests in flight.
    fn tell(&mut self, vm: u64, now: Nanos, store: &mut dyn SharedStore) {
        let key = self.place.alive();
        for _ in 0..TRIES {
            let (bytes, cas) = store.get(&key).unwrap_or((Vec::new(), BLIND));
            let mut list = read(&bytes);
            list.retain(|it| it.vm != vm && is_fresh(it.seen, now));
            list.truncate(MOST.saturating_sub(1));
            if self.total > 0 {
                list.push(Number { fingerprint: 0, vm, seen: now, count: self.total });
            }
            match store.set(&key, &write(&list), cas) {
                Ok(()) => {
                    (self.told, self.told_at) = (self.total, now);
                    return;
                }
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => return,
            }
        }
    }
}

/// A time to come is no VM's of this process.
fn is_fresh(seen: Nanos, now: Nanos) -> bool {
    seen.abs_diff(now) < DEAD
}

/// What is not ours is nothing.
fn read(bytes: &[u8]) -> Vec<Number> {
    let Some((&VERSION, rest)) = bytes.split_first() else { return Vec::new() };
    let mut rest = Reader(rest);
    let mut next = || {
        let (fingerprint, vm) = (rest.u64()?, rest.u64()?);
        Some(Number { fingerprint, vm, seen: rest.u64()?, count: rest.u32()? })
    };
    std::iter::from_fn(&mut next).take(MOST).collect()
}

fn write(numbers: &[Number]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for Number { fingerprint, vm, seen, count } in numbers {
        for word in [fingerprint, vm, seen] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
