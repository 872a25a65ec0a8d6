//! The time that is left travels with the request, and ends it.

use crate::common::{ONLY_THE_ID, Sidecar, chain, lab, traced};
use crate::rig::parent;
use serde_json::json;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Chain, Cluster, Crowd, Envoy, Filter, Forward, H2Conn, Listener, Manner, Request, Response,
    Route, Script, Scripted, Think, paths, wait_until,
};

const LEFT: &str = "x-weir-deadline-ms";
const MARGIN: &str = "trace_context: {deadline: {hop_margin: 0.1s}}";
/// What Envoy tells the upstream of its timeout.
const TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";
const CALL: &str = "/shop.v1.Orders/Get";

fn number(text: Option<&str>) -> u64 {
    let text = text.expect("a header with milliseconds");
    text.parse().unwrap_or_else(|_| panic!("{text:?} are no milliseconds"))
}

fn echoed(answer: &Response, name: &str) -> u64 {
    number(answer.echoed(name).as_deref())
}

fn assert_within(what: &str, milliseconds: u64, bounds: RangeInclusive<u64>) {
    assert!(bounds.contains(&milliseconds), "{what}: {milliseconds} ms, not {bounds:?}");
}

/// One Envoy whose `out` leads to an upstream that follows a script.
struct Rig {
    envoy: Envoy,
    upstream: Scripted,
}

impl Rig {
    fn start(policy: &str, script: Script) -> Self {
        let upstream = Scripted::start(script);
        let envoy = Envoy::builder()
            .module(paths::module("trace_context"))
            .cluster(Cluster::followed("next", upstream.address))
            .listener(
                Listener::outbound("out").filter(Filter::weir()).route(Route::prefix("/", "next")),
            )
            .policy(policy)
            .start();
        Self { envoy, upstream }
    }

    /// The answer, and how long it took.
    fn send(&self, request: &Request) -> (Response, Duration) {
        let mut client = self.envoy.client("out");
        let start = Instant::now();
        (client.send(request), start.elapsed())
    }

    fn call(&self, extra: &[(&str, &str)]) -> (grpc::GrpcReply, Duration) {
        let mut connection = self.envoy.h2("out");
        let start = Instant::now();
        (grpc::call(&mut connection, CALL, extra), start.elapsed())
    }
}

/// Requirements, row 24: 1000 at the client, 900 from the first, 800 from the second.
#[test]
fn each_proxy_takes_its_margin_off() {
    let chain = chain(3, &lab(MARGIN)).without_apps().tap(LEFT).tap("grpc-timeout").start();
    let answer = chain.client().send(&Request::get("/").header(LEFT, "1000"));

    assert_eq!(answer.echoed(&format!("x-lab-a-{LEFT}")).as_deref(), Some("1000"));
    // The proxies' own time is all that goes off besides; a busy machine takes its part.
    let second = echoed(&answer, &format!("x-lab-b-{LEFT}"));
    let third = echoed(&answer, &format!("x-lab-c-{LEFT}"));
    let last = echoed(&answer, LEFT);
    println!("1000 → {second} → {third} → {last}");
    assert_within("after the first", second, 800..=900);
    assert_within("after the second", third, second.saturating_sub(200)..=second - 100);
    assert_within("after the third", last, third.saturating_sub(200)..=third - 100);
    let timeout = echoed(&answer, TIMEOUT);
    assert_eq!(timeout, last, "Envoy enforces it");

    let mut connection = H2Conn::connect(chain.entry()).unwrap();
    let reply = grpc::call(&mut connection, CALL, &[("grpc-timeout", "1S")]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    let seen = chain.echo.as_ref().unwrap().seen().pop().unwrap();
    let left = milliseconds_of(seen.header("grpc-timeout").expect("it goes on"));
    assert_within("grpc-timeout at the upstream", left, 400..=700);
    chain.assert_healthy();
}

/// gRPC over HTTP/2: a number of at most eight digits, and a unit.
fn milliseconds_of(timeout: &str) -> u64 {
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    assert!(number.len() <= 8, "{timeout:?}");
    let number: u64 = number.parse().expect("a number");
    match unit {
        "S" => number * 1000,
        "m" => number,
        "u" => number / 1000,
        "n" => number / 1_000_000,
        _ => panic!("{timeout:?}"),
    }
}

/// What the second hop gets of a deadline of a second, after so much thought at the first.
fn after_thought(chain: &Chain, thought: u64, id: &str) -> u64 {
    chain.change(|manner| manner.think = Think::Fixed(Duration::from_millis(thought)));
    let trail = chain.trail(&traced(thought, id).header(LEFT, "1000"));
    number(trail[1].tapped(LEFT).as_deref())
}

#[test]
fn time_in_the_application_goes_off_as_well() {
    let policy = format!("{MARGIN}, restore: {{keys: [{{header: x-request-id}}]}}");
    let chain = chain(2, &lab(&policy)).tap(LEFT).start();
    for forward in [Forward::Everything, Forward::Only(ONLY_THE_ID)] {
        chain.change(|manner| manner.forward = forward);
        let none = after_thought(&chain, 0, &format!("none {forward:?}"));
        let some = after_thought(&chain, 300, &format!("some {forward:?}"));
        println!("{forward:?}: {none} ms left, {some} ms after a thought of 300 ms");
        assert_within("without a thought", none, 750..=900);
        assert_within("after a thought", some, 400..=600);
    }
    chain.assert_healthy();
}

#[test]
fn spent_is_spent_and_the_upstream_gets_nothing() {
    let rig = Rig::start(&lab(MARGIN), Script::Ok);
    for left in ["1", "100"] {
        let request = Request::get("/").header(LEFT, left).header("traceparent", parent("01"));
        let (answer, _) = rig.send(&request);
        assert_eq!(answer.status, 504, "{left}: {answer:?}");
        assert_fares(&lab(MARGIN), "outbound", &request, &answer, &[]);
    }
    for left in ["1m", "100m", "99999999n"] {
        let (reply, _) = rig.call(&[("grpc-timeout", left)]);
        assert_eq!(reply.status, Some(4), "{left}: {reply:?}");
        assert!(reply.trailers_only, "{left}: {reply:?}");
    }
    assert_eq!(rig.upstream.seen(), 0);
    let entry = rig.envoy.await_access("out", "/");
    assert_ne!(entry.details, "via_upstream");
    let spent = ["outcome=.=spent", "weir_trace_context_deadlines_total"];
    wait_until("five are counted", DEADLINE, || rig.envoy.metric_with(&spent) == 5);
    rig.envoy.assert_healthy();
}

#[test]
fn a_slow_upstream_is_given_up_at_the_deadline() {
    let rig =
        Rig::start(&lab("trace_context: {deadline: {}}"), Script::Slow(Duration::from_secs(8)));
    let bound = Duration::from_millis(300)..Duration::from_secs(3);

    let (answer, took) = rig.send(&Request::get("/").header(LEFT, "300"));
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(took > Duration::from_millis(250) && took < bound.end, "{took:?}");

    // Envoy by itself would say 14.
    for extra in [[("grpc-timeout", "300m")], [("grpc-timeout", "300000u")]] {
        let (reply, took) = rig.call(&extra);
        assert_eq!(reply.status, Some(4), "{extra:?}: {reply:?}");
        assert!(took > Duration::from_millis(250) && took < bound.end, "{extra:?}: {took:?}");
    }
    assert_eq!(rig.upstream.seen(), 3);
    rig.envoy.assert_healthy();
}

/// gRPC's own meanings stay: a timeout of the route, which is not the deadline's, is 14.
#[test]
fn a_status_of_the_upstream_stays() {
    let rig = Rig::start(&lab("trace_context: {deadline: {}}"), Script::GrpcTrailers(14));
    let (reply, _) = rig.call(&[("grpc-timeout", "5S")]);
    assert_eq!(reply.status, Some(14), "{reply:?}");
    rig.upstream.play(Script::Status(504, vec![]));
    let (answer, _) = rig.send(&Request::get("/").header(LEFT, "5000"));
    assert_eq!(answer.status, 504);
    rig.envoy.assert_healthy();
}

const BROKEN: [&str; 12] = [
    "",
    "0",
    "-1",
    "+5",
    "1.5",
    "1e3",
    "0x10",
    "abc",
    "100ms",
    "1 000",
    "99999999999999999999999999",
    "\u{661}\u{660}",
];

#[test]
fn what_makes_no_sense_is_as_if_it_were_absent() {
    let sidecar = Sidecar::start(&lab("trace_context: {deadline: {}}"));
    for (n, text) in (1..).zip(BROKEN) {
        let answer = sidecar.goes_out(&Request::get("/").header(LEFT, text));
        assert_eq!(answer.status, 200, "{text:?}");
        assert_eq!(answer.echoed(LEFT), None, "{text:?} does not go on");
        assert_eq!(echoed(&answer, TIMEOUT), 15_000, "{text:?}: the route's own");
        sidecar.await_metric("deadlines", "broken", n);
    }
    let twice = Request::get("/").header(LEFT, "5000").header(LEFT, "6000");
    let answer = sidecar.goes_out(&twice);
    assert_eq!((answer.status, answer.echoed(LEFT)), (200, None));
    sidecar.await_metric("deadlines", "broken", BROKEN.len() as u64 + 1);
    sidecar.envoy.assert_healthy();
}

#[test]
fn a_broken_grpc_timeout_is_as_if_it_were_absent() {
    let sidecar = Sidecar::start(&lab("trace_context: {deadline: {default: 2s}}"));
    for text in ["", "0S", "-1S", "5", "S", "123456789m", "5 S", "5X", "1.5S"] {
        let mut connection = sidecar.envoy.h2("out");
        let reply = grpc::call(&mut connection, CALL, &[("grpc-timeout", text)]);
        assert_eq!(reply.status, Some(0), "{text:?}: {reply:?}");
        let seen = sidecar.upstream.seen().pop().unwrap();
        assert_eq!(seen.header(LEFT), None, "{text:?}: no default on what may be a stream");
    }
    sidecar.envoy.assert_healthy();
}

#[test]
fn the_default_holds_where_nothing_came() {
    let sidecar = Sidecar::start(&lab("trace_context: {deadline: {default: 2s}}"));
    for request in [
        Request::get("/"),
        Request::get("/").header(LEFT, "garbage"),
        Request::new("POST", "/").body("x"),
    ] {
        let answer = sidecar.goes_out(&request);
        assert_within("the default", echoed(&answer, LEFT), 1500..=2000);
        assert_within("Envoy's timeout", echoed(&answer, TIMEOUT), 1500..=2000);
    }
    let longer = sidecar.goes_out(&Request::get("/").header(LEFT, "5000"));
    assert_within("what came", echoed(&longer, LEFT), 4500..=5000);
    sidecar.await_metric("deadlines", "default", 3);
    sidecar.await_metric("deadlines", "carried", 1);
    sidecar.envoy.assert_healthy();
}

/// `where-it-runs`: streams have no end in sight.
#[test]
fn streams_get_no_deadline() {
    let sidecar = Sidecar::with(&lab("trace_context: {deadline: {default: 2s}}"), |listener| {
        listener
            .hcm(
                "upgrade_configs",
                json!([{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]),
            )
            .route(Route::connect("echo"))
    });
    let upgrade = Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let events = Request::get("/events").header("accept", "text/event-stream");
    let connect = Request::bare("CONNECT", "shop.test:443").header("host", "shop.test:443");
    for request in [upgrade, events, connect] {
        let arrived = sidecar.upstream.seen().len();
        let mut connection = sidecar.envoy.h1("out");
        connection.write(&request.to_h1()).unwrap();
        let what = String::from_utf8_lossy(&request.method).into_owned();
        wait_until(&what, DEADLINE, || sidecar.upstream.seen().len() > arrived);
        let seen = sidecar.upstream.seen().pop().unwrap();
        assert_eq!(seen.header(LEFT), None, "{seen:?}");
        let timeout = seen.header(TIMEOUT);
        assert!(timeout.is_none_or(|ms| ms == "15000" || ms == "0"), "{seen:?}");
    }
    let reply = grpc::call(&mut sidecar.envoy.h2("out"), CALL, &[]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    let seen = sidecar.upstream.seen().pop().unwrap();
    assert_eq!((seen.header(LEFT), seen.header("grpc-timeout")), (None, None), "{seen:?}");
    assert_eq!(sidecar.metric("deadlines", "default"), 0);
    sidecar.envoy.assert_healthy();
}

#[test]
fn a_timeout_that_is_there_is_never_raised() {
    let there = |ms: u64| {
        let name = "x-envoy-upstream-rq-timeout-ms";
        format!("function envoy_on_request(h) h:headers():replace('{name}', '{ms}') end")
    };
    let sidecar = Sidecar::with(&lab("trace_context: {deadline: {}}"), |listener| {
        listener.filter(Filter::lua(&there(700)))
    });
    let timeout =
        |left: &str| echoed(&sidecar.goes_out(&Request::get("/").header(LEFT, left)), TIMEOUT);
    assert_eq!(timeout("5000"), 700);
    assert_within("an earlier deadline", timeout("400"), 200..=400);
    sidecar.envoy.assert_healthy();

    // Nor that of the route, which the policy knows.
    let sidecar = Sidecar::start(&lab("trace_context: {deadline: {route_timeout: 15s}}"));
    let answer = sidecar.goes_out(&Request::get("/").header(LEFT, "60000"));
    assert_eq!(echoed(&answer, TIMEOUT), 15_000);
    assert_within("what goes on", echoed(&answer, LEFT), 59_000..=60_000);
    sidecar.envoy.assert_healthy();
}

#[test]
fn a_client_outside_the_mesh_is_capped() {
    let policy = "zone: EDGE, trace_context: {trusted: [{headers: {x-partner: {exact: 'yes'}}}], \
                  deadline: {max: 0.5s}}";
    let sidecar = Sidecar::start(&lab(policy));
    for listener in ["in", "out"] {
        let mut client = sidecar.envoy.client(listener);
        let mut left = |request: Request| echoed(&client.send(&request), LEFT);
        let long = Request::get("/").header(LEFT, "60000");
        assert_within("capped", left(long.clone()), 250..=500);
        assert_within("short", left(Request::get("/").header(LEFT, "300")), 100..=300);
        assert_within("trusted", left(long.header("x-partner", "yes")), 59_000..=60_000);
    }
    sidecar.await_metric("deadlines", "capped", 2);

    let mut connection = sidecar.envoy.h2("out");
    grpc::call(&mut connection, CALL, &[("grpc-timeout", "1H")]);
    let seen = sidecar.upstream.seen().pop().unwrap();
    let left = milliseconds_of(seen.header("grpc-timeout").expect("it goes on"));
    assert_within("gRPC", left, 250..=500);
    sidecar.envoy.assert_healthy();
}

/// An upstream that takes long for one service in three: how many requests run past the deadline
/// of their client, with and without the deadline passed on.
#[test]
fn nothing_runs_past_the_deadline_of_the_client() {
    let manner = Manner { forward: Forward::Only(ONLY_THE_ID), ..Manner::default() };
    let policy = "trace_context: {deadline: {hop_margin: 0.02s}}, \
                  restore: {keys: [{header: x-request-id}]}";
    let chain = chain(3, &lab(policy)).manner(manner).start();
    chain.hops[2].app().change(|manner| {
        manner.think = Think::Random { seed: 5, most: Duration::from_millis(900) };
    });
    let run = |round: &str| {
        let late = AtomicU64::new(0);
        Crowd::new(chain.entry(), 600).connections(32).run(
            |n| traced(n, &format!("{round}-{n}")).header(LEFT, "300"),
            |_, answer, took| {
                assert!(matches!(answer.status, 200 | 504), "{answer:?}");
                let is_late = took > Duration::from_millis(450);
                late.fetch_add(u64::from(is_late), Ordering::Relaxed);
            },
        );
        late.into_inner()
    };
    let with = run("with");
    chain.put_policy("{name: lab, mode: 'OFF'}");
    let without = run("without");
    println!(
        "of 600 requests with 300 ms to live, past 450 ms: {with} with deadlines, {without} without"
    );
    assert!(without > 200, "{without}");
    assert!(with <= 6, "{with}");
    chain.assert_healthy();
}
