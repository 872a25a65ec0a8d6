//! A color's way through four services, each in two versions and behind an Envoy of its own.

use weir_integration_tests::http::grpc;
use weir_integration_tests::{
    Account, App, Client, Cluster, Envoy, Filter, Forward, Listener, Manner, Request, Route,
    Upstream,
};

const HOPS: usize = 4;

/// One service: its proxy, and an application for each color. A gateway has none.
struct Hop {
    envoy: Envoy,
    apps: Vec<App>,
}

/// What stands at the first hop.
#[derive(Clone, Copy, PartialEq)]
enum Edge {
    /// A proxy alone, as an ingress is.
    Gateway,
    /// A service like the others, whose proxy faces strangers.
    Service,
}

/// Where strangers come in.
fn edge_policy(restore: &str) -> String {
    format!(
        "{{name: shop, zone: EDGE, {restore}trace_context: {{}}, \
         traffic_color: {{colors: [base, gray], carry: {{in: [HEADER, BAGGAGE]}}, \
         session: {{principal: {{header: x-user}}}}, \
         rules: [{{id: staff, match: {{headers: {{x-staff: {{exact: 'yes'}}}}}}, color: gray}}]}}}}"
    )
}

fn mesh_policy(restore: &str) -> String {
    format!(
        "{{name: shop, {restore}trace_context: {{}}, \
         traffic_color: {{colors: [base, gray], carry: {{in: [HEADER, BAGGAGE]}}}}}}"
    )
}

/// The order of the filters.
type Order = [&'static str; 2];

/// As in Istio's chain.
const COLOR_FIRST: Order = ["traffic_color", "trace_context"];
const TRACE_FIRST: Order = ["trace_context", "traffic_color"];

fn filtered(listener: Listener, order: Order, policy: &str) -> Listener {
    order.iter().fold(listener, |listener, module| listener.filter(Filter::module(module, policy)))
}

/// Four Envoys, started from the last to the first: each has to know where the next one listens.
fn chain(edge: Edge, order: Order, forward: Forward, restore: &str) -> Vec<Hop> {
    let mut hops: Vec<Hop> = Vec::new();
    for hop in (0..HOPS).rev() {
        let next = hops.last().map(|hop: &Hop| hop.envoy.address("in"));
        let policy = if hop == 0 { edge_policy(restore) } else { mesh_policy(restore) };
        let is_gateway = hop == 0 && edge == Edge::Gateway;
        let manner = Manner { forward, ..Manner::default() };
        let app = |color: &str| App::start(&format!("{hop}-{color}"), manner.clone());
        let apps: Vec<App> = if is_gateway { Vec::new() } else { ["base", "gray"].map(app).into() };
        let mut builder = Envoy::builder();
        if let Some(next) = next {
            builder = builder.cluster(Cluster::followed("next", next));
        }
        if is_gateway {
            let front = filtered(Listener::outbound("in"), order, &policy);
            builder = builder.listener(front.route(Route::prefix("/", "next")));
        } else {
            builder = builder
                .cluster(Cluster::h1("base", apps[0].address))
                .cluster(Cluster::h1("gray", apps[1].address))
                .listener(
                    filtered(Listener::inbound("in"), order, &policy)
                        .route(Route::prefix("/", "gray").when_header("x-weir-color", "gray"))
                        .route(Route::prefix("/", "base")),
                );
        }
        if next.is_some() && !is_gateway {
            // An application is no stranger.
            let out = filtered(Listener::outbound("out"), order, &mesh_policy(restore));
            builder = builder.listener(out.route(Route::prefix("/", "next")));
        }
        let envoy = builder.start();
        if next.is_some() && !is_gateway {
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

const GRAY: [&str; HOPS] = ["0-gray", "1-gray", "2-gray", "3-gray"];
const BASE: [&str; HOPS] = ["0-base", "1-base", "2-base", "3-base"];

fn staff() -> Request {
    Request::get("/").header("x-staff", "yes").header("x-user", "ann")
}

fn one_trace(trail: &[Account]) -> bool {
    let ids: Vec<_> =
        trail.iter().map(|a| a.header("traceparent").map(|v| v[3..35].to_owned())).collect();
    ids[0].is_some() && ids.iter().all(|id| *id == ids[0])
}

fn healthy(hops: &[Hop]) {
    hops.iter().for_each(|hop| hop.envoy.assert_healthy());
}

#[test]
fn applications_that_forward_everything() {
    for (edge, order, first) in [
        (Edge::Gateway, COLOR_FIRST, 1),
        (Edge::Service, COLOR_FIRST, 0),
        (Edge::Service, TRACE_FIRST, 0),
    ] {
        let hops = chain(edge, order, Forward::Everything, "");
        let gray = trail(&hops, &staff());
        assert_eq!(apps(&gray), GRAY[first..]);
        assert!(one_trace(&gray));
        assert!(gray.iter().all(|app| app.header("x-weir-color").as_deref() == Some("gray")));
        assert!(gray.iter().all(|app| app.header("baggage").as_deref() == Some("x-color=gray")));
        assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE[first..]);
        // Forged at the edge, in either carrier.
        let forged =
            Request::get("/").header("x-weir-color", "gray").header("baggage", "x-color=gray");
        assert_eq!(apps(&trail(&hops, &forged)), BASE[first..]);
        // The session id is of the edge's making, and kept from there on.
        let session = gray[0].header("x-trade-session-id").unwrap();
        let stamp = session.strip_prefix("sess-ann-").expect("of the principal");
        assert!(stamp.parse::<u64>().unwrap() > 1_700_000_000_000_000_000, "{session}");
        let of = |app: &Account| app.header("x-trade-session-id");
        assert!(gray.iter().all(|app| of(app).as_ref() == Some(&session)));
        // A stranger's own is replaced.
        let own = staff().header("x-trade-session-id", "sess-root-1");
        assert_ne!(of(&trail(&hops, &own)[0]).as_deref(), Some("sess-root-1"));
        assert!(hops.iter().flat_map(|hop| &hop.apps).all(|app| app.arrived() > 0));
        healthy(&hops);
    }
}

const BY_TRACE: &str = "restore: {keys: [{trace_id: true}]}, ";
const BY_SESSION: &str =
    "restore: {keys: [{header: x-trade-session-id, scope: SESSION, baggage: [x-color]}]}, ";
const ONLY_TRACE: Forward = Forward::Only(&["traceparent"]);
const ONLY_SESSION: Forward = Forward::Only(&["x-trade-session-id"]);

#[test]
fn applications_that_forward_the_trace_alone() {
    let hops = chain(Edge::Gateway, COLOR_FIRST, ONLY_TRACE, BY_TRACE);
    for _ in 0..20 {
        let gray = trail(&hops, &staff());
        assert_eq!(apps(&gray), GRAY[1..]);
        assert!(one_trace(&gray));
        assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE[1..]);
    }
    healthy(&hops);
}

#[test]
fn applications_that_forward_the_session_alone() {
    let hops = chain(Edge::Gateway, COLOR_FIRST, ONLY_SESSION, BY_SESSION);
    for _ in 0..20 {
        assert_eq!(apps(&trail(&hops, &staff())), GRAY[1..]);
        assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE[1..]);
    }
    assert!(!one_trace(&trail(&hops, &staff())), "requests of a session are not of one trace");
    healthy(&hops);
}

/// The service at the edge has an application of its own, which forgets as well.
#[test]
fn an_application_at_the_edge_that_forwards_the_trace_alone() {
    for order in [COLOR_FIRST, TRACE_FIRST] {
        let hops = chain(Edge::Service, order, ONLY_TRACE, BY_TRACE);
        for _ in 0..20 {
            let gray = trail(&hops, &staff());
            assert!(one_trace(&gray));
            assert_eq!(apps(&gray), GRAY);
            assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE);
        }
        healthy(&hops);
    }
}

#[test]
fn an_application_at_the_edge_that_forwards_the_session_alone() {
    for order in [COLOR_FIRST, TRACE_FIRST] {
        let hops = chain(Edge::Service, order, ONLY_SESSION, BY_SESSION);
        for _ in 0..20 {
            assert_eq!(apps(&trail(&hops, &staff())), GRAY);
            assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE);
        }
        // A stranger's id is nobody's, and brings back nothing of whose it was.
        let session = trail(&hops, &staff())[0].header("x-trade-session-id").unwrap();
        let borrowed = Request::get("/").header("x-trade-session-id", &session);
        assert_eq!(apps(&trail(&hops, &borrowed)), BASE);
        healthy(&hops);
    }
}

/// The same with an id that the edge makes for its application.
#[test]
fn an_application_at_the_edge_that_forwards_a_request_id_alone() {
    let restore = "restore: {keys: [{header: x-request-id}], mint: true}, ";
    for order in [COLOR_FIRST, TRACE_FIRST] {
        let hops = chain(Edge::Service, order, Forward::Only(&["x-request-id"]), restore);
        for _ in 0..20 {
            let gray = trail(&hops, &staff());
            assert_eq!(apps(&gray), GRAY);
            assert!(one_trace(&gray));
            assert_eq!(apps(&trail(&hops, &Request::get("/"))), BASE);
        }
        // A client's own id is replaced: it could be somebody else's.
        let own = staff().header("x-request-id", "5f3c7b8e-0000-4000-8000-000000000001");
        let first = &trail(&hops, &own)[0];
        assert_ne!(first.header("x-request-id").unwrap(), "5f3c7b8e-0000-4000-8000-000000000001");
        healthy(&hops);
    }
}

/// Four bare proxies, the first at the edge: gRPC metadata are headers, and say the same as HTTP's.
#[test]
fn grpc_metadata_and_http_headers_say_the_same() {
    let upstreams = ["base", "gray"].map(Upstream::start);
    let mut next = None;
    let mut envoys = Vec::new();
    for hop in (0..HOPS).rev() {
        let policy = if hop == 0 { edge_policy("") } else { mesh_policy("") };
        let listener = filtered(Listener::outbound("in"), COLOR_FIRST, &policy);
        let builder = Envoy::builder();
        let builder = match next {
            Some(next) => builder
                .cluster(Cluster::followed("next", next))
                .listener(listener.route(Route::prefix("/", "next"))),
            None => builder
                .cluster(Cluster::followed("base", upstreams[0].address))
                .cluster(Cluster::followed("gray", upstreams[1].address))
                .listener(
                    listener
                        .route(Route::prefix("/", "gray").when_header("x-weir-color", "gray"))
                        .route(Route::prefix("/", "base")),
                ),
        };
        let envoy = builder.start();
        next = Some(envoy.address("in"));
        envoys.push(envoy);
    }
    let entry = envoys.last().expect("the first hop was started last");
    let mut connection = entry.h2("in");
    let extra = [("x-staff", "yes"), ("x-user", "ann")];
    let reply = grpc::call(&mut connection, "/shop.Orders/Get", &extra);
    assert_eq!(reply.status, Some(0));
    assert_eq!(entry.client("in").send(&staff()).status, 200);
    assert_eq!(grpc::call(&mut connection, "/shop.Orders/Get", &[]).status, Some(0));

    let (base, gray) = (upstreams[0].seen(), upstreams[1].seen());
    assert_eq!((base.len(), gray.len()), (1, 2));
    for (name, value) in [("x-weir-color", "gray"), ("baggage", "x-color=gray")] {
        assert!(gray.iter().all(|seen| seen.header(name) == Some(value)), "{name}: {gray:?}");
    }
    for seen in &gray {
        assert!(seen.header("x-trade-session-id").unwrap().starts_with("sess-ann-"));
        assert_eq!(seen.header("traceparent").map(str::len), Some(55));
    }
    assert_eq!(base[0].header("x-weir-color"), Some("base"));
    envoys.iter().for_each(Envoy::assert_healthy);
}

#[test]
fn session_ids_are_unique() {
    let echo = Upstream::start("echo");
    let envoy = Envoy::builder()
        .workers(2)
        .cluster(Cluster::h1("echo", echo.address))
        .listener(
            Listener::inbound("in")
                .filter(Filter::module("traffic_color", &edge_policy("")))
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
    let whole = ids.iter().filter(|id| id.ends_with("000")).count();
    println!(
        "{} of {} session ids are unique, over two workers; {whole} are whole microseconds",
        distinct.len(),
        ids.len()
    );
    assert_eq!((ids.len(), distinct.len()), (10_000, 10_000));
    envoy.assert_healthy();
}

/// A service without gray instances of its own: its base stands in on this hop, and what its application
/// calls next is gray again, and of the same trace.
#[test]
fn a_stand_in_forgets_nothing() {
    let head = "name: shop, restore: {keys: [{header: x-request-id}]}, trace_context: {}, ";
    let color = "colors: [base, gray], carry: {in: [HEADER, BAGGAGE]}";
    let lanes = "lanes: {lanes: [{match: {path: {prefix: /}}, colors: [base]}]}";
    let inbound = format!("{{{head}traffic_color: {{{color}, {lanes}}}}}");
    let outbound = format!(
        "{{{head}traffic_color: {{colors: [base, gray], carry: {{in: [HEADER, BAGGAGE], winner: BAGGAGE}}}}}}"
    );
    for order in [COLOR_FIRST, TRACE_FIRST] {
        let echo = Upstream::start("echo");
        let forward = Forward::Only(&["x-request-id"]);
        let app = App::start("app", Manner { forward, ..Manner::default() });
        let envoy = Envoy::builder()
            .cluster(Cluster::h1("app", app.address))
            .cluster(Cluster::h1("echo", echo.address))
            .listener(
                filtered(Listener::inbound("in"), order, &inbound).route(Route::prefix("/", "app")),
            )
            .listener(
                filtered(Listener::outbound("out"), order, &outbound)
                    .route(Route::prefix("/", "echo")),
            )
            .start();
        let out = envoy.address("out");
        app.change(|manner| manner.next = Some(out));
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for n in 0..10 {
            // As its call comes from a gray instance, or after another stand-in.
            let color = ["gray", "base"][n % 2];
            let request = Request::get("/")
                .header("x-weir-color", color)
                .header("baggage", "x-color=gray")
                .header("x-request-id", format!("r{n}"))
                .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
            assert_eq!(envoy.client("in").send(&request).status, 200);
        }
        let seen = echo.seen();
        assert_eq!(seen.len(), 10);
        for seen in seen {
            assert_eq!(seen.header("x-weir-color"), Some("gray"), "{order:?}: {seen:?}");
            assert_eq!(seen.header("traceparent").map(|line| &line[3..35]), Some(trace));
        }
        envoy.assert_healthy();
    }
}
