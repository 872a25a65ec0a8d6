//! The `weir` command.

use std::io::{Error, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use weir_cli::{Cli, Verdict};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = weir_cli::run(&cli, &mut out);
    // Whoever reads our output has seen enough, `head` for one.
    let flushed = out.flush().or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) });
    let verdict = result.and_then(|verdict| match flushed {
        // What was done to a fleet stays done, and its answer stands.
        Err(error) if !cli.is_rollout() => Err(error.into()),
        _ => Ok(verdict),
    });
    match verdict {
        Ok(verdict) => verdict.into(),
        Err(error) if is_closed_pipe(&error) => Verdict::Good.into(),
        Err(error) => {
            eprintln!("weir: {error:#}");
            Verdict::Unable.into()
        }
    }
}

fn is_closed(error: &Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<Error>()).any(is_closed)
}
