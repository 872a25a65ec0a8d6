//! The circuit breaker: what it costs beside what Envoy has of the kind, and what it does for clients.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths, policy,
};

use crate::subject::{NONE, NOOP, Running, Subject, wasm};

const LISTENER: &str = "out";
const PATH: &str = "/orders/17";

/// Calls to an upstream that is well: every breaker is closed.
pub fn subjects(upstream: &Scripted) -> Vec<Subject<'_>> {
    let start = move |filter: Option<Filter>, detects: bool| {
        let mut cluster = Cluster::h1("up", upstream.address);
        if detects {
            cluster = cluster.option("outlier_detection", json!({"consecutive_5xx": 5}));
        }
        let mut listener = Listener::outbound(LISTENER).without_access_log();
        if let Some(filter) = filter {
            listener = listener.filter(filter);
        }
        let listener = listener.route(Route::prefix("/", "up"));
        let envoy = Envoy::builder().cluster(cluster).listener(listener).start();
        Running::new(envoy, LISTENER, PATH).line("x-user: hot")
    };
    let ours = move |name: &str, rule: &'static str| {
        Subject::new(name, move || {
            let text = format!("{{name: bench, circuit_breaker: {{rules: [{{id: r, {rule}}}]}}}}");
            let module = paths::module("circuit_breaker");
            let filter = wasm("weir.circuit_breaker", &module, &policy::to_json(&text));
            start(Some(filter), false)
                .counts(&["weir_circuit_breaker_requests_total", "outcome=.=admitted;"])
        })
    };
    let noop = || wasm("noop", &paths::built("noop_sdk.wasm"), "");
    vec![
        Subject::new(NONE, move || start(None, false)),
        Subject::new(NOOP, move || start(Some(noop()), false)),
        Subject::new("native outlier detection", move || {
            start(None, true).checked(|envoy| {
                let is_on = !envoy.stats("outlier_detection").is_empty();
                is_on.then_some(()).ok_or_else(|| "it is not on".to_owned())
            })
        }),
        Subject::new("native admission_control", move || {
            start(Some(admission_control()), false).counts(&["admission_control.rq_success"])
        }),
        ours("weir, one closed breaker", "minimum_calls: 20"),
        ours("weir, breakers keyed by header", "key: [{header: x-user}]"),
        ours("weir, ADAPTIVE", "strategy: ADAPTIVE"),
    ]
}

pub fn admission_control() -> Filter {
    Filter::inline(
        "envoy.filters.http.admission_control",
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
            "enabled": {"default_value": true, "runtime_key": "bench.admission_control"},
            "success_criteria": {"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}},
        }),
    )
}

/// What the clients of one run got.
struct Run {
    requests: u64,
    errors: u64,
    fallbacks: u64,
    reached: usize,
}

/// One upstream that turns flaky and short of room, met once without a breaker and once with one.
/// The same seed draws the same failures for the same requests.
fn incident() -> [Run; 2] {
    ["mode: 'OFF'", "mode: ENFORCE"].map(|mode| {
        let upstream = Scripted::start(Script::Ok);
        let rule = format!(
            "{{id: r, {mode}, window: {{time: {{duration: 2s}}}}, open_duration: 1s, jitter_percent: 0, \
             while_open: {{fallback: {{answer: {{status: 203, body: stale}}}}}}}}"
        );
        let envoy = Envoy::builder()
            .workers(2)
            .module(paths::module("circuit_breaker"))
            .cluster(Cluster::h1("up", upstream.address))
            .listener(
                Listener::outbound(LISTENER).filter(Filter::weir()).route(Route::prefix("/", "up")),
            )
            .policy(&format!("{{name: bench, circuit_breaker: {{rules: [{rule}]}}}}"))
            .start();
        let start = Instant::now();
        let load = Load::new(envoy.address(LISTENER), Request::get("/orders/17"))
            .connections(48)
            .rate(300)
            .lasts(Duration::from_secs(12))
            .start();
        sleep_until(start + Duration::from_secs(3));
        let busy = Duration::from_millis(200);
        upstream.play(Script::Flaky { seed: 7, percent: 60, capacity: 8, busy });
        sleep_until(start + Duration::from_secs(9));
        upstream.play(Script::Ok);
        let report = load.join().expect("the load runs to its end");
        let good = report.status(200) + report.status(203);
        Run {
            requests: report.total(),
            errors: report.total() - good,
            fallbacks: report.status(203),
            reached: upstream.seen(),
        }
    })
}

/// Plays it, prints it, and gives it as JSON.
pub fn lab() -> Result<Value, String> {
    let runs = incident();
    print(&runs);
    let [without, with] = runs.map(|run| {
        json!({
            "requests": run.requests,
            "errors": run.errors,
            "from_fallback": run.fallbacks,
            "reached_upstream": run.reached,
        })
    });
    Ok(json!({"without": without, "with": with}))
}

fn print(runs: &[Run; 2]) {
    println!(
        "\nAn upstream that fails 60 % of its calls, drawn by one seed, and has room for 8 at a time, for 6 \
         of 12 s at 300 requests/s"
    );
    println!("{:32}  {:>8}  {:>14}  {:>12}", "", "errors", "from fallback", "reached it");
    for (name, run) in ["without a breaker", "with a breaker and fallback"].iter().zip(runs) {
        let share = |part: u64| format!("{:.1} %", part as f64 * 100.0 / run.requests as f64);
        println!(
            "{name:32}  {:>8}  {:>14}  {:>12}",
            share(run.errors),
            share(run.fallbacks),
            run.reached
        );
    }
}
