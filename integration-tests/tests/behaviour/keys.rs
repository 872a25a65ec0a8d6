//! Every source of a key: which requests share a bucket.

use crate::common::{listener, once};
use serde_json::json;
use std::collections::BTreeSet;
use weir_integration_tests::explained::explain;
use weir_integration_tests::{Envoy, Request, jwt};

/// A key, and requests in order with whether each finds a token. A bucket holds one.
struct Case {
    name: &'static str,
    key: &'static str,
    steps: Vec<(Request, bool)>,
}

const FIRST: bool = true;
const AGAIN: bool = false;

fn get(target: &str) -> Request {
    Request::get(target)
}

fn with(name: &str, value: impl AsRef<[u8]>) -> Request {
    get("/").header(name, value)
}

fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(request_line());
    cases.extend(clients());
    cases.extend(rest());
    cases
}

fn headers() -> Vec<Case> {
    vec![
        Case {
            name: "header",
            key: "[{header: X-User}]",
            steps: vec![
                (with("x-user", "ann"), FIRST),
                (with("X-USER", "ann"), AGAIN),
                (with("x-user", "Ann"), FIRST),
                (with("x-user", b"\xff\xfe"), FIRST),
                (with("x-user", b"\xff\xfe"), AGAIN),
                (with("x-user", b"\xff\xfd"), FIRST),
            ],
        },
        Case {
            name: "header-lines",
            key: "[{header: x-user}]",
            steps: vec![
                (with("x-user", "1").header("x-user", "2"), FIRST),
                (with("x-user", "1,2"), AGAIN),
                (with("x-user", "2").header("x-user", "1"), FIRST),
                (with("x-user", "1"), FIRST),
            ],
        },
        Case {
            name: "cookie",
            key: "[{cookie: session}]",
            steps: vec![
                (with("cookie", "a=1; session=s1"), FIRST),
                (with("cookie", "session=s1; b=2"), AGAIN),
                (with("cookie", "a=1").header("cookie", "session=s2"), FIRST),
                (with("cookie", "session=s2"), AGAIN),
                (with("cookie", b"session=\xff"), FIRST),
                (with("cookie", b"session=\xff"), AGAIN),
            ],
        },
        Case {
            name: "baggage",
            key: "[{baggage: tenant}]",
            steps: vec![
                (with("baggage", "tenant=a,x=1"), FIRST),
                (with("baggage", "x=2 , tenant = a ;p=1"), AGAIN),
                (with("baggage", "x=2").header("baggage", "tenant=a"), AGAIN),
                (with("baggage", "tenant=b"), FIRST),
                (with("baggage", b"tenant=\xff"), FIRST),
            ],
        },
        Case {
            name: "color",
            key: "[{color: true}]",
            steps: vec![
                (with("x-weir-color", "blue"), FIRST),
                (with("x-weir-color", "blue"), AGAIN),
                (with("x-weir-color", "green"), FIRST),
            ],
        },
    ]
}

fn request_line() -> Vec<Case> {
    vec![
        Case {
            name: "query",
            key: "[{query: user}]",
            steps: vec![
                (get("/?user=a"), FIRST),
                (get("/?x=1&user=a"), AGAIN),
                (get("/?user=%61"), FIRST),
                (get("/?user=b&user=a"), FIRST),
                (get("/?user=b"), AGAIN),
                (get("/?user="), FIRST),
            ],
        },
        Case {
            name: "path",
            key: "[{path: {whole: true}}]",
            steps: vec![
                (get("/a?x=1"), FIRST),
                (get("/a?x=2"), AGAIN),
                (get("/a/"), FIRST),
                (get("/A"), FIRST),
                (get("/%61"), FIRST),
            ],
        },
        Case {
            name: "path-segments",
            key: "[{path: {segments: 2}}]",
            steps: vec![
                (get("/a/b/c"), FIRST),
                (get("/a/b?q=1"), AGAIN),
                (get("/a/c"), FIRST),
                (get("/a"), FIRST),
                (get("/a"), FIRST),
            ],
        },
        Case {
            name: "path-template",
            key: "[{path: {template: {template: '/users/{id}/orders', name: id}}}]",
            steps: vec![
                (get("/users/7/orders"), FIRST),
                (get("/users/7/orders?page=2"), AGAIN),
                (get("/users/8/orders"), FIRST),
                (get("/users/7"), FIRST),
                (get("/users/7"), FIRST),
            ],
        },
        Case {
            name: "method",
            key: "[{method: true}]",
            steps: vec![(get("/a"), FIRST), (get("/b"), AGAIN), (Request::new("PUT", "/a"), FIRST)],
        },
        Case {
            name: "authority",
            key: "[{authority: true}]",
            steps: vec![
                (get("/").host("Shop.test:8080"), FIRST),
                (get("/").host("shop.test"), AGAIN),
                (get("/").host("SHOP.TEST."), AGAIN),
                (get("/").host("other.test"), FIRST),
            ],
        },
    ]
}

fn clients() -> Vec<Case> {
    let from = |address: &str| with("x-forwarded-for", address);
    let token = |user: &str| with("authorization", jwt::bearer(json!({"sub": user})));
    vec![
        Case {
            name: "source-address",
            key: "[{source_address: {}}]",
            steps: vec![
                (from("10.0.0.1"), FIRST),
                (from("10.0.0.1"), AGAIN),
                (from("::ffff:10.0.0.1"), AGAIN),
                (from("10.0.0.2"), FIRST),
                (from("2001:db8::1"), FIRST),
                (from("2001:db8::2"), AGAIN),
                (from("2001:db8:0:1::1"), FIRST),
            ],
        },
        Case {
            name: "source-address-masked",
            key: "[{source_address: {v4_prefix: 24, v6_prefix: 32}}]",
            steps: vec![
                (from("10.0.0.1"), FIRST),
                (from("10.0.0.255"), AGAIN),
                (from("::ffff:10.0.0.3"), AGAIN),
                (from("10.0.1.1"), FIRST),
                (from("2001:db8::1"), FIRST),
                (from("2001:db8:ffff::1"), AGAIN),
                (from("2001:db9::1"), FIRST),
            ],
        },
        Case {
            name: "jwt-claim",
            key: "[{jwt_claim: weir_jwt.sub}]",
            steps: vec![
                (token("ann"), FIRST),
                (token("ann"), AGAIN),
                (token("bob"), FIRST),
                // Without a verified token there is no claim.
                (get("/"), FIRST),
                (get("/"), FIRST),
            ],
        },
    ]
}

fn rest() -> Vec<Case> {
    vec![
        Case {
            name: "property",
            key: "[{property: xds.route_name}]",
            steps: vec![(get("/named/a"), FIRST), (get("/named/b"), AGAIN), (get("/else"), FIRST)],
        },
        Case {
            name: "constant",
            key: "[{constant: everybody}]",
            steps: vec![(get("/a"), FIRST), (get("/b"), AGAIN)],
        },
        Case {
            name: "several-parts",
            key: "[{header: x-a}, {header: x-b}]",
            steps: vec![
                (with("x-a", "a").header("x-b", "bc"), FIRST),
                (with("x-b", "bc").header("x-a", "a"), AGAIN),
                // The border between two parts counts.
                (with("x-a", "ab").header("x-b", "c"), FIRST),
                (with("x-a", "bc").header("x-b", "a"), FIRST),
            ],
        },
    ]
}

/// As `weir explain` tells it; none where the rule does not apply.
fn key(policy: &str, request: &Request) -> Option<String> {
    let route = if request.target.starts_with(b"/named/") { "named" } else { "other" };
    let route = format!("xds.route_name={route}-route");
    let explained = explain(policy, "inbound", request, &["--attribute", &route]);
    let rule = &explained["sections"][0]["rules"][0];
    assert_eq!(rule["matches"], true, "{explained}");
    rule["key"].as_array().map(|key| serde_json::to_string(key).expect("JSON"))
}

#[test]
fn each_source_tells_requests_apart() {
    let envoy = Envoy::builder().listener(listener()).start();
    let mut client = envoy.client("in");
    let mut wrong = Vec::new();
    for case in cases() {
        let policy = format!(
            "{{name: {}, rate_limit: {{rules: [{{id: r, key: {}, {}}}]}}}}",
            case.name,
            case.key,
            once(1)
        );
        envoy.put_policy(&policy).accepted();
        let mut told = BTreeSet::new();
        for (n, (request, finds)) in case.steps.iter().enumerate() {
            let status = client.send(request).status;
            let expected = if *finds { 200 } else { 429 };
            if status != expected {
                wrong.push(format!("{}[{n}]: {status}, not {expected}", case.name));
            }
            // By `weir explain`, it is the requests of one key that share a bucket.
            let key = key(&policy, request);
            if key.clone().is_none_or(|key| told.insert(key)) != *finds {
                wrong.push(format!("{}[{n}]: explained with the key {key:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    envoy.assert_healthy();
}

#[test]
fn the_color_header_has_the_name_that_the_policy_gives_it() {
    let envoy = Envoy::builder().listener(listener()).start();
    let mut client = envoy.client("in");
    envoy
        .put_policy(&format!(
            "{{name: lanes, color_header: X-Lane, rate_limit: {{rules: [\
             {{id: r, key: [{{color: true}}], {}}}]}}}}",
            once(1)
        ))
        .accepted();

    let blue = with("x-lane", "blue");
    assert_eq!([client.send(&blue).status, client.send(&blue).status], [200, 429]);
    let elsewhere = with("x-weir-color", "blue");
    assert_eq!([client.send(&elsewhere).status, client.send(&elsewhere).status], [200, 200]);
    envoy.assert_healthy();
}
