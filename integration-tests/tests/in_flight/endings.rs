//! Every way in which a stream can end.

use crate::common::{Rig, one_rule};
use std::time::Duration;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Request, Route, Script, Upstream, wait_until,
};

/// Slots; each ending is played more often than that, so that a lost slot would show.
const MOST: usize = 3;
const TIMES: usize = 4;

fn rig() -> Rig {
    Rig::start(2, &one_rule(&format!("max_concurrent: {MOST}")))
}

#[test]
fn of_the_upstreams_making() {
    let rig = rig();
    for listener in ["h1", "h2"] {
        for script in [
            Script::Ok,
            Script::Status(500, vec![]),
            Script::Slow(Duration::from_millis(20)),
            Script::ResetBeforeHeaders,
            Script::ResetMidBody,
            Script::Refuse,
        ] {
            rig.upstream.play(script.clone());
            for _ in 0..TIMES {
                // What was cut mid-body is no answer.
                if let Ok(answer) = rig.envoy.h1(listener).send(&Request::get("/")) {
                    assert_ne!(answer.status, 429, "{listener} {script:?}");
                }
                rig.await_probe(200);
            }
        }
    }
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn of_grpc() {
    let rig = rig();
    for script in [
        Script::Ok,
        Script::GrpcTrailersOnly(14),
        Script::GrpcTrailers(13),
        Script::ResetBeforeHeaders,
        Script::ResetMidBody,
    ] {
        rig.upstream.play(script.clone());
        for _ in 0..TIMES {
            let reply = grpc::call(&mut rig.envoy.h2("h2"), "/shop.Orders/Get", &[]);
            assert_ne!(reply.header("grpc-status").as_deref(), Some("8"), "{script:?}");
            rig.await_probe(200);
        }
    }
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn of_the_clients_making() {
    let rig = rig();
    for _ in 0..TIMES {
        let held = rig.hang(MOST);
        assert_eq!(rig.probe(), 429);
        drop(held);
        rig.await_probe(200);
        rig.await_flying(0);
    }
    // Mid-body.
    for _ in 0..TIMES {
        rig.upstream.play(Script::Endless);
        let streams: Vec<_> = (0..MOST).map(|_| rig.send("h1", "/events")).collect();
        // A probe before that could have the place of one of them.
        rig.await_flying(MOST);
        assert_eq!(rig.probe(), 429);
        drop(streams);
        rig.await_probe(200);
        rig.await_flying(0);
    }
    // A stream is reset, and its connection goes on.
    rig.upstream.play(Script::Hang);
    let mut connection = rig.envoy.h2("h2");
    for _ in 0..TIMES {
        let headers: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":path", b"/held"),
            (b":scheme", b"http"),
            (b":authority", b"shop.test"),
        ];
        connection.cancel(&headers, || rig.await_flying(1)).unwrap();
        rig.await_flying(0);
        rig.await_gauge(0);
    }
    assert_eq!(rig.probe(), 200);
    rig.envoy.assert_healthy();
}

#[test]
fn of_envoys_making() {
    let rig = rig();
    rig.upstream.play(Script::Hang);
    for (path, status) in [("/soon", 504), ("/local", 403), ("/direct", 200)] {
        for _ in 0..TIMES {
            assert_eq!(rig.envoy.client("h1").get(path).status, status);
            rig.await_probe(200);
        }
    }
    rig.upstream.play(Script::Status(503, vec![]));
    for _ in 0..TIMES {
        assert_eq!(rig.envoy.client("h1").get("/retried").status, 503);
        rig.await_probe(200);
    }
    // What Envoy refuses before any filter.
    for _ in 0..TIMES {
        let mut connection = rig.envoy.h1("h1");
        connection.write(b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n").unwrap();
        assert_eq!(connection.read(false).unwrap().status, 400);
    }
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

/// Envoy follows a redirect itself: the first stream ends without a response, and the chain runs again.
#[test]
fn of_a_redirect() {
    let upstream = Upstream::start("echo");
    let listener = Listener::inbound("in")
        .filter(Filter::weir())
        .route(Route::direct("/direct", 200))
        .route(Route::prefix("/", "echo").follow_redirects());
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("echo", upstream.address))
        .listener(listener)
        .policy(&one_rule("max_concurrent: 1, max_tokens: 1000, fill_interval: 3600s"))
        .start();
    let probe = || envoy.client("in").get("/direct").status;
    for n in 1..=TIMES {
        let mut redirected = envoy.h1("in");
        let request = Request::get("/redirect/held").header("x-test-delay-ms", "400");
        redirected.write(&request.to_h1()).unwrap();
        wait_until("it arrives again", DEADLINE, || upstream.count("/held") == n);
        assert_eq!(probe(), 429, "it is in flight the second time");
        assert_eq!(redirected.read(false).unwrap().status, 200);
        wait_until("its slot is back", DEADLINE, || probe() == 200);
    }
    // Each was charged once.
    wait_until("all is counted", DEADLINE, || {
        envoy.metric("shop", "r", "admitted") >= 2 * TIMES as u64
    });
    assert_eq!(envoy.metric_with(&["outcome=.=redirected"]), TIMES as u64);
    envoy.assert_healthy();
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\n\
      upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      sec-websocket-version: 13\r\n\r\n";

fn tunnel(excludes: bool, while_open: u16) {
    let rig = Rig::start(2, &one_rule(&format!("max_concurrent: 1, exclude_upgrades: {excludes}")));
    rig.upstream.play(Script::Upgrade);
    for _ in 0..TIMES {
        let mut tunnel = rig.envoy.h1("h1");
        tunnel.write(UPGRADE).unwrap();
        assert_eq!(tunnel.read(false).unwrap().status, 101);
        rig.await_probe(while_open);
        assert_eq!(rig.probe(), while_open);
        drop(tunnel);
        rig.await_probe(200);
    }
    rig.await_gauge(0);
    rig.envoy.assert_healthy();
}

#[test]
fn of_a_tunnel() {
    tunnel(false, 429);
}

#[test]
fn of_a_tunnel_that_does_not_count() {
    tunnel(true, 200);
}

/// A trap takes along what its VM knew. Envoy makes a VM anew, and what the dead one had in flight is
/// counted for some seconds more.
#[test]
fn of_a_trap() {
    let policy = one_rule(&format!("max_concurrent: {MOST}"));
    let rig = Rig::with_module(1, &policy, "trap_limit.wasm");
    let held = rig.hang(MOST);
    rig.await_gauge(MOST as u64);
    assert_eq!(rig.probe(), 429);

    // Its own stream gets no answer worth a name.
    let _ = rig.envoy.h1("h1").send(&Request::get("/direct").header("x-test-trap", "1"));

    rig.await_probe(200);
    rig.await_gauge(0);
    // Envoy still waits for the upstream on their behalf; nobody can tell any more when they end.
    assert_eq!(rig.upstream.flying(), MOST);
    let again = rig.hang(MOST);
    assert_eq!(rig.probe(), 429);
    drop((held, again));
    rig.await_probe(200);
    rig.await_gauge(0);
    assert!(rig.envoy.log_contains("Function: "), "the VM did trap");
}

/// Of four workers one traps: the others' streams go on counting.
#[test]
fn of_a_trap_beside_others() {
    let rig = Rig::with_module(4, &one_rule("max_concurrent: 8"), "trap_limit.wasm");
    let held = rig.hang(8);
    rig.await_gauge(8);

    let _ = rig.envoy.h1("h1").send(&Request::get("/direct").header("x-test-trap", "1"));

    rig.await_probe(200);
    // Connections are dealt out evenly: the trap's worker had two.
    rig.await_gauge(6);
    let again = rig.hang(2);
    assert_eq!(rig.probe(), 429);
    drop((held, again));
    rig.await_flying(0);
    rig.await_gauge(0);
    let all = rig.hang(8);
    assert_eq!(rig.probe(), 429);
    drop(all);
    rig.await_gauge(0);
}
