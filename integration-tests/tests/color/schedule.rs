//! Shares that move: by the clock, and by the rate.

use crate::rig::{Rig, color_of, policy};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use weir_integration_tests::{Load, Request};

/// So many seconds from now, as policies write it.
fn at(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let (days, rest) = ((now + seconds).div_euclid(86_400), (now + seconds).rem_euclid(86_400));
    // Civil from days, by the calendar in which a year begins in March.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

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
