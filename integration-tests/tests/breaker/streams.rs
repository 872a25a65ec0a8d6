//! Streams as probes: an upgrade, an event stream, a gRPC stream that lasts.

use crate::common::{Rig, is_open, one_rule, pause};
use std::time::Duration;
use weir_integration_tests::{H1Conn, H2Conn, Script};

/// A half-open breaker that waits for its only probe.
fn half_open(more: &str) -> Rig {
    let fields = format!("minimum_calls: 1, open_duration: 1s, half_open_probes: 1{more}");
    let rig = Rig::start(2, &one_rule(&fields));
    rig.upstream.play(Script::Status(500, vec![]));
    rig.until_open(&mut rig.clients(1));
    pause(Duration::from_millis(1100));
    rig
}

fn closes_and_stays_closed(rig: &Rig) {
    rig.await_metric(&["from=.=half_open", "to=.=closed"], 1);
    rig.upstream.play(Script::Ok);
    pause(Duration::from_millis(120));
    for client in &mut rig.clients(8) {
        assert!(!is_open(client, "/"));
    }
    assert_eq!(rig.metric(&["to=.=open"]), 1);
    rig.envoy.assert_healthy();
}

fn open_h1(rig: &Rig, request: &str) -> H1Conn {
    let mut connection = rig.envoy.h1("h1");
    connection.write(request.as_bytes()).unwrap();
    connection
}

#[test]
fn an_upgrade() {
    let rig = half_open("");
    rig.upstream.play(Script::Upgrade);
    let mut tunnel = open_h1(
        &rig,
        "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
    );
    assert_eq!(tunnel.read(false).unwrap().status, 101);
    closes_and_stays_closed(&rig);
    drop(tunnel);
    pause(Duration::from_millis(200));
    closes_and_stays_closed(&rig);
}

#[test]
fn an_event_stream() {
    let rig = half_open("");
    rig.upstream.play(Script::Endless);
    let stream = open_h1(&rig, "GET /events HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    closes_and_stays_closed(&rig);
    drop(stream);
}

#[test]
fn a_grpc_stream_that_lasts() {
    let rig = half_open(", stream_verdict_after: 1s");
    rig.upstream.play(Script::Endless);
    let address = rig.envoy.address("h2");
    // Reads on for as long as the stream lasts, which is longer than the test.
    std::thread::spawn(move || {
        let mut connection = H2Conn::connect(address).unwrap();
        weir_integration_tests::http::grpc::call(&mut connection, "/shop.Orders/Watch", &[])
    });
    pause(Duration::from_millis(500));
    assert_eq!(rig.metric(&["to=.=closed"]), 0, "too early for a verdict");
    closes_and_stays_closed(&rig);
}
