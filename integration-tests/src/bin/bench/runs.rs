//! The measurement: interleaved rounds over Envoys that stay.

use std::process::Command;

use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::variants::{self, HEADER, Running, Variant};

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

/// Measures; the first is Envoy without a filter.
pub fn all(options: &Options, machine: &Machine) -> Result<Vec<Measured>, String> {
    let chosen = variants::chosen(options);
    println!("starting {} Envoys ...", chosen.len());
    let running: Vec<Running> = chosen.into_iter().map(Variant::start).collect();
    for variant in &running {
        cpu::pin(variant.envoy.pid(), &[machine.worker]);
    }
    let mut measured: Vec<_> =
        running.iter().map(|v| Measured { name: v.name.clone(), rounds: Vec::new() }).collect();
    for round in 0..=options.rounds {
        // Another one begins each time: the place in the round must not count.
        for place in 0..running.len() {
            let at = (place + round) % running.len();
            let cost = requests(&running[at], options.requests, machine)?;
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
    for variant in &running {
        variant.prove(options.requests * (options.rounds as u64 + 1))?;
    }
    Ok(measured)
}

/// Nanoseconds of the process per request.
fn requests(variant: &Running, count: u64, machine: &Machine) -> Result<f64, String> {
    let pid = variant.envoy.pid();
    let mut h2load = Command::new("taskset");
    h2load.args(["--cpu-list", &machine.clients.to_string(), "h2load", "--h1"]);
    h2load.args(["--requests", &count.to_string(), "--clients", &CONNECTIONS.to_string()]);
    h2load.args(["--header", HEADER, &variant.url()]);
    let before = cpu::time(pid);
    let output = h2load
        .output()
        .map_err(|e| format!("cannot start taskset and h2load; run: cargo xtask setup ({e})"))?;
    let after = cpu::time(pid);
    let said = String::from_utf8_lossy(&output.stdout);
    let good = format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx");
    if !output.status.success() || !said.contains(&good) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: not {count} good answers:\n{said}{errors}", variant.name));
    }
    Ok((after - before) as f64 / count as f64)
}
