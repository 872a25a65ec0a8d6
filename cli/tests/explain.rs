//! `weir explain`: what it says, and what it refuses. That it says what the filters do is shown in
//! `integration-tests`, where a real Envoy gets the same requests.

mod kit;

use kit::{Folder, golden, weir};
use weir_cli::Verdict;

/// Each file starts with its arguments, words that single quotes hold together.
fn arguments(text: &str) -> Vec<String> {
    let line = text.lines().next().unwrap().strip_prefix("# ").unwrap();
    let mut words = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        match place % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_string)),
            _ => words.push(part.to_string()),
        }
    }
    words
}

#[test]
fn requests_are_explained() {
    golden("explained.txt", |case| {
        let folder = Folder::new();
        let file = folder.file("policy.yaml", &case.text);
        let words = arguments(&case.text);
        let mut args = vec!["explain", &file, "--at", "2026-11-24T12:00:00Z"];
        args.extend(words.iter().map(String::as_str));
        let (verdict, says) = weir(&args);
        assert_eq!(verdict, Verdict::Good, "{}: {says}", case.name);
        says
    });
}

#[test]
fn a_bad_policy_and_bad_arguments_are_told_apart() {
    let folder = Folder::new();
    let good = folder.file(
        "good.yaml",
        "name: shop\nrate_limit: {rules: [{id: r, max_tokens: 1, fill_interval: 1s}]}\n",
    );
    let bad = folder.file("bad.yaml", "nmae: shop\n");
    let (verdict, says) = weir(&["explain", &bad, "-r", "/"]);
    assert_eq!(verdict, Verdict::Bad);
    assert!(says.contains("did you mean `name`?"), "{says}");
    for (args, expected) in [
        (vec!["-r", "orders"], "must start with `/`"),
        (vec!["-r", "get /orders"], "must be a method in upper case"),
        (vec!["-r", "/", "-H", "x-user"], "must be a name and a value"),
        (vec!["-r", "/", "-H", "x user: a"], "must be the name of a header"),
        (vec!["-r", "/", "--at", "noon"], "must be a time of RFC 3339"),
        (vec!["-r", "/", "--state", "r"], "must be a rule and its state"),
        (vec!["-r", "/", "--state", "r=many"], "must be a rule and its state"),
        (vec!["-r", "/", "--state", "other=1"], "no rule for which this request has a key"),
        (vec!["-r", "/", "--state", "r=tripped"], "--state r: "),
        (vec!["-r", "/", "--upstream", "700"], "700"),
        (vec![], "--request"),
    ] {
        let (verdict, says) = weir(&[vec!["explain", &good], args.clone()].concat());
        assert_eq!(verdict, Verdict::Unable, "{args:?}: {says}");
        assert!(says.contains(expected), "{args:?}: {says}");
    }
}

/// Nothing in a run depends on chance or on the clock but the time itself.
#[test]
fn two_runs_say_the_same() {
    let folder = Folder::new();
    let file = folder.file(
        "policy.yaml",
        "name: shop\ntrace_context: {}\ntraffic_color: {colors: [base, gray], rules: [{id: r, \
         shares: [{color: gray, weight: 5000}], key: [{header: x}], on_missing_key: STICKY_COOKIE}]}\n",
    );
    let run = || weir(&["explain", &file, "-r", "/", "--at", "2026-11-24T12:00:00Z"]);
    assert_eq!(run(), run());
}
