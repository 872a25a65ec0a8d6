//! Envoy's statistics, and our metrics among them.

use super::Envoy;
use crate::wait::{DEADLINE, wait_until};
use std::collections::BTreeMap;

/// The name under which Envoy's `/stats` shows one of our request counters.
pub fn metric_name(policy: &str, rule: &str, outcome: &str) -> String {
    format!(
        "wasmcustom.policy=.={policy};.;rule=.={rule};.;outcome=.={outcome};.;\
         weir_rate_limit_requests_total"
    )
}

impl Envoy {
    /// Counters and gauges whose name contains a match of the regular expression (RE2).
    pub fn stats(&self, regex: &str) -> BTreeMap<String, u64> {
        let filter: String = regex.bytes().map(|b| format!("%{b:02x}")).collect();
        let text = self.admin(&format!("/stats?filter={filter}")).text();
        text.lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// One counter or gauge by its exact name; 0 when it does not exist (yet).
    pub fn counter(&self, name: &str) -> u64 {
        let regex = format!("^{}$", regex_lite::escape(name));
        self.stats(&regex).get(name).copied().unwrap_or(0)
    }

    /// How many requests had this outcome, as far as the workers' batches were flushed.
    pub fn metric(&self, policy: &str, rule: &str, outcome: &str) -> u64 {
        self.counter(&metric_name(policy, rule, outcome))
    }

    /// Waits until the counter stands at exactly this value.
    pub fn await_metric(&self, policy: &str, rule: &str, outcome: &str, value: u64) {
        let name = metric_name(policy, rule, outcome);
        wait_until(&format!("{name} = {value}"), DEADLINE, || {
            let now = self.counter(&name);
            assert!(now <= value, "{name} is {now}, more than {value}");
            now == value
        });
    }

    /// All our metrics by name, without Envoy's prefix.
    pub fn weir_metrics(&self) -> BTreeMap<String, u64> {
        let all = self.stats("^wasmcustom\\..*weir_");
        let bare = |name: String| name.trim_start_matches("wasmcustom.").to_owned();
        all.into_iter().map(|(n, v)| (bare(n), v)).collect()
    }

    /// The sum of our counters whose name holds all of these parts.
    pub fn metric_with(&self, parts: &[&str]) -> u64 {
        let metrics = self.weir_metrics();
        let named = metrics.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        named.map(|(_, value)| value).sum()
    }

    /// Connections that each worker took on a listener, in the workers' order.
    pub fn connections_by_worker(&self, listener: &str) -> Vec<u64> {
        let prefix = regex_lite::escape(listener);
        let all =
            self.stats(&format!("^listener\\.{prefix}\\.worker_[0-9]+\\.downstream_cx_total$"));
        all.into_values().collect()
    }
}
