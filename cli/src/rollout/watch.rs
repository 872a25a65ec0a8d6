//! What Envoys that have the new policy do, held against the bounds.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use super::envoy::Envoy;
use super::fleet::Fleet;
use super::folder::Folder;
use crate::live::{Reading, Traffic};

/// The time between two looks.
pub const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
pub struct Bounds {
    /// From 0 to 1.
    pub errors: f64,
    pub p99: Option<f64>,
    /// Fewer requests say nothing.
    pub least: u64,
}

/// Why a policy is taken back.
#[derive(Debug, PartialEq)]
pub enum Broken {
    Bound { envoy: String, what: String },
    Refused { envoy: String, why: String },
    Failed { envoy: String },
    Gone { envoy: String, why: String },
    Stopped,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Bound { envoy, what } => write!(f, "{what} on {envoy}"),
            Broken::Refused { envoy, why } => write!(f, "refused by {envoy}: {why}"),
            Broken::Failed { envoy } => write!(f, "a module failed on {envoy}; its log says where"),
            Broken::Gone { envoy, why } => write!(f, "{envoy} does not answer any more: {why}"),
            Broken::Stopped => write!(f, "stopped before the end"),
        }
    }
}

impl Bounds {
    /// Whether there is enough to say that all is well. Times come later than counts, with Envoy's next flush.
    pub fn is_enough(&self, traffic: &Traffic) -> bool {
        let is_timed = self.p99.is_none() || traffic.timed() >= self.least;
        traffic.completed >= self.least && is_timed
    }

    pub fn keep(&self, envoy: &str, traffic: &Traffic) -> Result<(), Broken> {
        match self.broken(traffic) {
            Some(what) => Err(Broken::Bound { envoy: envoy.to_owned(), what }),
            None => Ok(()),
        }
    }

    /// What is past a bound.
    fn broken(&self, traffic: &Traffic) -> Option<String> {
        let rate = traffic.error_rate().filter(|_| traffic.completed >= self.least);
        if let Some(rate) = rate.filter(|rate| *rate > self.errors) {
            let (rate, bound) = (rate * 100.0, self.errors * 100.0);
            return Some(format!(
                "{rate:.2} % errors, more than {bound} %, in {} requests",
                traffic.completed
            ));
        }
        let p99 = traffic.p99().filter(|_| traffic.timed() >= self.least)?;
        let bound = self.p99.filter(|bound| p99 > *bound)?;
        Some(format!("P99 {p99:.1} ms, more than {bound} ms, in {} requests", traffic.timed()))
    }
}

/// Looks at the Envoys that have the new policy: how many run the version, or what is wrong.
pub fn look(fleet: &mut Fleet, bounds: Bounds, number: u32) -> Result<usize, Broken> {
    let (version, mut count) = (number.to_string(), 0);
    for (folder, envoy) in fleet.watched_mut() {
        let now = envoy.look(bounds)?;
        count += usize::from(now.is_some_and(|(now, _)| folder.runs(&now, Some(&version))));
    }
    Ok(count)
}

/// Waits until all that answer run the version, or for so long; how many do, or what is wrong.
pub fn await_version(
    fleet: &mut Fleet,
    bounds: Bounds,
    number: u32,
    patience: Duration,
    is_stopped: impl Fn() -> bool,
) -> Result<usize, Broken> {
    let begun = Instant::now();
    let all = fleet.watched().filter(|(_, envoy)| envoy.is_answering()).count();
    loop {
        let count = look(fleet, bounds, number)?;
        if is_stopped() {
            return Err(Broken::Stopped);
        }
        if count >= all || begun.elapsed() > patience {
            return Ok(count);
        }
        thread::sleep(LOOK.min(Duration::from_millis(5)));
    }
}

/// A line for each Envoy that is watched.
pub fn summary(fleet: &mut Fleet, bounds: Bounds) -> Result<Vec<String>, Broken> {
    let mut lines = Vec::new();
    for (_, envoy) in fleet.watched_mut() {
        let Some((_, traffic)) = envoy.look(bounds)? else { continue };
        let errors = match traffic.error_rate() {
            Some(rate) => {
                format!("{} requests, {:.2} % errors", traffic.completed, rate * 100.0)
            }
            None => "no requests".to_owned(),
        };
        let p99 = traffic.p99().map(|p99| format!(", P99 {p99:.1} ms")).unwrap_or_default();
        lines.push(format!("{errors}{p99} on {}", envoy.name));
    }
    Ok(lines)
}

/// Waits until these Envoys run what was there before; those that do not in time.
pub fn await_before(envoys: &[(&Folder, &Envoy)], patience: Duration) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let is_back = |(folder, envoy): &(&Folder, &Envoy)| {
            Reading::take(&envoy.admin).is_ok_and(|reading| folder.runs(&reading, None))
        };
        let open: Vec<_> = envoys.iter().filter(|envoy| !is_back(envoy)).collect();
        if open.is_empty() || begun.elapsed() > patience {
            return open.iter().map(|(_, envoy)| envoy.name.clone()).collect();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until each of these Envoys has served enough requests within the bounds; not for one that never answered.
pub fn await_well(
    envoys: &[(&Folder, &Envoy)],
    bounds: Bounds,
    patience: Duration,
    is_stopped: impl Fn() -> bool,
) -> bool {
    let begun = Instant::now();
    let answering = envoys.iter().filter(|(_, envoy)| envoy.is_answering());
    let mut open: Vec<(&Envoy, Option<Reading>)> =
        answering.map(|(_, envoy)| (*envoy, Reading::take(&envoy.admin).ok())).collect();
    loop {
        open.retain_mut(|(envoy, before)| {
            let Ok(now) = Reading::take(&envoy.admin) else { return true };
            let Some(then) = before else {
                *before = Some(now);
                return true;
            };
            let traffic = now.traffic_since(then);
            let is_broken = bounds.broken(&traffic).is_some();
            if is_broken {
                // What was under way may have failed still: the next requests count.
                *before = Some(now);
            }
            is_broken || !bounds.is_enough(&traffic)
        });
        if open.is_empty() || begun.elapsed() > patience || is_stopped() {
            return open.is_empty();
        }
        thread::sleep(LOOK);
    }
}
