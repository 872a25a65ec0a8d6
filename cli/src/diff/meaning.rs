//! What a change means for traffic, and for state.
//!
//! What is said of state here the tests check on the engine: `tests/diff.rs` uses a rule, edits the
//! policy and looks what is left.

use super::compare::{Change, Kind, rule};
use super::shares;
use crate::yaml::Node;

const RENAMED: &str = "lies under the policy's name: all of it starts anew";
const FOUND_AGAIN: &str =
    "is not used; it is found again by a rule of this id until Envoy restarts";

pub fn explain(change: &mut Change, old: &Node, new: &Node) {
    let (mut traffic, mut state) = (Vec::new(), Vec::new());
    match (change.section.as_str(), &change.rule, change.kind) {
        ("policy", _, _) => policy(change, &mut traffic, &mut state),
        (section, None, Kind::Added | Kind::Removed) => {
            traffic.push(match (section, change.kind) {
                ("restore", Kind::Added) => {
                    "what came in is remembered for the calls made for it".into()
                }
                ("restore", _) => "nothing is restored any more".into(),
                (_, Kind::Added) => "a section that no module ran before".into(),
                (_, _) => "its module passes every request".to_string(),
            });
        }
        (section, None, Kind::Moved) => traffic.push(match section {
            "traffic_color" | "trace_context" => "the first rule that matches decides".into(),
            _ => "matters where a rule says on_match: STOP, and for the rule that a refusal names"
                .into(),
        }),
        (section, None, Kind::Changed) => self::section(section, change, &mut traffic, &mut state),
        (section, Some(_), Kind::Added) => {
            traffic.push(match section {
                "rate_limit" => "requests that it matches have to find a token here as well".into(),
                "circuit_breaker" => "requests that it matches meet a breaker more".into(),
                "traffic_color" => "may give a color where a later rule did before".into(),
                _ => "decides on traces that it matches".to_string(),
            });
            state
                .push("starts anew, unless a rule of this id was there since Envoy started".into());
        }
        (section, Some(_), Kind::Removed) => {
            traffic.push(match section {
                "rate_limit" => "limits nobody any more".into(),
                "circuit_breaker" => "breaks for nobody any more".into(),
                "traffic_color" => {
                    "its requests get the color of a later rule, or the default".into()
                }
                _ => "its traces are decided by later rules".to_string(),
            });
            state.push(FOUND_AGAIN.into());
        }
        (section, Some(id), _) => {
            let rules = [rule(old, section, id), rule(new, section, id)];
            match section {
                "rate_limit" => limit(change, &mut traffic, &mut state),
                "circuit_breaker" => breaker(change, &mut traffic, &mut state),
                "traffic_color" => color(change, rules, &mut traffic, &mut state),
                _ => sampling(change, &mut traffic, &mut state),
            }
        }
    }
    change.traffic = traffic;
    change.state = state;
}

fn policy(change: &Change, traffic: &mut Vec<String>, state: &mut Vec<String>) {
    if change.touches("name") {
        state.push(RENAMED.into());
    }
    for (field, sentence) in [
        ("mode", "the switch of all sections"),
        ("zone", "rules without a direction, mirrors, health checks and trust have other defaults"),
        ("exempt", "other requests are looked at by no section"),
        ("no_default_exemptions", "health checks are looked at, or no longer are"),
        ("color_header", "colors travel in another header; one that is on its way is lost"),
    ] {
        if change.touches(field) {
            traffic.push(sentence.into());
        }
    }
}

fn section(section: &str, change: &Change, traffic: &mut Vec<String>, state: &mut Vec<String>) {
    if change.touches("mode") {
        traffic.push("the switch of all its rules".into());
    }
    match section {
        "restore" => {
            if change.touches("keys") {
                traffic.push("requests are known again by other ids".into());
                state.push("records under ids that are asked for no more are not found".into());
            }
            if change.touches("max_records") {
                state.push("records of before are looked for until they have expired".into());
            }
        }
        "traffic_color" => {
            if change.touches("colors") {
                traffic.push("a color that is not in the list is never taken over".into());
            }
            if change.touches("default") {
                traffic.push("requests that no rule means get another color".into());
            }
        }
        _ => {}
    }
}

/// `from` to `to` in numbers, where both are given.
fn numbers(change: &Change, field: &str) -> Option<(f64, f64)> {
    let (_, before, after) = change.fields.iter().find(|(name, _, _)| name == field)?;
    let number = |text: &Option<String>| text.as_ref()?.trim_end_matches('s').parse::<f64>().ok();
    Some((number(before)?, number(after)?))
}

fn moves(from: f64, to: f64) -> String {
    let verb = if to < from { "falls" } else { "rises" };
    format!("{verb} from {from} to {to}")
}

fn limit(change: &Change, traffic: &mut Vec<String>, state: &mut Vec<String>) {
    if let Some((from, to)) = numbers(change, "max_tokens") {
        traffic.push(format!("the largest burst {}", moves(from, to)));
    }
    if let Some((from, to)) = numbers(change, "tokens_per_fill") {
        traffic.push(format!("what comes back in one interval {}", moves(from, to)));
    }
    if let Some((from, to)) = numbers(change, "fill_interval") {
        traffic.push(format!("the interval in which tokens come back {} s", moves(from, to)));
    }
    common(change, traffic);
    if change.touches("scope") {
        state.push("starts anew: it lies elsewhere".into());
    } else if change.touches("key") {
        state.push("starts anew: other keys have buckets of their own, full ones".into());
    } else {
        state.push("kept; what is used stays used".into());
    }
}

fn breaker(change: &Change, traffic: &mut Vec<String>, state: &mut Vec<String>) {
    common(change, traffic);
    for (field, what) in [
        ("failure_rate_percent", "the share of failures that opens it"),
        ("slow_call_rate_percent", "the share of slow calls that opens it"),
        ("consecutive_failures", "the count of failures in a row that opens it"),
        ("open_duration", "an opening in seconds"),
    ] {
        if let Some((from, to)) = numbers(change, field) {
            traffic.push(format!("{what} {}", moves(from, to)));
        }
    }
    if change.touches("state") {
        traffic.push("the state that the policy forces is another".into());
    }
    if change.touches("strategy") {
        state.push("starts anew: the two strategies count different things".into());
    } else if change.touches("key") {
        state.push("starts anew: other keys have breakers of their own, closed ones".into());
    } else if change.touches("window") {
        state.push("kept, open breakers too; calls in the window are forgotten".into());
    } else {
        state.push("kept, open breakers and calls in the window".into());
    }
}

fn common(change: &Change, traffic: &mut Vec<String>) {
    if change.touches("mode") {
        traffic.push("refuses, counts only, or rests, as the mode says".into());
    }
    if let Some((from, to)) = numbers(change, "enforced_percent") {
        traffic.push(format!(
            "the share that is refused {}; who was in it stays in it",
            moves(from, to)
        ));
    }
    if change.touches("match") {
        traffic.push("means other requests".into());
    }
    if change.touches("key") {
        traffic.push("tells requests apart by something else".into());
    }
}

fn color(
    change: &Change,
    [before, after]: [Option<&Node>; 2],
    traffic: &mut Vec<String>,
    state: &mut Vec<String>,
) {
    common(change, traffic);
    if change.touches("hash") || change.touches("key") {
        traffic.push("its cohorts are drawn anew: a client may get another color".into());
    } else if change.touches("shares")
        && let Some(moved) =
            before.zip(after).and_then(|(before, after)| shares::moved(before, after))
    {
        let (whole, part) = (moved / 100, moved % 100);
        traffic.push(format!(
            "{whole}.{part:02} % of its keys get another color, the others keep theirs"
        ));
    }
    if change.touches("color") {
        traffic.push("all that it matches get another color".into());
    }
    if change.touches("schedule") {
        traffic.push("holds at other times, or grows otherwise".into());
    }
    if change.touches("guard.reset") {
        state.push("the guard forgets that it tripped, and what it compared".into());
    } else if change.touches("guard") {
        state.push("kept; a guard that has tripped stays so until `reset` changes".into());
    }
}

fn sampling(change: &Change, traffic: &mut Vec<String>, state: &mut Vec<String>) {
    if let Some((from, to)) = numbers(change, "percent") {
        let rest =
            if to >= from { "what was sampled still is" } else { "what is sampled was so before" };
        traffic.push(format!("the share of traces {}; {rest}", moves(from, to)));
    }
    common(change, traffic);
    if change.touches("floor_per_second") || change.touches("ceiling_per_second") {
        state.push("kept; traces that were counted still count".into());
    }
}
