//! Edits of a policy: what was used stays used, also while workers disagree on what is in force.

use std::ops::Range;

use proptest::prelude::*;

use super::testkit::{Vm, one_rule};
use crate::core::headers::HeaderMap;
use crate::core::ports::{Clock as _, Nanos};
use crate::sim::Process;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;
const DAY: Nanos = 86_400 * S;

/// One of the policies that workers run at a time.
#[derive(Clone, Debug)]
struct Edit {
    max: u64,
    /// `None` for a quota of the day.
    per_token: Option<Nanos>,
}

impl Edit {
    fn policy(&self, key: &str) -> String {
        let Edit { max, per_token } = self;
        let filling = match per_token {
            None => "calendar: DAY".to_string(),
            #[allow(clippy::cast_precision_loss)]
            Some(nanos) => format!("fill_interval: {}s", *nanos as f64 / 1e9),
        };
        one_rule(&format!("max_tokens: {max}\n{filling}\n{key}"))
    }
}

const HOUR: Nanos = 3600 * S;

fn edit(max: Range<u64>, per_token: Range<Nanos>) -> impl Strategy<Value = Edit> {
    let filling = prop_oneof![3 => per_token.prop_map(Some), 1 => Just(None)];
    (max, filling).prop_map(|(max, per_token)| Edit { max, per_token })
}

#[derive(Clone, Debug)]
enum Event {
    Wait(Nanos),
    /// So many requests at one worker.
    Requests(usize, usize),
    /// A worker takes the one policy or the other.
    Take(usize, usize),
    Tick(usize),
}

fn events(longest: Nanos) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..10 * MS).prop_map(Event::Wait),
        1 => (0..longest).prop_map(Event::Wait),
        8 => (0_usize..3, 1_usize..30).prop_map(|(worker, count)| Event::Requests(worker, count)),
        2 => (0_usize..3, 0_usize..2).prop_map(|(worker, edit)| Event::Take(worker, edit)),
        1 => (0_usize..3).prop_map(Event::Tick),
    ];
    proptest::collection::vec(event, 1..120)
}

struct Admitted {
    at: Nanos,
    /// What the worker's policy allows.
    max: u64,
}

fn key(is_keyed: bool) -> &'static str {
    if is_keyed { "key: [{header: x-user}]" } else { "" }
}

/// Lets three workers disagree on two policies; gives what was admitted.
fn play(
    process: &Process,
    edits: &[Edit; 2],
    key: &str,
    events: &[Event],
) -> (Vec<Vm>, Vec<Admitted>) {
    let policies = edits.each_ref().map(|edit| edit.policy(key));
    let mut runs = [0_usize; 3];
    let mut vms: Vec<Vm> = (1..=3).map(|n| Vm::start(process, &policies[0], n)).collect();
    let mut admitted = Vec::new();
    for (step, event) in events.iter().enumerate() {
        match *event {
            Event::Wait(time) => process.advance(time),
            Event::Requests(worker, count) => {
                let passed = (0..count).filter(|_| vms[worker].user("ann").passes()).count();
                let max = edits[runs[worker]].max;
                admitted.extend((0..passed).map(|_| Admitted { at: process.now(), max }));
            }
            Event::Take(worker, edit) => {
                runs[worker] = edit;
                vms[worker].reload(&policies[edit], step as u64);
            }
            Event::Tick(worker) => vms[worker].tick(),
        }
    }
    (vms, admitted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Where nothing comes back in the time and buckets are too small to lease of, each request that is admitted found fewer used than its
    /// worker's policy allows, whatever the others run and however often they turn the bucket.
    #[test]
    fn what_was_used_stays_used(
        edits in [edit(1..8, HOUR..8 * HOUR), edit(1..8, HOUR..8 * HOUR)], events in events(10 * S),
        is_keyed in any::<bool>(),
    ) {
        let process = Process::start();
        process.advance(10 * HOUR);
        let (mut vms, admitted) = play(&process, &edits, key(is_keyed), &events);
        for (used, one) in admitted.iter().enumerate() {
            prop_assert!((used as u64) < one.max, "{used} used of {}", one.max);
        }
        // Nor is anything used that was not.
        let larger = edits.iter().max_by_key(|edit| edit.max).unwrap();
        vms[0].reload(&larger.policy(key(is_keyed)), 999);
        let rest = (0..20).filter(|_| vms[0].user("ann").passes()).count();
        prop_assert_eq!((admitted.len() + rest) as u64, larger.max);
    }

    /// Over any interval, no more than the larger of the two admits.
    #[test]
    fn never_more_than_the_larger(
        edits in [edit(1..200, MS..50 * MS), edit(1..200, MS..50 * MS)], events in events(S), is_keyed in any::<bool>(),
    ) {
        let process = Process::start();
        process.advance(10 * HOUR);
        let (_, admitted) = play(&process, &edits, key(is_keyed), &events);
        let max = edits.iter().map(|edit| edit.max).max().unwrap();
        let per_token = edits.iter().filter_map(|edit| edit.per_token).min().unwrap_or(DAY);
        for (from, start) in admitted.iter().enumerate() {
            for (count, end) in admitted[from..].iter().enumerate() {
                let allowed = max + (end.at - start.at) / per_token;
                prop_assert!((count as u64) < allowed, "{} of {allowed}", count + 1);
            }
        }
    }
}

const KEYED: &str = "key: [{header: x-user}]";

fn passed(vm: &mut Vm, requests: usize) -> usize {
    (0..requests).filter(|_| vm.user("ann").passes()).count()
}

/// A worker, so long before a midnight in UTC.
fn before_midnight(policy: &str, time: Nanos) -> (Process, Vm) {
    let process = Process::start();
    let mut vm = Vm::start(&process, policy, 1);
    let wall = vm.ports.wall();
    let rest = DAY - wall % DAY;
    vm.ports.wall_step += i64::try_from(rest + DAY - time).unwrap();
    vm.reload(policy, 2);
    (process, vm)
}

/// A quota would be whole when its day ends, so its successor owes no more than a bucket from then on.
#[test]
fn a_days_quota_that_becomes_a_slow_rate_is_owed_until_midnight() {
    let day = one_rule(&format!("max_tokens: 1000\ncalendar: DAY\n{KEYED}"));
    let slow = one_rule(&format!("max_tokens: 10\nfill_interval: 3600s\n{KEYED}"));
    let (process, mut vm) = before_midnight(&day, 4 * HOUR);
    assert_eq!(passed(&mut vm, 900), 900);
    vm.reload(&slow, 3);
    let wait = vm.user("ann").header("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((5 * 3600..6 * 3600).contains(&wait), "{wait}");
    // Whoever still runs the old policy finds what was used.
    vm.reload(&day, 4);
    assert_eq!(passed(&mut vm, 10), 10);
    vm.reload(&slow, 5);
    process.advance(4 * HOUR + 9 * S);
    assert_eq!(passed(&mut vm, 10), 0);
    process.advance(HOUR);
    assert_eq!(passed(&mut vm, 10), 1);
    // It is a bucket like any other from here on.
    process.advance(20 * HOUR);
    assert_eq!(passed(&mut vm, 20), 10);
    // Nobody asked at midnight: the same.
    let (process, mut vm) = before_midnight(&day, 4 * HOUR);
    passed(&mut vm, 900);
    vm.reload(&slow, 3);
    passed(&mut vm, 1);
    process.advance(8 * HOUR + 9 * S);
    assert_eq!(passed(&mut vm, 10), 4);
}

proptest! {
    /// A first token is there when use has come back at the new rate, or a token after the window's
    /// end at the latest.
    #[test]
    fn the_wait_after_a_quota_is_bounded(
        quota in 1_u64..2000, max in 1_u64..50, seconds in 1_u64..8000, left in 1..24 * 60_u64,
        used in 1_usize..2000,
    ) {
        let day = one_rule(&format!("max_tokens: {quota}\ncalendar: DAY\n{KEYED}"));
        let slow = one_rule(&format!("max_tokens: {max}\nfill_interval: {seconds}s\n{KEYED}"));
        let left = left * 60 * S;
        let (process, mut vm) = before_midnight(&day, left);
        let used = passed(&mut vm, used) as u64;
        vm.reload(&slow, 3);
        let per_token = seconds * S;
        let bound = ((used + 1).saturating_sub(max) * per_token).min(left + 9 * S + per_token);
        // The edit's own epoch is not told apart.
        process.advance(bound + 300 * MS);
        prop_assert!(vm.user("ann").passes());
    }
}

fn sized(fields: &str, max_keys: u32) -> String {
    one_rule(&format!("{fields}\n{KEYED}\nmax_keys: {max_keys}"))
}

/// A request is answered, and the answer says what it cost.
fn charge(vm: &mut Vm, cost: &str) {
    let mut plan = vm.user("ann").response.expect("the response tells the cost");
    plan.respond(&mut vm.worker, &HeaderMap::from_pairs(&[("x-used", cost)]), &mut vm.ports);
}

#[test]
fn another_size_of_the_table_forgives_no_debt() {
    let costly = "max_tokens: 5\nfill_interval: 60s\ncost: {response_header: x-used, max_debt: 20}";
    let dear = format!("{costly}\noverrides: [{{exact: [ann], max_tokens: 4}}]");
    for fields in [costly, &dear] {
        // Asked for at once, on the way, and not before the bucket would be full without the debt.
        for asked_at in [0, 200, 400] {
            let process = Process::start();
            let mut vm = Vm::start(&process, &sized(fields, 100), 1);
            charge(&mut vm, "1000");
            vm.reload(&sized(fields, 100_000), 2);
            process.advance(asked_at * S);
            assert_eq!(passed(&mut vm, 3), 0, "after {asked_at} s");
            // 20 are owed.
            process.advance((20 * 60 - asked_at) * S);
            assert_eq!(passed(&mut vm, 3), 0, "after {asked_at} s");
            process.advance(61 * S);
            assert_eq!(passed(&mut vm, 3), 1, "after {asked_at} s");
        }
    }
}

#[test]
fn nor_what_a_smaller_limit_left_in_debt() {
    let process = Process::start();
    let (large, small) =
        ("max_tokens: 100\nfill_interval: 1s", "max_tokens: 10\nfill_interval: 10s");
    let mut vm = Vm::start(&process, &sized(large, 100), 1);
    assert_eq!(passed(&mut vm, 100), 100);
    vm.reload(&sized(small, 100), 2);
    assert_eq!(passed(&mut vm, 1), 0);
    vm.reload(&sized(small, 100_000), 3);
    process.advance(500 * S);
    assert_eq!(passed(&mut vm, 3), 0);
    process.advance(411 * S);
    assert_eq!(passed(&mut vm, 3), 1);
}
