//! One Envoy of a rollout, and what it does since its folder has the policy.

use std::path::Path;
use std::thread;

use super::watch::{Bounds, Broken, LOOK};
use crate::live::{Admin, Reading, Standing, Traffic};
use crate::url::Url;

pub struct Envoy {
    /// Of its folder and its pages.
    pub name: String,
    pub admin: Admin,
    /// From before its folder had the policy, until there were enough requests to judge that by; then from the begin
    /// of a step. `None` as long as it does not answer.
    before: Option<Reading>,
    pub is_judged: bool,
}

impl Envoy {
    pub fn new(path: &Path, url: Url) -> Envoy {
        let name = format!("{} ({url})", path.display());
        Envoy { name, admin: Admin::new(url), before: None, is_judged: false }
    }

    /// The policy comes now: what it served until here is no business of that.
    pub fn mark(&mut self) {
        self.before = Reading::take(&self.admin).ok();
    }

    pub fn is_answering(&self) -> bool {
        self.before.is_some()
    }

    /// Another step begins. One that has not answered until now may do so by now.
    pub fn begin_step(&mut self, bounds: Bounds) -> Result<(), Broken> {
        if self.before.is_none() {
            self.mark();
        } else if let Some((now, traffic)) = self.look(bounds)?
            && bounds.is_enough(&traffic)
        {
            self.before = Some(now);
        }
        Ok(())
    }

    /// What it does now, and its traffic; none of one that never answered.
    pub fn look(&mut self, bounds: Bounds) -> Result<Option<(Reading, Traffic)>, Broken> {
        let Some(before) = &self.before else { return Ok(None) };
        // An Envoy that answered before and does not any more may be the policy's doing.
        let again = |_| {
            thread::sleep(LOOK);
            Reading::take(&self.admin)
        };
        let now = Reading::take(&self.admin).or_else(again);
        let gone = |error| Broken::Gone { envoy: self.name.clone(), why: format!("{error:#}") };
        let now = now.map_err(gone)?;
        let traffic = now.traffic_since(before);
        match broken(&self.name, &now, before) {
            Some(broken) => return Err(broken),
            None => bounds.keep(&self.name, &traffic)?,
        }
        self.is_judged |= bounds.is_enough(&traffic);
        Ok(Some((now, traffic)))
    }
}

/// Refusals and failures that came since.
fn broken(envoy: &str, now: &Reading, before: &Reading) -> Option<Broken> {
    let envoy = envoy.to_owned();
    let known = now.goes_on_from(before).then_some(before);
    for resource in &now.resources {
        let named = |known: &Reading| {
            let found = known.resources.iter().find(|known| known.name == resource.name);
            found.map(|known| (known.rejected, known.failed))
        };
        let (rejected, failed) = known.and_then(named).unwrap_or_default();
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
    (now.failed() > known.map_or(0, Reading::failed)).then_some(Broken::Failed { envoy })
}
