use proptest::prelude::*;

use super::*;
use crate::core::ports::Nanos;
use crate::limit::testkit::{Vm, one_rule};
use crate::sim::Process;

const S: Nanos = 1_000_000_000;

fn start(rule: &str) -> (Process, Vm) {
    let process = Process::start();
    let vm = Vm::start(&process, &one_rule(rule), 1);
    (process, vm)
}

impl Vm {
    fn of_class(&mut self, class: &str) -> bool {
        self.send(&[(":path", "/"), ("x-user", "ann"), ("qos_level", class)]).passes()
    }

    fn passed(&mut self, class: &str, requests: usize) -> usize {
        (0..requests).filter(|_| self.of_class(class)).count()
    }
}

#[test]
fn low_is_shed_first() {
    let (process, mut vm) = start(
        "max_tokens: 10\nfill_interval: 1s\npriority: {reserve_percent: 30}\n\
         at_limit: {retry_after_jitter_percent: 0, quota_headers: ALWAYS}",
    );
    let quota = vm.get("/").response.unwrap().quota.unwrap();
    assert_eq!(quota.limit, "\"r\";r=6;t=1", "what low may use");
    assert_eq!(vm.passed("low", 20), 6);
    assert_eq!(vm.passed("high", 2), 2);
    // One is left; the bucket must hold four before low has one again.
    assert_eq!(vm.get("/").header("ratelimit"), Some("\"r\";r=0;t=3"));
    process.advance(3 * S - 1);
    assert!(!vm.get("/").passes());
    process.advance(1);
    assert!(vm.get("/").passes() && !vm.get("/").passes());
    assert_eq!(vm.passed("high", 20), 3);
}

#[test]
fn classes() {
    let (_, mut vm) = start(
        "max_tokens: 4\nfill_interval: 3600s\n\
         priority: {header: X-Class, high: [gold, platinum], reserve_percent: 50}",
    );
    let mut send = |lines: &[(&str, &str)]| vm.send(&[&[(":path", "/")], lines].concat()).passes();
    assert!(send(&[]) && send(&[("x-class", "high")]));
    for low in [&[][..], &[("x-class", "Gold")], &[("x-class", "")], &[("qos_level", "high")]] {
        assert!(!send(low), "{low:?}");
    }
    // Two lines are nobody's word.
    assert!(!send(&[("x-class", "gold"), ("x-class", "gold")]));
    assert!(send(&[("x-class", "gold")]) && send(&[("x-class", "platinum")]));
    assert!(!send(&[("x-class", "gold")]));
}

#[test]
fn shares() {
    let share =
        |reserve, most| Priority { header: (*b"h").into(), high: vec![], reserve }.share(most);
    for (reserve, most, kept) in [
        (1, 1, 0),
        (9999, 1, 0),
        (1, 2, 1),
        (3000, 10, 3),
        (3001, 10, 4),
        (9999, 10, 9),
        (5000, 1_000_000_000, 500_000_000),
    ] {
        assert_eq!(share(reserve, most), kept, "{reserve} of {most}");
    }
}

#[test]
fn costs_calendars_overrides_and_flights() {
    let (_, mut vm) = start(
        "max_tokens: 10\ncalendar: DAY\nkey: [{header: x-user}]\ncost: {constant: 2}\n\
         priority: {reserve_percent: 40}\noverrides: [{exact: [ann], max_tokens: 20}]",
    );
    assert_eq!((vm.passed("low", 20), vm.passed("high", 20)), (6, 4));
    let (_, mut vm) = start("max_concurrent: 10\npriority: {reserve_percent: 40}");
    assert_eq!((vm.passed("low", 20), vm.passed("high", 20)), (6, 4));
    assert!(!vm.of_class("high"));
    let (_, mut vm) = start(
        "max_tokens: 40\nfill_interval: 3600s\nscope: WORKER\nworkers: 4\npriority: {reserve_percent: 40}",
    );
    assert_eq!((vm.passed("low", 20), vm.passed("high", 20)), (6, 4));
}

/// An edit of the share moves the line, not the bucket.
#[test]
fn edits() {
    let rule = |more: &str| one_rule(&format!("max_tokens: 10\nfill_interval: 3600s\n{more}"));
    let (_, mut vm) =
        start("max_tokens: 10\nfill_interval: 3600s\npriority: {reserve_percent: 80}");
    assert_eq!(vm.passed("low", 9), 2);
    vm.reload(&rule("priority: {reserve_percent: 50}"), 2);
    assert_eq!(vm.passed("low", 9), 3);
    vm.reload(&rule(""), 3);
    assert_eq!(vm.passed("low", 9), 5);
}

#[derive(Clone, Debug)]
enum Event {
    Wait(Nanos),
    Requests { worker: usize, high: bool, count: usize },
    Tick(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0_u64..8_000_000).prop_map(Event::Wait),
        2 => (0_u64..700_000_000).prop_map(Event::Wait),
        8 => (0_usize..3, any::<bool>(), 1_usize..25)
            .prop_map(|(worker, high, count)| Event::Requests { worker, high, count }),
        2 => (0_usize..3).prop_map(Event::Tick),
    ];
    proptest::collection::vec(event, 1..100)
}

/// At most `max` and what comes back at the rate, over any interval.
fn check_bound(times: &[Nanos], max: u64, per_token: Nanos) -> Result<(), TestCaseError> {
    for (from, start) in times.iter().enumerate() {
        for (count, end) in (1_u64..).zip(&times[from..]) {
            let allowed = max + (end - start) / per_token;
            prop_assert!(count <= allowed, "{count} of {allowed} in {} ns", end - start);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// With leases over three workers: all together have the whole bucket, low ones only what is not
    /// kept from them, over any interval; and while the kept share lasts, high is never refused.
    #[test]
    fn low_never_has_what_is_kept(
        max in 2_u64..300, per_second in 1_u64..1000, reserve in 1_u32..100, events in events(),
    ) {
        let policy = one_rule(&format!(
            "max_tokens: {max}\ntokens_per_fill: {per_second}\nfill_interval: 1s\n\
             priority: {{reserve_percent: {reserve}}}"
        ));
        let kept = (max * u64::from(reserve)).div_ceil(100).min(max - 1);
        let per_token = S.div_ceil(per_second);
        let process = Process::start();
        let mut vms: Vec<Vm> = (1..=3).map(|n| Vm::start(&process, &policy, n)).collect();
        let (mut all, mut low, mut high) = (Vec::new(), Vec::new(), 0);
        for event in events {
            match event {
                Event::Wait(time) => process.advance(time),
                Event::Tick(worker) => vms[worker].tick(),
                Event::Requests { worker, high: is_high, count } => {
                    for _ in 0..count {
                        let passes = vms[worker].of_class(if is_high { "high" } else { "low" });
                        if passes {
                            all.push(process.now());
                            if is_high { high += 1 } else { low.push(process.now()) }
                        } else if is_high {
                            // All leases together are an eighth of the bucket.
                            prop_assert!(high + max / 8 >= kept, "{high} of {kept} kept");
                        }
                    }
                }
            }
        }
        check_bound(&all, max, per_token)?;
        check_bound(&low, max - kept, per_token)?;
    }
}
