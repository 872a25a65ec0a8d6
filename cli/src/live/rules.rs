//! The modules' counters and gauges, a row for each rule.

use std::collections::BTreeMap;

use super::Reading;

/// What a rule decided so far, and the state that it is in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// As the section is called.
    pub filter: String,
    pub policy: String,
    pub rule: String,
    /// Such as `open` or `2 in flight`.
    pub state: Vec<String>,
    /// By outcome: all, and a second since the look before.
    pub outcomes: Vec<(String, u64, Option<f64>)>,
}

/// Rules in the order of their names; rates where there is a look before.
pub fn rows(now: &Reading, before: Option<&Reading>) -> Vec<Row> {
    let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64());
    let mut rows: BTreeMap<(String, String, String), Row> = BTreeMap::new();
    for (counted, value) in &now.counts {
        let Some((filter, what)) = split(&counted.name) else { continue };
        let [policy, rule] = ["policy", "rule"].map(|label| counted.label(label).to_owned());
        let row = rows
            .entry((filter.to_owned(), policy.clone(), rule.clone()))
            .or_insert_with(|| Row { filter: filter.to_owned(), policy, rule, ..Row::default() });
        let Some(kind) = what.strip_suffix("_total") else {
            row.state.extend(state(what, *value));
            continue;
        };
        // What a limit for many proxies did, and what its engine said.
        let said = ["outcome", "step", "result"].map(|label| counted.label(label));
        let said = said.into_iter().find(|said| !said.is_empty()).unwrap_or_default();
        let outcome = match (kind, said, counted.label("from")) {
            ("requests", outcome, _) => outcome.to_owned(),
            (_, "", "") => kind.to_owned(),
            (_, "", from) => format!("{from} to {}", counted.label("to")),
            (kind, outcome, _) => format!("{kind} {outcome}"),
        };
        let rate =
            before.zip(seconds).filter(|(_, seconds)| *seconds > 0.0).map(|(before, seconds)| {
                let then = before.counts.get(counted).copied().unwrap_or(0);
                value.checked_sub(then).unwrap_or(*value) as f64 / seconds
            });
        row.outcomes.push((outcome, *value, rate));
    }
    rows.into_values().collect()
}

/// Filter and the rest of a metric of a rule.
fn split(name: &str) -> Option<(&str, &str)> {
    const FILTERS: [&str; 4] = ["rate_limit", "circuit_breaker", "trace_context", "traffic_color"];
    let name = name.strip_prefix("weir_")?;
    let split =
        |filter: &&'static str| Some((*filter, name.strip_prefix(*filter)?.strip_prefix('_')?));
    let (filter, what) = FILTERS.iter().find_map(split)?;
    // Told once for each module.
    (what != "policy_version" && what != "reloads_total").then_some((filter, what))
}

/// A gauge in words; none where it says that all is as usual.
fn state(what: &str, value: u64) -> Option<String> {
    const STATES: [&str; 6] = ["closed", "open", "half-open", "disabled", "forced open", "shadow"];
    match (what, value) {
        ("state", n) => {
            usize::try_from(n).ok().and_then(|n| STATES.get(n)).map(|s| (*s).to_owned())
        }
        ("share", n) => Some(format!("share {}.{:02} %", n / 100, n % 100)),
        (_, 0) => None,
        ("guard_tripped", _) => Some("guard tripped".to_owned()),
        ("open_keys", 1) => Some("1 key open".to_owned()),
        ("open_keys", n) => Some(format!("{n} keys open")),
        (what, n) => Some(format!("{n} {}", what.replace('_', " "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_come_apart() {
        assert_eq!(split("weir_rate_limit_requests_total"), Some(("rate_limit", "requests_total")));
        assert_eq!(split("weir_circuit_breaker_policy_version"), None);
        assert_eq!(split("weir_suite_reloads_total"), None);
    }

    #[test]
    fn gauges_in_words() {
        assert_eq!(state("state", 2).as_deref(), Some("half-open"));
        assert_eq!(state("in_flight", 3).as_deref(), Some("3 in flight"));
        assert_eq!(state("in_flight", 0), None);
        assert_eq!(state("share", 505).as_deref(), Some("share 5.05 %"));
    }
}
