//! Steps of a longer task: each under a heading, with its time, and on failure with the command that
//! repeats just this one.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::shown;

/// Runs one step with its output on the terminal.
pub fn step(title: &str, command: &mut Command) -> Result<()> {
    println!("\n== {title}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    judge(title, command, status, started)
}

/// The same for a `cargo test`, and counts the tests that ran: a name that matches none is no
/// success.
pub fn step_counting_tests(title: &str, command: &mut Command) -> Result<u64> {
    println!("\n== {title}");
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let mut tests = 0;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            tests += tests_in(&line);
            println!("{line}");
        }
    }
    judge(title, command, child.wait()?, started)?;
    Ok(tests)
}

/// `running 3 tests`
fn tests_in(line: &str) -> u64 {
    let number = line.strip_prefix("running ").and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn judge(title: &str, command: &Command, status: ExitStatus, started: Instant) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!(
            "{title} failed after {seconds:.1} s ({status}). To run it again:\n  {}",
            shown(command)
        );
    }
    println!("== {title}: {seconds:.1} s");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted() {
        assert_eq!(tests_in("running 12 tests"), 12);
        assert_eq!(tests_in("running 1 test"), 1);
        assert_eq!(tests_in("test a::running 3 tests ... ok"), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_step_names_the_command_that_repeats_it() {
        let mut command = Command::new("sh");
        let error = step("the step", command.args(["-c", "exit 4"])).unwrap_err().to_string();
        assert!(error.contains("the step failed"), "{error}");
        assert!(error.ends_with("sh -c 'exit 4'"), "{error}");
    }
}
