//! The scene of the circuit breaker: an upstream fails and heals.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_integration_tests::load::LoadReport;
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths,
};

use crate::table::Table;

const POLICY: &str = "
name: demo
circuit_breaker:
  rules:
  - id: shop
    window: {time: {duration: 2s, buckets: 10}}
    failure_rate_percent: 50
    open_duration: 2s
    jitter_percent: 0
    half_open_probes: 5
    while_open:
      fallback:
        answer: {status: 200, body: yesterday's prices}
";

/// From the start: when the upstream begins to fail, and when it is well again.
const FAILS: Duration = Duration::from_millis(1500);
const HEALS: Duration = Duration::from_millis(4000);
const LASTS: Duration = Duration::from_millis(7000);

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Upstream,
    Error,
    Fallback,
}

/// When each answer came, and whose it was.
type Answers = Arc<Mutex<Vec<(Instant, Answer)>>>;

pub fn play(table: &mut Table) {
    println!("5  A circuit breaker. 200/s to an upstream that fails for 2.5 s ...");
    let upstream = Scripted::start(Script::Ok);
    let envoy = Envoy::builder()
        .workers(crate::stage::WORKERS)
        .module(paths::module("circuit_breaker"))
        .cluster(Cluster::h1("shop", upstream.address))
        .listener(
            Listener::outbound("front").filter(Filter::weir()).route(Route::prefix("/", "shop")),
        )
        .policy(POLICY)
        .start();
    let answers = Answers::default();
    let seen = answers.clone();
    let start = Instant::now();
    let load = Load::new(envoy.address("front"), Request::get("/shop"))
        .look(move |at, answer| {
            let whose = match answer.header("x-weir-degraded") {
                Some(_) => Answer::Fallback,
                None if answer.status == 200 => Answer::Upstream,
                None => Answer::Error,
            };
            seen.lock().expect("no panic in between").push((at, whose));
        })
        .rate(200)
        .lasts(LASTS)
        .start();
    sleep_until(start + FAILS);
    upstream.play(Script::Status(500, vec![]));
    sleep_until(start + HEALS);
    upstream.play(Script::Ok);
    let report = load.join().expect("the load runs to its end");
    let answers = answers.lock().expect("no panic in between").clone();
    tell(start, &answers, &report, &envoy, upstream.seen() as u64, table);
}

fn tell(
    start: Instant,
    answers: &[(Instant, Answer)],
    report: &LoadReport,
    envoy: &Envoy,
    arrived: u64,
    table: &mut Table,
) {
    let times = |whose| answers.iter().filter(move |(_, w)| *w == whose).map(|(at, _)| *at);
    let count = |whose| times(whose).count() as u64;
    let at = |instant: Instant| (instant - start).as_secs_f64();
    let failed = times(Answer::Error).min().expect("the upstream failed");
    let opened = times(Answer::Fallback).min().expect("the breaker opened");
    let half_open = times(Answer::Upstream).filter(|at| *at > opened).min().expect("it healed");
    // The last fallback may have left just before the first probe came back.
    let closed = times(Answer::Fallback).max().expect("the breaker opened").max(half_open);
    println!(
        "   first error {:.2} s, open and fallback {:.2} s, healed {:.2} s, half-open {:.2} s, closed {:.2} s.\n",
        at(failed),
        at(opened),
        HEALS.as_secs_f64(),
        at(half_open),
        at(closed)
    );

    let section =
        table.section("5  a circuit breaker: 200/s, 500s from 1.5 s to 4.0 s, open for 2 s");
    let millis = |from: Instant, to: Instant| (to - from).as_millis() as u64;
    section.figure("from the first error to the fallback, ms", millis(failed, opened), 700..=1200);
    section.figure("from open to half-open, ms", millis(opened, half_open), 1900..=2400);
    section.figure(
        "from half-open to the last fallback, ms",
        closed.saturating_duration_since(half_open).as_millis() as u64,
        0..=200,
    );
    section.figure("requests without an answer", report.failed, 0..=0);
    let (own, errors) = (count(Answer::Upstream), count(Answer::Error));
    section.equal("reached the upstream (its count)", own + errors, arrived);
    section.equal("answered by the fallback", count(Answer::Fallback), fallbacks(envoy, answers));
}

/// Envoy's count, once the workers have handed theirs over.
fn fallbacks(envoy: &Envoy, answers: &[(Instant, Answer)]) -> u64 {
    let expected = answers.iter().filter(|(_, whose)| *whose == Answer::Fallback).count() as u64;
    let name = "wasmcustom.policy=.=demo;.;rule=.=shop;.;outcome=.=fallback;.;\
                weir_circuit_breaker_requests_total";
    let begun = Instant::now();
    loop {
        let counted = envoy.counter(name);
        if counted == expected || begun.elapsed() > Duration::from_secs(2) {
            return counted;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
