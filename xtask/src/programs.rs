//! The demo, the benchmark and the soak: programs of the integration tests, started on what was built.

use std::ffi::OsString;

use anyhow::Result;

use crate::process::{become_that, cargo};
use crate::setup::Needs;
use crate::{build, setup};

pub fn demo(args: &[OsString]) -> Result<()> {
    let ready = setup::run(Needs::envoy())?;
    build::run(&ready.wasm, false)?;
    start("demo", args)
}

pub fn bench(args: &[OsString]) -> Result<()> {
    let ready = setup::run(Needs::load())?;
    build::run(&ready.wasm, true)?;
    start("bench", args)
}

pub fn soak(args: &[OsString]) -> Result<()> {
    let ready = setup::run(Needs::envoy())?;
    build::run(&ready.wasm, false)?;
    start("soak", args)
}

/// In release: the program is also the client whose figures it reports.
fn start(program: &str, args: &[OsString]) -> Result<()> {
    println!("building the {program} (the first time takes a minute or two)");
    let mut run = cargo();
    run.args(["run", "--quiet", "--release", "-p", "weir-integration-tests", "--bin", program]);
    become_that(run.arg("--").args(args))
}
