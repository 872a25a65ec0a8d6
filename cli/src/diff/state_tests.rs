//! What `weir diff` says of state, against the engine: a rule is used, the policy is edited, and what is
//! left is looked at.

use weir_engine::breaker::cell::State;
use weir_engine::core::headers::HeaderMap;

use super::compare::{Change, compare};
use crate::proxy::Proxy;
use crate::source::{self, Document};

fn document(text: &str) -> Document {
    let (mut documents, findings) = source::read(text);
    assert_eq!(findings, [], "{text}");
    documents.pop().unwrap()
}

fn proxy(document: &Document) -> Proxy {
    let policy = document.policy.as_ref().unwrap();
    let mut proxy = Proxy::new(policy, document.sections(), 1_795_000_000_000_000_000).unwrap();
    proxy.ports.set_attribute("xds.listener_direction", &1_u64.to_le_bytes());
    proxy
}

fn request(headers: &[(&str, &str)]) -> HeaderMap {
    let mut all =
        vec![(":method", "GET"), (":path", "/a"), (":authority", "shop"), ("x-user", "ann")];
    all.extend(headers);
    HeaderMap::from_pairs(&all)
}

/// Whether the sentences of all changes say that a rule's state is kept.
fn says_kept(changes: &[Change]) -> bool {
    assert!(!changes.is_empty());
    let mut sentences = changes.iter().flat_map(|change| &change.state);
    let all: Vec<&String> = sentences.by_ref().collect();
    assert!(!all.is_empty(), "{changes:?}");
    all.iter().all(|sentence| sentence.starts_with("kept") || sentence.contains("found again"))
}

const LIMIT: &str = "name: shop\nrate_limit: {rules: [{id: r, key: [{header: x-user}], max_tokens: 10, \
                     fill_interval: 3600s}]}\n";

#[test]
fn limits() {
    for (from, to, is_kept) in [
        ("max_tokens: 10", "max_tokens: 20", true),
        ("max_tokens: 10", "max_tokens: 8", true),
        ("fill_interval: 3600s", "fill_interval: 7200s", true),
        ("max_tokens: 10", "max_keys: 100, max_tokens: 10", true),
        ("max_tokens: 10", "mode: SHADOW, max_tokens: 10", true),
        ("max_tokens: 10", "match: {path: {prefix: /a}}, max_tokens: 10", true),
        ("max_tokens: 10", "at_limit: {status: 503}, max_tokens: 10", true),
        ("key: [{header: x-user}]", "key: [{header: x-user}, {method: true}]", false),
        ("key: [{header: x-user}], ", "", false),
        ("max_tokens: 10", "scope: WORKER, max_tokens: 10", false),
        ("name: shop", "name: other", false),
    ] {
        let (old, new) = (document(LIMIT), document(&LIMIT.replace(from, to)));
        let mut proxy = proxy(&old);
        for _ in 0..3 {
            assert!(proxy.request(request(&[])).reply.is_none());
        }
        proxy.edit(new.policy.as_ref().unwrap(), new.sections()).unwrap();
        let Proxy { limiter, limit_worker, ports, .. } = &mut proxy;
        let looks = limiter.as_ref().unwrap().look(limit_worker, &request(&[]), ports);
        let level = looks[0].level.unwrap();
        let found = match level.max - level.available {
            3 => true,
            0 => false,
            used => panic!("{to}: {used} used"),
        };
        assert_eq!(found, is_kept, "{to}: the engine");
        assert_eq!(says_kept(&compare(&old.root, &new.root)), is_kept, "{to}: what is said");
    }
}

#[test]
fn a_rule_that_was_away_is_found_again() {
    let old = document(LIMIT);
    let without = document("name: shop\nrate_limit: {rules: []}\n");
    let mut proxy = proxy(&old);
    assert!(proxy.request(request(&[])).reply.is_none());
    for document in [&without, &old] {
        proxy.edit(document.policy.as_ref().unwrap(), document.sections()).unwrap();
    }
    let Proxy { limiter, limit_worker, ports, .. } = &mut proxy;
    let looks = limiter.as_ref().unwrap().look(limit_worker, &request(&[]), ports);
    assert_eq!(looks[0].level.unwrap().available, 9);
    assert!(says_kept(&compare(&old.root, &without.root)));
}

const BREAKER: &str = "name: shop\ncircuit_breaker: {rules: [{id: b, key: [{header: x-user}], \
                       match: {direction: ANY}, open_duration: 3600s}]}\n";

#[test]
fn breakers() {
    for (from, to, is_kept) in [
        ("open_duration: 3600s", "open_duration: 60s", true),
        ("open_duration: 3600s", "open_duration: 3600s, window: {count: 50}", true),
        ("open_duration: 3600s", "open_duration: 3600s, max_keys: 50", true),
        ("open_duration: 3600s", "open_duration: 3600s, failure_rate_percent: 20", true),
        ("key: [{header: x-user}]", "key: [{method: true}]", false),
        ("open_duration: 3600s", "strategy: ADAPTIVE", false),
        ("name: shop", "name: other", false),
    ] {
        let (old, new) = (document(BREAKER), document(&BREAKER.replace(from, to)));
        let mut proxy = proxy(&old);
        let headers = request(&[]);
        let Proxy { breaker, breaker_worker, ports, .. } = &mut proxy;
        assert!(breaker.as_ref().unwrap().put("b", State::Open, breaker_worker, &headers, ports));
        proxy.edit(new.policy.as_ref().unwrap(), new.sections()).unwrap();
        let Proxy { breaker, breaker_worker, ports, .. } = &mut proxy;
        let looks = breaker.as_ref().unwrap().look(breaker_worker, &headers, ports);
        assert_eq!(looks[0].state == Some(State::Open), is_kept, "{to}: the engine");
        assert_eq!(says_kept(&compare(&old.root, &new.root)), is_kept, "{to}: what is said");
    }
}

const GUARD: &str = "name: shop\ntraffic_color: {colors: [base, gray], rules: [{id: canary, \
                     shares: [{color: gray, weight: 5000}], key: [{header: x-user}], \
                     guard: {error_delta_points: 5, min_requests: 20, reset: a}}]}\n";

#[test]
fn guards() {
    for (from, to, is_kept) in [
        ("error_delta_points: 5", "error_delta_points: 50", true),
        ("weight: 5000", "weight: 6000", true),
        ("reset: a", "reset: b", false),
    ] {
        let (old, new) = (document(GUARD), document(&GUARD.replace(from, to)));
        let mut proxy = proxy(&old);
        for n in 0..400 {
            let user = n.to_string();
            let pairs =
                [(":method", "GET"), (":path", "/"), (":authority", "a"), ("x-user", &user)];
            let passed = proxy.request(HeaderMap::from_pairs(&pairs));
            let is_gray = passed.headers.get(b"x-weir-color") == Some(b"gray");
            let status: u64 = if is_gray { 503 } else { 200 };
            proxy.ports.set_attribute("response.code", &status.to_le_bytes());
            proxy.ports.set_attribute("upstream.request_attempt_count", &1_u64.to_le_bytes());
            proxy.end(passed.stream);
            if n % 100 == 99 {
                // One moment alone is no reason.
                proxy.tick();
                proxy.process.advance(1_500_000_000);
            }
        }
        let tripped = |proxy: &mut Proxy| {
            let Proxy { painter, ports, .. } = proxy;
            painter.as_ref().unwrap().look(&request(&[]), ports)[0].is_tripped
        };
        assert!(tripped(&mut proxy));
        proxy.edit(new.policy.as_ref().unwrap(), new.sections()).unwrap();
        assert_eq!(tripped(&mut proxy), is_kept, "{to}: the engine");
        let changes = compare(&old.root, &new.root);
        if changes.iter().any(|change| change.touches("guard")) {
            assert_eq!(says_kept(&changes), is_kept, "{to}: what is said");
        }
    }
}

/// The part of the keys that change their color, as the engine gives colors.
#[test]
fn shares_that_move() {
    let rule = |shares: &str| {
        document(&format!(
            "name: shop\ntraffic_color: {{colors: [base, gray, blue], rules: [{{id: canary, \
             shares: [{shares}], key: [{{header: x-user}}]}}]}}\n"
        ))
    };
    for (before, after) in [
        ("{color: gray, weight: 500}", "{color: gray, weight: 1000}"),
        (
            "{color: gray, weight: 3000}, {color: blue, weight: 2000}",
            "{color: gray, weight: 4000}, {color: blue, weight: 2000}",
        ),
        ("{color: gray, weight: 3000}", "{color: blue, weight: 3000}"),
    ] {
        let documents = [rule(before), rule(after)];
        let colors = documents.each_ref().map(|document| {
            let mut proxy = proxy(document);
            let color = |n: u32| {
                let user = n.to_string();
                let passed = proxy.request(HeaderMap::from_pairs(&[("x-user", &user)]));
                passed.headers.get(b"x-weir-color").unwrap().to_vec()
            };
            (0..20_000).map(color).collect::<Vec<_>>()
        });
        let moved = colors[0].iter().zip(&colors[1]).filter(|(a, b)| a != b).count();
        let [old, new] = documents.each_ref().map(|document| &document.root);
        let rules =
            [old, new].map(|root| super::compare::rule(root, "traffic_color", "canary").unwrap());
        let said = super::shares::moved(rules[0], rules[1]).unwrap();
        // Of 20 000 keys, half a percent more or less.
        assert!(
            moved.abs_diff(usize::try_from(said * 2).unwrap()) < 100,
            "{after}: {moved}, {said}"
        );
    }
}
