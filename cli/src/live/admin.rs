//! Envoy's own pages.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use ureq::Agent;

use crate::url::Url;

/// An Envoy that works answers at once; one that does not is said to be unreachable before a person gets impatient.
const PATIENCE: Duration = Duration::from_secs(3);

/// A dump of the configuration of a large mesh.
const MAX_PAGE: u64 = 256 * 1024 * 1024;

#[derive(Clone)]
pub struct Admin {
    pub url: Url,
    agent: Agent,
}

impl Admin {
    pub fn new(url: Url) -> Admin {
        // The admin interface stands on the loopback interface or is forwarded to it: never behind a proxy.
        let config = Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE));
        Admin { url, agent: config.http_status_as_error(false).build().into() }
    }

    /// The body of a page that is there.
    pub fn page(&self, target: &str) -> anyhow::Result<String> {
        let (status, body) = self.ask(target)?;
        if status != 200 {
            bail!("{}{target} answers {status}: {}", self.url, body.trim());
        }
        Ok(body)
    }

    pub fn json(&self, target: &str) -> anyhow::Result<Value> {
        let page = self.page(target)?;
        serde_json::from_str(&page)
            .with_context(|| format!("{}{target} is no JSON: is it Envoy's admin?", self.url))
    }

    /// `LIVE`, or what keeps it from that: `/ready` says so with another status.
    pub fn ready(&self) -> anyhow::Result<String> {
        Ok(self.ask("/ready")?.1.trim().to_owned())
    }

    /// Statistics whose names match, histograms with their buckets.
    pub fn stats(&self, regex: &str) -> anyhow::Result<Value> {
        let mut target = "/stats?format=json&histogram_buckets=cumulative&filter=".to_owned();
        regex.bytes().for_each(|byte| {
            let _ = write!(target, "%{byte:02x}");
        });
        let mut page = self.json(&target)?;
        Ok(page.get_mut("stats").map(Value::take).unwrap_or_default())
    }

    fn ask(&self, target: &str) -> anyhow::Result<(u16, String)> {
        let url = format!("{}{target}", self.url);
        let answer = self.agent.get(&url).call();
        let mut answer = answer.with_context(|| format!("{} is not reachable", self.url))?;
        let body = answer.body_mut().with_config().limit(MAX_PAGE).read_to_string();
        Ok((answer.status().as_u16(), body.with_context(|| format!("{url} breaks off"))?))
    }
}
