//! A number of traces a second over all workers, for the floor and the ceiling of a sampling rule.
//!
//! A bucket kept as a point in time, in one shared value of 8 bytes under compare-and-set. It holds a
//! tenth of a second's worth, at least one trace: over any time at most `rate x time` and that.

use std::cell::Cell;

use weir_protos::FieldError;

use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

const S: Nanos = 1_000_000_000;

/// Real traffic needs 1.02 tries; past this the trace goes without.
const TRIES: u32 = 8;

#[derive(Debug)]
pub struct Pace {
    key: Vec<u8>,
    per_trace: Nanos,
    /// How far ahead of now the bucket may be booked.
    depth: Nanos,
    /// Until then there is nothing to be had, as this worker knows: most requests need no look.
    closed_until: Cell<Nanos>,
}

impl Pace {
    /// `per_second` is checked here; `key` is the place in shared data.
    #[cold]
    pub fn compile(per_second: f64, key: String, path: &str) -> Result<Pace, FieldError> {
        if !(0.001..=100_000.0).contains(&per_second) {
            return Err(FieldError::number(path, per_second, "must be from 0.001 to 100000"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 10^12.
        let per_trace = (1e9 / per_second).ceil() as Nanos;
        let depth = per_trace.max(S / 10);
        Ok(Pace { key: key.into_bytes(), per_trace, depth, closed_until: Cell::new(0) })
    }

    /// Makes the value where it is missing; called while a policy is configured, on the main thread
    /// first.
    pub fn prepare(&self, store: &mut impl SharedStore) {
        if store.get(&self.key).is_none() {
            let _ = store.set(&self.key, &0_u64.to_le_bytes(), BLIND);
        }
    }

    /// Takes one trace, where there is one.
    pub fn take(&self, now: Nanos, store: &mut impl SharedStore) -> bool {
        let closed_until = self.closed_until.get();
        // Further away than the depth is a clock that stepped back.
        if closed_until > now && closed_until.saturating_sub(now) <= self.depth {
            return false;
        }
        for _ in 0..TRIES {
            let found = store.get(&self.key);
            let (bytes, cas) = found.unwrap_or((Vec::new(), BLIND));
            let booked = bytes.try_into().map_or(0, u64::from_le_bytes);
            let latest = now.saturating_add(self.depth);
            let next = booked.clamp(now, latest).saturating_add(self.per_trace);
            if next > latest {
                if booked > latest {
                    // By a clock that has stepped back since; left so, it would close for as long.
                    let _ = store.set(&self.key, &latest.to_le_bytes(), cas);
                }
                self.closed_until.set(now.saturating_add(next.saturating_sub(latest)));
                return false;
            }
            match store.set(&self.key, &next.to_le_bytes(), cas) {
                Ok(()) => return true,
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Process, Schedule};
    use proptest::prelude::*;

    fn pace(per_second: f64) -> Pace {
        Pace::compile(per_second, "k".into(), "p").unwrap()
    }

    #[test]
    fn ten_a_second_are_ten() {
        let process = Process::start();
        let (pace, mut ports) = (pace(10.0), process.ports(1));
        pace.prepare(&mut ports);
        let mut taken = 0;
        for _ in 0..1000 {
            taken += u32::from(pace.take(process.now(), &mut ports));
            process.advance(S / 100);
        }
        assert!((100..=101).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_steps_back_freezes_nothing() {
        let process = Process::start();
        let (pace, mut ports) = (pace(1.0), process.ports(1));
        assert!(pace.take(process.now(), &mut ports));
        assert!(!pace.take(process.now(), &mut ports));
        let earlier = process.now() - 100 * S;
        assert!(!pace.take(earlier, &mut ports));
        assert!(pace.take(earlier + S, &mut ports));
    }

    proptest! {
        /// Over any time no more than rate x time and what the bucket holds, whatever the order of
        /// the workers.
        #[test]
        fn never_more_than_the_pace(rate in 1_u32..200, steps in proptest::collection::vec(0_u64..50, 1..200)) {
            let process = Process::start();
            let mut ports = process.ports(1);
            let workers: Vec<Pace> = (0..3).map(|_| pace(f64::from(rate))).collect();
            let (start, mut taken) = (process.now(), 0_u64);
            for (turn, step) in steps.iter().enumerate() {
                process.advance(step * 1_000_000);
                taken += u64::from(workers[turn % 3].take(process.now(), &mut ports));
                let time = process.now() - start;
                let most = u64::from(rate) * time / S + u64::from(rate) / 10 + 1;
                prop_assert!(taken <= most, "{taken} in {time} ns");
            }
        }
    }

    #[test]
    fn a_race_takes_no_more() {
        for seed in 0..30 {
            let process = Process::start();
            pace(10.0).prepare(&mut process.ports(0));
            let schedule = Schedule::new(seed, 4);
            let threads: Vec<_> = (0..4)
                .map(|worker| {
                    let (process, schedule) = (process.clone(), schedule.clone());
                    std::thread::spawn(move || {
                        let mut ports = process.ports(worker as u64).scheduled(&schedule, worker);
                        let pace = pace(10.0);
                        let taken = (0..5).filter(|_| pace.take(process.now(), &mut ports)).count();
                        schedule.leave();
                        taken
                    })
                })
                .collect();
            let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(taken, 1, "seed {seed}");
        }
    }
}
