//! The metrics that a PromQL expression names. No parser: the text without what cannot be a metric.

use regex_lite::Regex;
use std::collections::BTreeSet;

/// A metric and the label values that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub metric: String,
    /// Label, and the values of which each must exist. None: any value, as the label must be there.
    pub labels: Vec<(String, Option<Vec<String>>)>,
}

const WORDS: [&str; 14] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "inf",
    "nan",
    "start",
];

pub fn selectors(expression: &str) -> BTreeSet<Selector> {
    let grouping = regex(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)");
    let range = regex(r"\[[^\]]*\]");
    let text = grouping.replace_all(expression, " ");
    let text = range.replace_all(&text, " ").into_owned();
    let name = regex(r"([A-Za-z_:][A-Za-z0-9_:]*)\s*(\{[^}]*\}|\()?|\{|[0-9.]+[a-z]*");
    let mut found = BTreeSet::new();
    for captures in name.captures_iter(&text) {
        let Some(metric) = captures.get(1) else {
            assert_ne!(&captures[0], "{", "a selector without a name: {expression}");
            continue;
        };
        let after = captures.get(2).map_or("", |after| after.as_str());
        if after == "(" || WORDS.contains(&metric.as_str()) {
            continue;
        }
        found.insert(Selector { metric: metric.as_str().to_owned(), labels: labels(after) });
    }
    found
}

/// The labels that sums are made by.
pub fn grouped_by(expression: &str) -> BTreeSet<String> {
    let grouping = regex(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)");
    let lists = grouping.captures_iter(expression).map(|found| found[1].to_owned());
    let names =
        lists.flat_map(|list| list.split(',').map(|n| n.trim().to_owned()).collect::<Vec<_>>());
    names.filter(|name| !name.is_empty()).collect()
}

fn labels(braces: &str) -> Vec<(String, Option<Vec<String>>)> {
    let matcher = regex(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#);
    let value = |how: &str, text: &str| match how {
        "=" if !text.contains('$') => Some(vec![text.to_owned()]),
        "=~" if !text.contains('$') => Some(text.split('|').map(str::to_owned).collect()),
        _ => None,
    };
    matcher.captures_iter(braces).map(|m| (m[1].to_owned(), value(&m[2], &m[3]))).collect()
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a regular expression")
}

#[test]
fn names_and_labels_are_found() {
    let found = selectors(
        r#"sum by (rule) (rate(a_total{policy=~"$policy",outcome=~"x|y"}[5m])) / (b:c > 0) and on (le) d{k!="v"} offset 10m or vector(0)"#,
    );
    let selector = |metric: &str, labels: &[(&str, Option<&[&str]>)]| Selector {
        metric: metric.to_owned(),
        labels: labels
            .iter()
            .map(|(l, v)| (l.to_string(), v.map(|v| v.iter().map(|v| v.to_string()).collect())))
            .collect(),
    };
    let expected = [
        selector("a_total", &[("policy", None), ("outcome", Some(&["x", "y"]))]),
        selector("b:c", &[]),
        selector("d", &[("k", None)]),
    ];
    assert_eq!(found, expected.into());
    assert_eq!(
        grouped_by("sum by (a, b) (c) / on (d) e"),
        ["a", "b", "d"].map(str::to_owned).into()
    );
}
