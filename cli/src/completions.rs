//! `weir completions`: what a shell needs to complete commands and options.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Cli, Verdict};

/// Prints completions for a shell.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLE: &str = "\
Example:
  $ weir completions bash > /etc/bash_completion.d/weir";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut text);
    out.write_all(&text)?;
    Ok(Verdict::Good)
}
