//! `weir rollout`: a policy put live step by step, and taken back by itself where it does harm.

mod envoy;
mod fleet;
mod folder;
mod pairing;
mod plan;
mod replace;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use weir_engine::core::reloads::version;

use crate::live::Reading;
use crate::source::{self, File};
use crate::status::seconds;
use crate::url::Url;
use crate::{Format, Verdict};
use envoy::Envoy;
use fleet::{Fleet, Member};
use folder::Content;
use plan::{Step, sizes};
use watch::{Bounds, Broken};

/// Puts a policy live, some discovery folders at a time, and takes it back where errors or times break a bound.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The policy, or a manifest with it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Discovery folders (ECDS), local, mounted or synced. `DIR=URL` names the admin pages of the Envoy that reads it
    #[arg(long, value_name = "DIR[=URL]", required = true, num_args = 1..)]
    ecds: Vec<String>,
    /// Envoy's own pages, such as http://127.0.0.1:9901; each Envoy says itself which folder it reads
    #[arg(long, value_name = "URL", num_args = 1.., value_parser = Url::read)]
    admin: Vec<Url>,
    /// How many folders have the policy after each step; folders whose Envoy is watched come first
    #[arg(long, value_name = "COUNT|PERCENT,…", default_value = "1,10%,50%,100%", value_delimiter = ',', value_parser = plan::read)]
    steps: Vec<Step>,
    /// How long each step is watched
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    bake: Duration,
    /// Most answers of 500 to 599 among all, on any one Envoy, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = plan::percent)]
    max_error_rate: f64,
    /// Most time that 99 % of the requests take, on any one Envoy; Envoy adds times up every 5 s
    /// (stats_flush_interval)
    #[arg(long, value_name = "MILLISECONDS", value_parser = plan::milliseconds)]
    max_p99: Option<f64>,
    /// Fewer requests since an Envoy has the policy say nothing; it is named at the end
    #[arg(long, value_name = "COUNT", default_value = "20")]
    min_requests: u64,
    /// How long an Envoy may take to have the policy, before it counts as a laggard
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    patience: Duration,
    /// Says what would be done, and writes nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLE: &str = "\
Example:
  $ weir rollout shop.yaml --ecds fleet/*/ecds --admin http://127.0.0.1:9901 http://127.0.0.1:9902 \\
      --steps 1,10%,100% --bake 30 --max-error-rate 0.5 --max-p99 250
  version 2415218663: 172 of 172 folders to do, in steps of [1, 18, 172]
  step 1: written to 1 of 172 folders
    in force on 1 of 1 watched Envoys after 9 ms
    6012 requests, 0.00 % errors, P99 12.4 ms on fleet/1/ecds (http://127.0.0.1:9901)

In each folder the resource files of weir's Wasm filters get the policy and its version; module and the rest stay, but
for comments in YAML. Files are written aside and renamed, with owner and mode; a folder is written as a whole or not
at all, and what somebody else changed meanwhile stays. A folder is local, or mounted or synced from where its Envoy
runs; in the latter cases say DIR=URL, since that Envoy calls it by another name; several Envoys may read one folder.
Folders without a watched Envoy are done by file alone.
A bound that breaks, a refusal, a failed module or an Envoy that stops to answer brings all files back byte for byte;
the time to recover is printed. Ctrl-C does the same; output that nobody reads changes nothing. What fails without harm
(an Envoy that is down or does not take the version, a folder without a resource file) is listed at the end, and so are
Envoys with too little traffic to be judged.
Exit codes: 0 the policy is everywhere; 1 taken back, laggards remain, or the policy has errors; 2 not begun.";

/// After a policy was taken back, so long for requests to show that all is well again.
const RECOVERY: Duration = Duration::from_secs(30);

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let begun = begin(args, out);
    if args.dry_run {
        return begun.map(|(verdict, _)| verdict);
    }
    let rollout = match begun {
        Ok((_, Some(rollout))) => rollout,
        Ok((verdict, None)) => return Ok(verdict),
        // Without the chain: a pipe that nobody reads is no good end of what has not begun.
        Err(error) => bail!("{error:#}"),
    };
    Ok(rollout.run(out))
}

/// Reads all and asks all; `None` where there is nothing to do after it.
fn begin<'a>(
    args: &'a Args,
    out: &mut impl Write,
) -> anyhow::Result<(Verdict, Option<Rollout<'a>>)> {
    let file = File::read(&args.file)?;
    let Some(document) = source::one(&file, Format::Text, out)? else {
        return Ok((Verdict::Bad, None));
    };
    let policy = document.root.to_json().to_string();
    let number = version(policy.as_bytes());
    let content = Content { policy: &policy, number, sections: document.sections() };
    let fleet = pairing::gather(&args.ecds, &args.admin, &content)?;
    let sizes = sizes(&args.steps, fleet.to_do());
    let all = fleet.members.len();
    let to_do = fleet.to_do();
    writeln!(out, "version {number}: {to_do} of {all} folders to do, in steps of {sizes:?}")
        .and_then(|()| out.flush())
        .context("cannot write")?;
    if args.dry_run {
        fleet.members.iter().try_for_each(|member| writeln!(out, "  {}", member.plan()))?;
        writeln!(out, "nothing was written")?;
        return Ok((Verdict::Good, None));
    }
    let is_watched = fleet.envoys().next().is_some() || !fleet.lost.is_empty();
    if is_watched && !fleet.envoys().any(|envoy| Reading::take(&envoy.admin).is_ok()) {
        bail!(
            "none of the Envoys is reachable, so nothing would be watched; without --admin it goes by file alone"
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    let by_signal = stop.clone();
    // A second run in one process, as in tests, finds the handler there already.
    let _ = ctrlc::set_handler(move || by_signal.store(true, Ordering::Relaxed));
    Ok((Verdict::Good, Some(Rollout { args, fleet, sizes, number, stop })))
}

impl Args {
    fn bounds(&self) -> Bounds {
        Bounds { errors: self.max_error_rate / 100.0, p99: self.max_p99, least: self.min_requests }
    }
}

struct Rollout<'a> {
    args: &'a Args,
    fleet: Fleet,
    sizes: Vec<usize>,
    number: u32,
    stop: Arc<AtomicBool>,
}

impl Rollout<'_> {
    fn run(mut self, out: &mut impl Write) -> Verdict {
        for (place, size) in self.sizes.clone().into_iter().enumerate() {
            if let Err(broken) = self.step(place + 1, size, out) {
                self.take_back(&broken, out);
                return Verdict::Bad;
            }
        }
        self.finish(out)
    }

    /// Goes on until so many folders have the policy, and watches them.
    fn step(&mut self, place: usize, size: usize, out: &mut impl Write) -> Result<(), Broken> {
        let (bounds, number, stop) = (self.args.bounds(), self.number, self.stop.clone());
        let is_stopped = || stop.load(Ordering::Relaxed);
        for (_, envoy) in self.fleet.watched_mut() {
            envoy.begin_step(bounds)?;
        }
        let more = size.saturating_sub(self.fleet.written());
        let to_do = self.fleet.members.iter_mut().filter(|member| member.is_to_do());
        let mut to_do: Vec<&mut Member> = to_do.take(more).collect();
        // All are asked before the first is written, so that no Envoy is long unwatched.
        to_do.iter_mut().flat_map(|member| &mut member.envoys).for_each(Envoy::mark);
        let begun = Instant::now();
        for member in to_do {
            if is_stopped() {
                return Err(Broken::Stopped);
            }
            member.put();
        }
        let (written, all) = (self.fleet.written(), self.fleet.members.len());
        say(out, format!("step {place}: written to {written} of {all} folders"));
        let watched = self.fleet.watched().count();
        if watched == 0 {
            return Ok(());
        }
        let patience = self.args.patience;
        let count = watch::await_version(&mut self.fleet, bounds, number, patience, is_stopped)?;
        let took = begun.elapsed().as_millis();
        say(out, format!("  in force on {count} of {watched} watched Envoys after {took} ms"));
        let until = Instant::now() + self.args.bake;
        loop {
            watch::look(&mut self.fleet, bounds, number)?;
            if is_stopped() {
                return Err(Broken::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(watch::LOOK.min(left));
        }
        for line in watch::summary(&mut self.fleet, bounds)? {
            say(out, format!("  {line}"));
        }
        Ok(())
    }

    /// Brings back what was there before, and says how long that took.
    fn take_back(&mut self, broken: &Broken, out: &mut impl Write) {
        let begun = Instant::now();
        let mut watched = Vec::new();
        let (mut count, mut not) = (0, Vec::new());
        for (place, member) in
            self.fleet.members.iter_mut().enumerate().filter(|(_, m)| m.is_written)
        {
            match member.take_back() {
                Ok(()) => count += 1,
                Err(error) => not.push(format!("{}: {error:#}", member.name())),
            }
            watched.push(place);
        }
        // Whoever reads this may be slow, or gone: it comes after the files.
        say(out, format!("TAKEN BACK: {broken}"));
        not.iter().for_each(|what| say(out, format!("  NOT brought back: {what}")));
        say(out, format!("  the files of before are in {} again", counted(count, "folder")));
        let watched = watched.iter().filter_map(|place| self.fleet.members.get(*place));
        let watched: Vec<_> = watched.flat_map(Member::read_by).collect();
        let open = watch::await_before(&watched, self.args.patience);
        let took = begun.elapsed();
        let back = watched.len().saturating_sub(open.len());
        say(
            out,
            format!(
                "  the policy of before is in force on {} after {} ms",
                counted(back, "Envoy"),
                took.as_millis()
            ),
        );
        open.iter().for_each(|name| say(out, format!("  not yet on {name}")));
        if matches!(broken, Broken::Bound { .. }) {
            let is_well = watch::await_well(&watched, self.args.bounds(), RECOVERY, || {
                self.stop.load(Ordering::Relaxed)
            });
            let took = begun.elapsed().as_secs_f64();
            say(
                out,
                match is_well {
                    true => format!(
                        "  recovered: requests keep the bounds again, {took:.2} s after one broke"
                    ),
                    false => format!(
                        "  NOT recovered within {took:.0} s: too few requests, or look at the upstream"
                    ),
                },
            );
        }
    }

    /// Says who does not have the policy.
    fn finish(self, out: &mut impl Write) -> Verdict {
        let Rollout { args, fleet, number, .. } = self;
        let begun = Instant::now();
        // Modules tell their version a tick after they have it.
        let mut open: Vec<&Member> = fleet.members.iter().collect();
        let lagging = loop {
            let lags = |member| {
                Some((member, Member::lags(member, number))).filter(|(_, why)| !why.is_empty())
            };
            let lagging: Vec<_> = open.into_iter().filter_map(lags).collect();
            if lagging.is_empty() || begun.elapsed() > args.patience {
                break lagging;
            }
            open = lagging.into_iter().map(|(member, _)| member).collect();
            thread::sleep(watch::LOOK);
        };
        let all = fleet.members.len();
        let (have, asked) =
            (all.saturating_sub(lagging.len()), counted(fleet.envoys().count(), "Envoy"));
        say(out, format!("version {number} is on {have} of {all} folders; asked {asked}"));
        let laggards: Vec<&String> =
            lagging.iter().flat_map(|(_, why)| why).chain(&fleet.lost).collect();
        laggards.iter().for_each(|laggard| say(out, format!("  laggard: {laggard}")));
        let least = args.min_requests;
        for (_, envoy) in fleet.watched().filter(|(_, e)| e.is_answering() && !e.is_judged) {
            let name = &envoy.name;
            say(
                out,
                format!("  too little traffic to be judged: {name}: fewer than {least} requests"),
            );
        }
        if laggards.is_empty() { Verdict::Good } else { Verdict::Bad }
    }
}

/// What cannot be said decides nothing: half a rollout is worse than one that nobody reads of.
fn say(out: &mut impl Write, line: String) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `1 folder`, `2 folders`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
