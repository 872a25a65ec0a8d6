//! One token bucket, kept as a point in time.
//!
//! The generic cell rate algorithm: a bucket is the theoretical arrival time (TAT) at which it will
//! be full again, so refilling costs nothing and a decision is one comparison. On top of it, tokens
//! may be *leased*: taken from the bucket ahead of need and spent later by one worker.
//!
//! The promise, leases included: over any interval at most `max + rate x time` tokens are spent. A
//! leased token still belongs to the bucket's content until it is spent, so while `n` tokens are
//! leased the bucket refills only up to `max - n`. In terms of the TAT: it is never earlier than
//! `now + n x per_token`. Leases end by themselves after one to two epochs, so that what a worker
//! that died had leased is not missed for ever.

use crate::core::ports::Nanos;

/// The speed and size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one token comes back. At least 1.
    pub per_token: Nanos,
    /// Tokens in a full bucket. At least 1.
    pub max: u64,
}

/// 2^28 ns, a quarter of a second: long against the few milliseconds for which a busy worker
/// leases, short enough that what a dead worker held is soon back.
const EPOCH_BITS: u32 = 28;

/// Far beyond any real wait, and far from overflow in what follows: 146 years.
const FURTHEST: Nanos = 1 << 62;

/// A worker stops spending this much before its lease ends: it may lose the processor between
/// reading the clock and spending. 50 ms.
const SAFETY: Nanos = 50_000_000;

impl Rate {
    /// `tokens` come back per `interval`. Rounded so that the rate is never above what was asked.
    pub fn new(max: u64, tokens: u64, interval: Nanos) -> Rate {
        Rate { per_token: interval.div_ceil(tokens.max(1)).max(1), max: max.max(1) }
    }

    /// The share of one of `workers` that split the bucket.
    pub fn split(self, workers: u32) -> Rate {
        let workers = u64::from(workers.max(1));
        Rate {
            per_token: self.per_token.saturating_mul(workers),
            max: self.max.checked_div(workers).unwrap_or(0).max(1),
        }
    }

    /// Time in which an empty bucket fills.
    pub fn fill_time(self) -> Nanos {
        self.time_of(self.max)
    }

    pub fn time_of(self, tokens: u64) -> Nanos {
        self.per_token.saturating_mul(tokens)
    }
}

/// The state of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub tat: Nanos,
    /// The epoch of the younger of the two lease counts.
    pub epoch: u32,
    /// Tokens leased in `epoch` and not known to be spent or returned.
    pub leased_now: u32,
    /// The same for the epoch before.
    pub leased_before: u32,
}

impl Bucket {
    pub fn full(now: Nanos) -> Bucket {
        Bucket { tat: now, epoch: epoch(now), leased_now: 0, leased_before: 0 }
    }

    /// So many tokens are used now, whatever it was before.
    pub fn set_used(&mut self, rate: Rate, used: u64, now: Nanos) {
        self.tat = now.saturating_add(rate.time_of(used).min(FURTHEST));
        self.hold(rate, now);
    }

    fn leased(&self) -> u64 {
        u64::from(self.leased_now).saturating_add(u64::from(self.leased_before))
    }

    /// Brings the bucket to `now`: ends old leases and holds refilling back by those that live.
    /// `ceiling` is the most that the bucket can have been used up, in tokens: a TAT further away
    /// comes from a clock that stepped back, and would freeze the bucket. True after such a step.
    pub fn settle(&mut self, rate: Rate, ceiling: u64, now: Nanos) -> bool {
        self.settle_by(rate, ceiling, now, now)
    }

    /// The same where the bucket's own time stands still or jumps; leases go by the steady one.
    #[inline(never)] // 2 kB of the module, with those in `slots`.
    pub fn settle_by(&mut self, rate: Rate, ceiling: u64, now: Nanos, steady: Nanos) -> bool {
        let furthest = now.saturating_add(rate.time_of(ceiling.max(rate.max)));
        let has_stepped = self.tat > furthest;
        self.tat = self.tat.min(furthest);
        let ahead = epoch(steady).wrapping_sub(self.epoch);
        let own = |time: Nanos| now.saturating_sub(steady.saturating_sub(time));
        // As a signed number: workers read the clock at slightly different times.
        if ahead != 0 && ahead < u32::MAX / 2 {
            let end = u64::from(self.epoch.wrapping_add(1)) << EPOCH_BITS;
            self.hold(rate, own(end));
            self.leased_before = 0;
            if ahead == 1 {
                self.leased_before = self.leased_now;
            } else {
                self.hold(rate, own(end.saturating_add(1 << EPOCH_BITS)));
            }
            self.leased_now = 0;
            self.epoch = epoch(steady);
        } else if (u32::MAX / 2..u32::MAX - 1).contains(&ahead) {
            // The clock stepped back: the leases keep counting, from now.
            self.epoch = epoch(steady);
        }
        self.hold(rate, now);
        has_stepped
    }

    /// What is leased takes room: the bucket is full at `max` minus that.
    fn hold(&mut self, rate: Rate, at: Nanos) {
        self.tat = self.tat.max(at.saturating_add(rate.time_of(self.leased())));
    }

    /// Whole tokens in a settled bucket.
    pub fn available(&self, rate: Rate, now: Nanos) -> u64 {
        let time = now.saturating_add(rate.fill_time()).saturating_sub(self.tat);
        time.checked_div(rate.per_token).unwrap_or(0)
    }

    /// Time until a settled bucket that has not so many tokens has them, or is full where it never
    /// will.
    pub fn wait(&self, rate: Rate, tokens: u64, now: Nanos) -> Nanos {
        let wanted = rate.time_of(tokens.min(rate.max));
        let conforms = self.tat.saturating_add(wanted).saturating_sub(rate.fill_time());
        conforms.saturating_sub(now)
    }

    /// Takes tokens out of a settled bucket that has them: some to spend at once, `leased` for later.
    pub fn take(&mut self, rate: Rate, tokens: u64, leased: u32) {
        self.tat = self.tat.saturating_add(rate.time_of(tokens.saturating_add(leased.into())));
        self.leased_now = self.leased_now.saturating_add(leased);
    }

    /// Takes tokens out of a settled bucket whether or not it has them, until it owes `max_debt`.
    pub fn charge(&mut self, rate: Rate, tokens: u64, max_debt: u64, now: Nanos) {
        let furthest = now.saturating_add(rate.time_of(rate.max.saturating_add(max_debt)));
        let charged = self.tat.saturating_add(rate.time_of(tokens));
        self.tat = charged.min(furthest).max(self.tat);
    }

    /// Puts tokens back that were taken and not spent.
    pub fn give_back(&mut self, rate: Rate, tokens: u64, now: Nanos) {
        self.tat = self.tat.saturating_sub(rate.time_of(tokens)).max(now);
        self.hold(rate, now);
    }

    /// Ends a lease of `leased` tokens made in `epoch`, of which `unspent` come back. A lease that
    /// has ended by itself changes nothing.
    pub fn release(&mut self, rate: Rate, lease_epoch: u32, leased: u32, unspent: u32, now: Nanos) {
        let count = if lease_epoch == self.epoch {
            &mut self.leased_now
        } else if lease_epoch == self.epoch.wrapping_sub(1) {
            &mut self.leased_before
        } else {
            return;
        };
        let unspent = unspent.min(leased).min(*count);
        *count = count.saturating_sub(leased);
        self.tat = self.tat.saturating_sub(rate.time_of(unspent.into())).max(now);
        self.hold(rate, now);
    }

    /// The same use under a new rate: 40 of 50 used stays 40 used, whatever the limit is now.
    pub fn rescale(&mut self, old: Rate, new: Rate, now: Nanos) {
        let used = u128::from(self.tat.saturating_sub(now));
        let scaled =
            used.saturating_mul(new.per_token.into()).div_ceil(old.per_token.max(1).into());
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX).min(FURTHEST);
        self.tat = now.saturating_add(scaled);
    }

    /// Tokens that a settled bucket is short of, rounded up.
    pub fn used(&self, rate: Rate, now: Nanos) -> u64 {
        self.tat.saturating_sub(now).div_ceil(rate.per_token.max(1))
    }

    /// Whether forgetting the bucket changes nothing.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.tat <= now && self.leased() == 0
    }
}

#[allow(clippy::cast_possible_truncation)] // Wraps after 36 years of uptime; compared wrapping.
pub fn epoch(now: Nanos) -> u32 {
    (now >> EPOCH_BITS) as u32
}

/// When the epoch that a time lies in is over.
pub fn epoch_end(now: Nanos) -> Nanos {
    (now >> EPOCH_BITS).saturating_add(1) << EPOCH_BITS
}

/// Until when a worker may spend a lease made in `epoch`: the bucket counts it to the end of the
/// next epoch.
pub fn lease_end(epoch: u32) -> Nanos {
    (u64::from(epoch).saturating_add(2) << EPOCH_BITS).saturating_sub(SAFETY)
}

#[cfg(test)]
#[path = "gcra_tests.rs"]
mod tests;
