//! Keys with a bucket of their own kind, and allow lists.

use crate::common::{direct, once, proxied, refusal, shop, statuses};
use std::collections::BTreeMap;
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Client, Request};

fn user(name: &str) -> Request {
    Request::get("/").header("x-user", name)
}

fn admitted(client: &mut Client, request: &Request, requests: usize) -> usize {
    statuses(client, request, requests).into_iter().filter(|status| *status == 200).count()
}

fn by_user(overrides: &str) -> String {
    shop(&format!("{{id: r, key: [{{header: x-user}}], {}, overrides: [{overrides}]}}", once(3)))
}

#[test]
fn each_key_has_the_bucket_that_names_it() {
    let policy = by_user(
        "{exact: [ann, bob], max_tokens: 6}, {prefix: bot-, max_tokens: 1}, \
         {exact: [bot-ours], unlimited: true}, {prefix: staff-, unlimited: true}",
    );
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    for (name, limit) in [
        ("ann", 6),
        ("bob", 6),
        ("carl", 3),
        ("bot-a", 1),
        ("bot-b", 1),
        ("bot-ours", 12),
        ("staff-eve", 12),
        ("Ann", 3),
    ] {
        assert_eq!(admitted(&mut client, &user(name), 12), limit, "{name}");
        // Empty is empty; what is in the allow list has no bucket that could be.
        let over = client.send(&user(name));
        let state: &[&str] = if limit == 12 { &[] } else { &["--state", "r=0"] };
        assert_fares(&policy, "inbound", &user(name), &over, state);
    }
    let bytes = Request::get("/").header("x-user", b"ann\xff");
    assert_eq!(admitted(&mut client, &bytes, 12), 3);
    envoy.await_metric("shop", "r", "admitted", 6 + 6 + 3 + 1 + 1 + 13 + 13 + 3 + 3);
    envoy.assert_healthy();
}

#[test]
fn quota_headers_are_the_keys_own_and_an_allow_list_has_none() {
    let policy = shop(
        "{id: r, key: [{header: x-user}], max_tokens: 3, tokens_per_fill: 3, fill_interval: 60s, \
         at_limit: {quota_headers: ALWAYS}, overrides: [\
         {exact: [ann], max_tokens: 2, tokens_per_fill: 2, fill_interval: 10s}, \
         {exact: [root], unlimited: true}]}",
    );
    let (envoy, _upstream) = proxied(&policy);
    let mut client = envoy.client("in");

    let answer = client.send(&user("ann"));
    assert_eq!(answer.header("ratelimit-policy").as_deref(), Some("\"r\";q=2;w=10"));
    let refused = refusal(&mut client, &user("ann"));
    assert_eq!(refused.header("ratelimit-policy").as_deref(), Some("\"r\";q=2;w=10"));
    assert_fares(&policy, "inbound", &user("ann"), &refused, &["--state", "r=0"]);
    let answer = client.send(&user("bob"));
    assert_fares(&policy, "inbound", &user("bob"), &answer, &[]);
    assert_eq!(answer.header("ratelimit-policy").as_deref(), Some("\"r\";q=3;w=60"));
    assert_eq!(client.send(&user("root")).header("ratelimit"), None);
    envoy.assert_healthy();
}

/// Raised, lowered, lifted, and back: what was used stays used.
#[test]
fn edits_keep_what_was_used() {
    let envoy = direct(&by_user("{exact: [zoe], max_tokens: 9}"));
    let mut client = envoy.client("in");
    assert_eq!(admitted(&mut client, &user("ann"), 2), 2);

    envoy.put_policy(&by_user("{exact: [ann], max_tokens: 5}")).accepted();
    assert_eq!(admitted(&mut client, &user("ann"), 2), 2, "four of five used");
    envoy.put_policy(&by_user("{exact: [ann], unlimited: true}")).accepted();
    assert_eq!(admitted(&mut client, &user("ann"), 20), 20);
    envoy.put_policy(&by_user("{exact: [ann], max_tokens: 5}")).accepted();
    assert_eq!(admitted(&mut client, &user("ann"), 20), 1, "five of five used");
    envoy.put_policy(&by_user("{exact: [zoe], max_tokens: 9}")).accepted();
    assert_eq!(admitted(&mut client, &user("ann"), 20), 0, "five of three used");
    assert_eq!(admitted(&mut client, &user("bob"), 20), 3);
    envoy.assert_healthy();
}

#[test]
fn ten_thousand() {
    let one = |n: usize| format!("{{exact: [user-{n}], max_tokens: {}}}", n % 5 + 4);
    let all = (0..10_000).map(one).collect::<Vec<_>>().join(", ");
    let envoy = direct(&by_user(&all));
    let mut client = envoy.client("in");

    let named: BTreeMap<usize, usize> = [0, 77, 5000, 9999].map(|n| (n, n % 5 + 4)).into();
    for (n, limit) in named {
        assert_eq!(admitted(&mut client, &user(&format!("user-{n}")), 12), limit, "user-{n}");
    }
    assert_eq!(admitted(&mut client, &user("user-10000"), 12), 3);
    envoy.assert_healthy();
}
