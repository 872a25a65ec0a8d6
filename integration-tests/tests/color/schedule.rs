//! Shares that move: by the clock, and by the rate.

use crate::rig::{Rig, color_of, policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_engine::color::hash::bucket;
use weir_integration_tests::clock::from_now as at;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Load, Request, wait_until};

fn rule(more: &str) -> String {
    format!(
        "rules: [{{id: r, shares: [{{color: gray, weight: 10000}}], key: [{{header: x-user}}], {more}}}]"
    )
}

/// How many of 500 users are gray.
fn gray(rig: &Rig) -> usize {
    let mut client = rig.envoy.client("in");
    (0..500)
        .filter(|n| {
            color_of(&client.send(&Request::get("/").header("x-user", n.to_string()))) == "gray"
        })
        .count()
}

#[test]
fn start_and_end() {
    let rig =
        Rig::section(&rule(&format!("schedule: {{start: '{}', end: '{}'}}", at(-60), at(60))));
    assert_eq!(gray(&rig), 500);
    rig.edit("", &rule(&format!("schedule: {{start: '{}'}}", at(60))));
    assert_eq!(gray(&rig), 0);
    rig.edit("", &rule(&format!("schedule: {{end: '{}'}}", at(-1))));
    assert_eq!(gray(&rig), 0);
    let steps = format!(
        "schedule: {{steps: [{{at: '{}', weight: 1000}}, {{at: '{}', weight: 5000}}, {{at: '{}', weight: 10000}}]}}",
        at(-120),
        at(-60),
        at(3600)
    );
    rig.edit("", &rule(&steps));
    let half = gray(&rig);
    assert!((200..300).contains(&half), "{half}");
}

/// Two Envoys agree without a word to each other.
#[test]
fn a_ramp_is_the_same_everywhere() {
    let ramp =
        rule(&format!("schedule: {{ramp: {{from: '{}', to: '{}'}}}}", at(-50_000), at(50_000)));
    let rigs = [Rig::start(1, &policy("", &ramp)), Rig::start(2, &policy("", &ramp))];
    let mut clients: Vec<_> = rigs.iter().map(|rig| rig.envoy.client("in")).collect();
    let mut count = 0;
    for n in 0..500 {
        let request = Request::get("/").header("x-user", n.to_string());
        let colors: Vec<_> =
            clients.iter_mut().map(|client| color_of(&client.send(&request))).collect();
        assert_eq!(colors[0], colors[1], "user {n}");
        count += usize::from(colors[0] == "gray");
    }
    assert!((200..300).contains(&count), "half way: {count}");
}

/// At 40/s nobody, at 400/s all of the 15 % that are allowed, and no more.
#[test]
fn a_share_follows_the_rate_under_its_cap() {
    let auto = "rules: [{id: r, shares: [{color: gray, weight: 10000}], key: [{header: x-user}], \
                auto: {max_weight: 1500, qps_floor: 100, qps_full: 300}}]";
    let rig = Rig::start(2, &policy("", auto));
    let run = |rate: u32, seconds: u64| {
        let load = Load::labelled(rig.envoy.address("in"), |n| {
            (String::new(), Request::get("/").header("x-user", (n * 7919).to_string()))
        });
        let before = rig.reached();
        let report = load.rate(rate).lasts(Duration::from_secs(seconds)).run();
        assert_eq!(report.status(200), report.total());
        let after = rig.reached();
        let gray = after[1] - before[1];
        (gray as f64 * 100.0 / report.total() as f64, report.total())
    };
    let begun = Instant::now();
    let (low, _) = run(40, 3);
    let (rising, total) = run(400, 4);
    let (high, more) = run(400, 3);
    println!(
        "gray at 40/s {low:.1} %, at 400/s {rising:.1} % of {total}, then {high:.1} % of {more} ({:?})",
        begun.elapsed()
    );
    assert!(low < 0.01, "{low}");
    // A cap of 15 %, and what chance adds to 1200 users.
    assert!(rising <= 18.0 && (12.0..=18.0).contains(&high), "{rising} {high}");
    let gauge = rig.metric(&["traffic_color_share", "rule=.=r"]);
    assert_eq!(gauge, 1500);
}

/// Steps and ends come without an edit, on every Envoy at the same time.
#[test]
fn a_step_comes_by_itself() {
    let rigs = [1, 2].map(|workers| Rig::start(workers, &policy("", "default: base")));
    let text = rule(&format!(
        "schedule: {{end: '{}', steps: [{{at: '{}', weight: 0}}, {{at: '{}', weight: 10000}}]}}",
        at(7),
        at(-60),
        at(4)
    ));
    rigs.iter().for_each(|rig| rig.edit("", &text));
    let is_gray = |rig: &Rig| rig.color(&[("x-user", "ann")]) == "gray";
    assert!(!rigs.iter().any(is_gray), "before the step");
    let begun = Instant::now();
    let came: Vec<Duration> = rigs
        .iter()
        .map(|rig| {
            wait_until("the step", DEADLINE, || is_gray(rig));
            begun.elapsed()
        })
        .collect();
    assert!(came[1] - came[0] < Duration::from_secs(1), "{came:?}");
    for rig in &rigs {
        wait_until("the end", DEADLINE, || !is_gray(rig));
        rig.envoy.assert_healthy();
    }
}

/// 400 users come by once a second: whoever got gray as the rate rose keeps it, and in no second are
/// there more than the cap allows.
#[test]
fn users_stay_as_a_share_grows() {
    const USERS: u64 = 400;
    const CAP: u16 = 1500;
    let auto = format!(
        "rules: [{{id: r, shares: [{{color: gray, weight: 10000}}], key: [{{header: x-user}}], \
         auto: {{max_weight: {CAP}, qps_floor: 50, qps_full: 350}}}}]"
    );
    let rig = Rig::start(2, &policy("", &auto));
    let answers: Arc<Mutex<Vec<(Instant, u64, bool)>>> = Arc::default();
    let seen = answers.clone();
    let load = Load::labelled(rig.envoy.address("in"), |n| {
        (String::new(), Request::get("/").header("x-user", (n % USERS).to_string()))
    });
    let report = load
        .rate(USERS as u32)
        .lasts(Duration::from_secs(8))
        .look(move |at, answer| {
            let user = answer.echoed("x-user").and_then(|user| user.parse().ok());
            let is_gray = color_of(answer) == "gray";
            seen.lock().unwrap().push((at, user.expect("its own header"), is_gray));
        })
        .run();
    assert_eq!(report.status(200), report.total());
    let mut answers = answers.lock().unwrap().clone();
    answers.sort();
    let allowed: BTreeSet<u64> =
        (0..USERS).filter(|user| bucket("r", user.to_string().as_bytes()) < CAP).collect();
    let mut since: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut by_second: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let begun = answers[0].0;
    for (at, user, is_gray) in &answers {
        if *is_gray {
            assert!(allowed.contains(user), "{user} is above the cap");
            since.entry(*user).or_insert(*at);
            by_second.entry((*at - begun).as_secs()).or_default().insert(*user);
        } else if let Some(first) = since.get(user) {
            // The other worker may be a tick behind.
            let late = *at - *first;
            assert!(late < Duration::from_millis(500), "{user} lost its color after {late:?}");
        }
    }
    let counts: Vec<usize> = by_second.values().map(BTreeSet::len).collect();
    println!("gray users of 400 by second, at most {}: {counts:?}", allowed.len());
    assert_eq!(since.len(), allowed.len(), "at the full rate all of the cap is used");
    assert!(counts[0] < allowed.len(), "it grew: {counts:?}");
    rig.envoy.assert_healthy();
}
