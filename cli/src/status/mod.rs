//! `weir status`: what the weir of running Envoys does.

mod document;
pub mod show;

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::live::{Admin, Reading, differing};
use crate::url::Url;
use crate::{Format, Verdict};

/// Asks running Envoys: the policy in force, refusals, failures, what rules decided, states of breakers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Envoy's own pages, such as http://127.0.0.1:9901; several for several Envoys
    #[arg(long, value_name = "URL", required = true, num_args = 1.., value_parser = Url::read)]
    admin: Vec<Url>,
    /// Looks twice, so many seconds apart, and shows rates
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    over: Option<Duration>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir status --admin http://127.0.0.1:9901
  http://127.0.0.1:9901  LIVE  6 requests, 0.00 % errors, P99 4.1 ms

  FILTER  RESOURCE  STATE
  weir    v1        in force

  MODULE  POLICY  VERSION     ACCEPTED  REFUSED
  suite   shop    2415218663  1         0

  RULES OF         RULE  STATE   OUTCOMES
  circuit_breaker  cb    closed  admitted 3
  rate_limit       all           admitted 3, limited 3

  well

Counts are since Envoy started. A sidecar's pages are reached by `kubectl port-forward POD 15000`. A module that
trapped under FAIL_OPEN or FAIL_CLOSED is not counted by Envoy; under FAIL_RELOAD it is.
Exit codes: 0 all is well; 1 something is not: a refused policy, a failed module, versions that differ, no weir at
all; 2 an Envoy cannot be reached.";

/// What became of asking one Envoy.
pub struct Asked {
    pub url: Url,
    pub before: Option<Reading>,
    /// Or why there is none.
    pub now: Result<Reading, String>,
}

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let admins: Vec<Admin> = args.admin.iter().cloned().map(Admin::new).collect();
    let mut before: Vec<Option<Reading>> = Vec::new();
    if let Some(time) = args.over {
        before = admins.iter().map(|admin| Reading::take(admin).ok()).collect();
        thread::sleep(time);
    }
    before.resize_with(admins.len(), || None);
    let asked: Vec<Asked> =
        admins.iter().zip(before).map(|(admin, before)| ask(admin, before)).collect();
    match args.format {
        Format::Text => show::all(&asked).iter().try_for_each(|line| writeln!(out, "{line}"))?,
        Format::Json => writeln!(out, "{:#}", document::all(&asked))?,
    }
    let is_well = asked.iter().all(|asked| problems(asked).is_empty()) && apart(&asked).is_empty();
    Ok(match asked.iter().all(|asked| asked.now.is_ok()) {
        false => Verdict::Unable,
        true if is_well => Verdict::Good,
        true => Verdict::Bad,
    })
}

pub fn ask(admin: &Admin, before: Option<Reading>) -> Asked {
    let now = Reading::take(admin).map_err(|error| format!("{error:#}"));
    Asked { url: admin.url.clone(), before, now }
}

/// What is wrong with one Envoy.
pub fn problems(asked: &Asked) -> Vec<String> {
    match &asked.now {
        Ok(reading) => reading.problems(),
        Err(error) => vec![error.clone()],
    }
}

/// What is wrong among them.
pub fn apart(asked: &[Asked]) -> Vec<String> {
    differing(asked.iter().filter_map(|asked| asked.now.as_ref().ok()))
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n).ok());
    seconds
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0".to_owned())
}
