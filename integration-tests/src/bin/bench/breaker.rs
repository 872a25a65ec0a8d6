//! The circuit breaker: what it costs beside what Envoy has of the kind, and what it does for clients.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths, policy,
};

use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::runs::Measured;
use crate::variants::{HEADER, NONE, NOOP, wasm};

const LISTENER: &str = "out";

/// Measures calls to an upstream that is well: every breaker is closed.
pub fn cost(options: &Options, machine: &Machine) -> Result<Vec<Measured>, String> {
    let upstream = Scripted::start(Script::Ok);
    // The upstream is a thread of this process; it keeps off the worker's core.
    cpu::pin(std::process::id(), &[machine.clients]);
    let ours = |rule: &str| {
        let text = format!("{{name: bench, circuit_breaker: {{rules: [{{id: r, {rule}}}]}}}}");
        let module = paths::module("circuit_breaker");
        wasm("weir.circuit_breaker", &module, &policy::to_json(&text))
    };
    let with = |filter| (vec![filter], false);
    let variants = [
        (NONE, (vec![], false)),
        (NOOP, with(wasm("noop", &paths::built("noop_sdk.wasm"), ""))),
        ("native outlier detection", (vec![], true)),
        ("native admission_control", with(admission_control())),
        ("weir, one closed breaker", with(ours("minimum_calls: 20"))),
        ("weir, breakers keyed by header", with(ours("key: [{header: x-user}]"))),
        ("weir, ADAPTIVE", with(ours("strategy: ADAPTIVE"))),
    ];
    let running: Vec<_> = variants
        .into_iter()
        .map(|(name, (filters, detects))| {
            let mut cluster = Cluster::h1("up", upstream.address);
            if detects {
                cluster = cluster.option("outlier_detection", json!({"consecutive_5xx": 5}));
            }
            let mut listener = Listener::outbound(LISTENER).without_access_log();
            for filter in filters {
                listener = listener.filter(filter);
            }
            let listener = listener.route(Route::prefix("/", "up"));
            (name, Envoy::builder().cluster(cluster).listener(listener).start())
        })
        .collect();
    let mut measured: Vec<_> = running
        .iter()
        .map(|(name, envoy)| {
            cpu::pin(envoy.pid(), &[machine.worker]);
            Measured { name: (*name).to_owned(), rounds: Vec::new() }
        })
        .collect();
    // The upstream is the slowest part here; fewer requests take as long.
    let requests = (options.requests / 4).max(1000);
    for round in 0..=options.rounds {
        for place in 0..running.len() {
            let at = (place + round) % running.len();
            let cost = requests_of(&running[at].1, requests, machine)?;
            if round > 0 {
                measured[at].rounds.push(cost);
            }
        }
    }
    cpu::pin(std::process::id(), &[machine.worker, machine.clients]);
    Ok(measured)
}

fn admission_control() -> Filter {
    Filter::inline(
        "envoy.filters.http.admission_control",
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
            "enabled": {"default_value": true, "runtime_key": "bench.admission_control"},
            "success_criteria": {"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}},
        }),
    )
}

/// Nanoseconds of the process per request.
fn requests_of(envoy: &Envoy, count: u64, machine: &Machine) -> Result<f64, String> {
    let mut h2load = Command::new("taskset");
    h2load.args(["--cpu-list", &machine.clients.to_string(), "h2load", "--h1", "--clients", "16"]);
    h2load.args(["--requests", &count.to_string(), "--header", HEADER]);
    h2load.arg(format!("http://{}/orders/17", envoy.address(LISTENER)));
    let before = cpu::time(envoy.pid());
    let output = h2load
        .output()
        .map_err(|e| format!("cannot start taskset and h2load; run: cargo xtask setup ({e})"))?;
    let after = cpu::time(envoy.pid());
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains(&format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx")) {
        return Err(format!("not {count} good answers:\n{said}"));
    }
    Ok((after - before) as f64 / count as f64)
}

/// What the clients of one run got.
pub struct Run {
    requests: u64,
    errors: u64,
    fallbacks: u64,
    reached: usize,
}

/// One upstream that turns flaky and short of room, met once without a breaker and once with one.
/// The same seed draws the same failures for the same requests.
pub fn incident() -> [Run; 2] {
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

pub fn print_incident(runs: &[Run; 2]) {
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
