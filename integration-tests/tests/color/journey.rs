//! A color's way through four services, each in two versions and behind an Envoy of its own.

use serde_json::json;
use weir_integration_tests::http::grpc;
use weir_integration_tests::{
    Account, App, Client, Cluster, Envoy, Filter, Forward, Listener, Manner, Request, Route,
    Upstream, paths,
};

const HOPS: usize = 4;

/// One service: its proxy, and an application for each color.
struct Hop {
    envoy: Envoy,
    apps: Vec<App>,
}

fn module(name: &str, policy: &str) -> Filter {
    let policy: serde_json::Value = serde_yaml_ng::from_str(policy).unwrap();
    Filter::inline(
        &format!("weir.{name}"),
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": format!("weir.{name}"),
                "root_id": format!("weir_{name}"),
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": paths::module(name)}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy.to_string(),
                },
            },
        }),
    )
}

/// The first hop is the edge; the others trust it.
fn policy(hop: usize, restore: &str) -> String {
    let (zone, rules) = if hop == 0 {
        let session = "session: {principal: {header: x-user}}, ";
        (
            "zone: EDGE, ",
            format!(
                "{session}rules: [{{id: staff, match: {{headers: {{x-staff: {{exact: 'yes'}}}}}}, color: gray}}], "
            ),
        )
    } else {
        ("", String::new())
    };
    format!(
        "{{name: shop, {zone}{restore}trace_context: {{}}, \
         traffic_color: {{colors: [base, gray], {rules}carry: {{in: [HEADER, BAGGAGE]}}}}}}"
    )
}

/// Started from the last to the first: each has to know where the next one listens.
fn chain(forward: Forward, restore: &str) -> Vec<Hop> {
    let mut hops: Vec<Hop> = Vec::new();
    for hop in (0..HOPS).rev() {
        let next = hops.last().map(|hop: &Hop| hop.envoy.address("in"));
        let manner = Manner { forward, ..Manner::default() };
        let apps: Vec<App> = ["base", "gray"]
            .map(|color| App::start(&format!("{hop}-{color}"), manner.clone()))
            .into();
        let text = policy(hop, restore);
        let filtered = |listener: Listener| {
            listener.filter(module("traffic_color", &text)).filter(module("trace_context", &text))
        };
        let mut builder = Envoy::builder()
            .cluster(Cluster::h1("base", apps[0].address))
            .cluster(Cluster::h1("gray", apps[1].address))
            .listener(
                filtered(Listener::inbound("in"))
                    .route(Route::prefix("/", "gray").when_header("x-weir-color", "gray"))
                    .route(Route::prefix("/", "base")),
            );
        if let Some(next) = next {
            let out = filtered(Listener::outbound("out")).route(Route::prefix("/", "next"));
            builder = builder.cluster(Cluster::h1("next", next)).listener(out);
        }
        let envoy = builder.start();
        if next.is_some() {
            let out = envoy.address("out");
            apps.iter().for_each(|app| app.change(|manner| manner.next = Some(out)));
        }
        hops.push(Hop { envoy, apps });
    }
    hops.reverse();
    hops
}

/// What each application on the way saw.
fn trail(hops: &[Hop], request: &Request) -> Vec<Account> {
    let answer = Client::new(hops[0].envoy.address("in")).send(request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    Account::of(&answer).trail().into_iter().cloned().collect()
}

fn apps(trail: &[Account]) -> Vec<&str> {
    trail.iter().map(|account| account.app.as_str()).collect()
}

const ALL_GRAY: [&str; HOPS] = ["0-gray", "1-gray", "2-gray", "3-gray"];
const ALL_BASE: [&str; HOPS] = ["0-base", "1-base", "2-base", "3-base"];

fn staff() -> Request {
    Request::get("/").header("x-staff", "yes").header("x-user", "ann")
}

fn one_trace(trail: &[Account]) -> bool {
    let ids: Vec<_> =
        trail.iter().map(|a| a.header("traceparent").map(|v| v[3..35].to_owned())).collect();
    ids[0].is_some() && ids.iter().all(|id| *id == ids[0])
}

#[test]
fn applications_that_forward_everything() {
    let hops = chain(Forward::Everything, "");
    let gray = trail(&hops, &staff());
    assert_eq!(apps(&gray), ALL_GRAY);
    assert!(one_trace(&gray));
    assert_eq!(gray[3].header("x-weir-color"), Some("gray"));
    assert_eq!(apps(&trail(&hops, &Request::get("/"))), ALL_BASE);
    // Forged at the edge, in either carrier.
    let forged = Request::get("/").header("x-weir-color", "gray").header("baggage", "x-color=gray");
    assert_eq!(apps(&trail(&hops, &forged)), ALL_BASE);
    // The session id is of the edge's making, and kept from there on.
    let session = gray[0].header("x-trade-session-id").unwrap();
    let parts: Vec<&str> = session.splitn(3, '-').collect();
    assert_eq!(&parts[..2], ["sess", "ann"]);
    assert!(parts[2].parse::<u64>().unwrap() > 1_700_000_000_000_000_000, "{session}");
    assert!(gray.iter().all(|account| account.header("x-trade-session-id") == Some(session)));
    hops.iter().for_each(|hop| hop.envoy.assert_healthy());
    assert!(hops.iter().all(|hop| hop.apps.iter().all(|app| app.arrived() > 0)));
}

#[test]
fn applications_that_forward_the_trace_alone() {
    let hops = chain(Forward::Only(&["traceparent"]), "restore: {keys: [{trace_id: true}]}, ");
    let gray = trail(&hops, &staff());
    assert_eq!(apps(&gray), ALL_GRAY);
    assert!(one_trace(&gray));
    assert_eq!(apps(&trail(&hops, &Request::get("/"))), ALL_BASE);
}

#[test]
fn applications_that_forward_a_session_alone() {
    let restore = "restore: {keys: [{header: x-trade-session-id, scope: SESSION}]}, ";
    let hops = chain(Forward::Only(&["x-trade-session-id"]), restore);
    // At the edge the session is a stranger's until it is ours: from the second hop on it is known.
    let gray = trail(&hops, &staff());
    assert_eq!(apps(&gray)[1..], ALL_GRAY[1..]);
    assert!(!one_trace(&gray), "requests of a session are not of one trace");
}

/// gRPC metadata are headers.
#[test]
fn grpc_calls_carry_the_same() {
    let echo = Upstream::start("echo");
    let text = policy(0, "");
    let envoy = Envoy::builder()
        .cluster(Cluster::h2("echo", echo.address))
        .listener(
            Listener::inbound("in")
                .filter(module("traffic_color", &text))
                .filter(module("trace_context", &text))
                .route(Route::prefix("/", "echo")),
        )
        .start();
    let mut connection = envoy.h2("in");
    let reply =
        grpc::call(&mut connection, "/shop.Orders/Get", &[("x-staff", "yes"), ("x-user", "ann")]);
    assert_eq!(reply.status, Some(0));
    let seen = echo.seen().pop().unwrap();
    assert_eq!(seen.header("x-weir-color"), Some("gray"));
    assert_eq!(seen.header("baggage"), Some("x-color=gray"));
    assert!(seen.header("x-trade-session-id").unwrap().starts_with("sess-ann-"));
    assert_eq!(seen.header("traceparent").map(str::len), Some(55));
}

#[test]
fn session_ids_are_unique() {
    let echo = Upstream::start("echo");
    let envoy = Envoy::builder()
        .workers(2)
        .cluster(Cluster::h1("echo", echo.address))
        .listener(
            Listener::inbound("in")
                .filter(module("traffic_color", &policy(0, "")))
                .route(Route::prefix("/", "echo")),
        )
        .start();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut client = envoy.client("in");
                scope.spawn(move || -> Vec<String> {
                    (0..2500)
                        .map(|_| client.get("/").echoed("x-trade-session-id").unwrap())
                        .collect()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (10_000, 10_000));
}
