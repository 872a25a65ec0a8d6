//! Several workers on one simulated process, in hostile orders.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Decision;
use super::cell::{PERMIT_LEASE, State};
use super::testkit::{Ending, Vm, one_rule};
use super::window::Sums;
use crate::sim::{Process, Schedule};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
const SYNC: u64 = 50 * MS;

fn start(process: &Process, policy: &str, workers: u64) -> Vec<Vm> {
    (1..=workers).map(|number| Vm::start(process, policy, number)).collect()
}

/// A process whose breaker is open and about to let probes through.
fn before_half_open(fields: &str, workers: u64) -> (Process, Vec<Vm>, String) {
    let policy = one_rule(&format!("minimum_calls: 1\nopen_duration: 10s\n{fields}"));
    let process = Process::start();
    let mut vms = start(&process, &policy, workers);
    vms[0].call(Ending::FAILED);
    process.advance(10 * S);
    (process, vms, policy)
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Arrive(usize),
    /// Ends one of the worker's calls in flight.
    End(usize, usize, u8),
    Tick(usize),
    /// All workers get the same policy anew.
    Reload,
    /// The worker's VM traps: its calls are gone, and what it had not handed over.
    Die(usize),
}

fn events(workers: usize, deaths: u32) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_u64..300 * MS).prop_map(Event::Wait),
        2 => (0_u64..4 * S).prop_map(Event::Wait),
        20 => (0..workers).prop_map(Event::Arrive),
        20 => (0..workers, 0_usize..8, 0_u8..10).prop_map(|(worker, which, how)| Event::End(worker, which, how)),
        8 => (0..workers).prop_map(Event::Tick),
        1 => Just(Event::Reload),
        deaths => (0..workers).prop_map(Event::Die),
    ];
    proptest::collection::vec(event, 1..300)
}

fn ending(how: u8) -> Ending {
    match how {
        0..=3 => Ending::FAILED,
        4 => Ending::RESET,
        5 => Ending::GONE,
        6 => Ending::REFUSED,
        _ => Ending::OK,
    }
}

/// `Some(failed)` for what counts.
fn counts(how: u8) -> Option<bool> {
    match how {
        0..=4 => Some(true),
        5 | 6 => None,
        _ => Some(false),
    }
}

const PROBES: u32 = 3;
const MINIMUM: u32 = 6;

fn policy() -> String {
    one_rule(&format!(
        "window: {{time: {{duration: 5s, buckets: 5}}}}\nminimum_calls: {MINIMUM}\n\
         half_open_probes: {PROBES}\nhalf_open_success_percent: 60\nopen_duration: 1s\n\
         max_open_duration: 4s\nhalf_open_max_wait: 3s"
    ))
}

struct Story {
    process: Process,
    vms: Vec<Vm>,
    flying: Vec<Vec<Decision>>,
    /// Calls that ended in each generation: when, and whether they failed.
    ended: BTreeMap<u32, Vec<(u64, bool)>>,
}

impl Story {
    fn new(workers: u64) -> Story {
        let process = Process::start();
        let vms = start(&process, &policy(), workers);
        let flying = (0..workers).map(|_| Vec::new()).collect();
        Story { process, vms, flying, ended: BTreeMap::new() }
    }

    /// Probes in flight of the present generation.
    fn probes(&mut self) -> usize {
        let cell = self.vms[0].cell();
        let calls = self.flying.iter().flatten().filter_map(|decision| decision.call.as_ref());
        calls
            .filter_map(|call| call.ticket())
            .filter(|(generation, permit)| permit.is_some() && *generation == cell.generation)
            .count()
    }

    fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let before = self.vms[0].cell();
        match *event {
            Event::Wait(time) => {
                // Live workers tick while time passes, or their permits would run out.
                for _ in 0..time / S {
                    self.process.advance(S);
                    self.vms.iter_mut().for_each(Vm::tick);
                }
                self.process.advance(time % S);
            }
            Event::Arrive(worker) => {
                let decision = self.vms[worker].get();
                if decision.passes() {
                    self.flying[worker].push(decision);
                }
            }
            Event::End(worker, which, how) => {
                let flying = &mut self.flying[worker];
                if flying.is_empty() {
                    return Ok(());
                }
                let decision = flying.swap_remove(which % flying.len());
                let call = decision.call.as_ref().unwrap();
                let (generation, permit) = call.ticket().unwrap();
                if let (None, Some(failed)) = (permit, counts(how)) {
                    let now = self.process.now();
                    self.ended.entry(generation).or_default().push((now, failed));
                }
                self.vms[worker].end(decision, ending(how));
                if permit.is_some() && generation != before.generation {
                    prop_assert_eq!(&self.vms[0].cell(), &before, "an older generation's probe");
                }
            }
            Event::Tick(worker) => self.vms[worker].tick(),
            Event::Reload => self.vms.iter_mut().for_each(|vm| vm.reload(&policy())),
            Event::Die(worker) => {
                self.flying[worker].clear();
                self.vms[worker] = Vm::start(&self.process, &policy(), 77 + worker as u64);
            }
        }
        let after = self.vms[0].cell();
        prop_assert!(self.probes() <= PROBES as usize, "{} probes in flight", self.probes());
        if before.state == State::Closed && after.state == State::Open {
            let ended = self.ended.get(&before.generation).map_or(0, Vec::len);
            prop_assert!(ended >= MINIMUM as usize, "opened after {ended} calls");
        }
        prop_assert!(after.generation >= before.generation);
        Ok(())
    }

    /// All that workers hold is handed over.
    fn hand_over(&mut self) {
        self.process.advance(SYNC);
        self.vms.iter_mut().for_each(Vm::tick);
    }

    fn recount(&self, generation: u32) -> Sums {
        let current = self.process.now() / S;
        let ended = self.ended.get(&generation).into_iter().flatten();
        let counted = ended.filter(|(at, _)| at / S + 5 > current);
        counted.fold(Sums::default(), |sums, (_, failed)| Sums {
            total: sums.total + 1,
            failed: sums.failed + u32::from(*failed),
            slow: 0,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn windows_probes_and_generations(events in events(3, 0)) {
        let mut story = Story::new(3);
        for (place, event) in events.iter().enumerate() {
            story.step(event)?;
            if place % 16 == 0 {
                story.hand_over();
                let mut cell = story.vms[0].cell();
                if cell.state == State::Closed {
                    let sums = cell.window.sums(story.process.now());
                    prop_assert_eq!(sums, story.recount(cell.generation));
                }
            }
        }
    }

    #[test]
    fn permits_always_come_back(events in events(3, 2)) {
        let mut story = Story::new(3);
        for event in &events {
            story.step(event)?;
        }
        // Everything in flight ends without a word, and what dead workers held runs out.
        for worker in 0..3 {
            for decision in std::mem::take(&mut story.flying[worker]) {
                story.vms[worker].end(decision, Ending::GONE);
            }
        }
        story.process.advance(PERMIT_LEASE);
        story.hand_over();
        let cell = story.vms[0].cell();
        prop_assert!(cell.permits.iter().all(|permit| permit.leased_until <= story.process.now()));
        // Whatever happened, a healthy upstream closes it again.
        for _ in 0..40 {
            story.process.advance(S);
            story.vms[0].call(Ending::OK);
        }
        prop_assert_eq!(story.vms[0].state(), State::Closed);
    }

    /// Real threads in an adversarial order: the permits are taken by exactly as many.
    #[test]
    fn a_race_for_permits(workers in 2_u64..5, probes in 1_u32..6, seed in any::<u64>()) {
        let (process, vms, policy) = before_half_open(&format!("half_open_probes: {probes}"), 1);
        drop(vms);
        let schedule = Schedule::new(seed, usize::try_from(workers).unwrap());
        let run = |number: u64| {
            let mut vm = Vm::start(&process, &policy, number + 1);
            vm.ports = vm.ports.scheduled(&schedule, usize::try_from(number).unwrap());
            let passed = (0..6).filter(|_| vm.get().passes()).count();
            schedule.leave();
            passed
        };
        let passed: usize = std::thread::scope(|scope| {
            let run = &run;
            let running: Vec<_> = (0..workers).map(|number| scope.spawn(move || run(number))).collect();
            running.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        prop_assert_eq!(passed, probes as usize);
    }
}

/// The bound on how stale a worker can be: `sync_interval`.
#[test]
fn another_worker_stops_within_the_sync_interval() {
    for interval in [10_u64, 50, 200] {
        let policy = one_rule("minimum_calls: 1").replace(
            "circuit_breaker:",
            &format!("circuit_breaker:\n  sync_interval: {}s", interval as f64 / 1000.0),
        );
        let process = Process::start();
        let mut vms = start(&process, &policy, 2);
        assert!(vms[1].call(Ending::OK));
        assert!(vms[0].call(Ending::FAILED) && !vms[0].get().passes(), "at once");
        process.advance(interval * MS - 1);
        assert!(vms[1].get().passes(), "by its copy");
        process.advance(1);
        assert!(!vms[1].get().passes());
    }
}

#[test]
fn failures_spread_over_workers_add_up_within_the_sync_interval() {
    for workers in [1, 4] {
        let policy = one_rule("consecutive_failures: 20\nfailure_rate_percent: 0");
        let process = Process::start();
        let mut vms = start(&process, &policy, workers);
        let turn = |vms: &mut Vec<Vm>, n: u64, ending| {
            process.advance(10 * MS);
            if n.is_multiple_of(5) {
                vms.iter_mut().for_each(Vm::tick);
            }
            vms[usize::try_from(n % workers).unwrap()].call(ending)
        };
        for n in 0..6000 {
            assert!(turn(&mut vms, n, Ending::OK));
        }
        let passed = (0..100).take_while(|n| turn(&mut vms, *n, Ending::FAILED)).count();
        // 200 ms of failures, and what each worker may hold for an interval.
        assert!((20..=20 + 10).contains(&passed), "{workers} workers: {passed}");
    }
}

#[test]
fn the_rate_reacts_within_its_share_of_the_window() {
    for workers in [1, 4] {
        let policy = one_rule("window: {time: {duration: 2s, buckets: 10}}");
        let process = Process::start();
        let mut vms = start(&process, &policy, workers);
        let turn = |vms: &mut Vec<Vm>, n: u64, ending| {
            process.advance(10 * MS);
            if n.is_multiple_of(5) {
                vms.iter_mut().for_each(Vm::tick);
            }
            vms[usize::try_from(n % workers).unwrap()].call(ending)
        };
        for n in 0..6000 {
            assert!(turn(&mut vms, n, Ending::OK));
        }
        let passed = (0..1000).take_while(|n| turn(&mut vms, *n, Ending::FAILED)).count();
        // Half of 2 s at 100/s, give or take a bucket, and the interval.
        assert!((80..=107).contains(&passed), "{workers} workers: {passed}");
    }
}

#[test]
fn a_hanging_upstream_collects_no_more_than_the_probes() {
    let (process, mut vms, _) = before_half_open("half_open_max_wait: 30s", 4);
    let mut hanging = Vec::new();
    for n in 0..2900 {
        process.advance(10 * MS);
        if n % 5 == 0 {
            vms.iter_mut().for_each(Vm::tick);
        }
        let decision = vms[n % 4].get();
        if decision.passes() {
            hanging.push((n % 4, decision));
        }
    }
    assert_eq!(hanging.len(), 5);
    process.advance(2 * S);
    vms[0].tick();
    assert!(!vms[1].get().passes());
    assert_eq!(vms[1].state(), State::Open);
    // Late answers are an older generation's.
    let before = vms[0].cell();
    for (worker, decision) in hanging {
        vms[worker].end(decision, Ending::OK);
    }
    assert_eq!(vms[0].cell(), before);
}

#[test]
fn the_permits_of_a_dead_worker_return() {
    let (process, mut vms, policy) = before_half_open("half_open_probes: 2", 2);
    assert!(vms[0].get().is_probe() && vms[0].get().is_probe());
    vms[0] = Vm::start(&process, &policy, 9);
    assert!(!vms[1].get().passes());
    process.advance(PERMIT_LEASE);
    for _ in 0..2 {
        assert!(vms[1].call(Ending::OK));
    }
    assert_eq!(vms[0].state(), State::Closed);
}

#[test]
fn the_end_of_a_probe_waits_out_a_contended_store() {
    let (process, mut vms, _) = before_half_open("half_open_probes: 1", 2);
    let probe = vms[0].get();
    process.store.contend(true);
    vms[0].end(probe, Ending::OK);
    assert_eq!(vms[1].state(), State::HalfOpen);
    assert!(!vms[1].get().passes());
    process.store.contend(false);
    vms[0].tick();
    assert_eq!(vms[1].state(), State::Closed);
}

#[test]
fn a_steady_breaker_costs_few_operations() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("minimum_calls: 20"), 1);
    let second = |vms: &mut Vec<Vm>| {
        for n in 0..5000 {
            process.advance(S / 5000);
            vms[0].call(Ending::OK);
            if n % 250 == 0 {
                vms[0].tick();
            }
        }
    };
    second(&mut vms);
    let before = process.store.operations();
    second(&mut vms);
    let after = process.store.operations();
    let cost = after.0 - before.0 + after.1 - before.1;
    assert!(cost < 5000 / 50, "{cost} operations for 5000 calls");
}

#[test]
fn a_flood_of_keys_grows_nothing_and_frees_no_open_breaker() {
    let policy = one_rule("minimum_calls: 1\nkey: [{header: x-user}]\nmax_keys: 1000");
    let process = Process::start();
    let mut vms = start(&process, &policy, 1);
    let decision = vms[0].user("broken");
    vms[0].end(decision, Ending::FAILED);
    let flood = |vms: &mut Vec<Vm>, from: u32, to: u32| {
        for n in from..to {
            let decision = vms[0].user(&format!("flood-{n}"));
            vms[0].end(decision, Ending::OK);
        }
    };
    flood(&mut vms, 0, 20_000);
    let full = process.store.size();
    flood(&mut vms, 20_000, 100_000);
    assert!(process.store.size().0 <= 260 && process.store.size().1 <= full.1 * 11 / 10);
    assert!(!vms[0].user("broken").passes());
}
