//! `weir schema`: what a policy may say, for editors and for people.

mod reference;

use std::io::Write;

use clap::ValueEnum;

use crate::Verdict;

/// Made by the build script from the same descriptors as the messages.
pub const SCHEMA: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.schema.json"));

/// Prints what a policy may say: a JSON Schema, by which editors complete and check, or a reference to read.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[arg(long, value_enum, default_value_t = Target::JsonSchema)]
    to: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// For editors
    JsonSchema,
    /// For people
    Markdown,
}

const EXAMPLE: &str = "\
Example:
  $ weir schema > policy.schema.json
  and at the top of a policy:
  # yaml-language-server: $schema=policy.schema.json

The schema knows names, types and values. What depends on other fields only `weir validate` knows.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    match args.to {
        Target::JsonSchema => out.write_all(SCHEMA.as_bytes())?,
        Target::Markdown => out.write_all(reference::markdown(SCHEMA)?.as_bytes())?,
    }
    Ok(Verdict::Good)
}
