//! An explanation for people, and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_engine::core::effects::HeaderEdit;

use super::rules::Rule;
use super::trip::{Answer, Explanation, Seen};
use crate::proxy::Pairs;

pub fn text(explanation: &Explanation) -> String {
    let mut out = format!("{}\n", explanation.request);
    if explanation.is_exempt {
        out.push_str("exempt: no section looks at it\n");
    }
    for seen in &explanation.modules {
        out.push('\n');
        module(seen, &mut out);
    }
    if let Some(headers) = &explanation.upstream {
        out.push_str("\nupstream gets\n");
        lines(headers, &mut out);
    }
    out.push('\n');
    answer(&explanation.answer, &mut out);
    out
}

// Writing to a String cannot fail, so results are not looked at below.

fn module(seen: &Seen, out: &mut String) {
    let name = seen.module.section();
    if !seen.is_reached {
        let _ = writeln!(out, "{name}: not reached");
        return;
    }
    let state = seen.state.as_deref().unwrap_or("nothing to say");
    let _ = writeln!(out, "{name}: {state}");
    match seen.is_trusted {
        Some(true) => out.push_str("  the source is trusted\n"),
        Some(false) => out.push_str("  the source is not trusted\n"),
        None => {}
    }
    let width = seen.rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    for rule in &seen.rules {
        let _ = writeln!(out, "  {:width$}  {}", rule.id, sentence(rule));
    }
    for rule in &seen.elsewhere {
        let _ = writeln!(out, "  matches elsewhere: {rule} (see --direction)");
    }
    // What no rule counted, such as what became of the trace.
    let common = seen.counted.iter().filter(|counted| {
        let rule = counted.label("rule");
        !seen.rules.iter().any(|known| known.id == rule) && !counted.label("outcome").is_empty()
    });
    for counted in common {
        let name = counted.name.trim_end_matches("_total");
        let _ = writeln!(out, "  counts {name} {}", counted.label("outcome"));
    }
    edits(&seen.edits, "request", out);
    edits(&seen.response, "response", out);
}

fn sentence(rule: &Rule) -> String {
    if rule.is_off {
        return "off".into();
    }
    let mut parts = vec![if rule.matches { "matches" } else { "no match" }.to_string()];
    parts.extend(rule.about.iter().cloned());
    let outcomes = rule.outcomes.iter().map(|outcome| match outcome.as_str() {
        "given_back" => "admitted, given back".into(),
        "not_asked" => "not asked".into(),
        word => word.replace('_', " "),
    });
    parts.extend(outcomes);
    parts.join("; ")
}

fn edits(edits: &[HeaderEdit], of: &str, out: &mut String) {
    for edit in edits {
        let _ = match edit {
            HeaderEdit::Set(name, value) => writeln!(out, "  {of:8} sets {name}: {value}"),
            HeaderEdit::Remove(name) => writeln!(out, "  {of:8} drops {name}"),
            HeaderEdit::Add(name, value) => writeln!(out, "  {of:8} adds {name}: {value}"),
        };
    }
}

fn lines(headers: &Pairs, out: &mut String) {
    for (name, value) in headers {
        let _ = writeln!(out, "  {name}: {value}");
    }
}

fn answer(answer: &Answer, out: &mut String) {
    let status = match answer.grpc_status {
        Some(code) => format!("gRPC status {code}"),
        None => answer.status.to_string(),
    };
    let _ = match &answer.by {
        Some((section, details)) => {
            writeln!(out, "client gets {status} from {section} ({details})")
        }
        None => writeln!(out, "client gets {status} from the upstream"),
    };
    lines(&answer.headers, out);
    if !answer.body.is_empty() {
        let _ = writeln!(out, "\n  {}", answer.body.trim_end().replace('\n', "\n  "));
    }
}

pub fn json(explanation: &Explanation) -> Value {
    let Answer { status, headers, body, by, grpc_status } = &explanation.answer;
    json!({
        "request": {
            "method": explanation.method,
            "path": explanation.path,
            "authority": explanation.authority,
            "direction": explanation.direction,
            "at": explanation.at,
        },
        "is_exempt": explanation.is_exempt,
        "sections": explanation.modules.iter().map(section).collect::<Vec<_>>(),
        "upstream": explanation.upstream.as_ref().map(list),
        "answer": {
            "status": status,
            "grpc_status": grpc_status,
            "by": by.as_ref().map(|(section, _)| section),
            "details": by.as_ref().map(|(_, details)| details),
            "headers": list(headers),
            "body": body,
        },
    })
}

fn section(seen: &Seen) -> Value {
    let rule = |rule: &Rule| {
        let mut value = json!({
            "id": rule.id,
            "is_off": rule.is_off,
            "matches": rule.matches,
            "outcomes": rule.outcomes,
        });
        if let (Some(all), Some(facts)) = (value.as_object_mut(), rule.facts.as_object()) {
            all.extend(facts.clone());
        }
        value
    };
    let counted: Vec<Value> = seen
        .counted
        .iter()
        .map(|counted| json!({ "name": counted.name, "labels": counted.labels }))
        .collect();
    json!({
        "section": seen.module.section(),
        "is_reached": seen.is_reached,
        "is_trusted": seen.is_trusted,
        "state": seen.state,
        "rules": seen.rules.iter().map(rule).collect::<Vec<_>>(),
        "matches_elsewhere": seen.elsewhere,
        "request_edits": seen.edits.iter().map(edit).collect::<Vec<_>>(),
        "response_edits": seen.response.iter().map(edit).collect::<Vec<_>>(),
        "counted": counted,
    })
}

fn edit(edit: &HeaderEdit) -> Value {
    match edit {
        HeaderEdit::Set(name, value) => json!({ "set": name, "value": value }),
        HeaderEdit::Remove(name) => json!({ "remove": name }),
        HeaderEdit::Add(name, value) => json!({ "add": name, "value": value }),
    }
}

/// A name may come more than once, so headers are pairs.
fn list(headers: &Pairs) -> Value {
    headers.iter().map(|(name, value)| json!([name, value])).collect()
}
