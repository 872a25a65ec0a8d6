//! `cargo xtask <command>`: set-up, build, tests, demo and benchmark of weir.
//!
//! Everything that takes real work (Envoy processes, load, tables) lives in the integration
//! tests' binaries, so that this crate compiles in seconds and each command starts at once.

mod build;
mod cli;
mod fuzz;
mod paths;
mod postlink;
mod process;
mod programs;
mod setup;
mod step;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use cli::Command;
use setup::Needs;

fn main() -> ExitCode {
    let outcome = cli::parse(std::env::args_os().skip(1)).and_then(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Help(text) => {
            println!("{text}");
            Ok(())
        }
        Command::Setup => setup::run(Needs::all()).map(drop),
        Command::Build { with_noop } => {
            let ready = setup::run(Needs::wasm())?;
            build::run(&ready.wasm, with_noop)
        }
        Command::Test { filter, lint } => test::run(filter.as_deref(), lint),
        Command::Demo { args } => programs::demo(&args),
        Command::Bench { args } => programs::bench(&args),
        Command::Soak { args } => programs::soak(&args),
        Command::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
    }
}
