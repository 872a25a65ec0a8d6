//! The scene of traffic coloring: a gray release grows, passes a service without a gray version, and is
//! cut off when it fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weir_integration_tests::wait::{sleep_until, wait_for};
use weir_integration_tests::{
    Account, App, Client, Cluster, Envoy, Filter, Listener, Load, Manner, Request, Route, Script,
    Scripted, Upstream, paths,
};

use crate::stage::WORKERS;
use crate::table::{Section, Table};

const USERS: u64 = 2000;
const COLORS: [&str; 2] = ["base", "gray"];

pub fn play(table: &mut Table) {
    println!(
        "7  A gray release. 5 % of 2000 users, then live 20 %; a lane that is missing; a failing gray ..."
    );
    let section = table.section("7  a gray release: 5 % and 20 % of 2000 users, lanes, a guard");
    ramp(section);
    lanes(section);
    guard(section);
    println!();
}

/// Routes by the color, to a cluster of its name.
fn routed(listener: Listener) -> Listener {
    listener
        .route(Route::prefix("/", "gray").when_header("x-weir-color", "gray"))
        .route(Route::prefix("/", "base"))
}

fn share(weight: u32) -> String {
    format!(
        "{{name: demo, zone: EDGE, traffic_color: {{colors: [base, gray], rules: [{{id: beta, \
         shares: [{{color: gray, weight: {weight}}}], key: [{{header: x-user}}]}}]}}}}"
    )
}

/// The share before and after an edit; who was gray stays so.
fn ramp(section: &mut Section) {
    let versions = COLORS.map(Upstream::start);
    let mut builder = Envoy::builder().workers(WORKERS).module(paths::module("traffic_color"));
    for version in &versions {
        builder = builder.cluster(Cluster::h1(&version.name, version.address));
    }
    let listener = routed(Listener::new("front").filter(Filter::weir()).without_access_log());
    let envoy = builder.listener(listener).policy(&share(500)).start();
    let before = gray_users(&envoy);
    let edited = Instant::now();
    envoy.put_policy(&share(2000)).accepted();
    let live = edited.elapsed();
    let after = gray_users(&envoy);
    println!("   share    gray users   of 2000");
    for (weight, users) in [("5 %", &before), ("20 %", &after)] {
        let percent = users.len() as f64 * 100.0 / USERS as f64;
        println!("   {weight:<9}{:<13}{percent:.1} %", users.len());
    }
    let stayed = (&before & &after).len();
    println!(
        "   The edit was live after {} ms; of the first {}, {stayed} stayed gray.",
        live.as_millis(),
        before.len()
    );
    let count = |users: &BTreeSet<u64>| users.len() as u64;
    section.figure("gray users at 5 % (2000 users)", count(&before), 71..=129);
    section.figure("gray users at 20 %", count(&after), 347..=453);
    section.figure("users that lost gray as it grew", count(&(&before - &after)), 0..=0);
    let gray = count(&before) + count(&after);
    section.equal("requests made gray", gray, counted(&envoy, "outcome=.=gray", gray));
    section.equal("reached the gray version (its count)", gray, versions[1].count("/") as u64);
}

/// The users whose requests the gray version answers.
fn gray_users(envoy: &Envoy) -> BTreeSet<u64> {
    let mut clients: Vec<Client> = (0..2 * WORKERS).map(|_| envoy.client("front")).collect();
    let turns = clients.len() as u64;
    (0..USERS)
        .filter(|user| {
            let client = &mut clients[(user % turns) as usize];
            let answer = client.send(&Request::get("/").header("x-user", user.to_string()));
            answer.json()["upstream"] == "gray"
        })
        .collect()
}

/// Envoy's count of colored requests, once the workers have handed theirs over.
fn counted(envoy: &Envoy, outcome: &str, expected: u64) -> u64 {
    let parts = ["weir_traffic_color_requests_total", outcome];
    let begun = Instant::now();
    loop {
        let counted = envoy.metric_with(&parts);
        if counted >= expected || begun.elapsed() > Duration::from_secs(3) {
            return counted;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

const SERVICES: [&str; 3] = ["shop", "orders", "stock"];
/// Has no gray version.
const BASE_ONLY: &str = "orders";

/// One user's way through three services, the second of which has no gray version.
fn lanes(section: &mut Section) {
    let mut hops: Vec<(Envoy, Vec<App>)> = Vec::new();
    for service in SERVICES.iter().rev() {
        let lanes = match *service {
            BASE_ONLY => "lanes: {lanes: [{match: {direction: INBOUND}, colors: [base]}]}, ",
            _ => "",
        };
        let policy = format!(
            "{{name: demo, traffic_color: {{colors: [base, gray], {lanes}\
             carry: {{in: [HEADER, BAGGAGE], winner: BAGGAGE}}, \
             rules: [{{id: staff, match: {{headers: {{x-user: {{exact: ann}}}}}}, color: gray}}]}}}}"
        );
        let app = |color: &str| App::start(&format!("{service} {color}"), Manner::default());
        let apps: Vec<App> = COLORS.map(app).into();
        let next = hops.last().map(|(envoy, _)| envoy.address("in"));
        let mut builder = Envoy::builder()
            .module(paths::module("traffic_color"))
            .cluster(Cluster::h1("base", apps[0].address))
            .cluster(Cluster::h1("gray", apps[1].address))
            .listener(routed(Listener::inbound("in").filter(Filter::weir())))
            .policy(&policy);
        if let Some(next) = next {
            let out = Listener::outbound("out").filter(Filter::weir());
            builder = builder.cluster(Cluster::h1("next", next));
            builder = builder.listener(out.route(Route::prefix("/", "next")));
        }
        let envoy = builder.start();
        if next.is_some() {
            let out = envoy.address("out");
            apps.iter().for_each(|app| app.change(|manner| manner.next = Some(out)));
        }
        hops.push((envoy, apps));
    }
    let (entry, _) = hops.last().expect("three services");
    let way = |user: &str| {
        let answer = entry.client("in").send(&Request::get("/").header("x-user", user));
        let account = Account::of(&answer);
        account.trail().iter().map(|app| app.app.clone()).collect::<Vec<_>>().join(" -> ")
    };
    let (ann, bob) = (way("ann"), way("bob"));
    println!("   ann's way: {ann}\n   bob's way: {bob}");
    // For the table: the versions alone.
    let versions = |way: &str| -> String {
        let version = |app: &str| app.rsplit(' ').next().unwrap_or_default().to_owned();
        way.split(" -> ").map(version).collect::<Vec<_>>().join(" ")
    };
    for (what, way, must) in [
        ("ann's versions of shop, orders, stock", &ann, "gray base gray"),
        ("bob's versions", &bob, "base base base"),
    ] {
        let was = versions(way);
        section.fact(what, &was, must, was == must);
    }
}

const GUARDED: &str = "
name: demo
zone: EDGE
traffic_color:
  colors: [base, gray]
  rules:
  - id: beta
    shares: [{color: gray, weight: 5000}]
    key: [{header: x-user}]
    guard: {error_delta_points: 5, window: 2s}
";
/// From the start: when gray begins to fail, and the end.
const FAILS: Duration = Duration::from_secs(3);
const LASTS: Duration = Duration::from_secs(8);

/// 503 for so many percent of the requests, at once.
fn flaky(percent: u64) -> Script {
    Script::Flaky { seed: 3, percent, capacity: 1000, busy: Duration::from_millis(1) }
}

/// 200/s to each version, of which gray turns to 20 % errors.
fn guard(section: &mut Section) {
    let versions = COLORS.map(|_| Scripted::start(flaky(1)));
    let mut builder = Envoy::builder().workers(WORKERS).module(paths::module("traffic_color"));
    for (color, version) in COLORS.iter().zip(&versions) {
        builder = builder.cluster(Cluster::h1(color, version.address));
    }
    let listener = routed(Listener::new("front").filter(Filter::weir()).without_access_log());
    let envoy = builder.listener(listener).policy(GUARDED).start();
    let load = Load::labelled(envoy.address("front"), |n| {
        (String::new(), Request::get("/").header("x-user", (n * 7919).to_string()))
    });
    let start = Instant::now();
    let running = load.rate(400).lasts(LASTS).start();
    sleep_until(start + FAILS);
    let failing = Instant::now();
    versions[1].play(flaky(20));
    // The last request that reaches gray.
    let (mut seen, mut last) = (versions[1].seen(), failing);
    while !running.is_finished() {
        let now = versions[1].seen();
        if now != seen {
            (seen, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let report = running.join().expect("the load runs to its end");
    let took = last.saturating_duration_since(failing);
    let trips = wait_for("the guard's count", Duration::from_secs(5), || {
        let trips = envoy.metric_with(&["guard_trips_total"]);
        (trips > 0).then_some(trips)
    });
    println!(
        "   gray turned to 20 % errors over base's 1 %: cut off after {:.2} s, for everybody.",
        took.as_secs_f64()
    );
    section.figure(
        "from gray's first errors to its last request, ms (window 2 s)",
        took.as_millis() as u64,
        1..=4000,
    );
    section.figure("times the guard tripped", trips, 1..=1);
    section.figure("requests without an answer", report.failed, 0..=0);
}
