//! Sticky shares: the hash, what an edit moves, and the cookie.

use crate::rig::{Rig, color_of, policy};
use std::collections::{BTreeMap, BTreeSet};
use weir_engine::color::hash::bucket;
use weir_integration_tests::{Client, H1Conn, Request};

pub fn share(id: &str, weight: u32) -> String {
    format!(
        "rules: [{{id: {id}, shares: [{{color: gray, weight: {weight}}}], key: [{{header: x-user}}]}}]"
    )
}

fn color_of_user(client: &mut Client, user: &[u8]) -> String {
    color_of(&client.send(&Request::get("/").header("x-user", user)))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Byte for byte through Envoy: a share that ends right above and right below the bucket of each key.
#[test]
fn the_published_vectors() {
    let text = include_str!("../../vectors/sticky-hash.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let rig = Rig::section("default: base");
    let mut tried = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let salt = case["salt"].as_str().unwrap();
        let key = hex(case["key_hex"].as_str().unwrap());
        // A rule has an id, and a header carries neither line ends nor blanks at its ends.
        let is_id = !salt.is_empty()
            && salt
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        let is_value = !key.is_empty()
            && key.trim_ascii() == key
            && key.iter().all(|b| *b >= 0x20 && *b != 0x7f);
        if !is_id || !is_value {
            continue;
        }
        tried += 1;
        let bucket = case["bucket"].as_u64().unwrap() as u32;
        let mut client = rig.envoy.client("in");
        for (weight, color) in [(bucket + 1, "gray"), (bucket, "base")] {
            if weight == 0 || weight > 10_000 {
                continue;
            }
            rig.edit("", &share(salt, weight));
            assert_eq!(color_of_user(&mut client, &key), color, "{case} at {weight}");
            let request = Request::get("/").header("x-user", &key);
            rig.assert_explained(&request, &client.send(&request));
        }
    }
    assert!(tried >= 12, "{tried}");
}

/// 1000 times, on 4 workers of 2 Envoys, and after a reload.
#[test]
fn a_user_has_one_color_everywhere() {
    let text = policy("", &share("beta", 5000));
    let rigs = [Rig::start(4, &text), Rig::start(4, &text)];
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for round in 0..2 {
        for rig in &rigs {
            let mut clients: Vec<Client> = (0..16).map(|_| rig.envoy.client("in")).collect();
            for n in 0..250 {
                let (user, client) = (&users[n % users.len()], n % clients.len());
                let color = color_of_user(&mut clients[client], user.as_bytes());
                seen.entry(user).or_default().insert(color);
            }
            if round == 0 {
                rig.edit("", &format!("default: blue, {}", share("beta", 5000)));
                rig.edit("", &share("beta", 5000));
            }
        }
    }
    assert!(seen.values().all(|colors| colors.len() == 1), "{seen:?}");
    let colors: BTreeSet<_> = seen.values().flatten().collect();
    assert_eq!(colors.len(), 2);
}

#[test]
fn an_edit_moves_only_those_in_between() {
    let groups = |a: u32, b: u32| {
        format!(
            "rules: [{{id: ab, shares: [{{color: gray, weight: {a}}}, {{color: blue, weight: {b}}}], \
             key: [{{header: x-user}}]}}]"
        )
    };
    let rig = Rig::section(&groups(7000, 3000));
    let users: Vec<String> = (0..2000).map(|n| format!("u{n}")).collect();
    let mut client = rig.envoy.client("in");
    let mut all = || -> Vec<String> {
        users.iter().map(|user| color_of_user(&mut client, user.as_bytes())).collect()
    };
    let before = all();
    rig.edit("", &groups(5000, 5000));
    let after = all();
    for ((user, before), after) in users.iter().zip(&before).zip(&after) {
        let moves = (5000..7000).contains(&bucket("ab", user.as_bytes()));
        assert_eq!(before != after, moves, "{user}: {before} {after}");
    }
    let gray = before.iter().filter(|color| *color == "gray").count();
    assert!((1340..1460).contains(&gray), "70 % of 2000: {gray}");
}

#[test]
fn five_percent_of_100_000_users() {
    let rig = Rig::start(2, &policy("", &share("beta", 500)));
    let gray: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|part: u32| {
                let rig = &rig;
                scope.spawn(move || {
                    let mut connection = rig.envoy.h1("in");
                    (part * 25_000..(part + 1) * 25_000)
                        .filter(|n| is_gray(&mut connection, *n))
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("5 % of 100 000 users: {gray}");
    assert!((4700..=5300).contains(&gray), "{gray}");
    let expected =
        (0..100_000_u32).filter(|n| bucket("beta", n.to_string().as_bytes()) < 500).count();
    assert_eq!(gray, expected);
    // From 5 to 10 % the first five stay.
    rig.edit("", &share("beta", 1000));
    let mut connection = rig.envoy.h1("in");
    for n in (0..100_000_u32).filter(|n| bucket("beta", n.to_string().as_bytes()) < 500).take(1000)
    {
        assert!(is_gray(&mut connection, n));
    }
}

fn is_gray(connection: &mut H1Conn, user: u32) -> bool {
    let request = Request::get("/").header("x-user", user.to_string());
    color_of(&connection.send(&request).unwrap()) == "gray"
}

#[test]
fn the_classic_hash_keeps_users_of_an_older_system() {
    let rig = Rig::section(
        "rules: [{id: old, hash: FNV1A32_MOD100, shares: [{color: gray, weight: 2000}], key: [{header: x-user}]}]",
    );
    let mut client = rig.envoy.client("in");
    for n in 0..200_u32 {
        let user = n.to_string();
        let hash =
            user.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let expected = if hash % 100 < 20 { "gray" } else { "base" };
        assert_eq!(color_of_user(&mut client, user.as_bytes()), expected, "{user}");
    }
}

/// The unsalted form, as the vectors have it: percent, above and below the remainder of each key.
#[test]
fn the_published_vectors_of_the_classic_hash() {
    let text = include_str!("../../vectors/sticky-hash.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let rig = Rig::section("default: base");
    let mut client = rig.envoy.client("in");
    let mut tried = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let key = hex(case["key_hex"].as_str().unwrap());
        if key.is_empty() || key.trim_ascii() != key || key.iter().any(|b| *b < 0x20 || *b == 0x7f)
        {
            continue;
        }
        tried += 1;
        let percent = case["fnv1a32_mod100_of_key"].as_u64().unwrap() as u32;
        for (weight, color) in [(percent + 1, "gray"), (percent, "base")] {
            if weight == 0 {
                continue;
            }
            let rule = share("any", weight * 100).replace("key:", "hash: FNV1A32_MOD100, key:");
            rig.edit("", &rule);
            assert_eq!(color_of_user(&mut client, &key), color, "{case} at {weight} %");
            let request = Request::get("/").header("x-user", &key);
            rig.assert_explained(&request, &client.send(&request));
        }
    }
    assert!(tried >= 12, "{tried}");
}

/// The salt is the rule's id: who is in one rule's half says nothing about another's.
#[test]
fn cohorts_of_two_rules_are_independent() {
    let rule = |id: &str| {
        format!(
            "{{id: {id}, match: {{path: {{exact: /{id}}}}}, shares: [{{color: gray, weight: 5000}}], \
             key: [{{header: x-user}}]}}"
        )
    };
    let rig = Rig::section(&format!("rules: [{}, {}]", rule("one"), rule("two")));
    let mut client = rig.envoy.client("in");
    // By whether a user is gray in one and in two.
    let mut cells = [[0_f64; 2]; 2];
    for user in 0..2000 {
        let user = user.to_string();
        let [one, two] = ["/one", "/two"].map(|path| {
            let answer = client.send(&Request::get(path).header("x-user", &user));
            usize::from(color_of(&answer) == "gray")
        });
        cells[one][two] += 1.0;
    }
    let [[neither, two], [one, both]] = cells;
    let margins = (one + both) * (two + both) * (neither + two) * (neither + one);
    let phi = (both * neither - one * two) / margins.sqrt();
    println!("two rules over 2000 users: phi {phi:.3}");
    // Chance alone stays below three standard deviations of 1 / sqrt(2000).
    assert!(phi.abs() < 0.067, "{phi}");
}
