//! `weir simulate`: what a policy would do to the traffic of an access log, or to a made-up load.

mod load;
mod log;
mod plot;
mod replay;
mod requests;
mod show;
mod tally;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use weir_engine::core::headers::header_name;

use crate::direction::Direction;
use crate::source::{Document, File};
use crate::{Format, Verdict, source};
use load::Load;
use replay::Replay;
use requests::Requests;
use show::Outcome;

/// Replays an access log, or a synthetic load, through a policy, in virtual time.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// A policy, or a manifest with one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// An access log: Envoy's or Istio's default text, or JSON with Istio's names. A JSON field named
    /// like a header that the policy reads (x_user for x-user) is taken for it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "seconds", "request", "headers", "clients", "error_percent"])]
    log: Option<PathBuf>,
    /// Without a log: requests a second
    #[arg(long, value_name = "RATE", default_value_t = 100.0)]
    rate: f64,
    /// Without a log: for so many seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60.0)]
    seconds: f64,
    /// Without a log: the request; {client} in it is the number of the client
    #[arg(short, long, value_name = "REQUEST", default_value = "GET /", value_parser = crate::explain::request_line)]
    request: (String, String),
    /// Without a log: a header; {client} is the number of the client
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Without a log: so many clients, each as likely as the others
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    clients: u64,
    /// Without a log: so many percent are answered with 503
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    error_percent: f64,
    /// Another policy, to say what would be different from it
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// The listener that the requests come in through
    #[arg(long, value_enum, default_value = "inbound")]
    direction: Direction,
    /// How many keys of a rule are named
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,
    /// Writes a chart of what passed and what was refused, over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir simulate shop.yaml --log access.log --against shop-before.yaml
  $ weir simulate shop.yaml --rate 500 --for 60 -r 'GET /orders' -H 'x-user: u{client}' --clients 20
  30000 requests, 2026-01-01T00:00:00Z to 2026-01-01T00:00:59Z
  passed 6199, refused 23801 (79.3 %): rate_limit 23801

  rate_limit
    orders    admitted 6199, limited 23801
    per-user  admitted 6199

Requests are put in the order in which they began. A breaker learns the outcomes that the log tells.
Exit codes: 0 done, 1 a policy has errors, 2 a file cannot be read or an argument is wrong.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let Some(new) = policy(&args.file, args.format, out)? else { return Ok(Verdict::Bad) };
    let old = match &args.against {
        Some(path) => match policy(path, args.format, out)? {
            Some(old) => Some(old),
            None => return Ok(Verdict::Bad),
        },
        None => None,
    };
    let text;
    let requests = match &args.log {
        Some(path) => {
            text =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Requests::of_log(&text).with_context(|| path.display().to_string())?
        }
        None => Requests::Load(load(args)?),
    };
    let now = simulate(args, &new, &requests)?;
    let before = old.map(|old| simulate(args, &old, &requests)).transpose()?;
    if let Some(path) = &args.plot {
        let svg = plot::svg(&now.starts, &now.fates)?;
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match args.format {
        Format::Text => write!(out, "{}", show::text(&now, before.as_ref(), args.top))?,
        Format::Json => writeln!(out, "{:#}", show::json(&now, before.as_ref(), args.top))?,
    }
    Ok(Verdict::Good)
}

fn policy(path: &Path, format: Format, out: &mut impl Write) -> anyhow::Result<Option<Document>> {
    source::one(&File::read(path)?, format, out)
}

fn load(args: &Args) -> anyhow::Result<Load> {
    if !(args.rate > 0.0 && args.rate <= 1e7 && args.seconds > 0.0 && args.seconds <= 1e7) {
        bail!("--rate and --for must be above 0, and at most 10000000");
    }
    let (method, path) = args.request.clone();
    let load = Load {
        method,
        path,
        headers: args.headers.clone(),
        rate: args.rate,
        seconds: args.seconds,
        clients: args.clients,
        error_percent: args.error_percent,
    };
    if load.count() > 100_000_000 {
        bail!("--rate times --for must be at most 100000000 requests");
    }
    Ok(load)
}

fn simulate(args: &Args, document: &Document, requests: &Requests<'_>) -> anyhow::Result<Outcome> {
    let policy = document.policy.as_ref().context("the policy was not decoded")?;
    let sections = document.sections();
    let first = requests.first();
    let mut replay = Replay::new(policy, sections, first, args.direction.number())?;
    let wanted = requests::wanted(&document.root);
    // Shown on a terminal alone.
    let bar = ProgressBar::new(requests.count());
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} requests, {eta} to go")?);
    let mut outcome = Outcome::new(policy, requests)?;
    for n in 0..requests.count() {
        let Some(record) = requests.get(n, &wanted) else {
            outcome.unread += 1;
            continue;
        };
        outcome.starts.push(record.start);
        outcome.fates.push(replay.request(&record));
        if n % 4096 == 0 {
            bar.set_position(n);
        }
    }
    bar.finish_and_clear();
    outcome.take(replay);
    Ok(outcome)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or("must be a name and a value, such as 'x-user: u{client}'")?;
    let name = header_name(name).ok_or_else(|| format!("{name:?} must be the name of a header"))?;
    Ok((name, value.trim().into()))
}
