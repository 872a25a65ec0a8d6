//! The state of Envoys for people: also a frame of `weir top`.

use super::{Asked, apart, problems};
use crate::live::{Reading, Row, Standing, rows};

/// Everything, the verdict last.
pub fn all(asked: &[Asked]) -> Vec<String> {
    let mut lines: Vec<String> = asked.iter().flat_map(envoy).collect();
    let named = asked.iter().flat_map(|one| {
        problems(one).into_iter().map(|problem| match asked.len() {
            1 => problem,
            // What cannot be reached is named already.
            _ if one.now.is_err() => problem,
            _ => format!("{}: {problem}", one.url),
        })
    });
    let wrong: Vec<String> = named.chain(apart(asked)).collect();
    match wrong.is_empty() {
        true => lines.push("well".to_owned()),
        false => lines.extend(wrong.iter().map(|problem| format!("not well: {problem}"))),
    }
    lines
}

/// One Envoy, with an empty line at the end.
pub fn envoy(asked: &Asked) -> Vec<String> {
    let reading = match &asked.now {
        Ok(reading) => reading,
        Err(_) => return vec![format!("{}  not reachable", asked.url), String::new()],
    };
    let mut lines = vec![format!("{}  {}  {}", asked.url, reading.ready, traffic(asked, reading))];
    let mut block = |rows: Vec<Vec<String>>| {
        if rows.len() > 1 {
            lines.push(String::new());
            lines.extend(columns(&rows));
        }
    };
    block(filters(reading));
    block(modules(reading));
    block(rules(&rows(reading, asked.before.as_ref())));
    lines.push(String::new());
    lines
}

fn traffic(asked: &Asked, reading: &Reading) -> String {
    let before = asked.before.as_ref();
    let traffic = match before {
        Some(before) => reading.traffic_since(before),
        None => reading.traffic.clone(),
    };
    let mut said = match before.map(|before| reading.at.duration_since(before.at).as_secs_f64()) {
        Some(seconds) if seconds > 0.0 => {
            format!("{:.1} requests/s", traffic.completed as f64 / seconds)
        }
        _ => format!("{} requests", traffic.completed),
    };
    if let Some(rate) = traffic.error_rate() {
        said += &format!(", {:.2} % errors", rate * 100.0);
    }
    if let Some(p99) = traffic.p99() {
        said += &format!(", P99 {p99:.1} ms");
    }
    if traffic.active > 0 {
        said += &format!(", {} in flight", traffic.active);
    }
    if reading.failed() > 0 {
        said += &format!(", {} failures of modules", reading.failed());
    }
    said
}

fn filters(reading: &Reading) -> Vec<Vec<String>> {
    let mut rows = vec![words(&["FILTER", "RESOURCE", "STATE"])];
    for resource in &reading.resources {
        let version = resource.in_force.as_deref().or(resource.tried.as_deref()).unwrap_or("-");
        let mut state = match resource.standing(&reading.numbers()) {
            Standing::Waiting => "nothing came yet".to_owned(),
            Standing::InForce => "in force".to_owned(),
            Standing::Refused(_) => match &resource.tried {
                Some(tried) if Some(tried) != resource.in_force.as_ref() => {
                    format!("in force; {tried} was REFUSED")
                }
                _ => "in force; the last was REFUSED".to_owned(),
            },
            Standing::FirstRefused(_) => "the first was REFUSED".to_owned(),
            Standing::StandIn(filter) => format!("REPLACED by {filter}"),
        };
        if resource.rejected + resource.failed > 0 {
            state +=
                &format!(" ({} refused, {} unreadable so far)", resource.rejected, resource.failed);
        }
        rows.push(words(&[&resource.name, version, &state]));
    }
    rows
}

fn modules(reading: &Reading) -> Vec<Vec<String>> {
    let mut rows = vec![words(&["MODULE", "POLICY", "VERSION", "ACCEPTED", "REFUSED"])];
    for version in &reading.versions {
        let numbers = [u64::from(version.number), version.accepted, version.refused];
        let [number, accepted, refused] = numbers.map(|number| number.to_string());
        rows.push(words(&[&version.module, &version.policy, &number, &accepted, &refused]));
    }
    rows
}

fn rules(all: &[Row]) -> Vec<Vec<String>> {
    // The policy is worth a column where there are several.
    let is_one = all.windows(2).all(|pair| pair[0].policy == pair[1].policy);
    let name = |row: &Row| match (row.rule.as_str(), is_one) {
        ("" | "none", true) => "(no rule)".to_owned(),
        ("" | "none", false) => format!("{} (no rule)", row.policy),
        (rule, true) => rule.to_owned(),
        (rule, false) => format!("{}/{rule}", row.policy),
    };
    let mut rows = vec![words(&["RULES OF", "RULE", "STATE", "OUTCOMES"])];
    for row in all {
        let outcomes = row.outcomes.iter().map(|(outcome, all, rate)| match rate {
            Some(rate) => format!("{outcome} {all} ({rate:.1}/s)"),
            None => format!("{outcome} {all}"),
        });
        let outcomes = outcomes.collect::<Vec<_>>().join(", ");
        rows.push(words(&[&row.filter, &name(row), &row.state.join(", "), &outcomes]));
    }
    rows
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Cells one below the other, two blanks between.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let length = |cell: &String| cell.chars().count();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other() {
        let rows = [words(&["A", "LONG", "X"]), words(&["größer", "b"])];
        assert_eq!(columns(&rows), ["A       LONG  X", "größer  b"]);
    }
}
