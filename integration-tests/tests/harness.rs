//! The tools of the other tests, on an Envoy without any filter of ours: when these fail, look at
//! the tools and not at a filter.

use serde_json::json;
use std::time::Duration;
use weir_integration_tests::http::grpc;
use weir_integration_tests::load::assert_spread;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Load, Request, Route, Upstream};

fn plain(workers: u32) -> (Envoy, Upstream) {
    let upstream = Upstream::start("echo");
    let envoy = Envoy::builder()
        .workers(workers)
        .cluster(Cluster::h1("echo", upstream.address))
        .cluster(Cluster::h2("grpc", upstream.address))
        .listener(
            Listener::inbound("in")
                .filter(Filter::lua(
                    "function envoy_on_response(h) h:headers():add('x-lua', 'yes') end",
                ))
                .route(Route::direct("/direct", 200))
                .route(Route::prefix("/shop.v1.Orders/", "grpc"))
                .route(Route::prefix("/", "echo")),
        )
        .start();
    (envoy, upstream)
}

#[test]
fn http1_goes_through_to_the_upstream_and_back() {
    let (envoy, upstream) = plain(1);
    let mut client = envoy.client("in");

    let request = Request::get("/a?b=c")
        .header("x-two", "1")
        .header("x-two", "2")
        .header("x-test-status", "503")
        .header("x-test-answer-header", "x-back=there");
    let answer = client.send(&request);

    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-back").as_deref(), Some("there"));
    assert_eq!(answer.header("x-lua").as_deref(), Some("yes"));
    assert_eq!(answer.echoed("x-two").as_deref(), Some("1,2"));
    assert_eq!(answer.json()["path"], json!("/a?b=c"));
    assert_eq!(upstream.count("/a"), 1);
    let entry = envoy.await_access("in", "/a");
    assert_eq!((entry.status, entry.details.as_str()), (503, "via_upstream"));
    assert_eq!(entry.weir, "-");
    envoy.assert_healthy();
}

#[test]
fn the_raw_http2_client_sees_headers_data_and_trailers() {
    let (envoy, _upstream) = plain(1);
    let mut connection = envoy.h2("in");

    let headers: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/raw"),
        (b":authority", b"shop.test"),
        (b"x-bytes", b"\xff\xfe"),
    ];
    let reply = connection.request(&headers, None);
    assert_eq!(reply.status(), Some(200), "{reply:?}");
    let echo: serde_json::Value = serde_json::from_slice(&reply.data).unwrap();
    assert_eq!(echo["headers"]["x-bytes"][0], json!("\u{ff}\u{fe}"));

    let reply = grpc::call(&mut connection, "/shop.v1.Orders/Get", &[]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    assert!(!reply.trailers_only, "headers, a message and trailers");
}

#[test]
fn offered_load_is_offered_and_spread_over_the_workers() {
    let (envoy, _upstream) = plain(2);

    let load = Load::new(envoy.address("in"), Request::get("/direct"));
    let report = load.rate(1000).lasts(Duration::from_secs(1)).run();

    assert_eq!(report.status(200), 1000, "{report:?}");
    assert_spread(&report, &envoy.connections_by_worker("in"), 2);
    assert_eq!(envoy.counter("http.in.downstream_rq_2xx"), 1000);
    assert!(envoy.allocated_memory() > 1_000_000);
}

/// Refuses long configurations, and traps on a request with more than twelve headers.
const TRAPPING: &str = r#"(module
  (memory (export "memory") 4)
  (global $top (mut i32) (i32.const 4096))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get 0)))
    (local.get $at))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.lt_s (local.get 1) (i32.const 60)))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.gt_s (local.get 1) (i32.const 12)) (then unreachable))
    i32.const 0))"#;

#[test]
fn refused_policies_and_traps_are_noticed() {
    let builder = Envoy::builder().workers(2);
    let module = builder.directory().join("trapping.wasm");
    std::fs::write(&module, wat::parse_str(TRAPPING).unwrap()).unwrap();
    let listener = Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
    let envoy = builder.module(module).listener(listener).start();

    envoy.put_policy("{name: short}").accepted();
    let log = envoy.put_policy(&format!("{{name: {}}}", "long".repeat(20))).refused();
    assert!(log.contains("Unable to create Wasm plugin weir.rate_limit"), "{log}");
    envoy.assert_healthy();
    assert_eq!(envoy.client("in").get("/").status, 200);

    let many = (0..12).fold(Request::get("/"), |r, n| r.header(format!("x-{n}"), "1"));
    assert_eq!(envoy.client("in").send(&many).status, 503);
    let health = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| envoy.assert_healthy()));
    assert!(health.is_err(), "the trap went unnoticed");
}
