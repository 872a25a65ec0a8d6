//! `weir schema`: the JSON Schema of a policy, for editors.

use std::io::Write;

use crate::Verdict;

/// Made by the build script from the same descriptors as the messages.
pub const SCHEMA: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.schema.json"));

/// Prints the JSON Schema of a policy: editors complete and check by it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {}

const EXAMPLE: &str = "\
Example:
  $ weir schema > policy.schema.json
  and at the top of a policy:
  # yaml-language-server: $schema=policy.schema.json

The schema knows names, types and values. What depends on other fields only `weir validate` knows.";

pub fn run(out: &mut impl Write) -> anyhow::Result<Verdict> {
    out.write_all(SCHEMA.as_bytes())?;
    Ok(Verdict::Good)
}
