//! What a process holds of one key: hits that the engine has counted and nobody has spent.
//!
//! A state machine without a clock or a store. Whatever becomes of it, lost, forgotten, written over, only
//! takes hits away: they come from the engine's answers alone.

use super::settings::Settings;
use super::wire::Answer;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// The next hits are fetched when this share of the last ones is left.
const LOW: u32 = 4;

/// A refusal without a word on its end is tried again after this, then after half of the time that it
/// has lasted: so a window's end is noticed within 50 ms or a third of the time spent refusing.
const FIRST_TRY: Nanos = 50_000_000;

/// What is asked after a refusal, as a share of what was refused: halves would cost twice the refusals at the
/// end of each window, and eighths would leave more of it.
const SHRINK: u32 = 4;

/// The last hits of a window are not worth a call each: so few are asked for even by one who is likely to get
/// less, and may be burnt by it.
const SCRAPS: u32 = 4;

/// For so long no more is asked than that. What is left of a window is spent sooner
/// than that where several processes ask, and the next window should not begin with small leases.
const SHRUNK: Nanos = 100_000_000;

/// However far away an engine says that its window ends, it is asked again after this: its limits may have
/// been changed.
const LAST_TRY: Nanos = 60_000_000_000;

/// A call that was answered by nobody, not even by Envoy, is given up so long after its timeout.
pub const GRACE: Nanos = 50_000_000;

/// One, as a share of what the engine hands out.
const WHOLE: u64 = 1 << 16;

/// Hits that can be spent until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lot {
    pub hits: u32,
    pub ends: Nanos,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub fingerprint: Fingerprint,
    /// The older one first.
    pub lots: [Lot; 2],
    /// How many were in hand right after the last answer, without those that ended since.
    pub fetched: u32,
    pub fetched_at: Nanos,
    /// What would last for `ahead`, as far as was seen.
    pub size: u32,
    /// Somebody is fetching until then.
    pub claimed_until: Nanos,
    /// The engine refused so many; 0: none. 1: everything.
    pub refused: u32,
    pub refused_at: Nanos,
    pub refused_until: Nanos,
    /// Where the engine told it.
    pub resets_at: Nanos,
    /// Hits that the engine has left, until then.
    pub room: u32,
    pub room_until: Nanos,
    /// What part of the hits that the engine hands out comes here.
    pub share: u32,
}

/// A request before its lease.
#[derive(Clone, Copy, Debug)]
pub struct Need<'s> {
    pub hits: u32,
    /// The most to fetch at once.
    pub most: u32,
    pub settings: &'s Settings,
    pub now: Nanos,
    /// It has asked before and was refused more than it needs.
    pub is_again: bool,
}

/// What is to be asked of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub hits: u32,
    /// Nobody else of this process fetches ahead meanwhile.
    pub is_claimed: bool,
    /// No more than the request itself needs.
    pub is_least: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// Spent. `fetch`: and more are wanted.
    Hits {
        left: u32,
        fetch: Option<Fetch>,
    },
    Refused {
        wait: Nanos,
    },
    /// The engine has to be asked.
    Nothing(Fetch),
}

impl Lease {
    pub fn new(fingerprint: Fingerprint, settings: &Settings) -> Lease {
        let share = WHOLE.checked_div(settings.instances.into()).unwrap_or(0);
        Lease { fingerprint, share: u32::try_from(share).unwrap_or(1), ..Lease::default() }
    }

    pub fn left(&self) -> u32 {
        let [older, newer] = self.lots;
        older.hits.saturating_add(newer.hits)
    }

    /// Whether forgetting it changes anything.
    pub fn is_idle(&self, now: Nanos) -> bool {
        let ended = self.lots.iter().all(|lot| lot.hits == 0 || now >= lot.ends);
        ended && now >= self.refused_until && now >= self.claimed_until
    }

    /// Whether the engine is known to refuse so many.
    pub fn is_refused(&self, hits: u32, now: Nanos) -> bool {
        self.refused > 0 && hits >= self.refused && now < self.refused_until
    }

    /// Spends what the request needs. `may_fetch` is asked where the engine would be.
    pub fn take(&mut self, need: Need<'_>, may_fetch: &mut dyn FnMut() -> bool) -> Option<Have> {
        let Need { hits, now, .. } = need;
        self.settle(now);
        let left = self.left();
        if let Some(rest) = left.checked_sub(hits) {
            self.spend(hits);
            let is_low = rest <= self.fetched / LOW;
            let wants =
                is_low && need.most > 1 && !self.is_claimed(need) && !self.is_refused(1, now);
            let fetch = if wants && may_fetch() { self.claim(need, 1) } else { None };
            return Some(Have::Hits { left: rest, fetch });
        }
        if self.is_refused(hits, now) {
            let until = if self.resets_at > now { self.resets_at } else { self.refused_until };
            return Some(Have::Refused { wait: until.saturating_sub(now) });
        }
        if !may_fetch() {
            return None;
        }
        let least = Fetch { hits, is_claimed: false, is_least: true };
        if need.is_again || self.is_claimed(need) {
            return Some(Have::Nothing(least));
        }
        Some(Have::Nothing(self.claim(need, hits).unwrap_or(least)))
    }

    /// The engine has granted `hits`, of which `served` are spent already.
    pub fn grant(&mut self, fetch: Fetch, served: u32, answer: &Answer, need: Need<'_>) {
        let Need { settings, now, .. } = need;
        self.settle(now);
        self.release(fetch);
        let lasts = answer.reset.map_or(settings.max_age, |reset| reset.most);
        let lot = Lot { hits: fetch.hits.saturating_sub(served), ends: now.saturating_add(lasts) };
        let [older, newer] = self.lots;
        let older = Lot {
            hits: older.hits.saturating_add(newer.hits),
            ends: match older.hits {
                0 => newer.ends,
                _ => older.ends.min(newer.ends),
            },
        };
        self.lots = [older, lot];
        self.fetched = self.left().saturating_add(served);
        self.fetched_at = now;
        let has_room = answer.remaining.is_some_and(|room| room >= self.refused);
        if self.refused <= fetch.hits || has_room {
            self.refused = 0;
            self.refused_until = 0;
        }
        // Where a refusal costs nothing, asking for too much is the quicker way to find out.
        let Some(room) = answer.remaining.filter(|_| answer.counts_refused) else {
            self.room_until = 0;
            return;
        };
        if now < self.room_until
            && let Some(given) = self.room.checked_sub(room).filter(|given| *given > 0)
        {
            let mine = u64::from(fetch.hits).saturating_mul(WHOLE);
            let mine = mine.checked_div(given.into()).unwrap_or(WHOLE).min(WHOLE);
            let share = mine.saturating_add(self.share.into()) / 2;
            self.share = u32::try_from(share).unwrap_or(1).max(1);
        }
        self.room = room;
        self.room_until = now.saturating_add(lasts);
    }

    /// The engine has refused.
    pub fn refuse(&mut self, fetch: Fetch, answer: &Answer, need: Need<'_>) {
        let Need { settings, now, .. } = need;
        self.settle(now);
        self.release(fetch);
        let is_spent = answer.counts_refused && answer.remaining == Some(0);
        if !fetch.is_least && !is_spent {
            // Fewer may pass: the next fetch is smaller.
            let lasts = answer.reset.map_or(SHRUNK, |reset| reset.most.min(SHRUNK));
            if !self.is_refused(fetch.hits, now) {
                (self.refused, self.refused_until) = (fetch.hits, now.saturating_add(lasts));
                self.resets_at = 0;
            }
            return;
        }
        let refused = if is_spent { 1 } else { fetch.hits };
        if self.refused == 0 || self.refused > refused {
            self.refused_at = now;
        }
        let lasted = now.saturating_sub(self.refused_at);
        let pause = (lasted / 2).clamp(FIRST_TRY, settings.max_age.max(FIRST_TRY));
        let told = answer.reset.map_or(0, |reset| reset.least.min(LAST_TRY));
        self.refused = refused;
        self.refused_until = now.saturating_add(pause.max(told));
        self.resets_at = answer.reset.map_or(0, |reset| now.saturating_add(reset.most));
    }

    /// A call has failed.
    pub fn release(&mut self, fetch: Fetch) {
        if fetch.is_claimed {
            self.claimed_until = 0;
            if self.refused == 1 {
                // Others were refused while it found out.
                self.refused_until = 0;
            }
        }
    }

    /// While one request finds out whether a silent engine is back, the policy decides about the others.
    pub fn lets_others_by(&mut self, before: &Lease) {
        self.refused_until = before.refused_until;
    }

    /// A hit that was not spent after all, while others of its kind can be.
    pub fn give_back(&mut self, hits: u32, now: Nanos) {
        self.settle(now);
        if let Some(lot) = self.lots.iter_mut().find(|lot| now < lot.ends) {
            lot.hits = lot.hits.saturating_add(hits);
        }
    }

    /// Drops what has ended.
    fn settle(&mut self, now: Nanos) {
        for lot in self.lots.iter_mut().filter(|lot| now >= lot.ends) {
            self.fetched = self.fetched.saturating_sub(lot.hits);
            *lot = Lot::default();
        }
    }

    fn spend(&mut self, hits: u32) {
        let [older, newer] = &mut self.lots;
        let first = older.hits.min(hits);
        older.hits = older.hits.saturating_sub(first);
        newer.hits = newer.hits.saturating_sub(hits.saturating_sub(first));
    }

    /// A claim lies never further ahead than this; another clock's would lock the key.
    fn is_claimed(&self, need: Need<'_>) -> bool {
        let rest = self.claimed_until.saturating_sub(need.now);
        rest > 0 && rest <= need.settings.patience()
    }

    /// Decides how much to ask for, and keeps others from doing so. `None` where the engine would refuse.
    fn claim(&mut self, need: Need<'_>, least: u32) -> Option<Fetch> {
        let Need { now, most, settings, .. } = need;
        let until = now.saturating_add(settings.patience());
        let mut hits = least;
        if self.refused == 1 {
            // The refusal may be over: one request finds out, the others are refused until then.
            self.refused_until = until;
        } else {
            self.size = self.appetite(settings.ahead, now).min(most);
            hits = self.size;
            if self.refused > 0 && now < self.refused_until {
                hits = hits.min(self.refused / SHRINK);
            }
            if now < self.room_until {
                // The part that is likely to be ours: the others ask as well.
                let part = u64::from(self.room).saturating_mul(self.share.into());
                let part = u32::try_from(part.checked_div(WHOLE).unwrap_or(0)).unwrap_or(u32::MAX);
                hits = hits.min(part.max(SCRAPS).min(self.room));
            }
            hits = hits.max(least);
        }
        if self.is_refused(hits, now) && self.refused > 1 {
            return None;
        }
        self.claimed_until = until;
        Some(Fetch { hits, is_claimed: true, is_least: hits == least })
    }

    /// As many as were spent in the time that leases are to last; at most twice as many as the last time, so
    /// that two requests at once do not make a crowd.
    fn appetite(&self, ahead: Nanos, now: Nanos) -> u32 {
        if self.refused == 1 || self.fetched_at == 0 {
            return self.size.max(1);
        }
        let spent = u128::from(self.fetched.saturating_sub(self.left()));
        let took = now.saturating_sub(self.fetched_at).max(1);
        let wanted = spent.saturating_mul(ahead.into()).checked_div(took.into()).unwrap_or(0);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        wanted.clamp(1, self.size.saturating_mul(2).max(1))
    }
}

impl Settings {
    /// How long a call may take, all told.
    pub fn patience(&self) -> Nanos {
        self.timeout.saturating_add(GRACE)
    }
}
