//! `cargo xtask test`: everything that has to hold, in the order in which it fails fastest.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::build::{self, MODULES};
use crate::paths;
use crate::process::{cargo, output};
use crate::setup::{self, Needs};
use crate::step::{step, step_counting_tests};

const REAL_ENVOY: &str = "weir-integration-tests";

/// Tests of rates and times: a neighbour that takes the processor would be measured along.
const ALONE: &str = "rates";

pub fn run(filter: Option<&str>, lint: bool) -> Result<()> {
    let started = Instant::now();
    let threads = threads()?;
    if lint && filter.is_none() {
        need_component("fmt", "rustfmt")?;
        need_component("clippy", "clippy")?;
    }
    println!("== set-up and build");
    let ready = setup::run(Needs::envoy())?;
    build::run(&ready.wasm, true)?;

    if filter.is_none() && lint {
        step("format", cargo().args(["fmt", "--all", "--check"]))?;
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        step("clippy", &mut clippy)?;
        if ready.wasm.has_clippy() {
            for module in &MODULES {
                let mut clippy = ready.wasm.cargo("clippy");
                clippy.args(["-p", module.package, "--", "-D", "warnings"]);
                step(&format!("clippy of {} for wasm32", module.package), &mut clippy)?;
            }
        } else {
            println!("(clippy saw the modules as native code: this route has none for wasm32)");
        }
    }

    let mut native = cargo();
    native.arg("test").args(build::without_modules()).args(["--exclude", REAL_ENVOY]);
    native.args(filter.map(|name| ["--", name]).into_iter().flatten());
    let mut ran = step_counting_tests("unit, property and corpus tests", &mut native)?;

    let (alone, side_by_side) = test_binaries()?;
    let mut shared = cargo();
    shared.args(["test", "-p", REAL_ENVOY, "--lib", "--bins"]);
    for name in &side_by_side {
        shared.args(["--test", name]);
    }
    shared.args(["--", &format!("--test-threads={threads}")]).args(filter);
    ran += step_counting_tests("tests on a real Envoy", &mut shared)?;
    if alone {
        let mut rates = cargo();
        rates.args(["test", "-p", REAL_ENVOY, "--test", ALONE, "--", "--test-threads=1"]);
        let title = "rates on a real Envoy, one at a time";
        ran += step_counting_tests(title, rates.args(filter))?;
    }
    if let (0, Some(name)) = (ran, filter) {
        bail!("no test has `{name}` in its name");
    }
    println!("\nall {ran} tests passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Says how to get a missing cargo subcommand before minutes of building.
fn need_component(subcommand: &str, component: &str) -> Result<()> {
    let mut command = cargo();
    command.args([subcommand, "--version"]);
    if output(&mut command).is_err() {
        bail!(
            "this toolchain has no cargo {subcommand}: `rustup component add {component}` gets it. \
             cargo xtask test --no-lint goes without"
        );
    }
    Ok(())
}

fn threads() -> Result<u32> {
    match std::env::var("WEIR_TEST_THREADS") {
        Err(_) => Ok(2),
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => bail!("WEIR_TEST_THREADS is {text:?}; it must be a number from 1"),
        },
    }
}

/// The integration tests' binaries: whether the one that runs alone is there, and the others.
fn test_binaries() -> Result<(bool, Vec<String>)> {
    let folder = paths::root().join("integration-tests/tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| paths::shown(&folder))? {
        names.extend(test_name(&entry?.path()));
    }
    names.sort();
    let alone = names.iter().any(|name| name == ALONE);
    names.retain(|name| name != ALONE);
    Ok((alone, names))
}

/// Cargo's rule: `tests/<name>.rs` or `tests/<name>/main.rs`.
fn test_name(path: &Path) -> Option<String> {
    let is_test = match path.is_dir() {
        true => path.join("main.rs").is_file(),
        false => path.extension().is_some_and(|end| end == "rs"),
    };
    is_test.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}
