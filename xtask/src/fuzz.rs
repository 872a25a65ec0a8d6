//! `cargo xtask fuzz`: cargo-fuzz where it can run, the corpus on stable where it cannot.

use std::process::Command;

use anyhow::{Result, bail};

use crate::build::without_modules;
use crate::paths;
use crate::process::{self, cargo, output};
use crate::step::{step, step_counting_tests};

pub fn run(target: Option<&str>, seconds: u64) -> Result<()> {
    let targets = chosen(target, targets()?)?;
    if let Some(reason) = why_not() {
        println!("no fuzzing here: {reason}. Replaying the corpus on the stable toolchain instead");
        return replay();
    }
    for name in &targets {
        let mut fuzz = nightly();
        fuzz.args(["fuzz", "run", name, "--", &format!("-max_total_time={seconds}")]);
        step(&format!("fuzzing {name} for {seconds} s"), &mut fuzz)?;
    }
    Ok(())
}

/// The corpus tests are ordinary tests with `corpus` in their names.
fn replay() -> Result<()> {
    let mut tests = cargo();
    tests.arg("test").args(without_modules()).args(["--", "corpus"]);
    match step_counting_tests("corpus", &mut tests)? {
        0 => bail!("no test has `corpus` in its name, so nothing was replayed"),
        _ => Ok(()),
    }
}

/// rustup's proxy picks the toolchain from `+nightly`; the cargo that runs this is already one.
fn nightly() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::root());
    process::forget(&mut command, |name| {
        process::is_from_outer_cargo(name) || name == "RUSTUP_TOOLCHAIN"
    });
    command.arg("+nightly");
    command
}

fn why_not() -> Option<&'static str> {
    if output(nightly().arg("--version")).is_err() {
        return Some("there is no nightly toolchain (rustup toolchain install nightly)");
    }
    if output(nightly().args(["fuzz", "--version"])).is_err() {
        return Some("there is no cargo-fuzz (cargo install cargo-fuzz)");
    }
    None
}

fn chosen(wanted: Option<&str>, known: Vec<String>) -> Result<Vec<String>> {
    match wanted {
        None => Ok(known),
        Some(name) if known.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no fuzz target `{name}`; there are: {}", known.join(", ")),
    }
}

fn targets() -> Result<Vec<String>> {
    let folder = paths::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|end| end == "rs"))
        .filter_map(|file| file.file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} holds no fuzz target", paths::shown(&folder));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_or_all() {
        let known = || vec!["header".to_owned(), "path".to_owned()];
        assert_eq!(chosen(None, known()).unwrap(), known());
        assert_eq!(chosen(Some("path"), known()).unwrap(), ["path"]);
        let error = chosen(Some("body"), known()).unwrap_err().to_string();
        assert!(error.contains("header, path"), "{error}");
    }
}
