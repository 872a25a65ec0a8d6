use proptest::prelude::*;

use super::*;
use crate::core::headers::HeaderMap;
use crate::limit::testkit::{Vm, one_rule};
use crate::limit::{Decision, ResponsePlan};
use crate::sim::{Process, Schedule};

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

fn start(process: &Process, policy: &str, workers: u64) -> Vec<Vm> {
    (1..=workers).map(|number| Vm::start(process, policy, number)).collect()
}

/// Requests of a user that pass, and stay in flight.
fn fly(vm: &mut Vm, user: &str, requests: usize) -> Vec<ResponsePlan> {
    (0..requests).filter_map(|_| flying(vm.user(user))).collect()
}

fn flying(decision: Decision) -> Option<ResponsePlan> {
    decision.passes().then(|| decision.response.expect("it is in flight"))
}

fn land(vm: &mut Vm, plan: ResponsePlan) {
    plan.end(&mut vm.worker, &mut vm.ports);
}

/// Time goes by, and every worker ticks.
fn wait(process: &Process, vms: &mut [Vm], time: Nanos) {
    for _ in 0..time / (100 * MS) {
        process.advance(100 * MS);
        vms.iter_mut().for_each(Vm::tick);
    }
}

fn gauge(vms: &mut [Vm]) -> u64 {
    let name = "policy=.=t;.;rule=.=r;.;weir_rate_limit_in_flight";
    vms[0].ports.gauges[name]
}

#[test]
fn ten_of_thirty() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 10"), 4);
    let mut plans: Vec<(usize, ResponsePlan)> = Vec::new();
    for n in 0..30 {
        plans.extend(fly(&mut vms[n % 4], "ann", 1).into_iter().map(|plan| (n % 4, plan)));
    }
    assert_eq!(plans.len(), 10);
    wait(&process, &mut vms, S);
    assert_eq!(gauge(&mut vms), 10);
    let (worker, plan) = plans.remove(3);
    land(&mut vms[worker], plan);
    assert_eq!(fly(&mut vms[0], "bob", 5).len(), 1);
    for (worker, plan) in plans {
        land(&mut vms[worker], plan);
    }
    wait(&process, &mut vms, S);
    assert_eq!(gauge(&mut vms), 1);
    assert!(vms[0].counted(&["outcome=.=limited;"]) > 0);
}

#[test]
fn a_refusal_says_what_it_met() {
    let process = Process::start();
    let mut vm = Vm::start(&process, &one_rule("max_concurrent: 1"), 1);
    let _flying = fly(&mut vm, "ann", 1);
    let refused = vm.user("ann");
    for (name, value) in [
        ("x-weir-reason", "too_many_in_flight"),
        ("x-weir-rule", "r"),
        ("retry-after", "1"),
        ("ratelimit-policy", "\"r\";q=1;qu=\"concurrent-requests\""),
        ("ratelimit", "\"r\";r=0"),
    ] {
        assert_eq!(refused.header(name), Some(value), "{name}");
    }
    assert_eq!(refused.effects.reply.unwrap().details, "weir_rate_limited{r}");
}

#[test]
fn besides_a_bucket_both_must_admit_and_refusals_take_nothing() {
    let process = Process::start();
    let rule = "max_tokens: 7\nfill_interval: 3600s\nmax_concurrent: 3\nkey: [{header: x-user}]";
    let mut vm = Vm::start(&process, &one_rule(rule), 1);
    let first = fly(&mut vm, "ann", 9);
    assert_eq!((first.len(), fly(&mut vm, "bob", 9).len()), (3, 3));
    first.into_iter().for_each(|plan| land(&mut vm, plan));
    let second = fly(&mut vm, "ann", 9);
    assert_eq!(second.len(), 3);
    second.into_iter().for_each(|plan| land(&mut vm, plan));
    // Seven tokens in all, whatever was refused for being in flight; then it is the bucket.
    let third = fly(&mut vm, "ann", 9);
    assert_eq!(third.len(), 1);
    assert_eq!(vm.user("ann").header("x-weir-reason"), Some("rate_limited"));
}

#[test]
fn another_rules_refusal_ends_the_flight() {
    let policy = "name: t
rate_limit:
  rules:
  - {id: r, max_concurrent: 2}
  - {id: once, match: {path: {exact: /once}}, max_tokens: 1, fill_interval: 3600s}
";
    let process = Process::start();
    let mut vm = Vm::start(&process, policy, 1);
    let first = flying(vm.get("/once"));
    assert!((0..5).all(|_| !vm.get("/once").passes()));
    assert!(flying(vm.get("/")).is_some() && flying(vm.get("/")).is_none());
    drop(first);
}

#[test]
fn shadow_and_enforced_share_and_allow_list() {
    let process = Process::start();
    let mut vm = Vm::start(&process, &one_rule("max_concurrent: 2\nmode: SHADOW"), 1);
    let passed: Vec<_> = (0..5).map(|_| vm.get("/")).collect();
    assert!(passed.iter().all(Decision::passes));
    assert_eq!(passed.iter().filter(|it| it.response.is_some()).count(), 2);
    assert_eq!(vm.counted(&["outcome=.=shadow_limited;"]), 3);
    let rule =
        "max_concurrent: 2\nkey: [{header: x-user}]\noverrides: [{exact: [vip], unlimited: true}]";
    let mut vm = Vm::start(&Process::start(), &one_rule(rule), 1);
    assert!((0..9).all(|_| vm.user("vip").passes()));
    assert_eq!(fly(&mut vm, "ann", 9).len(), 2);
}

#[test]
fn tunnels() {
    let upgrade =
        [(":method", "GET"), (":path", "/"), ("upgrade", "websocket"), ("connection", "upgrade")];
    let connect = [(":method", "CONNECT"), (":path", "/")];
    for (excludes, request, status, is_out) in [
        (true, &upgrade[..], "101", true),
        (true, &upgrade[..], "200", false),
        (true, &connect[..], "200", true),
        (true, &connect[..], "403", false),
        (false, &upgrade[..], "101", false),
        (true, &[(":method", "GET"), (":path", "/")][..], "101", false),
    ] {
        let rule = format!("max_concurrent: 1\nexclude_upgrades: {excludes}");
        let mut vm = Vm::start(&Process::start(), &one_rule(&rule), 1);
        let mut plan = flying(vm.send(request)).unwrap();
        if plan.reads_response() {
            let answer = HeaderMap::from_pairs(&[(":status", status)]);
            plan.respond(&mut vm.worker, &answer, &mut vm.ports);
        }
        assert_eq!(vm.get("/").passes(), is_out, "{request:?} {status}");
        // Whatever became of it, it ends once.
        land(&mut vm, plan);
        assert_eq!(vm.get("/").passes(), !is_out, "{request:?} {status}");
    }
}

#[test]
fn edits_count_what_is_in_flight() {
    let rule = |most: u32| one_rule(&format!("max_concurrent: {most}\nkey: [{{header: x-user}}]"));
    let process = Process::start();
    let mut vms = start(&process, &rule(5), 2);
    let mut plans = fly(&mut vms[0], "ann", 9);
    assert_eq!(plans.len(), 5);
    vms.iter_mut().for_each(|vm| vm.reload(&rule(3), 7));
    assert!(!vms[1].user("ann").passes());
    for left in [4, 3] {
        let plan = plans.pop().unwrap();
        land(&mut vms[0], plan);
        assert!(!vms[1].user("ann").passes(), "{left} in flight");
    }
    let plan = plans.pop().unwrap();
    land(&mut vms[0], plan);
    assert!(vms[1].user("ann").passes());
    // Another size of the table of keys is nothing to it.
    let sized = rule(4).replace("key:", "max_keys: 100000\n    key:");
    vms.iter_mut().for_each(|vm| vm.reload(&sized, 8));
    assert_eq!(fly(&mut vms[0], "ann", 9).len(), 1);
    vms.iter_mut().for_each(|vm| vm.reload(&rule(9), 9));
    assert_eq!(fly(&mut vms[1], "ann", 9).len(), 5);
    // A rule that goes leaves its flights to land.
    vms.iter_mut().for_each(|vm| vm.reload("name: t", 10));
    plans.into_iter().for_each(|plan| land(&mut vms[0], plan));
}

#[test]
fn a_redirect_flies_again_and_is_charged_once() {
    let rule = "max_tokens: 1\nfill_interval: 3600s\nmax_concurrent: 1";
    let process = Process::start();
    let mut vm = Vm::start(&process, &one_rule(rule), 1);
    let first = flying(vm.get("/")).unwrap();
    // Envoy ends the first stream, and runs the chain again.
    land(&mut vm, first);
    let mark = vm.limiter.mark().as_bytes().to_vec();
    vm.ports.attributes.insert(mark, b"1".to_vec());
    let redirected = [(":path", "/"), ("x-envoy-original-url", "http://shop/a")];
    let again = flying(vm.send(&redirected)).unwrap();
    assert!(!vm.send(&redirected).passes(), "it is in flight");
    land(&mut vm, again);
    assert!(vm.send(&redirected).passes());
    assert_eq!(vm.counted(&["outcome=.=admitted;"]), 1);
}

/// Shared data has no create-if-absent: a worker that stopped between its look and its first write
/// undoes what others wrote meanwhile. What lasts is put right by the tick.
#[test]
fn a_slot_lost_to_a_race_at_creation_comes_back() {
    let process = Process::start();
    let rule = one_rule("max_concurrent: 2\nkey: [{header: x-user}]");
    let mut vms = start(&process, &rule, 2);
    let mut flying = fly(&mut vms[0], "ann", 2);
    wait(&process, &mut vms, 100 * MS);
    for key in process.store.keys() {
        if String::from_utf8_lossy(&key).contains("/flight/") && !key.ends_with(b"alive") {
            process.store.handle().set(&key, &[VERSION], BLIND).unwrap();
        }
    }
    wait(&process, &mut vms, 100 * MS);
    assert!(!vms[1].user("ann").passes());
    land(&mut vms[0], flying.remove(0));
    assert_eq!(fly(&mut vms[1], "ann", 2).len(), 1);
}

/// However many keys are in flight, a tick looks at a few, and comes round to all.
#[test]
fn all_slots_are_looked_after_in_turn() {
    let process = Process::start();
    let rule = one_rule("max_concurrent: 1\nkey: [{header: x-user}]");
    let mut vms = start(&process, &rule, 2);
    let users: Vec<String> = (0..500).map(|n| format!("u{n}")).collect();
    let _flying: Vec<_> = users.iter().flat_map(|user| fly(&mut vms[0], user, 1)).collect();
    wait(&process, &mut vms, 100 * MS);
    let gets = process.store.operations().0;
    let Vm { worker, ports, .. } = &mut vms[0];
    worker.tick(ports);
    assert!(process.store.operations().0 - gets <= CHECKED as u64 + 1);
    for key in process.store.keys() {
        if String::from_utf8_lossy(&key).contains("/flight/") && !key.ends_with(b"alive") {
            process.store.handle().set(&key, &[VERSION], BLIND).unwrap();
        }
    }
    wait(&process, &mut vms, 2 * S);
    assert!(users.iter().all(|user| !vms[1].user(user).passes()));
}

#[test]
fn what_a_dead_worker_had_in_flight_ends_with_it() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 10"), 2);
    let lost = fly(&mut vms[0], "ann", 6);
    wait(&process, &mut vms, 20 * S);
    assert_eq!(fly(&mut vms[1], "ann", 9).len(), 4, "they live by their heartbeat");
    vms[0] = Vm::start(&process, &one_rule("max_concurrent: 10"), 9);
    wait(&process, &mut vms, DEAD / 2);
    assert!(!vms[1].user("ann").passes());
    wait(&process, &mut vms, DEAD);
    assert_eq!(gauge(&mut vms), 4);
    assert_eq!(fly(&mut vms[1], "ann", 9).len(), 6);
    drop(lost);
}

/// A process that stood still, or a worker that was kept from its ticks, is not dead.
#[test]
fn a_worker_that_slept_takes_its_place_again() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 10"), 2);
    let plans = fly(&mut vms[0], "ann", 10);
    wait(&process, &mut vms, S);
    process.advance(60 * S);
    vms.iter_mut().for_each(Vm::tick);
    assert!(!vms[1].user("ann").passes());
    // One that others took for dead meanwhile counts again.
    process.advance(60 * S);
    assert!(vms[1].user("ann").passes());
    vms[0].tick();
    assert!(!vms[1].user("ann").passes());
    plans.into_iter().for_each(|plan| land(&mut vms[0], plan));
    assert_eq!(fly(&mut vms[0], "ann", 20).len(), 9);
}

#[test]
fn contention_loses_no_flight() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 10\non_error: DENY"), 1);
    let plans = fly(&mut vms[0], "ann", 10);
    process.store.contend(true);
    plans.into_iter().for_each(|plan| land(&mut vms[0], plan));
    assert_eq!(vms[0].user("ann").header("x-weir-reason"), Some("state_unavailable"));
    process.store.contend(false);
    wait(&process, &mut vms, S);
    assert_eq!(gauge(&mut vms), 0);
    assert_eq!(fly(&mut vms[0], "ann", 20).len(), 10);
}

#[test]
fn a_share_for_each_worker() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 12\nscope: WORKER\nworkers: 4"), 2);
    let sets = process.store.operations().1;
    let first = fly(&mut vms[0], "ann", 9);
    assert_eq!((first.len(), fly(&mut vms[1], "ann", 9).len()), (3, 3));
    first.into_iter().for_each(|plan| land(&mut vms[0], plan));
    assert_eq!(fly(&mut vms[0], "ann", 9).len(), 3);
    // But for those that say who serves.
    assert!(process.store.operations().1 - sets <= 4);
}

#[test]
fn nothing_is_left_of_a_million_keys() {
    let process = Process::start();
    let mut vms = start(&process, &one_rule("max_concurrent: 2\nkey: [{header: x-user}]"), 1);
    for n in 0..20_000 {
        let plans = fly(&mut vms[0], &format!("u{n}"), 1);
        plans.into_iter().for_each(|plan| land(&mut vms[0], plan));
    }
    let (keys, bytes) = process.store.size();
    assert!(keys <= 1024 + 8 && bytes < 100_000, "{keys} keys, {bytes} bytes");
    wait(&process, &mut vms, S);
    assert!(vms[0].worker.flights.rules.is_empty());
}

fn race(process: &Process, policy: &str, workers: u64, each: usize, seed: u64) -> usize {
    let schedule = Schedule::new(seed, usize::try_from(workers).unwrap());
    let run = |number: u64| {
        let mut vm = Vm::start(process, policy, number + 1);
        vm.ports = vm.ports.scheduled(&schedule, usize::try_from(number).unwrap());
        let flying = fly(&mut vm, "ann", each).len();
        schedule.leave();
        flying
    };
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..workers).map(|number| scope.spawn(move || run(number))).collect();
        running.into_iter().map(|worker| worker.join().unwrap()).sum()
    })
}

#[derive(Clone, Debug)]
enum Event {
    Start(usize, usize),
    /// The n-th of those in flight ends.
    End(usize),
    Wait(Nanos),
    /// A VM traps, and one comes in its place.
    Die(usize),
    Edit(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0_usize..3, 0_usize..2).prop_map(|(worker, user)| Event::Start(worker, user)),
        5 => (0_usize..20).prop_map(Event::End),
        2 => (0_u64..3000).prop_map(|time| Event::Wait(time * MS)),
        1 => (0_usize..3).prop_map(Event::Die),
        1 => (1_u32..7).prop_map(Event::Edit),
    ];
    proptest::collection::vec(event, 1..150)
}

proptest! {
    /// Never more in flight than the limit, and never one refused while fewer are, those of dead
    /// workers within their time included. In the end nothing is left.
    #[test]
    fn as_many_as_the_limit(events in events(), is_keyed in any::<bool>()) {
        let key = if is_keyed { "\nkey: [{header: x-user}]" } else { "" };
        let rule = |most: u32| one_rule(&format!("max_concurrent: {most}{key}"));
        let process = Process::start();
        let (mut most, mut number) = (4, 100);
        let mut vms = start(&process, &rule(most), 3);
        let mut flying: Vec<(usize, usize, ResponsePlan)> = Vec::new();
        let mut lost: Vec<(usize, Nanos)> = Vec::new();
        for event in events {
            number += 1;
            match event {
                Event::Start(worker, user) => {
                    let mine = |other: usize| !is_keyed || other == user;
                    let live = flying.iter().filter(|(_, other, _)| mine(*other)).count();
                    let now = process.now();
                    let ghosts = lost.iter().filter(|(other, died)| mine(*other) && now < died + DEAD + 2 * BEAT);
                    let ghosts = ghosts.count();
                    match flying_of(&mut vms[worker], user) {
                        Some(plan) => {
                            prop_assert!(live < most as usize, "{live} of {most} were in flight");
                            flying.push((worker, user, plan));
                        }
                        None => prop_assert!(live + ghosts >= most as usize, "{live} + {ghosts} of {most}"),
                    }
                }
                Event::End(place) if place < flying.len() => {
                    let (worker, _, plan) = flying.remove(place);
                    land(&mut vms[worker], plan);
                }
                Event::End(_) => {}
                Event::Wait(time) => wait(&process, &mut vms, time),
                Event::Die(worker) => {
                    vms[worker] = Vm::start(&process, &rule(most), number);
                    let now = process.now();
                    let gone = flying.extract_if(.., |(other, ..)| *other == worker);
                    lost.extend(gone.map(|(_, user, _)| (user, now)));
                }
                Event::Edit(new) => {
                    most = new;
                    vms.iter_mut().for_each(|vm| vm.reload(&rule(most), number));
                }
            }
        }
        for (worker, _, plan) in flying {
            land(&mut vms[worker], plan);
        }
        wait(&process, &mut vms, DEAD + 2 * BEAT);
        prop_assert_eq!(gauge(&mut vms), 0);
        prop_assert_eq!(fly(&mut vms[0], "a", 20).len(), most as usize);
    }

    /// Real threads in an adversarial order.
    #[test]
    fn a_race_starts_no_more(most in 1_u32..40, workers in 2_u64..5, seed in any::<u64>()) {
        let policy = one_rule(&format!("max_concurrent: {most}\non_error: DENY"));
        let process = Process::start();
        Vm::start(&process, &policy, 99);
        let started = race(&process, &policy, workers, 20, seed);
        prop_assert!(started <= most as usize, "{started} of {most}");
        let offered = 20 * usize::try_from(workers).unwrap();
        // What is missing was refused for contention.
        prop_assert!(started + offered / 8 >= offered.min(most as usize), "{started} of {most}");
    }

    #[test]
    fn any_bytes_are_numbers_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let numbers = read(&bytes);
        prop_assert_eq!(read(&write(&numbers)), numbers);
        let place = Place { rule: (*b"p/").into(), is_keyed: false, is_local: false };
        let mut ports = Process::start().ports(1);
        for key in [place.set(0), place.alive()] {
            ports.set(&key, &bytes, BLIND).unwrap();
        }
        let mut flights = Flights::default();
        let (_, flight) = flights.start(&place, 0, u32::MAX, 7, &mut ports, &mut 0);
        flights.tick(8, &mut ports);
        if let Some(flight) = flight {
            flights.end(&flight, 9, &mut ports);
        }
    }
}

fn flying_of(vm: &mut Vm, user: usize) -> Option<ResponsePlan> {
    flying(vm.user(["a", "b"][user]))
}
