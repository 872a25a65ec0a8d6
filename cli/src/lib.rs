//! The `weir` command: what it does to a policy on a terminal, with the engine of the filters.
//!
//! Each command is a module with its arguments and a `run`; `yaml` reads files, `source` policies,
//! `finding` and `report` say what is wrong with them.

mod clock;
mod completions;
mod diff;
mod direction;
mod explain;
mod finding;
mod image;
mod keys;
mod lint;
mod live;
mod metrics;
mod proxy;
mod push;
mod render;
mod report;
mod rollout;
mod run;
mod schema;
mod simulate;
mod source;
mod status;
mod top;
mod url;
mod validate;
mod yaml;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Checks, explains and simulates policies of weir, with the engine that runs in the filters.
#[derive(Parser)]
#[command(name = "weir", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Reads arguments, the first of which is the command's own name.
    pub fn read<A: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Cli> {
        Ok(Cli::try_parse_from(args)?)
    }

    pub fn is_rollout(&self) -> bool {
        matches!(self.command, Command::Rollout(_))
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing is wrong
  1  done, and the answer is no: a policy has errors, or differs where that was asked
  2  not done: wrong arguments, a file that cannot be read";

#[derive(Subcommand)]
enum Command {
    Validate(validate::Args),
    Explain(Box<explain::Args>),
    Simulate(Box<simulate::Args>),
    Diff(diff::Args),
    Render(render::Args),
    Run(Box<run::Args>),
    Status(status::Args),
    Top(top::Args),
    Rollout(Box<rollout::Args>),
    Image(image::Args),
    Push(push::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// What a command found, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
    Unable,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> ExitCode {
        ExitCode::from(match verdict {
            Verdict::Good => 0,
            Verdict::Bad => 1,
            Verdict::Unable => 2,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document, for programs.
    Json,
}

/// Runs a command. An error means that it could not be done.
pub fn run(cli: &Cli, out: &mut impl Write) -> anyhow::Result<Verdict> {
    match &cli.command {
        Command::Validate(args) => validate::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Simulate(args) => simulate::run(args, out),
        Command::Diff(args) => diff::run(args, out),
        Command::Render(args) => render::run(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Status(args) => status::run(args, out),
        Command::Top(args) => top::run(args, out),
        Command::Rollout(args) => rollout::run(args, out),
        Command::Image(args) => image::run(args, out),
        Command::Push(args) => push::run(args, out),
        Command::Schema(args) => schema::run(args, out),
        Command::Completions(args) => completions::run(args, out),
    }
}
