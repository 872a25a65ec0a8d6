//! What clients feel and what a worker weighs: latency, throughput with one worker and two, memory.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Route, Scripted, paths};

use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::quantiles::Quantiles;
use crate::report::median;
use crate::subject::{NONE, NOOP, Running};
use crate::suite::{self, steady_lines};

/// Memory is taken from the difference of these.
const FEW: u32 = 1;
const MANY: u32 = 4;

struct Row {
    name: &'static str,
    workers: u32,
    running: Running,
    /// Requests a second, and milliseconds of the median and the 99th percentile, by round.
    rounds: Vec<[f64; 3]>,
}

type Chain = fn() -> Vec<Filter>;

pub fn lab(options: &Options, machine: &Machine) -> Result<Value, String> {
    let upstream = Scripted::start(weir_integration_tests::Script::Ok);
    let chains: [(&'static str, Chain); 5] = [
        (NONE, Vec::new),
        (NOOP, || vec![suite::noop()]),
        ("native, three filters", suite::native_chain),
        ("weir, four modules", || suite::modules(&suite::FILTERS)),
        ("weir, suite", || suite::modules(&["suite"])),
    ];
    let start = |workers: u32, chain: Chain| {
        let mut listener = Listener::inbound("in").without_access_log();
        for filter in chain() {
            listener = listener.filter(filter);
        }
        let envoy = Envoy::builder()
            .workers(workers)
            .cluster(Cluster::h1("up", upstream.address))
            .listener(listener.route(Route::prefix("/", "up")))
            .start();
        steady_lines(Running::new(envoy, "in", "/orders/17"))
    };
    cpu::pin(std::process::id(), &[machine.clients]);
    let mut rows = Vec::new();
    for workers in [1, 2] {
        for (name, chain) in chains {
            let running = start(workers, chain);
            let both = [machine.worker, machine.clients];
            cpu::pin(running.envoy.pid(), &both[..workers as usize]);
            rows.push(Row { name, workers, running, rounds: Vec::new() });
        }
    }
    // The first round warms up.
    for round in 0..=options.rounds {
        for row in &mut rows {
            let figures = load(&row.running, options.requests, machine)?;
            if round > 0 {
                row.rounds.push(figures);
            }
        }
        println!("round {round} of {}", options.rounds);
    }
    cpu::pin(std::process::id(), &[machine.worker, machine.clients]);
    println!("\n{:28} workers  requests/s   p50 ms   p99 ms", "16 connections");
    let mut paces = Vec::new();
    for row in &rows {
        let [rate, p50, p99] =
            [0, 1, 2].map(|n| median(&row.rounds.iter().map(|r| r[n]).collect::<Vec<_>>()));
        println!("{:28} {:>7} {rate:>11.0} {p50:>8.3} {p99:>8.3}", row.name, row.workers);
        paces.push(json!({"name": row.name, "workers": row.workers, "rate": rate, "p50_ms": p50, "p99_ms": p99}));
    }
    drop(rows);
    println!("\n{:28} MB a worker, resident after load", "");
    let mut memory = Vec::new();
    for (name, chain) in chains {
        let weight = |workers: u32| -> Result<f64, String> {
            let running = start(workers, chain);
            load(&running, options.requests, machine)?;
            Ok(running.envoy.resident_memory() as f64 / 1e6)
        };
        let each = (weight(MANY)? - weight(FEW)?) / f64::from(MANY - FEW);
        println!("{name:28} {each:>6.1}");
        memory.push(json!({"name": name, "mb_per_worker": each}));
    }
    let sizes: Vec<Value> = suite::FILTERS
        .iter()
        .chain(&["suite"])
        .map(|module| {
            let bytes = std::fs::metadata(paths::module(module)).map_or(0, |file| file.len());
            println!("{module:28} {bytes:>7} bytes");
            json!({"name": module, "bytes": bytes})
        })
        .collect();
    Ok(json!({"paces": paces, "memory": memory, "sizes": sizes}))
}

/// Requests a second, and milliseconds of the median and the 99th percentile.
fn load(running: &Running, count: u64, machine: &Machine) -> Result<[f64; 3], String> {
    let log = paths::root().join(format!("target/weir/pace-{}.tsv", std::process::id()));
    let mut h2load = Command::new("taskset");
    h2load.args(["--cpu-list", &machine.clients.to_string(), "h2load", "--h1", "--clients", "16"]);
    h2load.args(["--requests", &count.to_string(), "--log-file"]).arg(&log);
    for line in running.lines() {
        h2load.args(["--header", line]);
    }
    let output = h2load
        .arg(running.url())
        .output()
        .map_err(|e| format!("cannot start taskset and h2load; run: cargo xtask setup ({e})"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains(&format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx")) {
        return Err(format!("not {count} good answers:\n{said}"));
    }
    let rows = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    std::fs::remove_file(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    // Start in microseconds since the epoch, status, microseconds it took.
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::parse::<u64>);
        let (start, _, took) = (columns.next()?.ok()?, columns.next()?, columns.next()?.ok()?);
        Some((start, took))
    };
    let rows: Vec<(u64, u64)> = rows.lines().filter_map(row).collect();
    let begin = rows.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let end = rows.iter().map(|(start, took)| start + took).max().unwrap_or(0);
    let rate = rows.len() as f64 / ((end - begin) as f64 / 1e6);
    let times = Quantiles::of(rows.iter().map(|row| Duration::from_micros(row.1)).collect());
    Ok([rate, times.ms(50), times.ms(99)])
}
