//! `docs/operations.md` names every reason code and every metric of the engine's source, and none that is not
//! there.

use regex_lite::Regex;
use std::collections::BTreeSet;
use std::path::Path;
use weir_integration_tests::paths;

fn page() -> String {
    let path = paths::root().join("docs/operations.md");
    std::fs::read_to_string(path).expect("the page is part of the repository")
}

/// The engine and the host layer, without their tests.
fn source(folder: &str) -> String {
    let mut text = String::new();
    collect(&paths::root().join("filters").join(folder).join("src"), &mut text);
    assert!(text.len() > 10_000, "filters/{folder} is where the source is");
    text
}

fn collect(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("ASCII");
        if path.is_dir() {
            collect(&path, text);
        } else if name.ends_with(".rs") && !name.contains("tests") {
            let file = std::fs::read_to_string(&path).expect("UTF-8");
            text.push_str(file.split("#[cfg(test)]\nmod ").next().unwrap_or_default());
        }
    }
}

fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    let regex = Regex::new(pattern).expect("a regular expression");
    regex.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start =
        page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no ## {heading}"));
    let rest = &page[start + 4..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// Whatever gets the header gets it from one of three forms.
#[test]
fn reasons_of_our_own_answers_have_a_section() {
    let engine = source("engine");
    let mut codes = all(r#"reason_headers\("([a-z_]+)""#, &engine);
    codes.extend(all(r#"let reason = "([a-z_]+)";"#, &engine));
    codes.extend(all(r#"(?s)Problem \{[^}]*?\breason: "([a-z_]+)","#, &engine));
    codes.extend(all(r#"Exceeded::[A-Za-z]+ \{[^}]*\} => \{?\s*\("([a-z_]+)""#, &engine));
    let headers = engine.matches("reason_headers(").count();
    // Its definition, three with the code in place, two with a variable; the trace filter writes its own.
    assert_eq!((codes.len(), headers), (7, 6), "{codes:?}: is there another form of reply?");
    // Three places set it, one looks whether it is set.
    assert_eq!(engine.matches("\"x-weir-reason\"").count(), 4, "another place sets the header");
    let page = page();
    let described = all(r"(?m)^### ([a-z]+_[a-z_]+)$", section(&page, "Answers of weir's"));
    assert_eq!(described, codes);
}

#[test]
fn reasons_of_other_answers_are_in_the_table() {
    let engine = source("engine");
    let start = engine.find("const REASONS").expect("the table of reasons");
    let table = &engine[start..][..engine[start..].find("];").expect("its end")];
    let mut codes = all(r#"",\s*"([a-z_]+)",\s*(?:true|false)"#, table);
    let entries = table.matches("true").count() + table.matches("false").count();
    let length = all(r"&str, bool\); ([0-9]+)\]", table).pop_first().expect("its length");
    assert_eq!(length.parse(), Ok(entries), "{table}");
    codes.extend(all(r#"map_or\("([a-z_]+)", \|\(_, reason"#, &engine));
    assert!(codes.contains("local_reply") && codes.len() > 10, "{codes:?}");
    let page = page();
    let described =
        all(r"(?m)^\| `([a-z_]+)` \|", section(&page, "Answers of Envoy's and the upstream's"));
    assert_eq!(described, codes);
}

#[test]
fn what_opens_a_breaker_is_in_the_table() {
    let engine = source("engine");
    let mut words = all(r#"Reason::[A-Za-z]+ => "([a-z_]+)""#, &engine);
    words.extend(all(r#"Arrival::Refused \{[^}]*\breason: "([a-z_]+)""#, &engine));
    words.extend(all(r#"State::HalfOpen \{ "([a-z_]+)" \} else \{ cell\.reason"#, &engine));
    assert_eq!(words.len(), 10, "{words:?}");
    let page = page();
    let start = page.find("### circuit_open").expect("a section");
    let table = &page[start..][..page[start..].find("\n### lane").expect("the next")];
    let rows = all(r"(?m)^\| (`[a-z_`, ]+) \|", table).into_iter().collect::<String>();
    assert_eq!(all(r"`([a-z_]+)`", &rows), words);
}

#[test]
fn metrics_are_in_the_table() {
    let (engine, host) = (source("engine"), source("host"));
    let mut metrics = all(r#"\}(weir_[a-z_]+)""#, &engine);
    // Names that are put together: the words stand beside them.
    for (form, words) in [
        ("weir_rate_limit_{name}_total", vec!["bad_costs", "contention", "evictions"]),
        (
            "weir_circuit_breaker_{name}_total",
            vec!["contention", "evictions", "failures", "requests", "transitions"],
        ),
        ("weir_trace_context_{name}_total", vec!["deadlines", "requests", "restores"]),
        ("weir_traffic_color_{name}_total", vec!["existing", "lanes", "requests"]),
    ] {
        assert!(engine.contains(form), "{form}");
        let is_there = |word: &&str| engine.contains(&format!("\"{word}\""));
        assert!(words.iter().all(is_there), "{words:?}");
        metrics.extend(words.iter().map(|word| form.replace("{name}", word)));
    }
    let forms = all(r"(weir_[a-z_]*\{[a-z]*\}[a-z_]*)", &engine);
    assert_eq!(forms.iter().filter(|form| form.contains("{name}")).count(), 4, "{forms:?}");
    let own = all(r"weir_\{\}_([a-z_]+)", &host);
    assert_eq!(own, ["policy_version", "reloads_total"].map(str::to_owned).into());
    for module in ["rate_limit", "circuit_breaker", "trace_context", "traffic_color", "suite"] {
        metrics.extend(own.iter().map(|name| format!("weir_{module}_{name}")));
    }
    let page = page();
    let described = all(r"`(weir_[a-z_]+)`", section(&page, "Metrics"));
    assert_eq!(described, metrics);
}

/// The words of each `const NAME: [(Outcome, &str); n]`, beside their metric.
#[test]
fn outcomes_are_in_the_table() {
    let page = page();
    let table = section(&page, "Metrics");
    let tables = [
        ("limit/metrics.rs", "weir_rate_limit_requests_total"),
        ("breaker/metrics.rs", "weir_circuit_breaker_requests_total"),
        ("trace/metrics.rs", "weir_trace_context_requests_total"),
        ("trace/metrics.rs", "weir_trace_context_restores_total"),
        ("trace/metrics.rs", "weir_trace_context_deadlines_total"),
        ("color/metrics.rs", "weir_traffic_color_existing_total"),
        ("color/metrics.rs", "weir_traffic_color_lanes_total"),
    ];
    for (file, metric) in tables {
        let path = paths::root().join("filters/engine/src").join(file);
        let source = std::fs::read_to_string(path).expect("the source");
        let kind = match metric {
            name if name.ends_with("restores_total") => "Restores",
            name if name.ends_with("deadlines_total") => "Deadlines",
            name if name.ends_with("existing_total") => "Came",
            name if name.ends_with("lanes_total") => "Lanes",
            _ if file.starts_with("trace") => "Contexts",
            _ => "Outcome",
        };
        let words = all(&format!(r#"\({kind}::[A-Za-z]+, "([a-z_]+)"\)"#), &source);
        assert!(words.len() > 1, "{metric}");
        let row = table.lines().find(|line| line.starts_with(&format!("| `{metric}`")));
        let row = row.unwrap_or_else(|| panic!("no row for {metric}"));
        for word in words {
            assert!(row.contains(&format!("`{word}`")), "{metric}: {word}");
        }
    }
}
