//! `weir diff`: what an edit changes for traffic, and which state outlives it.

mod compare;
mod flat;
mod meaning;
mod shares;
#[cfg(test)]
mod state_tests;

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::source::File;
use crate::{Format, Verdict, source};
use compare::{Change, Kind};

/// Compares two policies: what changes for traffic, and which state is kept.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The policy in force
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The one that is to follow
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Exits with 1 where the two differ
    #[arg(long)]
    exit_code: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir diff shop.yaml shop-next.yaml
  rate_limit rule per-user: changed
    max_tokens: 20 -> 10
    traffic: the largest burst falls from 20 to 10
    state: kept; what is used stays used

Comments, order of fields and spelling (max_tokens, maxTokens) make no difference.
Exit codes: 0 done, 1 a policy has errors, or with --exit-code the two differ, 2 a file cannot be read.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let files = [File::read(&args.old)?, File::read(&args.new)?];
    let [old, new] = &files;
    let Some(old) = source::one(old, args.format, out)? else { return Ok(Verdict::Bad) };
    let Some(new) = source::one(new, args.format, out)? else { return Ok(Verdict::Bad) };
    let changes = compare::compare(&old.root, &new.root);
    match args.format {
        Format::Text => text(&changes, out)?,
        Format::Json => writeln!(out, "{:#}", json(&changes))?,
    }
    let is_bad = args.exit_code && !changes.is_empty();
    Ok(if is_bad { Verdict::Bad } else { Verdict::Good })
}

fn text(changes: &[Change], out: &mut impl Write) -> std::io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "no difference");
    }
    for change in changes {
        writeln!(out, "{}: {}", change.name(), change.kind.word())?;
        for (field, before, after) in &change.fields {
            match (before, after) {
                (Some(before), Some(after)) => writeln!(out, "  {field}: {before} -> {after}")?,
                (None, Some(after)) => writeln!(out, "  {field}: {after} (new)")?,
                (Some(before), None) => writeln!(out, "  {field}: {before} (gone)")?,
                (None, None) => {}
            }
        }
        for (what, sentences) in [("traffic", &change.traffic), ("state", &change.state)] {
            for sentence in sentences {
                writeln!(out, "  {what}: {sentence}")?;
            }
        }
    }
    Ok(())
}

fn json(changes: &[Change]) -> Value {
    let each = changes.iter().map(|change| {
        let fields = change.fields.iter().map(
            |(field, before, after)| json!({ "field": field, "before": before, "after": after }),
        );
        json!({
            "section": change.section,
            "rule": change.rule,
            "kind": change.kind.word(),
            "fields": if change.kind == Kind::Changed { fields.collect::<Vec<_>>() } else { Vec::new() },
            "traffic": change.traffic,
            "state": change.state,
        })
    });
    json!({ "changes": each.collect::<Vec<_>>() })
}
