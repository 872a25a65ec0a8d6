//! Every field of a match: which requests a rule means.

use crate::common::{listener, once, statuses};
use serde_json::json;
use weir_integration_tests::explained::explain;
use weir_integration_tests::{Envoy, Request, jwt};

/// A match, requests that it means, and requests that it does not mean.
struct Case {
    rule: &'static str,
    means: Vec<Request>,
    passes: Vec<Request>,
}

fn get(target: &str) -> Request {
    Request::get(target)
}

fn with(name: &str, value: impl AsRef<[u8]>) -> Request {
    get("/").header(name, value)
}

fn case(rule: &'static str, means: Vec<Request>, passes: Vec<Request>) -> Case {
    Case { rule, means, passes }
}

fn where_it_goes() -> Vec<Case> {
    vec![
        case("{}", vec![get("/"), Request::new("DELETE", "/x")], vec![]),
        case(
            "{authority: {exact: shop.test}}",
            vec![get("/"), get("/").host("SHOP.test.:8080")],
            vec![get("/").host("shop.test.evil"), get("/").host("a.shop.test")],
        ),
        case(
            "{authority: {suffix: .shop.test}}",
            vec![get("/").host("a.shop.test")],
            vec![get("/")],
        ),
        case(
            "{path: {exact: /a}}",
            vec![get("/a"), get("/a?b=c")],
            vec![get("/a/"), get("/ab"), get("/A"), get("/%61")],
        ),
        case("{path: {prefix: /a}}", vec![get("/a"), get("/ab/c?d")], vec![get("/b?x=/a")]),
        case(
            "{path: {template: '/users/{id}/{rest**}'}}",
            vec![get("/users/7/orders/1"), get("/users/7/x?y")],
            vec![get("/users/7"), get("/users//x"), get("/user/7/x")],
        ),
        case(
            "{path: {regex: '/v[0-9]+/a'}}",
            vec![get("/v1/a"), get("/v22/a?x=1")],
            vec![get("/v/a"), get("/v1/ab"), get("/x/v1/a")],
        ),
        case(
            "{methods: [GET, PUT]}",
            vec![get("/"), Request::new("PUT", "/")],
            vec![Request::new("POST", "/"), Request::new("HEAD", "/")],
        ),
        case(
            "{query: {q: {exact: a%20b}}}",
            vec![get("/?q=a%20b"), get("/x?y&q=a%20b&q=z")],
            vec![get("/?q=a+b"), get("/?q=z&q=a%20b"), get("/")],
        ),
        case(
            "{properties: {xds.route_name: {exact: named-route}}}",
            vec![get("/named/a")],
            vec![get("/a")],
        ),
        case("{mirrored: true}", vec![get("/").host("shop.test-shadow")], vec![get("/")]),
        case("{mirrored: false}", vec![get("/")], vec![get("/").host("shop.test-shadow")]),
        case("{direction: INBOUND}", vec![get("/")], vec![]),
        case("{direction: ANY}", vec![get("/")], vec![]),
        case("{direction: OUTBOUND}", vec![], vec![get("/")]),
    ]
}

fn operators() -> Vec<Case> {
    vec![
        case(
            "{headers: {X-A: {exact: b}}}",
            vec![with("x-a", "b"), with("x-a", "a").header("x-a", "b")],
            vec![with("x-a", "B"), with("x-a", "ab"), get("/")],
        ),
        case("{headers: {x-a: {prefix: ab}}}", vec![with("x-a", "abc")], vec![with("x-a", "cab")]),
        case("{headers: {x-a: {suffix: ab}}}", vec![with("x-a", "cab")], vec![with("x-a", "abc")]),
        case(
            "{headers: {x-a: {contains: ab}}}",
            vec![with("x-a", "cabc"), with("x-a", b"\xffab\xff")],
            vec![with("x-a", "ba")],
        ),
        case(
            "{headers: {x-a: {regex: 'a+b?'}}}",
            vec![with("x-a", "aaab")],
            vec![with("x-a", "caab"), with("x-a", b"aa\xff")],
        ),
        case(
            "{headers: {x-a: {present: true}}}",
            vec![with("x-a", ""), with("x-a", b"\xff")],
            vec![get("/")],
        ),
        case("{headers: {x-a: {present: false}}}", vec![get("/")], vec![with("x-a", "")]),
        case(
            "{headers: {x-a: {in: {values: [b, c]}}}}",
            vec![with("x-a", "b"), with("x-a", "c")],
            vec![with("x-a", "b,c"), get("/")],
        ),
        case(
            "{headers: {x-a: {number: {ge: 10, lt: 20.5}}}}",
            vec![with("x-a", "10"), with("x-a", "20.4"), with("x-a", "010")],
            vec![with("x-a", "20.5"), with("x-a", "9.99"), with("x-a", "1e1"), get("/")],
        ),
        case(
            "{headers: {x-a: {number: {eq: -3}}}}",
            vec![with("x-a", "-3")],
            vec![with("x-a", "3"), with("x-a", "-3x")],
        ),
        case(
            "{headers: {x-a: {number: {gt: 1, le: 2}}}}",
            vec![with("x-a", "2"), with("x-a", "1.1")],
            vec![with("x-a", "1"), with("x-a", "2.1")],
        ),
        case(
            "{headers: {x-a: {exact: '1'}, x-b: {exact: '2'}}}",
            vec![with("x-a", "1").header("x-b", "2")],
            vec![with("x-a", "1"), with("x-b", "2")],
        ),
    ]
}

fn who() -> Vec<Case> {
    let from = |address: &str| with("x-forwarded-for", address);
    let token = |user: &str| with("authorization", jwt::bearer(json!({"sub": user})));
    vec![
        case(
            "{cookies: {tier: {exact: free}}}",
            vec![with("cookie", "a=b; tier=free")],
            vec![with("cookie", "tier=paid; xtier=free"), get("/")],
        ),
        case(
            "{source_addresses: [10.0.0.0/8, '2001:db8::/32']}",
            vec![from("10.1.2.3"), from("::ffff:10.1.2.3"), from("2001:db8:1::1")],
            vec![from("11.0.0.1"), from("2001:db9::1"), from("::ffff:11.0.0.1")],
        ),
        case(
            "{jwt_claims: {weir_jwt.sub: {exact: ann}}}",
            vec![token("ann")],
            vec![token("bob"), get("/")],
        ),
        case(
            "{baggage: {tenant: {in: {values: [a, b]}}}}",
            vec![with("baggage", "x=1, tenant=a;p")],
            vec![with("baggage", "tenant=c"), get("/")],
        ),
        case(
            "{colors: [blue, green]}",
            vec![with("x-weir-color", "blue"), with("x-weir-color", "green")],
            vec![with("x-weir-color", "red"), get("/")],
        ),
    ]
}

fn trees() -> Vec<Case> {
    vec![
        case(
            "{all: [{methods: [GET]}, {path: {prefix: /a}}]}",
            vec![get("/a")],
            vec![get("/b"), Request::new("PUT", "/a")],
        ),
        case(
            "{any: [{path: {exact: /a}}, {path: {exact: /b}}]}",
            vec![get("/a"), get("/b")],
            vec![get("/c")],
        ),
        case("{not: {methods: [GET]}}", vec![Request::new("PUT", "/")], vec![get("/")]),
        case(
            "{path: {prefix: /a}, not: {any: [{methods: [PUT]}, {headers: {x-a: {present: true}}}]}}",
            vec![get("/a")],
            vec![Request::new("PUT", "/a"), get("/a").header("x-a", "1"), get("/b")],
        ),
    ]
}

/// What `weir explain` says of a request that finds a token, and of one that finds none.
fn told(policy: &str, request: &Request) -> Vec<u16> {
    let route = if request.target.starts_with(b"/named/") { "named" } else { "other" };
    let route = format!("xds.route_name={route}-route");
    let states: [&[&str]; 2] = [&[], &["--state", "r=0"]];
    let status = |state: &[&str]| {
        let more = [&["--attribute", &route], state].concat();
        explain(policy, "inbound", request, &more)["answer"]["status"].as_u64().unwrap() as u16
    };
    states.map(status).into()
}

#[test]
fn each_field_tells_which_requests_a_rule_means() {
    let envoy = Envoy::builder().listener(listener()).start();
    let mut client = envoy.client("in");
    let groups = [where_it_goes(), operators(), who(), trees()];
    let mut wrong = Vec::new();
    for (n, case) in groups.into_iter().flatten().enumerate() {
        // A name of its own for each case: full buckets.
        let policy = |n: String| {
            format!(
                "{{name: {n}, rate_limit: {{rules: [{{id: r, match: {}, {}}}]}}}}",
                case.rule,
                once(1)
            )
        };
        envoy.put_policy(&policy(format!("passes-{n}"))).accepted();
        for request in &case.passes {
            let got = statuses(&mut client, request, 2);
            if got != [200, 200] {
                wrong.push(format!("{} must not mean {request:?}: {got:?}", case.rule));
            }
            let told = told(&policy(format!("passes-{n}")), request);
            if told != got {
                wrong.push(format!("{}: explained as {told:?}: {request:?}", case.rule));
            }
        }
        for (m, request) in case.means.iter().enumerate() {
            envoy.put_policy(&policy(format!("means-{n}-{m}"))).accepted();
            let got = statuses(&mut client, request, 2);
            if got != [200, 429] {
                wrong.push(format!("{} must mean {request:?}: {got:?}", case.rule));
            }
            let told = told(&policy(format!("means-{n}-{m}")), request);
            if told != got {
                wrong.push(format!("{}: explained as {told:?}: {request:?}", case.rule));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    envoy.assert_healthy();
}
