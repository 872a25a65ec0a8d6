//! `weir validate`: whether a policy would be taken, and what is odd about it.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::finding::{Finding, Severity};
use crate::source::File;
use crate::{Format, Verdict, lint, report, source};

/// Checks policies: reads them as the modules do, compiles every section, looks for what is odd.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Policies in YAML or JSON, or WasmPlugin and TrafficExtension manifests; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir validate shop.yaml
  error[field]: policy.rate_limt: unknown field; did you mean `rate_limit`?
   --> shop.yaml:2:1
    |
  2 | rate_limt:
    | ^^^^^^^^^

Exit codes: 0 no errors, 1 errors (with --strict also warnings), 2 a file cannot be read.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let files = args.files.iter().map(|path| File::read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut is_bad = false;
    let mut documents = Vec::new();
    for file in &files {
        let findings = check(&file.text);
        let errors = count(&findings, Severity::Error);
        let warnings = count(&findings, Severity::Warning);
        is_bad |= errors > 0 || (args.strict && warnings > 0);
        match args.format {
            Format::Text => {
                for finding in &findings {
                    writeln!(out, "{}\n", report::text(finding, &file.name, &file.text))?;
                }
                writeln!(out, "{}: {}", file.name, summary(errors, warnings))?;
            }
            Format::Json => documents.push(report::file(&findings, &file.name, &file.text)),
        }
    }
    if args.format == Format::Json {
        writeln!(out, "{:#}", json!({ "is_valid": !is_bad, "files": documents }))?;
    }
    Ok(if is_bad { Verdict::Bad } else { Verdict::Good })
}

/// All findings about a text, in its order.
pub fn check(text: &str) -> Vec<Finding> {
    let (documents, mut findings) = source::read(text);
    for document in &documents {
        findings.extend(lint::all(document, text));
    }
    findings.sort_by_key(|finding| (finding.span.start, finding.severity));
    findings
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn summary(errors: usize, warnings: usize) -> String {
    let some = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    match (errors, warnings) {
        (0, 0) => "ok".into(),
        (0, _) => format!("ok, {}", some(warnings, "warning")),
        _ => format!("{}, {}", some(errors, "error"), some(warnings, "warning")),
    }
}
