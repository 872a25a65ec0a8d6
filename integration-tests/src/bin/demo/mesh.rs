//! The scene of one limit for two proxies: their engine is killed, and comes back.

use std::time::{Duration, Instant};

use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{
    Answers, Cluster, Envoy, Filter, Keeps, Listener, Load, Request, Rls, Route,
};

use crate::table::Table;

const LIMIT: u32 = 500;

const POLICY: &str = "
name: demo
rate_limit:
  mesh: {cluster: engine, domain: shop, instances: 2, safe_share_percent: 20, on_error: DENY, timeout: 0.2s}
  rules:
  - {id: shop, scope: MESH, key: [{header: x-user}],
     max_tokens: 500, tokens_per_fill: 500, fill_interval: 1s}
";

/// From the start: when the engine is killed, and when it is back.
const KILLED: Duration = Duration::from_millis(2500);
const BACK: Duration = Duration::from_millis(4500);
const LASTS: Duration = Duration::from_millis(7000);

/// A proxy forgets the engine's silence within a second, and then has its window.
const WELL: Duration = Duration::from_millis(5700);

pub fn play(table: &mut Table) {
    println!(
        "8  One limit for two proxies. 800/s against 500/s, and the engine is gone for 2 s ..."
    );
    let engine = Rls::start(Keeps::LimitadorWithHeaders, LIMIT, 1);
    let start = |_| {
        let listener = Listener::inbound("front").filter(Filter::weir());
        Envoy::builder()
            .workers(crate::stage::WORKERS)
            .listener(listener.route(Route::direct("/", 200)))
            .cluster(Cluster::h2("engine", engine.address))
            .policy(POLICY)
            .start()
    };
    let proxies = [0, 1].map(start);
    let begun = Instant::now();
    let loads = proxies.each_ref().map(|envoy| {
        let request = Request::get("/").header("x-user", "ann");
        Load::new(envoy.address("front"), request).connections(8).rate(400).lasts(LASTS).start()
    });
    sleep_until(begun + KILLED);
    engine.play(Answers::Gone);
    sleep_until(begun + BACK);
    engine.play(Answers::Rightly);
    let reports = loads.map(|load| load.join().expect("the load runs to its end"));

    let passed = |from: Duration, until: Duration| {
        let each = reports.iter().map(|it| it.between(200, begun + from, begun + until));
        let seconds = (until - from).as_secs_f64();
        (each.sum::<u64>() as f64 / seconds) as u64
    };
    let shared = passed(Duration::ZERO, KILLED);
    // What is left of the leases is spent by then.
    let alone = passed(KILLED + Duration::from_millis(500), BACK);
    let again = passed(WELL, LASTS);
    println!(
        "   passed {shared}/s with the engine, {alone}/s without it, {again}/s when it is back.\n"
    );
    let failed = reports.iter().map(|report| report.failed).sum();
    let others = |status: &u16| ![200, 429].contains(status);
    let odd = reports.iter().flat_map(|it| it.answers.iter());
    let odd = odd.filter(|((_, status), _)| others(status)).map(|(_, count)| *count).sum();

    // Limitador begins a window with the first call after the last one's end, which is a little later.
    let section = table.section(
        "8  one limit for two proxies: 800/s against 500/s, no engine from 2.5 s to 4.5 s",
    );
    section.figure("passed in a second, with the engine", shared, 380..=610);
    section.figure("passed in a second, without it: 20 %", alone, 85..=130);
    section.figure("passed in a second, when it is back", again, 380..=640);
    section.figure("requests without an answer", failed, 0..=0);
    section.figure("answers but 200 and 429", odd, 0..=0);
    let asked = engine.calls();
    section.figure("calls to the engine, of 5600 requests", asked, 1..=400);
}
