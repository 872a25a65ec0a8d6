//! The `weir` command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use weir_cli::{Cli, Verdict};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = weir_cli::run(&cli, &mut out).and_then(|verdict| {
        out.flush()?;
        Ok(verdict)
    });
    match result {
        Ok(verdict) => verdict.into(),
        // Whoever reads our output has seen enough, `head` for one.
        Err(error) if is_closed_pipe(&error) => Verdict::Good.into(),
        Err(error) => {
            eprintln!("weir: {error:#}");
            Verdict::Unable.into()
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}
