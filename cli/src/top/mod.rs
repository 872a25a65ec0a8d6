//! `weir top`: `weir status` again and again, with what changed.

mod changes;
mod screen;

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::Verdict;
use crate::live::{Admin, Reading};
use crate::status::{self, Asked, seconds, show};
use crate::url::Url;
use screen::Screen;

/// Shows running Envoys live: policies, rates of outcomes, states of breakers, and what changes.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Envoy's own pages, such as http://127.0.0.1:9901; several for several Envoys
    #[arg(long, value_name = "URL", required = true, num_args = 1.., value_parser = Url::read)]
    admin: Vec<Url>,
    /// Time between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    every: Duration,
    /// Prints one frame and ends; so it does where the output is no terminal
    #[arg(long)]
    once: bool,
}

const EXAMPLE: &str = "\
Example:
  $ weir top --admin http://127.0.0.1:9901

Rates are those since the look before. `q` ends it.
Exit codes: 0 ended; with --once: 0 all Envoys were reached, 2 one was not.";

/// So many changes are remembered.
const CHANGES: usize = 10;

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let mut top = Top::new(args);
    top.look();
    if args.once || !std::io::stdout().is_terminal() {
        thread::sleep(args.every);
        top.look();
        top.frame().iter().try_for_each(|line| writeln!(out, "{line}"))?;
        let is_reached = top.asked.iter().all(|asked| asked.now.is_ok());
        return Ok(if is_reached { Verdict::Good } else { Verdict::Unable });
    }
    let mut screen = Screen::open(out)?;
    loop {
        screen.draw(&top.frame())?;
        if screen.is_left(args.every)? {
            return Ok(Verdict::Good);
        }
        top.look();
    }
}

struct Top {
    admins: Vec<Admin>,
    asked: Vec<Asked>,
    /// The latest first.
    changes: VecDeque<(Instant, String)>,
}

impl Top {
    fn new(args: &Args) -> Top {
        let admins = args.admin.iter().cloned().map(Admin::new).collect();
        Top { admins, asked: Vec::new(), changes: VecDeque::new() }
    }

    fn look(&mut self) {
        let mut before: Vec<Option<Reading>> =
            self.asked.drain(..).map(|asked| asked.now.ok()).collect();
        before.resize_with(self.admins.len(), || None);
        let pairs = self.admins.iter().zip(before);
        self.asked = pairs.map(|(admin, before)| status::ask(admin, before)).collect();
        for asked in &self.asked {
            let (Some(before), Ok(now)) = (&asked.before, &asked.now) else { continue };
            for change in changes::between(before, now) {
                let change = match self.asked.len() {
                    1 => change,
                    _ => format!("{}  {change}", asked.url),
                };
                self.changes.push_front((Instant::now(), change));
            }
        }
        self.changes.truncate(CHANGES);
    }

    fn frame(&self) -> Vec<String> {
        let mut lines = show::all(&self.asked);
        if !self.changes.is_empty() {
            lines.extend([String::new(), "CHANGES".to_owned()]);
        }
        lines.extend(
            self.changes
                .iter()
                .map(|(at, change)| format!("{:>5} s ago  {change}", at.elapsed().as_secs())),
        );
        lines
    }
}
