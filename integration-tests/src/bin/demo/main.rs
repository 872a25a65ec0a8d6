//! `cargo xtask demo`: limits, a circuit breaker, a trace, a gray release and one limit for two proxies at work
//! on real Envoys, told scene by scene, with a table at the end that compares what the clients counted with what Envoy counted.

mod breaker;
mod color;
mod keep;
mod mesh;
mod policy_file;
mod scenes;
mod signals;
mod stage;
mod table;
mod trace;

use std::panic;
use std::process::ExitCode;
use std::time::Instant;

use stage::Stage;
use table::Table;

const HELP: &str = "\
cargo xtask demo [--keep]

Starts an Envoy with two workers and the rate limiter in front of two small upstreams, sends real
traffic, edits the policy live and tries a bad edit; then another with the circuit breaker, whose
upstream fails and heals; then four Envoys in a chain, whose applications forget to forward their
trace; then a gray release, which grows, passes a service that has no gray version, and is cut off when
it fails; then two Envoys with one limit, whose engine is killed and comes back. Prints a table: what the clients counted, what Envoy counted, and what it had to be. Takes
about 50 s.

Options:
  --keep   leave it running afterwards, put each edit of the policy file live, end on Ctrl-C

Exit code: 0 when all of it held, 1 when a figure is off or something failed (with the reason).

Example: cargo xtask demo --keep";

fn main() -> ExitCode {
    let keep = match keep_asked_for() {
        Ok(Some(keep)) => keep,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("demo: {error}; cargo xtask demo --help shows the options");
            return ExitCode::from(2);
        }
    };
    // What the harness cannot do it says by a panic; a reader wants the sentence alone.
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it failed");
        eprintln!("demo: {text}");
    }));
    match panic::catch_unwind(|| run(keep)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// `None` when help is wanted.
fn keep_asked_for() -> Result<Option<bool>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut keep = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("keep") => keep = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(keep))
}

/// Whether everything held.
fn run(keep: bool) -> bool {
    let started = Instant::now();
    println!("\nA rate limit at work: weir's module in a stock Envoy.\n");
    let mut stage = Stage::set();
    signals::listen(stage.envoy.pid(), stage.envoy.directory().to_path_buf());
    println!(
        "Envoy runs with {} workers on {}, upstreams `shop` and `account` behind it ({:.1} s).\n",
        stage::WORKERS,
        stage.address(),
        started.elapsed().as_secs_f64()
    );
    let mut table = Table::default();
    scenes::limit(&mut stage, &mut table);
    scenes::users(&mut stage, &mut table);
    scenes::edits(&mut stage, &mut table);
    scenes::whole_run(&stage, &mut table);
    breaker::play(&mut table);
    trace::play(&mut table);
    color::play(&mut table);
    mesh::play(&mut table);
    println!("\n{table}");
    let held = table.report(started.elapsed());
    if keep {
        signals::stop_means(i32::from(!held));
        keep::play(&stage);
    }
    held
}
