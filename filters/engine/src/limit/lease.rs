//! What one worker holds of buckets: a few tokens each, to spend without asking.

use std::rc::Rc;

use super::bucket::Ask;
use super::gcra::Rate;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// Keys that a worker follows at a time. Only the busiest gain by a lease, and this many fit into
/// 100 kB.
const SETS: usize = 256;
const WAYS: usize = 4;

/// A worker that is back within this time takes twice as much the next time; so a lease comes to
/// last about as long. Longer leases would save no host calls to speak of and hold tokens back from
/// other workers.
const BUSY: Nanos = 10_000_000;

/// Not back for so long: the next lease is half as large.
const QUIET: Nanos = 40_000_000;

/// A lease that was not used for this long goes back.
const IDLE: Nanos = 100_000_000;

#[derive(Clone, Debug)]
pub struct Lease {
    pub fingerprint: Fingerprint,
    /// State of another rate is void: the policy changed.
    pub rate: Rate,
    /// Tokens left to spend.
    pub tokens: u32,
    /// Tokens that the bucket counts as leased for this one.
    pub granted: u32,
    pub epoch: u32,
    pub ends: Nanos,
    /// Tokens seen in the bucket when the lease was made.
    pub level: u64,
    /// How much to take the next time.
    pub appetite: u32,
    pub acquired_at: Nanos,
    pub used_at: Nanos,
    /// Where the bucket lies.
    pub rule: Rc<[u8]>,
    pub set: u32,
}

impl Lease {
    /// Spends tokens if the lease has them and stands. Where a share of the bucket is kept back from
    /// the request, a lease that was cut out of that share is not for it.
    pub fn spend(&mut self, ask: Ask, now: Nanos) -> bool {
        let Ok(tokens) = u32::try_from(ask.tokens) else { return false };
        let stands = now < self.ends && now >= self.acquired_at && self.rate == ask.rate;
        if self.tokens < tokens || !stands || self.level < ask.reserve {
            return false;
        }
        self.tokens = self.tokens.saturating_sub(tokens);
        self.used_at = now;
        true
    }

    /// How many tokens to ask for now, beyond the one that is spent at once.
    pub fn appetite_at(&self, now: Nanos) -> u32 {
        match now.saturating_sub(self.acquired_at) {
            since if since < BUSY => self.appetite.saturating_mul(2).max(1),
            since if since > QUIET => self.appetite / 2,
            _ => self.appetite,
        }
    }
}

#[derive(Debug, Default)]
pub struct LeaseTable {
    sets: Vec<Vec<Lease>>,
}

impl LeaseTable {
    fn set(&mut self, fingerprint: Fingerprint) -> Option<&mut Vec<Lease>> {
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Vec::new);
        }
        // The low bits choose the shared set; these are others.
        let place = (fingerprint >> 48) as usize % SETS;
        self.sets.get_mut(place)
    }

    pub fn find(&mut self, fingerprint: Fingerprint) -> Option<&mut Lease> {
        self.set(fingerprint)?.iter_mut().find(|lease| lease.fingerprint == fingerprint)
    }

    /// Follows a key from now on, in the place of the one that was not used for the longest time
    /// and holds nothing. Where all hold something the key is not followed.
    pub fn follow(&mut self, lease: Lease) {
        let now = lease.acquired_at;
        let Some(set) = self.set(lease.fingerprint) else { return };
        if set.len() >= WAYS {
            let holds = |lease: &Lease| lease.tokens > 0 && now < lease.ends;
            let free = set.iter().enumerate().filter(|(_, lease)| !holds(lease));
            let Some((place, _)) = free.min_by_key(|(_, lease)| lease.used_at) else { return };
            set.swap_remove(place);
        }
        set.push(lease);
    }

    /// Takes out what was not used lately and still holds tokens, at most `most` of it.
    pub fn idle(&mut self, now: Nanos, most: usize) -> Vec<Lease> {
        let mut idle = Vec::new();
        for lease in self.sets.iter_mut().flatten() {
            if idle.len() >= most {
                break;
            }
            if lease.tokens > 0 && now.saturating_sub(lease.used_at) >= IDLE {
                idle.push(lease.clone());
                lease.tokens = 0;
                lease.granted = 0;
            }
        }
        idle
    }

    /// Forgets everything; what was leased ends by itself.
    pub fn clear(&mut self) {
        self.sets.clear();
    }
}
