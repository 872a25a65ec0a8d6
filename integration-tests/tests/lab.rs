//! The tools of the trace tests: a chain of services and a collector, without the filter that they
//! are for.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use weir_integration_tests::app::{CLIENT_DEADLINE, Overtime};
use weir_integration_tests::collector::Over;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Account, App, Calls, Chain, Client, Collector, Collects, Crowd, Forward, H1Conn, H2Conn,
    Manner, Request, Think, paths, wait_until,
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traced() -> Request {
    Request::get("/orders?of=me").header("traceparent", TRACE).header("x-request-id", "one")
}

/// What each of three applications saw of a header.
fn seen_at_each(chain: &Chain, header: &str) -> Vec<Option<String>> {
    let trail = chain.trail(&traced());
    let names: Vec<_> = trail.iter().map(|account| account.app.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(trail.iter().all(|account| account.path == "/orders?of=me"), "{trail:?}");
    trail.iter().map(|account| account.header(header)).collect()
}

#[test]
fn applications_forward_what_they_are_told_to() {
    let chain = Chain::builder().hops(3).tap("traceparent").start();
    let (trace, one) = (Some(TRACE.to_owned()), Some("one".to_owned()));

    assert_eq!(seen_at_each(&chain, "traceparent"), [trace.clone(), trace.clone(), trace.clone()]);
    assert_eq!(chain.trail(&traced())[2].tapped("traceparent"), trace);

    chain.change(|manner| manner.forward = Forward::Only(&["x-request-id"]));
    assert_eq!(seen_at_each(&chain, "traceparent"), [trace.clone(), None, None]);
    assert_eq!(seen_at_each(&chain, "x-request-id"), [one.clone(), one.clone(), one.clone()]);

    chain.change(|manner| manner.forward = Forward::Nothing);
    assert_eq!(seen_at_each(&chain, "traceparent"), [trace, None, None]);
    assert_eq!(seen_at_each(&chain, "x-request-id"), [one, None, None]);
    assert_eq!(chain.hops[2].app().arrived(), 6, "two a round");
    assert_eq!(chain.hops[2].app().seen()[0].header("traceparent"), Some(TRACE));
    chain.assert_healthy();
}

#[test]
fn a_chain_runs_a_filter_on_both_listeners_of_each_hop() {
    // Any module shows it; it passes over the sections of the others.
    let limit = "{name: lab, rate_limit: {rules: [{id: r, match: {direction: ANY}, \
                 max_tokens: 100, fill_interval: 3600s}]}, \
                 trace_context: {}, restore: {keys: [{header: x-request-id}]}}";
    let builder = Chain::builder().hops(2).module(paths::module("rate_limit"));
    let chain = builder.policy(limit).start();
    assert_eq!(chain.trail(&traced()).len(), 2);
    // In and out at the first hop, in at the last.
    chain.await_metric(&["policy=.=lab", "outcome=.=admitted", "requests_total"], 3);
    chain.put_policy("{name: other, mode: 'OFF'}");
    assert_eq!(chain.trail(&traced()).len(), 2);
    chain.assert_healthy();
}

#[test]
fn two_thousand_requests_from_64_connections_through_four_hops() {
    let think = Think::Random { seed: 7, most: Duration::from_millis(5) };
    let chain = Chain::builder().manner(Manner { think, ..Manner::default() }).start();
    let complete = AtomicU64::new(0);
    let start = Instant::now();

    Crowd::new(chain.entry(), 2000).run(
        |number| Request::get("/").header("x-number", number.to_string()),
        |number, answer, _| {
            assert_eq!(answer.status, 200, "{answer:?}");
            let answer = Account::of(&answer);
            let own = |a: &&Account| a.header("x-number") == Some(number.to_string());
            let own = answer.trail().into_iter().filter(own).count();
            complete.fetch_add(u64::from(own == 4), Ordering::Relaxed);
        },
    );

    println!("2000 requests through four hops: {:?}", start.elapsed());
    assert_eq!(complete.into_inner(), 2000);
    assert!(chain.hops.iter().all(|hop| hop.app().arrived() == 2000));
    chain.assert_healthy();
}

#[test]
fn bare_proxies_lead_to_the_echo_in_the_clients_protocol() {
    let chain = Chain::builder().hops(3).without_apps().tap("x-number").start();
    let answer = chain.client().send(&Request::get("/a").header("x-number", "1"));
    assert_eq!(answer.json()["version"], "HTTP/1.1");
    assert_eq!(answer.echoed("x-number").as_deref(), Some("1"));
    for tapped in ["x-lab-a-x-number", "x-lab-b-x-number", "x-lab-c-x-number"] {
        assert_eq!(answer.echoed(tapped).as_deref(), Some("1"));
    }

    let mut connection = H2Conn::connect(chain.entry()).unwrap();
    let reply = grpc::call(&mut connection, "/shop.v1.Orders/Get", &[("x-number", "2")]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    let seen = chain.echo.as_ref().unwrap().seen();
    assert_eq!(seen[1].header("x-number"), Some("2"));
    chain.assert_healthy();
}

#[test]
fn an_application_calls_several_times_and_passes_failures_on() {
    let leaf = App::start("leaf", Manner { status: 503, ..Manner::default() });
    let manner = Manner { next: Some(leaf.address), calls: Calls::AtOnce(3), ..Manner::default() };
    let app = App::start("app", manner);
    let mut client = Client::new(app.address);

    let answer = client.get("/");
    assert_eq!(answer.status, 503);
    let statuses: Vec<_> = Account::of(&answer).next.iter().map(|called| called.status).collect();
    assert_eq!(statuses, [503; 3]);

    app.change(|manner| {
        manner.calls = Calls::InTurn(2);
        manner.think = Think::Fixed(Duration::from_millis(50));
    });
    leaf.change(|manner| manner.status = 201);
    let start = Instant::now();
    let answer = client.get("/");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(answer.status, 200);
    assert_eq!(leaf.arrived(), 5);

    let address = leaf.address;
    drop(leaf);
    let gone = Account::of(&client.get("/")).next[0].clone();
    assert_eq!((gone.status, gone.account.is_none()), (0, true), "{address} is closed: {gone:?}");
    assert_eq!(client.get("/").status, 502);
}

fn export(name: &str) -> ExportTraceServiceRequest {
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let pair = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    };
    let span = Span {
        name: name.to_owned(),
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        attributes: vec![pair("http.route", "/orders")],
        ..Span::default()
    };
    let resource =
        Resource { attributes: vec![pair("service.name", "shop")], ..Resource::default() };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

#[test]
fn the_collector_takes_exports_of_a_plain_client() {
    let collector = Collector::start();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let send = || {
        let mut request = tonic::Request::new(export("over gRPC"));
        request.metadata_mut().insert("x-tenant-id", "t1".parse().unwrap());
        request.set_timeout(Duration::from_secs(5));
        runtime.block_on(async {
            let to = format!("http://{}", collector.grpc);
            let mut client = TraceServiceClient::connect(to).await.map_err(|e| e.to_string())?;
            client.export(request).await.map_err(|status| format!("{:?}", status.code()))
        })
    };
    let post = || {
        let body = export("over HTTP").encode_to_vec();
        let request = Request::new("POST", "/v1/traces")
            .header("content-type", "application/x-protobuf")
            .header("x-tenant-id", "t2")
            .body(body);
        Client::new(collector.http).send(&request).status
    };

    send().unwrap();
    assert_eq!(post(), 200);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2);
    for (span, over, tenant) in [(&spans[0], Over::Grpc, "t1"), (&spans[1], Over::Http, "t2")] {
        assert_eq!(span.over, over);
        assert_eq!(span.header("x-tenant-id"), Some(tenant));
        assert_eq!(span.resource["service.name"], "shop");
        assert_eq!(span.attribute("http.route").as_deref(), Some("/orders"));
        assert_eq!(span.trace_id(), "0102030405060708090a0b0c0d0e0f10");
        assert_eq!((span.span_id().as_str(), span.parent_id()), ("0102030405060708", None));
    }

    collector.play(Collects::Error);
    assert_eq!((send().unwrap_err().as_str(), post()), ("Unavailable", 503));
    collector.play(Collects::Slow(Duration::from_millis(100)));
    let start = Instant::now();
    send().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));

    collector.play(Collects::Refuse);
    wait_until("nobody listens", Duration::from_secs(5), || {
        std::net::TcpStream::connect(collector.grpc).is_err()
            && std::net::TcpStream::connect(collector.http).is_err()
    });
    collector.play(Collects::Ok);
    wait_until("it is back", Duration::from_secs(5), || send().is_ok());
    assert_eq!(collector.arrived(), 4);
    assert_eq!(collector.exports(), 6);

    let wrong = Request::new("POST", "/v1/traces").header("content-type", "text/plain").body("x");
    assert_eq!(Client::new(collector.http).send(&wrong).status, 400);
    assert_eq!(collector.complaints().len(), 1);
}

/// What an application does for a client that has given up counts, also where nobody waits for it.
#[test]
fn applications_tell_what_they_did_for_nobody() {
    let think = Think::Fixed(Duration::from_millis(300));
    let app = App::start("late", Manner { think, ..Manner::default() });
    let until = |from_now: u64| {
        let until = SystemTime::now() + Duration::from_millis(from_now);
        let until = until.duration_since(UNIX_EPOCH).unwrap().as_micros();
        Request::get("/").header(CLIENT_DEADLINE, until.to_string())
    };
    let mut client = Client::new(app.address);
    client.send(&until(10_000));
    assert_eq!(app.overtime(), Overtime::default());
    client.send(&until(100));
    let one = app.overtime();
    assert_eq!(one.requests, 1);
    assert!(one.time >= Duration::from_millis(190), "{one:?}");

    // Cut before the deadline: the work ends with the connection.
    let mut cut = H1Conn::connect(app.address).unwrap();
    cut.write(&until(200).to_h1()).unwrap();
    wait_until("it arrives", DEADLINE, || app.arrived() == 3);
    drop(cut);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(app.overtime(), one);
}
