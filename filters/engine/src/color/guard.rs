//! Compares a color with the base, as this proxy sees both, and cuts it off by itself.
//!
//! Workers gather what ended and add it, each tick, to one shared value under compare-and-set: a ring of
//! slots over the window. Whoever's addition shows a color that does worse, by the policy's bound, not
//! by chance and not in one short moment alone, latches the value; all workers see that at their next
//! tick. It stays so until an edit of `reset`. Counts are of requests, so the value is of one size
//! whatever the traffic.

use std::cell::Cell;

use weir_protos::FieldError;
use weir_protos::v1::Guard as Source;

use super::hash::fnv1a32;
use super::latency::{CELLS, Histogram};
use crate::core::bytes::Reader;
use crate::core::checks::duration;
use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// Slots of the window; the oldest is being forgotten, so seven eighths count at any time.
const SLOTS: usize = 8;

/// Real traffic needs 1.02 tries; past this the counts wait for the next tick.
const TRIES: u32 = 8;

/// Of one side of the normal distribution, once in 300 000.
const Z: f64 = 4.5;

const DEFAULT_MIN_REQUESTS: u32 = 200;
const DEFAULT_WINDOW: Nanos = 10 * S;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Color,
    Base,
}

/// Why a guard tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tripped {
    Errors,
    Latency,
}

#[derive(Debug)]
pub struct Guard {
    key: Vec<u8>,
    min_requests: u64,
    /// Shares, 0 to 1.
    error_delta: Option<f64>,
    slow_delta: Option<f64>,
    slot: Nanos,
    reset: u32,
    /// Since the last tick.
    gathered: [Tally; 2],
    tripped: Cell<bool>,
}

/// What became of the requests of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    requests: u32,
    errors: u32,
    latency: Histogram,
}

/// The shared value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Value {
    reset: u32,
    is_tripped: bool,
    /// Of the youngest slot, in slots since the clock began.
    now: u64,
    slots: [[Tally; 2]; SLOTS],
}

impl Guard {
    /// `key` is the place in shared data.
    #[cold]
    pub fn compile(source: &Source, key: &str, path: &str) -> Result<Guard, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let min_requests = source.min_requests.unwrap_or(DEFAULT_MIN_REQUESTS);
        if !(20..=1_000_000).contains(&min_requests) {
            let remedy = "must be from 20 to 1000000";
            return Err(FieldError::value(at("min_requests"), min_requests, remedy));
        }
        let points = |given: Option<f64>, most: f64, field: &str| match given {
            Some(points) if !(0.1..=most).contains(&points) => {
                Err(FieldError::number(at(field), points, format!("must be from 0.1 to {most}")))
            }
            points => Ok(points.map(|points| points / 100.0)),
        };
        let error_delta = points(source.error_delta_points, 100.0, "error_delta_points")?;
        let slow_delta = points(source.slow_share_delta_points, 95.0, "slow_share_delta_points")?;
        if error_delta.is_none() && slow_delta.is_none() {
            let remedy = "must have `error_delta_points` or `slow_share_delta_points`";
            return Err(FieldError::at(path, remedy));
        }
        if source.reset.len() > 64 {
            let remedy = "must be at most 64 bytes";
            return Err(FieldError::value(at("reset"), format_args!("{:?}", source.reset), remedy));
        }
        let window = duration(source.window.as_ref(), 500 * MS..=600 * S, &at("window"))?;
        let window = window.unwrap_or(DEFAULT_WINDOW);
        Ok(Guard {
            key: key.as_bytes().to_vec(),
            min_requests: min_requests.into(),
            error_delta,
            slow_delta,
            slot: (window / SLOTS as u64).max(1),
            reset: fnv1a32(&[source.reset.as_bytes()]),
            gathered: [Tally::default(); 2],
            tripped: Cell::new(false),
        })
    }

    /// Makes the value where it is missing, and learns what it says. Called while a policy is
    /// configured, on the main thread first.
    pub fn prepare(&mut self, now: Nanos, store: &mut impl SharedStore) {
        match store.get(&self.key).map(|(bytes, _)| Value::read(&bytes)) {
            Some(Some(value)) => self.tripped.set(value.is_tripped && value.reset == self.reset),
            Some(None) | None => {
                let fresh = Value { reset: self.reset, now: now / self.slot, ..Value::default() };
                let _ = store.set(&self.key, &fresh.write(), BLIND);
            }
        }
    }

    /// A request of a group has ended.
    pub fn record(&mut self, group: Group, is_error: bool, latency: Nanos) {
        if let Some(tally) = self.gathered.get_mut(group as usize) {
            tally.requests = tally.requests.saturating_add(1);
            tally.errors = tally.errors.saturating_add(is_error.into());
            tally.latency.record(latency);
        }
    }

    /// As if it had, until the next tick.
    #[cfg(any(test, feature = "sim"))]
    pub fn trip(&self) {
        self.tripped.set(true);
    }

    pub fn is_tripped(&self) -> bool {
        self.tripped.get()
    }

    /// Adds what has gathered and looks at the whole. Gives the reason to the one worker whose tick
    /// tripped it.
    pub fn tick(&mut self, now: Nanos, store: &mut impl SharedStore) -> Option<Tripped> {
        let has_news = self.gathered.iter().any(|tally| tally.requests > 0);
        for _ in 0..TRIES {
            let found = store.get(&self.key);
            let (bytes, cas) = found.unwrap_or((Vec::new(), BLIND));
            let mut value = Value::read(&bytes).unwrap_or_default();
            if value.reset != self.reset {
                // An edit asks for a new start.
                value = Value { reset: self.reset, now: now / self.slot, ..Value::default() };
            } else if value.is_tripped || !has_news {
                self.tripped.set(value.is_tripped);
                // While it is off there is nothing to compare.
                self.gathered = [Tally::default(); 2];
                return None;
            }
            value.turn_to(now / self.slot);
            value.add(&self.gathered);
            let tripped = self.judge(&value);
            value.is_tripped = tripped.is_some();
            match store.set(&self.key, &value.write(), cas) {
                Ok(()) => {
                    self.gathered = [Tally::default(); 2];
                    self.tripped.set(value.is_tripped);
                    return tripped;
                }
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => return None,
            }
        }
        None
    }

    fn judge(&self, value: &Value) -> Option<Tripped> {
        let sums = value.sums();
        let [color, base] = &sums;
        let enough = |tally: &Tally| u64::from(tally.requests) >= self.min_requests;
        if !enough(color) || !enough(base) {
            return None;
        }
        let errors = |tally: &Tally| tally.errors;
        // What is left where the worst moment is left out.
        let least = self.min_requests / 2;
        if self.error_delta.is_some_and(|delta| value.is_worse(&sums, errors, delta, least)) {
            return Some(Tripped::Errors);
        }
        // What lies in the next cell as well may be slower by a hair: at least a third it has to be.
        let bound = base.latency.percentile_95().saturating_add(1);
        let slow = |tally: &Tally| tally.latency.above(bound);
        let is_slow =
            self.slow_delta.is_some_and(|delta| value.is_worse(&sums, slow, delta, least));
        is_slow.then_some(Tripped::Latency)
    }
}

/// Events, of so many requests.
type Count = (f64, f64);

/// Whether one share is above another beyond chance: the pooled z and the likelihood ratio both say so.
/// The z alone is too sure of small groups with few events. Of 200 requests against 3800, alike at 0.1 %
/// errors, one window in 900 reaches 4.5; with the ratio beside it fewer than one in 200 000 do.
fn is_beyond_chance((events, requests): Count, (base_events, base): Count) -> bool {
    let (all, of) = (events + base_events, requests + base);
    let pooled = all / of;
    let deviation = (pooled * (1.0 - pooled) * (1.0 / requests + 1.0 / base)).sqrt();
    // Without any spread there is nothing to tell apart.
    let z =
        if deviation > 0.0 { (events / requests - base_events / base) / deviation } else { 0.0 };
    let term =
        |seen: f64, expected: f64| if seen > 0.0 { seen * (seen / expected).ln() } else { 0.0 };
    let group = |events: f64, requests: f64| {
        term(events, requests * pooled) + term(requests - events, requests * (1.0 - pooled))
    };
    let ratio = 2.0 * (group(events, requests) + group(base_events, base));
    z >= Z && ratio >= Z * Z
}

impl Value {
    /// Forgets the slots that are over. A clock that stepped back, or far ahead, starts anew.
    fn turn_to(&mut self, slot: u64) {
        let ahead = slot.saturating_sub(self.now);
        if slot < self.now && self.now.saturating_sub(slot) < 2 {
            // Another worker read the clock a little later.
            return;
        }
        if slot < self.now || ahead >= SLOTS as u64 {
            self.slots = Default::default();
        } else {
            for gone in (0..ahead).map(|step| self.now.saturating_add(step).saturating_add(1)) {
                if let Some(slot) = self.slots.get_mut(place(gone)) {
                    *slot = Default::default();
                }
            }
        }
        self.now = slot;
    }

    fn add(&mut self, gathered: &[Tally; 2]) {
        if let Some(slot) = self.slots.get_mut(place(self.now)) {
            slot.iter_mut().zip(gathered).for_each(|(sum, more)| sum.add(more));
        }
    }

    fn sums(&self) -> [Tally; 2] {
        let mut sums = [Tally::default(); 2];
        for slot in &self.slots {
            sums.iter_mut().zip(slot).for_each(|(sum, more)| sum.add(more));
        }
        sums
    }

    /// Whether the share of events is above the base's by `delta` and beyond chance, and not only for
    /// the sake of one moment: requests that one stall or one lost connection took along are one event.
    /// A moment lies in two slots at most.
    fn is_worse(
        &self,
        sums: &[Tally; 2],
        events: impl Fn(&Tally) -> u32,
        delta: f64,
        least: u64,
    ) -> bool {
        let count = |tally: &Tally| (f64::from(events(tally)), f64::from(tally.requests));
        let mut slots = self.slots.each_ref().map(|slot| slot.each_ref().map(count));
        slots.sort_unstable_by(|[one, _], [other, _]| one.0.total_cmp(&other.0));
        let mut without = [(0.0, 0.0); 2];
        for slot in slots.iter().take(SLOTS.saturating_sub(2)) {
            without.iter_mut().zip(slot).for_each(|(sum, more)| {
                *sum = (sum.0 + more.0, sum.1 + more.1);
            });
        }
        let is_above = |[color, base]: [Count; 2]| {
            color.1 > 0.0 && base.1 > 0.0 && color.0 / color.1 - base.0 / base.1 >= delta
        };
        #[allow(clippy::cast_precision_loss)] // At most half a million.
        let is_enough = without.iter().all(|(_, requests)| *requests >= least as f64);
        let [color, base] = sums.each_ref().map(count);
        is_above([color, base]) && is_enough && is_above(without) && is_beyond_chance(color, base)
    }

    fn read(bytes: &[u8]) -> Option<Value> {
        let mut reader = Reader(bytes);
        let mut value = Value {
            reset: reader.u32()?,
            is_tripped: reader.u8()? == 1,
            now: reader.u64()?,
            ..Value::default()
        };
        for tally in value.slots.iter_mut().flatten() {
            tally.requests = reader.u32()?;
            tally.errors = reader.u32()?;
            tally.latency = Histogram::read(&mut reader)?;
        }
        reader.0.is_empty().then_some(value)
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(SLOTS.saturating_mul(2 * (CELLS * 2 + 8)).saturating_add(13));
        bytes.extend_from_slice(&self.reset.to_le_bytes());
        bytes.push(self.is_tripped.into());
        bytes.extend_from_slice(&self.now.to_le_bytes());
        for tally in self.slots.iter().flatten() {
            bytes.extend_from_slice(&tally.requests.to_le_bytes());
            bytes.extend_from_slice(&tally.errors.to_le_bytes());
            tally.latency.write(&mut bytes);
        }
        bytes
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

impl Tally {
    fn add(&mut self, more: &Tally) {
        self.requests = self.requests.saturating_add(more.requests);
        self.errors = self.errors.saturating_add(more.errors);
        self.latency.add(&more.latency);
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
