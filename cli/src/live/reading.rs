//! One look at one Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

use super::resource::{is_module, is_named};
use super::{Admin, Resource, Standing, Traffic};
use crate::metrics::{self, Counted};

pub struct Reading {
    pub at: Instant,
    /// When its process started, as Envoy writes it.
    started: Option<String>,
    /// `LIVE`, or what Envoy is instead.
    pub ready: String,
    pub resources: Vec<Resource>,
    pub versions: Vec<Version>,
    /// Counters and gauges of the modules.
    pub counts: BTreeMap<Counted, u64>,
    /// How often virtual machines were loaded anew after a trap, or requests refused until then, by plugin: the
    /// larger of both. Those of other modules are none of ours.
    pub failures: BTreeMap<String, u64>,
    pub traffic: Traffic,
}

/// What a module says of its policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub module: String,
    pub policy: String,
    pub number: u32,
    pub accepted: u64,
    pub refused: u64,
}

const DISCOVERY: &str = "extension_config_discovery.http_filter.";

impl Reading {
    pub fn take(admin: &Admin) -> anyhow::Result<Reading> {
        let ready = admin.ready()?;
        let dump = admin.json("/config_dump")?;
        let ours = r"weir_|^wasm\..*\.vm_reload_(success|failure|backoff)$|^extension_config_discovery\.http_filter\.";
        let stats = admin.stats(&format!("{ours}|{}", Traffic::REGEX))?;
        let stats = stats.as_array();
        let stats = stats.with_context(|| format!("{}/stats is none of Envoy's", admin.url))?;
        Ok(Reading::of(ready, &dump, stats))
    }

    fn of(ready: String, dump: &Value, stats: &[Value]) -> Reading {
        let configs = dump["configs"].as_array().into_iter().flatten();
        let entries = configs.filter_map(|config| config["ecds_filters"].as_array()).flatten();
        let mut resources: Vec<Resource> = entries.filter_map(Resource::read).collect();
        let mut plugins = BTreeSet::new();
        modules(dump, &mut plugins);
        let is_plugin = |plugin: &str| plugins.contains(plugin) || is_named(plugin);
        let mut reading = Reading {
            at: Instant::now(),
            started: started(dump),
            ready,
            resources: Vec::new(),
            versions: Vec::new(),
            counts: BTreeMap::new(),
            failures: BTreeMap::new(),
            traffic: Traffic::default(),
        };
        for stat in stats {
            for histogram in stat["histograms"].as_array().into_iter().flatten() {
                reading.traffic.times(histogram);
            }
            let (name, value) = (stat["name"].as_str().unwrap_or_default(), &stat["value"]);
            if let Some((name, what)) =
                name.strip_prefix(DISCOVERY).and_then(|n| n.rsplit_once('.'))
            {
                // A filter whose first resource was refused stands in no dump.
                if !resources.iter().any(|r| r.name == name) && is_named(name) {
                    resources.push(Resource::named(name));
                }
                let named = resources.iter_mut().find(|resource| resource.name == name);
                named.into_iter().for_each(|resource| resource.count(what, value));
                continue;
            }
            let Some(value) = value.as_u64() else { continue };
            reading.traffic.count(name, value);
            if let Some((plugin, _)) =
                name.strip_prefix("wasm.").and_then(|name| name.split_once(".vm_reload_"))
            {
                if is_plugin(plugin) {
                    let failures = reading.failures.entry(plugin.to_owned()).or_default();
                    *failures = (*failures).max(value);
                }
            } else if let Some(labelled) = name.strip_prefix("wasmcustom.") {
                reading.counts.insert(metrics::read(labelled), value);
            }
        }
        reading.resources = resources;
        reading.versions = versions(&reading.counts);
        reading
    }

    /// The numbers of the policies that modules say they run.
    pub fn numbers(&self) -> Vec<u32> {
        self.versions.iter().map(|version| version.number).collect()
    }

    pub fn runs_weir(&self) -> bool {
        !self.resources.is_empty() || !self.versions.is_empty()
    }

    /// Whether the counts of both are of one process: those of the next one begin at nothing.
    pub fn goes_on_from(&self, before: &Reading) -> bool {
        self.started == before.started
    }

    /// What came since an earlier look, or since the start where Envoy was started anew.
    pub fn traffic_since(&self, before: &Reading) -> Traffic {
        match self.goes_on_from(before) {
            true => self.traffic.since(&before.traffic),
            false => self.traffic.clone(),
        }
    }

    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// What somebody should look at, in words.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.ready != "LIVE" {
            problems.push(format!("Envoy is {}", self.ready));
        }
        if !self.runs_weir() {
            problems.push("nothing of weir's runs there".to_owned());
        }
        for resource in &self.resources {
            let name = &resource.name;
            problems.extend(match resource.standing(&self.numbers()) {
                Standing::InForce => None,
                Standing::Waiting => Some(format!("{name}: nothing came yet, so its listener waits")),
                Standing::Refused(why) => Some(format!("{name}: refused, the one before serves: {why}")),
                Standing::FirstRefused(why) => {
                    let state = "the first policy was refused, so without a default_config all requests get 500";
                    Some(format!("{name}: {state}: {why}"))
                }
                Standing::StandIn(filter) => {
                    Some(format!("{name}: the image could not be pulled; {filter} is in its place"))
                }
            });
        }
        let failed = self.failures.iter().filter(|(_, count)| **count > 0);
        problems.extend(failed.map(|(plugin, count)| {
            format!(
                "{plugin}: a module failed and was loaded again ({count} times); see Envoy's log"
            )
        }));
        problems
    }
}

/// The bootstrap is read once in the life of a process.
fn started(dump: &Value) -> Option<String> {
    let mut configs = dump["configs"].as_array().into_iter().flatten();
    let bootstrap = configs.find(|config| config["bootstrap"].is_object())?;
    bootstrap["last_updated"].as_str().map(str::to_owned)
}

/// The plugins' names of our modules, under which Envoy counts their failures.
fn modules(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if is_module(value) {
                let name = value.pointer("/typed_config/config/name").and_then(Value::as_str);
                found.insert(name.unwrap_or_default().to_owned());
            }
            fields.values().for_each(|value| modules(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| modules(value, found)),
        _ => {}
    }
}

fn versions(counts: &BTreeMap<Counted, u64>) -> Vec<Version> {
    let gauges = counts.iter().filter_map(|(counted, value)| {
        let module = counted.name.strip_prefix("weir_")?.strip_suffix("_policy_version")?;
        Some((module, counted.label("policy"), u32::try_from(*value).ok()?))
    });
    let reloads = |module: &str, policy: &str, result: &str| {
        let labels = [("policy", policy), ("result", result)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let name = format!("weir_{module}_reloads_total");
        counts.get(&Counted { name, labels: labels.into() }).copied().unwrap_or(0)
    };
    let all = gauges.map(|(module, policy, number)| Version {
        module: module.to_owned(),
        policy: policy.to_owned(),
        number,
        accepted: reloads(module, policy, "accepted"),
        refused: reloads(module, policy, "refused"),
    });
    all.collect()
}

/// Filters that run another policy in one Envoy than in another, with the versions.
pub fn differing<'r>(readings: impl Iterator<Item = &'r Reading>) -> Vec<String> {
    let mut numbers: BTreeMap<(&str, &str), BTreeSet<u32>> = BTreeMap::new();
    for version in readings.flat_map(|reading| &reading.versions) {
        let of = (version.module.as_str(), version.policy.as_str());
        numbers.entry(of).or_default().insert(version.number);
    }
    let several = numbers.into_iter().filter(|(_, numbers)| numbers.len() > 1);
    let said = several.map(|((module, policy), numbers)| {
        let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
        format!("{module} runs policy {policy:?} in versions {}", numbers.join(" and "))
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reading(started: &str, completed: u64, errors: u64) -> Reading {
        let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        let filter =
            json!({"name": "weir", "typed_config": {"@type": wasm, "config": {"name": "edge"}}});
        let dump = json!({"configs": [
            {"bootstrap": {}, "last_updated": started},
            {"dynamic_listeners": [{"http_filters": [filter]}]},
        ]});
        let stat = |name: &str, value: u64| json!({"name": name, "value": value});
        let stats = [
            stat("http.in.downstream_rq_completed", completed),
            stat("http.in.downstream_rq_5xx", errors),
            stat("wasm.edge.vm_reload_success", 2),
            stat("wasm.weird.vm_reload_success", 4),
        ];
        Reading::of("LIVE".into(), &dump, &stats)
    }

    /// Even where each counter is past what the process before had counted.
    #[test]
    fn an_envoy_that_started_anew_has_served_what_it_counts() {
        let before = reading("2026-01-01T00:00:00.001Z", 100, 2);
        let same = reading("2026-01-01T00:00:00.001Z", 150, 30).traffic_since(&before);
        assert_eq!((same.completed, same.errors), (50, 28));
        let anew = reading("2026-01-01T00:00:00.002Z", 150, 30).traffic_since(&before);
        assert_eq!((anew.completed, anew.errors), (150, 30));
    }

    #[test]
    fn failures_of_other_modules_are_none_of_ours() {
        assert_eq!(reading("", 0, 0).failures, [("edge".to_owned(), 2)].into());
    }
}
