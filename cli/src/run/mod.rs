//! `weir run`: a policy in a real Envoy on this machine, live while it is edited.

mod envoy;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::source::{self, File};
use crate::url::Url;
use crate::{Format, Verdict};
use envoy::{Envoy, Live};

/// Runs Envoy with a policy in front of an upstream, and puts each edit of the file live.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where requests go on to, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", value_parser = Url::read)]
    upstream: Url,
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Envoy's own pages; keep them on the loopback interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// All filters in one module
    #[arg(long, value_name = "FILE", default_value = "target/weir/weir_suite.wasm")]
    module: PathBuf,
    /// Default: the variable ENVOY, target/weir/envoy, or the one on the PATH
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Ends by itself after so many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = crate::status::seconds)]
    lasts: Option<Duration>,
}

const EXAMPLE: &str = "\
Example:
  $ cargo xtask build
  $ weir run shop.yaml --upstream http://127.0.0.1:8080
  $ curl -i 127.0.0.1:10000/orders      (in another terminal; then edit shop.yaml)

Each time the file is saved it is checked and put live, on all workers and without a lost request. Where it has
errors they are shown, and the policy before stays. Ctrl-C ends it. The listener counts as inbound.
Exit codes: 0 ended, 1 the policy has errors at the start, 2 Envoy or a file cannot be had.";

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let mut text = File::read(&args.file)?.text;
    let Some(policy) = policy(args, &text, out)? else { return Ok(Verdict::Bad) };
    let module = args.module.canonicalize().with_context(|| {
        let module = args.module.display();
        format!("cannot find {module}; `cargo xtask build` makes it, --module says where it is")
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let by_signal = stop.clone();
    // A second run in one process, as in tests, finds the handler there already.
    let _ = ctrlc::set_handler(move || by_signal.store(true, Ordering::Relaxed));
    let mut envoy = Envoy::start(args, &module, &policy)?;
    writeln!(
        out,
        "http://{} goes to {} through {}",
        args.listen,
        args.upstream,
        args.file.display()
    )?;
    writeln!(
        out,
        "http://{} is Envoy's own; save the file to put it live, Ctrl-C ends",
        args.admin
    )?;
    out.flush()?;

    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) && args.lasts.is_none_or(|lasts| begun.elapsed() < lasts) {
        thread::sleep(LOOK);
        if let Some(end) = envoy.ended() {
            bail!("Envoy ended ({end}):\n{}", envoy.last_words());
        }
        // An editor may have taken the file away for a moment.
        let Ok(now) = std::fs::read_to_string(&args.file) else { continue };
        if now == text {
            continue;
        }
        text = now;
        match self::policy(args, &text, out)? {
            None => writeln!(out, "the policy before stays in force")?,
            Some(policy) => match envoy.put(&policy)? {
                Live::After(time) => writeln!(out, "live after {} ms", time.as_millis())?,
                Live::Refused(said) => {
                    writeln!(out, "refused; the policy before stays in force: {said}")?;
                }
            },
        }
        out.flush()?;
    }
    drop(envoy);
    writeln!(out, "ended")?;
    Ok(Verdict::Good)
}

/// As the module reads it. Where the text is no policy, `out` has been told why.
fn policy(args: &Args, text: &str, out: &mut impl Write) -> anyhow::Result<Option<String>> {
    let file = File { name: args.file.display().to_string(), text: text.to_owned() };
    let document = source::one(&file, Format::Text, out)?;
    Ok(document.map(|document| document.root.to_json().to_string()))
}
