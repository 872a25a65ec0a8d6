//! Workers as real threads, in hostile orders of their gets and compare-and-sets.

use proptest::prelude::*;

use super::record::tests::trace;
use super::*;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;
use crate::sim::{Process, Schedule, SimPorts};

const TTL: Nanos = 60_000_000_000;
const WORKERS: usize = 4;

fn records() -> Records {
    Records::new("shop", TTL, 1024)
}

/// Runs the same on each worker, in an order by the seed.
fn race<T: Send>(
    process: &Process,
    seed: u64,
    run: impl Fn(usize, Records, &mut SimPorts) -> T + Sync,
) -> Vec<T> {
    let schedule = Schedule::new(seed, WORKERS);
    let work = |worker: usize| {
        let mut ports = process.ports(worker as u64).scheduled(&schedule, worker);
        let result = run(worker, records(), &mut ports);
        schedule.leave();
        result
    };
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..WORKERS).map(|n| scope.spawn(move || work(n))).collect();
        running.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

fn of(id: Fingerprint, worker: usize) -> Record {
    Record { trace: Some(trace(u128::from(id) + 1, worker as u64 + 1)), ..Record::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each worker records ids of its own, all in one set, and looks up everybody's.
    #[test]
    fn a_race_loses_no_record(seed in any::<u64>()) {
        let process = Process::start();
        records().prepare(process.now(), &mut process.ports(9));
        let now = process.now();
        let id = |worker: usize, n: usize| ((worker * 2 + n) as u64) << 20;
        let lost = race(&process, seed, |worker, records, ports| {
            // Each takes the policy for itself, as workers do.
            records.prepare(now, ports);
            let mut lost = 0;
            for n in 0..2 {
                let mine = id(worker, n);
                let outcome = records.record(mine, &of(mine, worker), Scope::Request, now, ports);
                lost += usize::from(outcome != Outcome::Recorded);
                for other in 0..WORKERS {
                    let theirs = id(other, n);
                    let found = records.look(theirs, now, ports);
                    assert!(found == Found::Missing || found == Found::Record(of(theirs, other)));
                }
            }
            lost
        });
        // Two records of each of three others cannot win eight times in a row.
        prop_assert_eq!(lost.iter().sum::<usize>(), 0);
        for (worker, n) in (0..WORKERS).flat_map(|worker| [(worker, 0), (worker, 1)]) {
            let found = records().look(id(worker, n), now, &mut process.ports(9));
            prop_assert_eq!(found, Found::Record(of(id(worker, n), worker)));
        }
    }

    /// All workers have a request with the same id: once two have recorded, none is restored.
    #[test]
    fn a_race_for_one_id_restores_nothing_of_another(seed in any::<u64>()) {
        let process = Process::start();
        records().prepare(process.now(), &mut process.ports(9));
        let now = process.now();
        let mine = |worker: usize| of(worker as u64, worker);
        let outcomes = race(&process, seed, |worker, records, ports| {
            let outcome = records.record(5, &mine(worker), Scope::Request, now, ports);
            let found = records.look(5, now, ports);
            assert!(found == Found::Ambiguous || found == Found::Record(mine(worker)), "{found:?}");
            outcome
        });
        let first = outcomes.iter().filter(|outcome| **outcome == Outcome::Recorded).count();
        prop_assert_eq!((first, outcomes.len()), (1, WORKERS));
        prop_assert_eq!(records().look(5, now, &mut process.ports(9)), Found::Ambiguous);
    }
}
