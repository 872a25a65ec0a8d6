//! The sticky cookie: a random key for clients that bring none, and never a color.

use crate::rig::{Rig, color_of, with};
use crate::shares::share;
use std::collections::BTreeSet;
use weir_engine::color::hash::bucket;
use weir_integration_tests::Request;

fn sticky(weight: u32) -> String {
    share("beta", weight).replace("key:", "on_missing_key: STICKY_COOKIE, key:")
}

/// Clients without a key get one, and keep their color by it.
#[test]
fn the_cookie_holds_a_key() {
    let rig = Rig::section(&sticky(5000));
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let first = rig.send("in", &Request::get("/"));
        let cookie = first.header("set-cookie").expect("a key");
        assert!(
            cookie.ends_with("; Max-Age=2592000; Path=/; SameSite=Lax; Secure; HttpOnly"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap().to_owned();
        let again = rig.send("in", &with(&[("cookie", &format!("a=b; {pair}"))]));
        assert_eq!(color_of(&again), color_of(&first), "{pair}");
        assert_eq!(again.header("set-cookie"), None, "it has its key");
        seen.insert(color_of(&first));
    }
    assert_eq!(seen.len(), 2);
    // Who brings a key of his own needs none.
    assert_eq!(rig.send("in", &with(&[("x-user", "ann")])).header("set-cookie"), None);
    // A cookie is a key and nothing more: ramped down, nobody stays.
    let gray =
        (0_u128..).map(|n| format!("{n:032x}")).find(|key| bucket("beta", key.as_bytes()) < 5000);
    let gray = format!("weir-sticky={}", gray.unwrap());
    assert_eq!(rig.color(&[("cookie", &gray)]), "gray");
    rig.edit("", "default: base");
    let response = rig.send("in", &with(&[("cookie", &gray)]));
    assert_eq!(color_of(&response), "base");
    let cleared = response.header("set-cookie").expect("the rule is gone, so is its cookie");
    assert!(cleared.starts_with("weir-sticky=; Max-Age=0; Path=/"), "{cleared}");
    rig.envoy.assert_healthy();
}

#[test]
fn the_cookie_has_the_policys_attributes() {
    let sticky = sticky(5000);
    let rig = Rig::section(&sticky);
    for (fields, name, attributes) in [
        (
            "name: k, path: /shop, max_age: 60s",
            "k",
            "Max-Age=60; Path=/shop; SameSite=Lax; Secure; HttpOnly",
        ),
        (
            "same_site: STRICT, secure: false",
            "weir-sticky",
            "Max-Age=2592000; Path=/; SameSite=Strict; HttpOnly",
        ),
        (
            "same_site: NONE, http_only: false, partitioned: true",
            "weir-sticky",
            "Max-Age=2592000; Path=/; SameSite=None; Secure; Partitioned",
        ),
    ] {
        rig.edit("", &format!("{sticky}, sticky_cookie: {{{fields}}}"));
        let cookie = rig.send("in", &Request::get("/")).header("set-cookie").expect("a key");
        let (pair, rest) = cookie.split_once("; ").expect("attributes");
        let (given, key) = pair.split_once('=').expect("a value");
        assert_eq!((given, rest), (name, attributes));
        assert!(key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    }
    rig.envoy.assert_healthy();
}

/// A cookie is a key or it is nothing: what names a color, or has another form, gets a fresh key.
#[test]
fn a_forged_cookie_gets_nowhere() {
    let none = sticky(1);
    let rig = Rig::section(&none);
    let is_chosen = |key: &str| bucket("beta", key.as_bytes()) < 1;
    for value in
        ["gray", "", "0", &"F".repeat(32), &"0".repeat(31), &"0".repeat(33), "\"gray\"", "gray%00"]
    {
        let answer = rig.send("in", &with(&[("cookie", &format!("weir-sticky={value}"))]));
        let cookie =
            answer.header("set-cookie").unwrap_or_else(|| panic!("{value:?}: a fresh key"));
        let key = cookie.split(['=', ';']).nth(1).expect("a value");
        let color = if is_chosen(key) { "gray" } else { "base" };
        assert_eq!(color_of(&answer), color, "{value:?}");
    }
    // Of several the first of our form counts; one key, one color.
    let (other, key) = ("1".repeat(32), "2".repeat(32));
    let cookies = format!("weir-sticky=gray; weir-sticky={key}; weir-sticky={other}");
    let answer = rig.send("in", &with(&[("cookie", &cookies)]));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(color_of(&answer) == "gray", is_chosen(&key));
    // The key is hashed and not forwarded as a color, whatever color came beside it.
    let answer =
        rig.send("in", &with(&[("cookie", "x-weir-color=gray; x-color=gray; color=gray")]));
    assert_eq!(color_of(&answer), "base");
    rig.envoy.assert_healthy();
}
