//! Whatever is lost, no more passes than an engine granted.

use std::collections::HashMap;

use proptest::prelude::*;

use super::testkit::{Asker, Engine, Fate, Style, policy};
use crate::core::ports::Nanos;
use crate::limit::testkit::Vm;
use crate::sim::Process;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

#[derive(Clone, Copy, Debug)]
enum Event {
    Send(usize),
    /// The n-th call of a worker is answered, by the engine.
    Answer(usize, usize),
    /// Counted by the engine; the answer is lost.
    Lose(usize, usize),
    /// Envoy says that a call has timed out, whether or not it was counted.
    TimeOut(usize, usize),
    Garble(usize, usize),
    /// A VM dies with its calls and those who wait, and a new one takes its place.
    Die(usize),
    Reload(usize),
    Pass(Nanos),
}

fn event(workers: usize) -> impl Strategy<Value = Event> {
    let worker = 0..workers;
    let call = (worker.clone(), 0..3_usize);
    prop_oneof![
        20 => worker.clone().prop_map(Event::Send),
        12 => call.clone().prop_map(|(worker, call)| Event::Answer(worker, call)),
        1 => call.clone().prop_map(|(worker, call)| Event::Lose(worker, call)),
        1 => call.clone().prop_map(|(worker, call)| Event::TimeOut(worker, call)),
        1 => call.prop_map(|(worker, call)| Event::Garble(worker, call)),
        1 => worker.clone().prop_map(Event::Die),
        1 => worker.prop_map(Event::Reload),
        4 => prop_oneof![Just(MS), Just(15 * MS), Just(60 * MS), Just(300 * MS)]
            .prop_map(Event::Pass),
    ]
}

/// Two processes of two workers, and one engine.
struct World {
    processes: Vec<Process>,
    askers: Vec<Asker>,
    yaml: String,
    engine: Engine,
    passed: u64,
    /// What passed in each window of the engine's, and what waited when it began.
    windows: HashMap<Nanos, (u64, u64)>,
    vms: u64,
}

const WORKERS: usize = 4;

impl World {
    fn new(style: Style, limit: u64, yaml: String) -> World {
        let processes = vec![Process::start(), Process::start()];
        let engine = Engine::new(style, limit, S);
        let (askers, windows) = (Vec::new(), HashMap::new());
        let mut world = World { processes, askers, yaml, engine, passed: 0, windows, vms: 0 };
        world.askers = (0..WORKERS).map(|place| world.start(place)).collect();
        world
    }

    fn start(&mut self, place: usize) -> Asker {
        self.vms += 1;
        Asker::new(Vm::start(&self.processes[place / 2], &self.yaml, self.vms))
    }

    fn now(&self) -> Nanos {
        self.processes[0].now()
    }

    fn note(&mut self, fates: &[Fate]) {
        let passed = fates.iter().filter(|fate| **fate == Fate::Passed).count() as u64;
        let waiting = self.askers.iter().map(Asker::waiting).sum::<usize>() as u64;
        let window = self.windows.entry(self.now() / S).or_insert((0, waiting));
        window.0 += passed;
        self.passed += passed;
    }

    fn run(&mut self, event: Event) {
        let now = self.now();
        let call = |asker: &Asker, nth: usize| asker.calls.get(nth).cloned();
        let fates = match event {
            Event::Send(worker) => vec![self.askers[worker].send(now)],
            Event::Answer(worker, nth) => {
                let Some((_, token, message)) = call(&self.askers[worker], nth) else { return };
                let answer = self.engine.answer(&message, now);
                self.askers[worker].hear(token, Some(&answer), now)
            }
            Event::Lose(worker, nth) => {
                let Some((_, token, message)) = call(&self.askers[worker], nth) else { return };
                self.engine.answer(&message, now);
                self.askers[worker].hear(token, None, now)
            }
            Event::TimeOut(worker, nth) => {
                let Some((_, token, _)) = call(&self.askers[worker], nth) else { return };
                self.askers[worker].hear(token, None, now)
            }
            Event::Garble(worker, nth) => {
                let Some((_, token, message)) = call(&self.askers[worker], nth) else { return };
                self.engine.answer(&message, now);
                self.askers[worker].hear(token, Some(b"\x08\x07"), now)
            }
            Event::Die(worker) => {
                self.askers[worker] = self.start(worker);
                Vec::new()
            }
            Event::Reload(worker) => {
                self.vms += 1;
                self.askers[worker].vm.reload(&self.yaml, self.vms);
                Vec::new()
            }
            Event::Pass(time) => {
                self.processes.iter().for_each(|process| process.advance(time));
                Vec::new()
            }
        };
        self.note(&fates);
    }
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Bare), Just(Style::Headers), Just(Style::Statuses)]
}

proptest! {
    /// Leased hits are counted by the engine before they are spent.
    #[test]
    fn never_more_than_was_granted(
        style in style(),
        limit in 1_u64..60,
        most in 1_u32..40,
        events in proptest::collection::vec(event(WORKERS), 1..400),
    ) {
        let mesh = format!("lease: {{max: {most}}}, on_error: DENY");
        let mut world = World::new(style, limit, policy(limit, &mesh, "on_error: DENY"));
        for event in events {
            world.run(event);
            prop_assert!(
                world.passed <= world.engine.granted,
                "{} of {}", world.passed, world.engine.granted
            );
        }
    }

    /// In a window of the engine's: at most its limit, what is carried in, and who waited when it began.
    #[test]
    fn a_window_has_its_limit_and_the_leases_carried_in(
        style in style(),
        limit in 1_u64..60,
        most in 1_u32..40,
        events in proptest::collection::vec(event(WORKERS), 1..400),
    ) {
        let mesh = format!("lease: {{max: {most}}}, on_error: DENY");
        let mut world = World::new(style, limit, policy(limit, &mesh, "on_error: DENY"));
        events.into_iter().for_each(|event| world.run(event));
        // docs/mesh.md: 4/3 of a lease for each process, and a hit for each request that waits.
        let carried = world.processes.len() as u64 * u64::from(most) * 4 / 3;
        for (passed, waited) in world.windows.values() {
            prop_assert!(*passed <= limit + carried + waited + 1, "{passed} of {limit}");
        }
    }
}
