//! `weir diff`: what it says of edits. That what it says of state is so, the tests in `src/diff` show.

mod kit;

use kit::{Folder, golden, weir};
use serde_json::Value;
use weir_cli::Verdict;

#[test]
fn edits_are_told_by_what_they_mean() {
    golden("edits.txt", |case| {
        let (old, new) = case.text.split_once("--- next\n").unwrap();
        let folder = Folder::new();
        let (old, new) = (folder.file("old.yaml", old), folder.file("new.yaml", new));
        let (verdict, says) = weir(&["diff", &old, &new]);
        assert_eq!(verdict, Verdict::Good, "{}: {says}", case.name);
        says
    });
}

#[test]
fn spelling_order_and_comments_make_no_difference() {
    let folder = Folder::new();
    let old = folder.file(
        "old.yaml",
        "name: shop\nrate_limit:\n  rules:\n  - id: r\n    max_tokens: 10\n    fill_interval: 1.50s\n    match: {headers: {X-A: {exact: b}}}\n",
    );
    let new = folder.file(
        "new.json",
        r#"{"rateLimit": {"rules": [{"match": {"headers": {"X-A": {"exact": "b"}}}, "id": "r",
            "fillInterval": "1.5s", "maxTokens": "10"}]}, "name": "shop"}"#,
    );
    let (verdict, says) = weir(&["diff", "--exit-code", &old, &new]);
    assert_eq!((verdict, says.as_str()), (Verdict::Good, "no difference\n"));
}

#[test]
fn exit_codes_and_json() {
    let folder = Folder::new();
    let old = folder.file(
        "old.yaml",
        "name: shop\nrate_limit: {rules: [{id: r, max_tokens: 10, fill_interval: 1s}]}\n",
    );
    let new = folder.file(
        "new.yaml",
        "name: shop\nrate_limit: {rules: [{id: r, max_tokens: 20, fill_interval: 1s}]}\n",
    );
    let bad = folder.file("bad.yaml", "nmae: shop\n");
    assert_eq!(weir(&["diff", &old, &new]).0, Verdict::Good);
    assert_eq!(weir(&["diff", "--exit-code", &old, &new]).0, Verdict::Bad);
    assert_eq!(weir(&["diff", &old, &bad]).0, Verdict::Bad);
    assert_eq!(weir(&["diff", &old, "/nowhere"]).0, Verdict::Unable);
    let (_, says) = weir(&["diff", "--format", "json", &old, &new]);
    let says: Value = serde_json::from_str(&says).unwrap();
    let change = &says["changes"][0];
    assert_eq!((&change["section"], &change["rule"]), (&"rate_limit".into(), &"r".into()));
    assert_eq!(
        change["fields"][0],
        serde_json::json!({"field": "max_tokens", "before": "10", "after": "20"})
    );
    assert_eq!(change["state"][0], "kept; what is used stays used");
}
