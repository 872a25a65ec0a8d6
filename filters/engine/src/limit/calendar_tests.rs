use proptest::prelude::*;

use super::*;
use crate::core::ports::Clock as _;
use crate::limit::testkit::{Vm, one_rule};
use crate::sim::{Process, Schedule};

/// A midnight in UTC, in seconds since 1970: 2026-11-24.
const MIDNIGHT: u64 = 20_781 * 86_400;

const KEYED: &str = "\nkey: [{header: x-user}]";

fn set_wall(vm: &mut Vm, seconds: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let wanted = MIDNIGHT * SECOND + (seconds * 1e9) as u64;
    let is = vm.ports.wall();
    vm.ports.wall_step += i64::try_from(i128::from(wanted) - i128::from(is)).unwrap();
}

/// One worker, so many seconds after midnight.
fn start(rule: &str, seconds: f64) -> (Process, Vm) {
    let process = Process::start();
    let mut vm = Vm::start(&process, &one_rule(rule), 1);
    set_wall(&mut vm, seconds);
    (process, vm)
}

fn passed(vm: &mut Vm, requests: usize) -> usize {
    (0..requests).filter(|_| vm.user("ann").passes()).count()
}

fn passes_at(vm: &mut Vm, seconds: f64) -> bool {
    set_wall(vm, seconds);
    vm.user("ann").passes()
}

#[test]
fn windows() {
    let at =
        |period, offset, seconds: u64| Calendar { period, offset }.start(seconds * SECOND) / SECOND;
    let day = MIDNIGHT;
    assert_eq!(at(Period::Minute, 0, day + 119), day + 60);
    assert_eq!(at(Period::Minute, 345, day + 120), day + 120);
    assert_eq!(at(Period::Hour, 0, day + 3600), day + 3600);
    // Kathmandu is 5 h 45 min ahead: its hours begin a quarter past ours.
    assert_eq!(at(Period::Hour, 345, day + 3600), day + 900);
    // A day in Shanghai begins at 16:00 UTC, one in Newfoundland at 03:30.
    assert_eq!(at(Period::Day, 480, day + 57_599), day - 8 * 3600);
    assert_eq!(at(Period::Day, 480, day + 57_600), day + 57_600);
    assert_eq!(at(Period::Day, -210, day + 12_599), day - 86_400 + 12_600);
    assert_eq!(at(Period::Day, -210, day + 12_600), day + 12_600);
}

#[test]
fn offsets() {
    for (text, minutes) in [
        ("+00:00", Some(0)),
        ("-00:00", Some(0)),
        ("+08:00", Some(480)),
        ("-03:30", Some(-210)),
        ("+14:00", Some(840)),
        ("+14:01", None),
        ("-15:00", None),
        ("08:00", None),
        ("+8:00", None),
        ("+08:60", None),
        ("+0800", None),
        ("+08", None),
        ("+-8:00", None),
        ("Z", None),
        ("", None),
        ("é8:00", None),
    ] {
        assert_eq!(offset(text), minutes, "{text}");
    }
}

#[test]
fn the_quota_comes_back_at_the_boundary_and_not_before() {
    for key in ["", KEYED] {
        for (period, seconds) in [("MINUTE", 60.0), ("HOUR", 3600.0), ("DAY", 86_400.0)] {
            let (_, mut vm) = start(&format!("max_tokens: 5\ncalendar: {period}{key}"), 1.0);
            assert_eq!(passed(&mut vm, 20), 5, "{period}");
            set_wall(&mut vm, seconds - 0.001);
            assert_eq!(passed(&mut vm, 20), 0, "{period}");
            set_wall(&mut vm, seconds);
            assert_eq!(passed(&mut vm, 20), 5, "{period}");
            // Unused windows are not saved up.
            set_wall(&mut vm, seconds * 10.0);
            assert_eq!(passed(&mut vm, 20), 5, "{period}");
        }
    }
}

#[test]
fn a_refusal_says_when_the_window_ends() {
    let (_, mut vm) = start(
        "max_tokens: 2\ncalendar: DAY\nutc_offset: '+08:00'\n\
         at_limit: {quota_headers: ALWAYS, draft_03_headers: true, retry_after_jitter_percent: 0}",
        // A minute to midnight in Shanghai.
        57_540.5,
    );
    let quota = vm.get("/").response.unwrap().quota.unwrap();
    assert_eq!(
        (quota.policy.as_str(), quota.limit.as_str()),
        ("\"r\";q=2;w=86400", "\"r\";r=1;t=60")
    );
    vm.get("/");
    let refused = vm.get("/");
    for (name, value) in [
        ("retry-after", "60"),
        ("ratelimit-policy", "\"r\";q=2;w=86400"),
        ("ratelimit", "\"r\";r=0;t=60"),
        ("x-ratelimit-limit", "2, 2;w=86400;name=\"r\""),
        ("x-ratelimit-reset", "60"),
    ] {
        assert_eq!(refused.header(name), Some(value), "{name}");
    }
    set_wall(&mut vm, 57_600.0);
    assert!(vm.get("/").passes());
}

/// Rule 4: 40 of 50 used and the limit now 30 means nothing until the minute is over.
#[test]
fn fifty_a_minute_is_now_thirty() {
    let rule = |max: u32, key| one_rule(&format!("max_tokens: {max}\ncalendar: MINUTE{key}"));
    for key in ["", KEYED] {
        for workers in [1, 4] {
            let process = Process::start();
            let mut vms: Vec<Vm> =
                (1..=workers).map(|n| Vm::start(&process, &rule(50, key), n)).collect();
            vms.iter_mut().for_each(|vm| set_wall(vm, 3.0));
            let count = vms.len();
            assert!((0..40).all(|n| vms[n % count].user("ann").passes()));
            vms.iter_mut().for_each(|vm| vm.reload(&rule(30, key), 7));
            assert_eq!(passed(&mut vms[0], 9), 0);
            // Raised again within the minute: ten are left.
            vms.iter_mut().for_each(|vm| vm.reload(&rule(50, key), 8));
            assert_eq!(passed(&mut vms[0], 50), 10);
            vms.iter_mut().for_each(|vm| vm.reload(&rule(30, key), 9));
            vms.iter_mut().for_each(|vm| set_wall(vm, 59.999));
            assert_eq!(passed(&mut vms[0], 9), 0);
            vms.iter_mut().for_each(|vm| set_wall(vm, 60.0));
            let admitted = (0..99).filter(|n| vms[n % count].user("ann").passes()).count();
            assert_eq!(admitted, 30);
        }
    }
}

#[test]
fn an_edit_of_the_offset_gives_nothing_and_moves_the_boundary() {
    let rule = |offset| one_rule(&format!("max_tokens: 5\ncalendar: DAY\nutc_offset: '{offset}'"));
    // Midnight of Shanghai is past in UTC at 16:00, that of Tokyo an hour earlier.
    let (_, mut vm) = start("max_tokens: 5\ncalendar: DAY\nutc_offset: '+08:00'", 56_000.0);
    assert_eq!(passed(&mut vm, 3), 3);
    for (step, offset) in ["+09:00", "-10:00", "+00:00"].into_iter().enumerate() {
        vm.reload(&rule(offset), step as u64);
        assert_eq!(passed(&mut vm, 9), if step == 0 { 2 } else { 0 }, "{offset}");
    }
    assert!(!passes_at(&mut vm, 57_600.0), "midnight in Shanghai is none here any more");
    assert!(!passes_at(&mut vm, 86_399.9));
    assert!(passes_at(&mut vm, 86_400.0));
}

/// What an edit takes over is what stood there at the edit, also when nobody asks for long after it.
#[test]
fn an_edit_that_a_bucket_sleeps_through() {
    let rule = |offset| one_rule(&format!("max_tokens: 5\ncalendar: HOUR\nutc_offset: '{offset}'"));
    let (process, mut vm) = start("max_tokens: 5\ncalendar: HOUR", 1000.0);
    assert_eq!(passed(&mut vm, 9), 5);
    // By this offset hours end in 20 minutes, by the old one in 43.
    vm.reload(&rule("+00:23"), 2);
    process.advance(21 * 60 * SECOND);
    assert_eq!(passed(&mut vm, 9), 5);
    // A bucket that fills is as full as it would be.
    vm.reload(&one_rule("max_tokens: 5\ntokens_per_fill: 5\nfill_interval: 50s"), 3);
    process.advance(31 * SECOND);
    assert_eq!(passed(&mut vm, 9), 3);
    vm.reload(&rule("+00:23"), 4);
    process.advance(59 * 60 * SECOND);
    assert_eq!(passed(&mut vm, 9), 5);
}

#[test]
fn from_steady_to_calendar_and_back_keeps_what_was_used() {
    // Too small a bucket to lease of: what is leased at such an edit counts as used.
    let steady = "max_tokens: 7\ntokens_per_fill: 7\nfill_interval: 70s";
    for key in ["", KEYED] {
        let (process, mut vm) = start(&format!("{steady}{key}"), 10.0);
        assert_eq!(passed(&mut vm, 4), 4);
        vm.reload(&one_rule(&format!("max_tokens: 5\ncalendar: MINUTE{key}")), 2);
        assert_eq!(passed(&mut vm, 9), 1);
        vm.reload(&one_rule(&format!("max_tokens: 6\ncalendar: HOUR{key}")), 3);
        assert_eq!(passed(&mut vm, 9), 1);
        vm.reload(&one_rule(&format!("{steady}{key}")), 4);
        assert_eq!(passed(&mut vm, 9), 1);
        process.advance(20 * SECOND);
        assert_eq!(passed(&mut vm, 9), 2);
        // A quota whose window is over owes nothing.
        vm.reload(&one_rule(&format!("max_tokens: 9\ncalendar: MINUTE{key}")), 5);
        assert!(passed(&mut vm, 9) > 0);
        process.advance(61 * SECOND);
        vm.reload(&one_rule(&format!("{steady}{key}")), 6);
        assert_eq!(passed(&mut vm, 19), 7);
    }
}

#[test]
fn overrides_costs_and_debts() {
    let (_, mut vm) = start(
        &format!(
            "max_tokens: 5\ncalendar: MINUTE{KEYED}\noverrides: [{{exact: [ann], max_tokens: 8}}, \
             {{prefix: b, unlimited: true}}]\ncost: {{constant: 2, response_header: x-used, max_debt: 9}}"
        ),
        1.0,
    );
    assert_eq!(passed(&mut vm, 9), 4);
    assert_eq!((0..9).filter(|_| vm.user("carl").passes()).count(), 2);
    assert_eq!((0..9).filter(|_| vm.user("bob").passes()).count(), 9);
    // A debt ends with its window.
    let mut plan = vm.user("dora").response.unwrap();
    let response = crate::core::headers::HeaderMap::from_pairs(&[("x-used", "1000")]);
    plan.respond(&mut vm.worker, &response, &mut vm.ports);
    set_wall(&mut vm, 59.0);
    assert!(!vm.user("dora").passes());
    set_wall(&mut vm, 60.0);
    assert_eq!((0..9).filter(|_| vm.user("dora").passes()).count(), 2);
    // An override that goes.
    vm.reload(&one_rule(&format!("max_tokens: 5\ncalendar: MINUTE{KEYED}")), 2);
    assert_eq!(passed(&mut vm, 9), 5);
}

#[test]
fn a_clock_that_steps() {
    let rule = format!("max_tokens: 5\ncalendar: MINUTE{KEYED}");
    // Over the boundary and back: the new minute's quota is not had twice, nor is it lost.
    let (_, mut vm) = start(&rule, 60.5);
    assert_eq!(passed(&mut vm, 3), 3);
    set_wall(&mut vm, 59.5);
    assert_eq!(passed(&mut vm, 9), 2);
    set_wall(&mut vm, 60.1);
    assert_eq!(passed(&mut vm, 9), 0);
    set_wall(&mut vm, 120.0);
    assert_eq!(passed(&mut vm, 9), 5);
    // An hour back: the present minute owes what the other one did, and the next is free.
    set_wall(&mut vm, -3600.0 + 86_400.0);
    let (_, mut vm) = start(&rule, 7200.5);
    assert_eq!(passed(&mut vm, 4), 4);
    set_wall(&mut vm, 3600.5);
    assert_eq!(passed(&mut vm, 9), 1);
    set_wall(&mut vm, 3660.0);
    assert_eq!(passed(&mut vm, 9), 5);
    // A day back, a day ahead.
    for seconds in [3700.0 - 3600.0, 90_000.0] {
        set_wall(&mut vm, seconds);
        passed(&mut vm, 9);
        set_wall(&mut vm, seconds + 60.0);
        assert_eq!(passed(&mut vm, 9), 5);
    }
}

#[test]
fn a_workers_own_quota() {
    let (_, mut vm) = start("max_tokens: 20\ncalendar: MINUTE\nscope: WORKER\nworkers: 4", 1.0);
    assert_eq!(passed(&mut vm, 30), 5);
    assert!(!passes_at(&mut vm, 59.0) && passes_at(&mut vm, 60.0));
}

#[test]
fn another_size_of_the_table_refills_nothing() {
    let rule =
        |keys: u32| one_rule(&format!("max_tokens: 5\ncalendar: DAY{KEYED}\nmax_keys: {keys}"));
    let process = Process::start();
    let mut vm = Vm::start(&process, &rule(100), 1);
    set_wall(&mut vm, 5.0);
    assert_eq!(passed(&mut vm, 3), 3);
    process.advance(3600 * SECOND);
    vm.reload(&rule(100_000), 2);
    assert_eq!(passed(&mut vm, 9), 2);
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    /// Somebody moves the wall clock, by milliseconds.
    Step(i64),
    Requests(usize, usize),
    Reload(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_u64..40_000).prop_map(Event::Wait),
        1 => (-200_000_i64..200_000).prop_map(Event::Step),
        1 => (-3000_i64..3000).prop_map(Event::Step),
        6 => (0_usize..3, 1_usize..12).prop_map(|(worker, count)| Event::Requests(worker, count)),
        1 => (1_u64..15).prop_map(Event::Reload),
    ];
    proptest::collection::vec(event, 1..80)
}

proptest! {
    /// Real threads in an adversarial order have the quota, and no more.
    #[test]
    fn a_race_for_a_quota(max in 1_u64..60, workers in 2_usize..5, seed in any::<u64>()) {
        let policy = one_rule(&format!("max_tokens: {max}\ncalendar: DAY\non_error: DENY"));
        let process = Process::start();
        Vm::start(&process, &policy, 99);
        let schedule = Schedule::new(seed, workers);
        let run = |number: usize| {
            let mut vm = Vm::start(&process, &policy, number as u64 + 1);
            vm.ports = vm.ports.scheduled(&schedule, number);
            let admitted = passed(&mut vm, 20);
            schedule.leave();
            admitted as u64
        };
        let admitted: u64 = std::thread::scope(|scope| {
            let run = &run;
            let all: Vec<_> = (0..workers).map(|number| scope.spawn(move || run(number))).collect();
            all.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        prop_assert!(admitted <= max, "{} of {}", admitted, max);
        // What is missing was refused for contention.
        let offered = 20 * workers as u64;
        prop_assert!(admitted + offered / 8 >= max.min(offered), "{} of {}", admitted, max);
    }

    /// Each window that the wall clock enters for the first time, going forward, is worth one quota,
    /// however the clock steps and the limit changes; two windows after a request the quota is whole.
    #[test]
    fn one_quota_for_each_window(events in events(), is_keyed in any::<bool>()) {
        let key = if is_keyed { KEYED } else { "" };
        let rule = |max| one_rule(&format!("max_tokens: {max}\ncalendar: MINUTE{key}"));
        let process = Process::start();
        let mut max = 10;
        let mut vms: Vec<Vm> = (1..=3).map(|n| Vm::start(&process, &rule(max), n)).collect();
        vms.iter_mut().for_each(|vm| set_wall(vm, 30_000.0));
        // Within a stretch without a forward crossing, at most the largest limit is admitted.
        let (mut window, mut admitted, mut most) = (None, 0, max);
        for (step, event) in events.into_iter().enumerate() {
            match event {
                Event::Wait(ms) => process.advance(ms * 1_000_000),
                Event::Step(ms) => vms.iter_mut().for_each(|vm| vm.ports.wall_step += ms * 1_000_000),
                Event::Reload(new) => {
                    max = new;
                    vms.iter_mut().for_each(|vm| vm.reload(&rule(new), step as u64));
                    most = most.max(max);
                }
                Event::Requests(worker, count) => {
                    let now = vms[0].ports.wall() / (60 * SECOND);
                    if window.is_none_or(|window| now > window) {
                        (window, admitted, most) = (Some(now), 0, max);
                    } else if window.is_some_and(|window| now + 1 < window) {
                        // The use was carried over to here.
                        window = Some(now);
                    }
                    admitted += passed(&mut vms[worker], count) as u64;
                    prop_assert!(admitted <= most, "{admitted} of {most}");
                }
            }
        }
        // A request brings a window that was far ahead back here.
        passed(&mut vms[0], 1);
        process.advance(120 * SECOND);
        prop_assert_eq!(passed(&mut vms[0], 50) as u64, max);
    }

    #[test]
    fn any_bytes_are_a_filling_or_refused(bytes in any::<[u8; 3]>()) {
        if let Some(filling) = Filling::from_bytes(bytes) {
            prop_assert_eq!(filling.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_window_holds_its_time(wall in any::<u64>(), offset in -840_i16..=840, period in 0..3) {
        let period = [Period::Minute, Period::Hour, Period::Day][usize::try_from(period).unwrap()];
        let calendar = Calendar { period, offset };
        let start = calendar.start(wall);
        prop_assert!(start <= wall);
        // At the ends of time it saturates.
        if (2 * 86_400 * SECOND..u64::MAX - 2 * 86_400 * SECOND).contains(&wall) {
            prop_assert!(wall - start < calendar.length());
            prop_assert_eq!(calendar.start(start), start);
            prop_assert_eq!(calendar.rest(start, wall), calendar.length() - (wall - start));
        }
        let _ = calendar.used(u64::MAX, wall);
    }
}
