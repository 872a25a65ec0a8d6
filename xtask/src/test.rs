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
const ALONE: [&str; 2] = ["mesh_rates", "rates"];

/// Of these, what filters do.
const RATES: &str = "rates";

/// The tests that ask what filters do, not how a module or the harness is made.
const OF_FILTERS: [&str; 9] = [
    "behaviour",
    "breaker",
    "color",
    "examples",
    "hostile",
    "in_flight",
    "mesh",
    "policies",
    "trace",
];

const ON_THE_SUITE: &str = "on the suite";

pub fn run(filter: Option<&str>, lint: bool) -> Result<()> {
    let started = Instant::now();
    let threads = threads()?;
    if lint && filter.is_none() {
        need_component("fmt", "rustfmt")?;
        need_component("clippy", "clippy")?;
    }
    println!("== set-up and build");
    let ready = setup::run(Needs::tests())?;
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

    let mut all = test_binaries()?;
    all.retain(|name| !ALONE.contains(&name.as_str()));
    let tests = |title: &str, names: &[&str], threads: u32| {
        let mut tests = cargo();
        tests.args(["test", "-p", REAL_ENVOY]).args(names.iter().flat_map(|name| ["--test", name]));
        if names.len() == all.len() {
            tests.args(["--lib", "--bins"]);
        }
        tests.args(["--", &format!("--test-threads={threads}")]).args(filter);
        if title.ends_with(ON_THE_SUITE) {
            tests.env("WEIR_TEST_MODULE", "suite");
        }
        step_counting_tests(title, &mut tests)
    };
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    ran += tests("tests on a real Envoy", &names, threads)?;
    ran += tests("rates on a real Envoy, one at a time", &ALONE, 1)?;
    // What holds for the filters one by one has to hold for all in one.
    ran += tests(&format!("what filters do, {ON_THE_SUITE}"), &OF_FILTERS, threads)?;
    ran += tests(&format!("rates, {ON_THE_SUITE}"), &[RATES], 1)?;
    if filter.is_none() {
        let mut soak = cargo();
        soak.args(["run", "--quiet", "-p", REAL_ENVOY, "--bin", "soak", "--", "--minutes", "2"]);
        step("two minutes of everything at once", &mut soak)?;
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

/// The integration tests' binaries.
fn test_binaries() -> Result<Vec<String>> {
    let folder = paths::root().join("integration-tests/tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| paths::shown(&folder))? {
        names.extend(test_name(&entry?.path()));
    }
    names.sort();
    Ok(names)
}

/// Cargo's rule: `tests/<name>.rs` or `tests/<name>/main.rs`.
fn test_name(path: &Path) -> Option<String> {
    let is_test = match path.is_dir() {
        true => path.join("main.rs").is_file(),
        false => path.extension().is_some_and(|end| end == "rs"),
    };
    is_test.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}
