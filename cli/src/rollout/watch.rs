//! What Envoys that have the new policy do, held against the bounds.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, Member};
use crate::live::{Reading, Standing, Traffic};

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

/// Envoys since the begin of a step.
pub struct Watch {
    bounds: Bounds,
    /// By the place in the fleet; `None` of those without an Envoy that answers.
    before: Vec<Option<Reading>>,
}

impl Watch {
    pub fn begin(fleet: &Fleet, bounds: Bounds) -> Watch {
        let read =
            |member: &Member| member.admin.as_ref().and_then(|admin| Reading::take(admin).ok());
        Watch { bounds, before: fleet.members.iter().map(read).collect() }
    }

    pub fn is_any_reachable(&self) -> bool {
        self.before.iter().any(Option::is_some)
    }

    /// Readings of the Envoys that have the new policy, each with the one before.
    fn readings<'w>(
        &'w self,
        fleet: &'w Fleet,
    ) -> Result<Vec<(&'w Member, Reading, &'w Reading)>, Broken> {
        let mut readings = Vec::new();
        let members = fleet.members.iter().zip(&self.before);
        for (member, before) in members.filter(|(member, _)| member.is_written) {
            let (Some(admin), Some(before)) = (&member.admin, before) else { continue };
            // An Envoy that answered before the step and does not any more may be the policy's doing.
            let again = |_| {
                thread::sleep(LOOK);
                Reading::take(admin)
            };
            let now = Reading::take(admin).or_else(again);
            let gone = |error| Broken::Gone { envoy: member.name(), why: format!("{error:#}") };
            readings.push((member, now.map_err(gone)?, before));
        }
        Ok(readings)
    }

    /// What is wrong now.
    pub fn look(&self, fleet: &Fleet) -> Option<Broken> {
        let readings = match self.readings(fleet) {
            Ok(readings) => readings,
            Err(gone) => return Some(gone),
        };
        readings.iter().find_map(|(member, now, before)| self.broken(member, now, before))
    }

    fn broken(&self, member: &Member, now: &Reading, before: &Reading) -> Option<Broken> {
        let envoy = member.name();
        let known = now.goes_on_from(before).then_some(before);
        for resource in &now.resources {
            let then = known
                .and_then(|known| known.resources.iter().find(|known| known.name == resource.name));
            let (rejected, failed) = then.map_or((0, 0), |then| (then.rejected, then.failed));
            if resource.failed > failed {
                let why = format!("Envoy cannot read the file of {}", resource.name);
                return Some(Broken::Refused { envoy, why });
            }
            if resource.rejected > rejected
                && let Standing::Refused(why) | Standing::FirstRefused(why) =
                    resource.standing(&now.numbers())
            {
                return Some(Broken::Refused { envoy, why });
            }
        }
        if now.failed() > known.map_or(0, Reading::failed) {
            return Some(Broken::Failed { envoy });
        }
        let what = self.bounds.broken(&now.traffic_since(before))?;
        Some(Broken::Bound { envoy, what })
    }

    /// Waits until all run the version, or for so long; how many do, or what is wrong.
    pub fn await_version(
        &self,
        fleet: &Fleet,
        number: u32,
        patience: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<usize, Broken> {
        let (begun, version) = (Instant::now(), number.to_string());
        let all = fleet.watched().count();
        loop {
            let mut count = 0;
            for (member, now, before) in self.readings(fleet)? {
                if let Some(broken) = self.broken(member, &now, before) {
                    return Err(broken);
                }
                count += usize::from(member.runs(&now, Some(&version)));
            }
            if is_stopped() {
                return Err(Broken::Stopped);
            }
            if count == all || begun.elapsed() > patience {
                return Ok(count);
            }
            thread::sleep(LOOK.min(Duration::from_millis(5)));
        }
    }

    /// A line for each Envoy that is watched.
    pub fn summary(&self, fleet: &Fleet) -> Vec<String> {
        let line = |(member, now, before): (&Member, Reading, &Reading)| {
            let traffic = now.traffic_since(before);
            let errors = match traffic.error_rate() {
                Some(rate) => {
                    format!("{} requests, {:.2} % errors", traffic.completed, rate * 100.0)
                }
                None => "no requests".to_owned(),
            };
            let p99 = traffic.p99().map(|p99| format!(", P99 {p99:.1} ms")).unwrap_or_default();
            format!("{errors}{p99} on {}", member.name())
        };
        self.readings(fleet).unwrap_or_default().into_iter().map(line).collect()
    }
}

/// Waits until these Envoys run what was there before; those that do not in time.
pub fn await_before(members: &[&Member], patience: Duration) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let is_back = |member: &&&Member| {
            let reading = member.admin.as_ref().and_then(|admin| Reading::take(admin).ok());
            reading.is_some_and(|reading| member.runs(&reading, None))
        };
        let open: Vec<_> = members.iter().filter(|member| !is_back(member)).collect();
        if open.is_empty() || begun.elapsed() > patience {
            return open.iter().map(|member| member.name()).collect();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until each of these Envoys has served enough requests within the bounds.
pub fn await_well(members: &[&Member], bounds: Bounds, patience: Duration) -> bool {
    let begun = Instant::now();
    let look = |member: &&Member| member.admin.as_ref().and_then(|admin| Reading::take(admin).ok());
    let mut open: Vec<(&Member, Option<Reading>)> =
        members.iter().map(|member| (*member, look(member))).collect();
    loop {
        open.retain_mut(|(member, before)| {
            let now = look(member);
            let (Some(now), Some(then)) = (now, before.as_ref()) else { return true };
            let traffic = now.traffic_since(then);
            let is_broken = bounds.broken(&traffic).is_some();
            if is_broken {
                // What was under way may have failed still: the next requests count.
                *before = Some(now);
            }
            // Times come later than counts, with Envoy's next flush.
            let is_timed = bounds.p99.is_none() || traffic.timed() >= bounds.least;
            is_broken || traffic.completed < bounds.least || !is_timed
        });
        if open.is_empty() || begun.elapsed() > patience {
            return open.is_empty();
        }
        thread::sleep(LOOK);
    }
}
