//! A request through all four modules of a real Envoy, and through `weir explain`: the same answer,
//! and the same headers at the upstream.

use weir_integration_tests::explained::{differences, explain, upstream};
use weir_integration_tests::http::grpc;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream};

const POLICY: &str = r#"
name: shop
trace_context:
  propagation: { extract: [W3C, B3_SINGLE], inject: [W3C], strip: [B3_SINGLE] }
  deadline: { default: 3s, hop_margin: 0.5s }
  response: { trace_id_header: x-trace-id, error_context: true }
traffic_color:
  colors: [base, gray, blue]
  rules:
  - id: staff
    match: { headers: { x-staff: { exact: "yes" } } }
    color: blue
  - id: canary
    shares: [{ color: gray, weight: 5000 }]
    key: [{ header: x-user }]
  response: { echo_header: x-color, vary: true }
rate_limit:
  rules:
  - id: gray
    match: { colors: [gray] }
    key: [{ header: x-user }]
    max_tokens: 1000
    fill_interval: 3600s
    at_limit: { quota_headers: ALWAYS }
  - id: per-user
    key: [{ header: x-user }]
    max_tokens: 2
    fill_interval: 3600s
    at_limit: { quota_headers: ALWAYS, draft_03_headers: true, retry_after_jitter_percent: 0 }
  - id: reports
    match: { path: { prefix: /reports } }
    key: [{ header: x-tenant, on_missing: REJECT }]
    max_tokens: 100
    fill_interval: 3600s
  - id: slow-lane
    match: { path: { exact: /slow } }
    max_tokens: 1
    fill_interval: 3600s
    at_limit: { degrade: { request_header: { name: x-lane, value: slow } } }
circuit_breaker:
  rules:
  - id: closed-shop
    match: { direction: INBOUND, path: { prefix: /shut } }
    state: FORCED_OPEN
    while_open: { retry_after_jitter_percent: 0 }
  - id: fallback
    match: { direction: INBOUND, path: { prefix: /menu } }
    state: FORCED_OPEN
    while_open: { fallback: { answer: { status: 200, body: "[]", content_type: application/json } } }
"#;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn envoy(upstream: &Upstream) -> Envoy {
    let filters = ["traffic_color", "trace_context", "rate_limit", "circuit_breaker"];
    let chain = |listener: Listener, cluster| {
        let listener = listener.trust_forwarded_for(1);
        let with = |listener: Listener, name| listener.filter(Filter::module(name, POLICY));
        filters.into_iter().fold(listener, with).route(Route::prefix("/", cluster))
    };
    Envoy::builder()
        .cluster(Cluster::h1("echo", upstream.address))
        .cluster(Cluster::h2("echo-h2", upstream.address))
        .listener(chain(Listener::inbound("in"), "echo"))
        .listener(chain(Listener::inbound("grpc"), "echo-h2"))
        .start()
}

/// A request, and what `--state` says of it when it is sent for the n-th time.
fn cases() -> Vec<(Request, Vec<Vec<&'static str>>)> {
    let get = |path: &str| Request::get(path).header("traceparent", parent());
    let user = |path: &str, user: &str| get(path).header("x-user", user);
    let fresh = || vec![vec![]];
    vec![
        (get("/"), fresh()),
        (
            user("/", "ann"),
            vec![vec![], vec!["--state", "per-user=1"], vec!["--state", "per-user=0"]],
        ),
        (user("/", "u2"), fresh()),
        (user("/", "u3"), fresh()),
        (user("/", "u4"), fresh()),
        (user("/", "u5"), fresh()),
        (get("/").header("x-staff", "yes"), fresh()),
        (get("/").header("x-weir-color", "blue"), fresh()),
        (get("/").header("x-weir-color", "pink"), fresh()),
        (get("/").header("x-weir-deadline-ms", "800"), fresh()),
        (get("/").header("x-weir-deadline-ms", "400"), fresh()),
        (get("/").header("b3", "1").header("baggage", "a=1, b=2"), fresh()),
        (get("/").header("tracestate", "foo=1,bar=2"), fresh()),
        (get("/reports"), fresh()),
        (get("/reports").header("x-tenant", "t"), fresh()),
        (get("/slow"), vec![vec![], vec!["--state", "slow-lane=0"]]),
        (get("/shut/down"), fresh()),
        (get("/menu"), fresh()),
        (get("/healthz").header("x-user", "ann"), fresh()),
        (get("/").host("shop.test-shadow").header("x-user", "ann"), fresh()),
        (Request::new("POST", "/orders?x=1").header("traceparent", parent()), fresh()),
    ]
}

fn parent() -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-01")
}

#[test]
fn a_request_fares_as_explained() {
    let echo = Upstream::start("echo");
    let envoy = envoy(&echo);
    let mut client = envoy.client("in");
    let mut wrong = Vec::new();
    let (mut answered, mut passed) = (0, 0);
    for (request, states) in cases() {
        for (n, state) in states.iter().enumerate() {
            let got = client.send(&request);
            let told = explain(POLICY, "inbound", &request, state);
            let name = format!("{} [{n}]", String::from_utf8_lossy(&request.target));
            let found = differences(&request, &got, &told).into_iter();
            wrong.extend(found.map(|difference| format!("{name}: {difference}")));
            match told["upstream"].is_null() {
                true => answered += 1,
                false => passed += 1,
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Both kinds were seen: refusals and fallbacks, and the rest.
    assert_eq!((answered, passed), (4, 20));
    envoy.assert_healthy();
}

/// gRPC calls are answered without a body, in Envoy's own form of our reply.
#[test]
fn a_grpc_call_fares_as_explained() {
    let echo = Upstream::start("echo");
    let envoy = envoy(&echo);
    let mut connection = envoy.h2("grpc");
    for (path, extra, code) in [
        ("/shop.v1.Orders/Get", vec![("x-user", "bob"), ("grpc-timeout", "2S")], None),
        ("/shut.Down/Get", vec![], Some(14)),
        ("/menu/Get", vec![], Some(14)),
        ("/reports/Get", vec![("grpc-timeout", "2S")], Some(3)),
    ] {
        let reply = grpc::call(&mut connection, path, &extra);
        let mut request = Request::new("POST", path).header("content-type", "application/grpc");
        for (name, value) in &extra {
            request = request.header(name, value);
        }
        let told = explain(POLICY, "inbound", &request, &[]);
        assert_eq!(told["answer"]["grpc_status"].as_i64(), code, "{path}: {told}");
        assert_eq!(reply.status, Some(code.unwrap_or(0).try_into().unwrap()), "{path}: {told}");
        if code.is_none() {
            let seen = echo.seen().pop().expect("it reached the upstream");
            for header in ["x-weir-color", "x-user"] {
                let told = upstream(&told, header);
                assert_eq!(seen.header(header).map(str::to_owned), told, "{path}: {header}");
            }
        }
    }
    envoy.assert_healthy();
}
