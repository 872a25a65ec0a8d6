//! The measurement: interleaved rounds over Envoys that stay.

use std::process::Command;

use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::subject::{Running, Subject};

/// Connections of h2load: enough to keep one worker busy.
const CONNECTIONS: u32 = 16;

pub struct Measured {
    pub name: String,
    /// Nanoseconds per request, by round.
    pub rounds: Vec<f64>,
}

impl Measured {
    /// The quietest round: noise only ever adds.
    pub fn at_best(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Over the first variant, round by round: what disturbed a round disturbed both.
    pub fn over(&self, none: &Self) -> Vec<f64> {
        self.rounds.iter().zip(&none.rounds).map(|(with, without)| with - without).collect()
    }
}

/// Measures the subjects that the options ask for, with so many requests a round; the first is
/// Envoy without a filter.
pub fn measure(
    subjects: Vec<Subject>,
    requests: u64,
    options: &Options,
    machine: &Machine,
) -> Result<Vec<Measured>, String> {
    println!("starting {} Envoys ...", subjects.len());
    let mut running = Vec::new();
    for subject in subjects {
        running.push((subject.name.clone(), subject.start()?));
    }
    measure_running(running, requests, options, machine)
}

/// The same of Envoys that run already.
pub fn measure_running(
    running: Vec<(String, Running)>,
    requests: u64,
    options: &Options,
    machine: &Machine,
) -> Result<Vec<Measured>, String> {
    // Upstreams and collectors are threads of this process; they keep off the worker's core.
    cpu::pin(std::process::id(), &[machine.clients]);
    for (_, variant) in &running {
        cpu::pin(variant.envoy.pid(), &[machine.worker]);
    }
    let mut measured: Vec<_> = running
        .iter()
        .map(|(name, _)| Measured { name: name.clone(), rounds: Vec::new() })
        .collect();
    for round in 0..=options.rounds {
        // Another one begins each time: the place in the round must not count.
        for place in 0..running.len() {
            let at = (place + round) % running.len();
            let (name, variant) = &running[at];
            let cost = cost(variant, requests, machine).map_err(|e| format!("{name}: {e}"))?;
            // The first round warms up: V8 compiles hot code again, leases grow.
            if round > 0 {
                measured[at].rounds.push(cost);
            }
        }
        match round {
            0 => println!("warm"),
            n => println!("round {n} of {}", options.rounds),
        }
    }
    for (name, variant) in &running {
        let all = requests * (options.rounds as u64 + 1);
        variant.prove(all).map_err(|e| format!("{name}: {e}"))?;
    }
    cpu::pin(std::process::id(), &[machine.worker, machine.clients]);
    Ok(measured)
}

/// Nanoseconds of the process per request.
fn cost(variant: &Running, count: u64, machine: &Machine) -> Result<f64, String> {
    let pid = variant.envoy.pid();
    let mut h2load = Command::new("taskset");
    h2load.args(["--cpu-list", &machine.clients.to_string(), "h2load"]);
    h2load.args(["--requests", &count.to_string()]);
    for line in variant.lines() {
        h2load.args(["--header", line]);
    }
    match variant.file() {
        None => {
            h2load.args(["--h1", "--clients", &CONNECTIONS.to_string()]).arg(variant.url());
        }
        // Each client would begin at the first path.
        Some(file) => {
            h2load.args(["--clients", "1", "--max-concurrent-streams", &CONNECTIONS.to_string()]);
            h2load.args(["--base-uri", variant.url(), "--input-file"]).arg(file);
        }
    }
    let before = cpu::time(pid);
    let output = h2load
        .output()
        .map_err(|e| format!("cannot start taskset and h2load; run: cargo xtask setup ({e})"))?;
    let after = cpu::time(pid);
    let said = String::from_utf8_lossy(&output.stdout);
    let good = format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx");
    if !output.status.success() || !said.contains(&good) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("not {count} good answers:\n{said}{errors}"));
    }
    Ok((after - before) as f64 / count as f64)
}
