//! Moves a share with the observed rate.
//!
//! Each worker counts the requests that the rule means and adds them, each tick, to one shared value: a
//! ring of slots over two seconds. The share follows the rate of the slots that are over, so that it
//! moves four times a second at the most, and not with every request.

use std::cell::Cell;

use weir_protos::FieldError;
use weir_protos::v1::Auto as Source;

use crate::core::bytes::Reader;
use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

const SLOT: Nanos = 250_000_000;
/// Eight that are over, and the one being filled.
const SLOTS: usize = 9;
const PER_SECOND: u64 = 1_000_000_000 / SLOT;

/// Real traffic needs 1.02 tries; past this the counts wait for the next tick.
const TRIES: u32 = 8;

#[derive(Debug)]
pub struct Auto {
    key: Vec<u8>,
    max: u16,
    /// Requests a second.
    floor: f64,
    full: f64,
    gathered: u32,
    weight: Cell<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Value {
    /// Of the youngest slot, in slots since the clock began.
    now: u64,
    slots: [u32; SLOTS],
}

impl Auto {
    /// `key` is the place in shared data; `full` the first share's weight.
    #[cold]
    pub fn compile(source: &Source, key: &str, path: &str) -> Result<Auto, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let max = u16::try_from(source.max_weight).ok().filter(|max| (1..=10_000).contains(max));
        let max = max.ok_or_else(|| {
            let remedy = "must be from 1 to 10000, in parts of 10000";
            FieldError::value(at("max_weight"), source.max_weight, remedy)
        })?;
        let floor = source.qps_floor.unwrap_or(0.0);
        if !(0.0..=1_000_000.0).contains(&floor) {
            return Err(FieldError::number(at("qps_floor"), floor, "must be from 0 to 1000000"));
        }
        let full = source.qps_full.ok_or_else(|| {
            FieldError::at(at("qps_full"), "is missing; say from which rate on the share is whole")
        })?;
        if !(full > floor && full <= 1_000_000.0) {
            let remedy = "must be above `qps_floor`, and at most 1000000";
            return Err(FieldError::number(at("qps_full"), full, remedy));
        }
        let key = key.as_bytes().to_vec();
        Ok(Auto { key, max, floor, full, gathered: 0, weight: Cell::new(0) })
    }

    /// Makes the value where it is missing, and learns the rate. Called while a policy is configured,
    /// on the main thread first.
    pub fn prepare(&mut self, now: Nanos, store: &mut impl SharedStore) {
        match store.get(&self.key).and_then(|(bytes, _)| Value::read(&bytes)) {
            Some(mut value) => {
                value.turn_to(now / SLOT);
                self.weight.set(self.weight_of(value.rate()));
            }
            None => {
                let fresh = Value { now: now / SLOT, ..Value::default() };
                let _ = store.set(&self.key, &fresh.write(), BLIND);
            }
        }
    }

    /// A request that the rule means.
    pub fn count(&mut self) {
        self.gathered = self.gathered.saturating_add(1);
    }

    /// Adds what has gathered and follows the rate.
    pub fn tick(&mut self, now: Nanos, store: &mut impl SharedStore) {
        for _ in 0..TRIES {
            let (bytes, cas) = store.get(&self.key).unwrap_or((Vec::new(), BLIND));
            let mut value = Value::read(&bytes).unwrap_or_default();
            value.turn_to(now / SLOT);
            self.weight.set(self.weight_of(value.rate()));
            if self.gathered == 0 {
                return;
            }
            value.add(self.gathered);
            match store.set(&self.key, &value.write(), cas) {
                Ok(()) => {
                    self.gathered = 0;
                    return;
                }
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => return,
            }
        }
    }

    /// Basis points in force.
    pub fn weight(&self) -> u16 {
        self.weight.get()
    }

    fn weight_of(&self, rate: f64) -> u16 {
        let part = ((rate - self.floor) / (self.full - self.floor)).clamp(0.0, 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 10 000.
        let weight = (part * f64::from(self.max)).floor() as u16;
        weight.min(self.max)
    }
}

impl Value {
    fn turn_to(&mut self, slot: u64) {
        let ahead = slot.saturating_sub(self.now);
        if slot < self.now && self.now.saturating_sub(slot) < 2 {
            // Another worker read the clock a little later.
            return;
        }
        if slot < self.now || ahead >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        } else {
            for gone in (0..ahead).map(|step| self.now.saturating_add(step).saturating_add(1)) {
                if let Some(count) = self.slots.get_mut(place(gone)) {
                    *count = 0;
                }
            }
        }
        self.now = slot;
    }

    fn add(&mut self, requests: u32) {
        if let Some(count) = self.slots.get_mut(place(self.now)) {
            *count = count.saturating_add(requests);
        }
    }

    /// Requests a second over the slots that are over.
    fn rate(&self) -> f64 {
        let current = place(self.now);
        let over = self.slots.iter().enumerate().filter(|(place, _)| *place != current);
        let requests: u64 = over.map(|(_, count)| u64::from(*count)).fold(0, u64::saturating_add);
        #[allow(clippy::cast_precision_loss)] // Far below 2^53.
        let (requests, slots) = (requests as f64, (SLOTS as u64 - 1) as f64);
        requests * PER_SECOND as f64 / slots
    }

    fn read(bytes: &[u8]) -> Option<Value> {
        let mut reader = Reader(bytes);
        let mut value = Value { now: reader.u64()?, ..Value::default() };
        for count in &mut value.slots {
            *count = reader.u32()?;
        }
        reader.0.is_empty().then_some(value)
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = self.now.to_le_bytes().to_vec();
        self.slots.iter().for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
        bytes
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Process;
    use proptest::prelude::*;

    fn auto() -> Auto {
        let source = Source { max_weight: 1500, qps_floor: Some(100.0), qps_full: Some(300.0) };
        Auto::compile(&source, "k", "p").unwrap()
    }

    /// So many requests a second for so many tenths of a second, over two workers.
    fn run(process: &Process, workers: &mut [Auto; 2], rate: u32, tenths: u32) {
        for _ in 0..tenths {
            for (n, worker) in workers.iter_mut().enumerate() {
                (0..rate / 20).for_each(|_| worker.count());
                worker.tick(process.now(), &mut process.ports(n as u64));
            }
            process.advance(100_000_000);
        }
    }

    #[test]
    fn the_share_follows_the_rate_and_stays_under_its_cap() {
        let process = Process::start();
        let mut workers = [auto(), auto()];
        workers.iter_mut().for_each(|worker| worker.prepare(process.now(), &mut process.ports(9)));
        for (rate, least, most) in
            [(80, 0, 0), (200, 650, 850), (1000, 1500, 1500), (200, 650, 850), (40, 0, 0)]
        {
            run(&process, &mut workers, rate, 40);
            for worker in &workers {
                assert!((least..=most).contains(&worker.weight()), "{rate}/s: {}", worker.weight());
            }
        }
        // A new policy with the same numbers knows the rate from the start.
        run(&process, &mut workers, 200, 40);
        let mut edited = auto();
        edited.prepare(process.now(), &mut process.ports(3));
        assert!((650..=850).contains(&edited.weight()));
    }

    #[test]
    fn a_clock_that_steps_freezes_nothing() {
        let process = Process::start();
        let mut workers = [auto(), auto()];
        run(&process, &mut workers, 1000, 30);
        process.set_time(process.now() - 500_000_000_000);
        run(&process, &mut workers, 1000, 30);
        assert_eq!(workers[0].weight(), 1500);
        process.advance(3_600_000_000_000);
        run(&process, &mut workers, 40, 30);
        assert_eq!(workers[0].weight(), 0);
    }

    proptest! {
        #[test]
        fn never_above_the_cap(steps in proptest::collection::vec((0_u32..5000, 0_u64..2_000_000_000), 1..60)) {
            let process = Process::start();
            let mut auto = auto();
            let mut ports = process.ports(1);
            for (requests, time) in steps {
                (0..requests).for_each(|_| auto.count());
                auto.tick(process.now(), &mut ports);
                prop_assert!(auto.weight() <= 1500);
                process.advance(time);
            }
        }

        #[test]
        fn whatever_stands_in_shared_data(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let process = Process::start();
            let mut ports = process.ports(1);
            ports.set(b"k", &bytes, BLIND).unwrap();
            let mut auto = auto();
            auto.prepare(process.now(), &mut ports);
            auto.count();
            auto.tick(process.now(), &mut ports);
            prop_assert!(auto.weight() <= 1500);
        }
    }
}
