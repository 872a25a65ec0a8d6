//! Spans on their way to a collector, and a collector that is not there.

use crate::common::{Sidecar, Traceparent, chain, lab, traced};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weir_integration_tests::collector::{Over, Received};
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::{DEADLINE, wait_for};
use weir_integration_tests::{
    Chain, Cluster, Collector, Collects, Crowd, Envoy, Filter, H2Conn, Listener, Request, Route,
    Script, Scripted, paths, wait_until,
};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// A policy that exports to this cluster under this name.
fn exporting(cluster: &str, service: &str, more: &str) -> String {
    let protocol = if cluster == "otlp-http" { "HTTP" } else { "GRPC" };
    lab(&format!(
        "trace_context: {{spans: {{cluster: {cluster}, protocol: {protocol}, \
         service_name: {service}, headers: {{x-tenant-id: t1}}, \
         resource: {{deployment.environment.name: lab}}, \
         attributes: {{shop.user: {{header: x-user}}}}, interval: 0.1s{more}}}}}"
    ))
}

fn clusters(collector: &Collector) -> [Cluster; 2] {
    [Cluster::h2("otlp-grpc", collector.grpc), Cluster::h1("otlp-http", collector.http)]
}

/// Two services, `a` and `b`, that export to the collector.
fn two_services(collector: &Collector, cluster: &'static str) -> Chain {
    let mut builder = chain(2, "").policies(move |hop| exporting(cluster, ["a", "b"][hop], ""));
    for cluster in clusters(collector) {
        builder = builder.cluster(cluster);
    }
    builder.start()
}

fn await_spans(collector: &Collector, count: usize) -> Vec<Received> {
    let spans = wait_for(&format!("{count} spans"), DEADLINE, || {
        let spans = collector.spans();
        (spans.len() >= count).then_some(spans)
    });
    assert_eq!(spans.len(), count, "{spans:?}");
    assert!(collector.complaints().is_empty(), "{:?}", collector.complaints());
    spans
}

fn find(spans: &[Received], service: &str, kind: i32) -> Received {
    let is_it = |s: &&Received| s.resource["service.name"] == service && s.span.kind == kind;
    let found: Vec<_> = spans.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{service}, kind {kind}: {spans:?}");
    found[0].clone()
}

fn arrive(cluster: &'static str, over: Over) {
    let collector = Collector::start();
    let chain = two_services(&collector, cluster);
    let sent = Traceparent::of_client(1);
    let request = Request::get("/orders?card=4111")
        .header("traceparent", sent.write())
        .header("x-user", "one");
    let before = SystemTime::now();
    let trail = chain.trail(&request);
    let after = SystemTime::now();

    let spans = await_spans(&collector, 3);
    let (first, call, second) =
        (find(&spans, "a", SERVER), find(&spans, "a", CLIENT), find(&spans, "b", SERVER));
    assert_eq!(first.parent_id(), Some(sent.parent_id));
    assert_eq!(call.parent_id(), Some(first.span_id()));
    assert_eq!(second.parent_id(), Some(call.span_id()));
    // The application's spans would be children of what it was handed.
    for (span, account) in [(&first, &trail[0]), (&second, &trail[1])] {
        let handed = Traceparent::read(account.header("traceparent"));
        assert_eq!(span.span_id(), handed.parent_id);
    }
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
        since.as_nanos() as u64
    };
    for received in &spans {
        let span = &received.span;
        assert_eq!((received.trace_id().as_str(), received.over), (sent.trace_id.as_str(), over));
        assert!(span.name.starts_with("GET") && !span.name.contains('?'), "{:?}", span.name);
        // Envoy stamps requests in the wall clock; a millisecond of doubt on both sides.
        let slack = 1_000_000;
        assert!(span.start_time_unix_nano + slack >= nanos(before), "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= nanos(after) + slack, "{span:?}");
        let attributes = received.attributes();
        let has = |name: &str, value: &str| {
            assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{attributes:?}");
        };
        has("http.request.method", "GET");
        has("http.response.status_code", "200");
        has("shop.user", "one");
        assert!(
            attributes.values().all(|v| !v.contains("4111") && !v.contains('?')),
            "{attributes:?}"
        );
        assert_eq!(received.resource["deployment.environment.name"], "lab");
        assert_eq!(received.header("x-tenant-id"), Some("t1"));
        assert!(!received.scope.is_empty());
        assert_ne!(span.status.as_ref().map_or(0, |status| status.code), ERROR);
    }
    assert!(call.span.start_time_unix_nano >= first.span.start_time_unix_nano);
    chain.assert_healthy();
}

#[test]
fn over_grpc() {
    arrive("otlp-grpc", Over::Grpc);
}

#[test]
fn over_http() {
    arrive("otlp-http", Over::Http);
}

/// 500 traces of two services: each of them is one tree, from its client down.
#[test]
fn every_trace_is_a_tree() {
    let collector = Collector::start();
    let chain = two_services(&collector, "otlp-grpc");
    Crowd::new(chain.entry(), 500).connections(16).run(
        |n| traced(n, &format!("id-{n}")),
        |_, answer, _| assert_eq!(answer.status, 200, "{answer:?}"),
    );
    let spans = await_spans(&collector, 1500);
    let mut trees = 0;
    for n in 0..500 {
        let sent = Traceparent::of_client(n);
        let of_trace: Vec<_> =
            spans.iter().filter(|s| s.trace_id() == sent.trace_id).cloned().collect();
        let (first, call, second) = (
            find(&of_trace, "a", SERVER),
            find(&of_trace, "a", CLIENT),
            find(&of_trace, "b", SERVER),
        );
        trees += usize::from(
            first.parent_id() == Some(sent.parent_id)
                && call.parent_id() == Some(first.span_id())
                && second.parent_id() == Some(call.span_id()),
        );
    }
    assert_eq!(trees, 500);
    chain.assert_healthy();
}

/// One Envoy that exports, with `out` to an upstream that follows a script.
struct Exporter {
    envoy: Envoy,
    upstream: Scripted,
    collector: Collector,
}

impl Exporter {
    fn start(cluster: &str, more: &str) -> Self {
        let (upstream, collector) = (Scripted::start(Script::Ok), Collector::start());
        let listener = |listener: Listener| {
            listener.without_access_log().filter(Filter::weir()).route(Route::prefix("/", "next"))
        };
        let mut builder = Envoy::builder()
            .module(paths::module("trace_context"))
            .cluster(Cluster::followed("next", upstream.address))
            .listener(listener(Listener::inbound("in")))
            .listener(listener(Listener::outbound("out")))
            .policy(&exporting(cluster, "shop", more));
        for cluster in clusters(&collector) {
            builder = builder.cluster(cluster);
        }
        Self { envoy: builder.start(), upstream, collector }
    }

    fn metric(&self, outcome: &str) -> u64 {
        let outcome = format!("outcome=.={outcome};.;");
        self.envoy.metric_with(&["policy=.=lab", &outcome, "weir_trace_context_spans_total"])
    }
}

#[test]
fn failures_show_in_the_span() {
    let exporter = Exporter::start("otlp-grpc", "");
    exporter.upstream.play(Script::Status(500, vec![]));
    assert_eq!(exporter.envoy.client("out").send(&traced(1, "id")).status, 500);
    exporter.upstream.play(Script::GrpcTrailersOnly(13));
    let trace = Traceparent::of_client(2).write();
    let reply = grpc::call(
        &mut exporter.envoy.h2("out"),
        "/shop.v1.Orders/Get",
        &[("traceparent", &trace)],
    );
    assert_eq!(reply.status, Some(13), "{reply:?}");

    let spans = await_spans(&exporter.collector, 2);
    let of = |n: u64| {
        let trace_id = Traceparent::of_client(n).trace_id;
        spans.iter().find(|s| s.trace_id() == trace_id).expect("its span").clone()
    };
    let (plain, call) = (of(1), of(2));
    for span in [&plain, &call] {
        assert_eq!(span.span.status.as_ref().map(|status| status.code), Some(ERROR), "{span:?}");
    }
    assert_eq!(plain.attribute("http.response.status_code").as_deref(), Some("500"));
    assert_eq!(plain.attribute("error.type").as_deref(), Some("500"));
    exporter.envoy.assert_healthy();
}

#[test]
fn what_is_not_sampled_is_not_exported() {
    let exporter = Exporter::start("otlp-grpc", "");
    let mut unsampled = Traceparent::of_client(1);
    unsampled.flags = 0;
    let request = Request::get("/").header("traceparent", unsampled.write());
    for _ in 0..20 {
        assert_eq!(exporter.envoy.client("in").send(&request).status, 200);
    }
    exporter.envoy.client("in").send(&traced(2, "sampled"));
    let spans = await_spans(&exporter.collector, 1);
    assert_eq!(spans[0].trace_id(), Traceparent::of_client(2).trace_id);
    exporter.envoy.assert_healthy();
}

/// Requests while the collector does this; all are answered, and soon.
fn serves_all(exporter: &Exporter, requests: u64) {
    let slowest = Mutex::new(Duration::ZERO);
    Crowd::new(exporter.envoy.address("in"), requests).connections(8).run(
        |n| traced(n, &format!("id-{n}")),
        |_, answer, took| {
            assert_eq!(answer.status, 200, "{answer:?}");
            let mut slowest = slowest.lock().unwrap();
            *slowest = took.max(*slowest);
        },
    );
    let slowest = slowest.into_inner().unwrap();
    println!("the slowest of {requests} requests took {slowest:?}");
    // Far below the collector's own slowness and the timeout of exports.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

fn unwell(cluster: &str, does: Collects) {
    let exporter = Exporter::start(cluster, ", timeout: 3s, max_queue: 16, max_batch: 16");
    exporter.collector.play(does);
    serves_all(&exporter, 2000);
    // What was sent has failed; what found the queue full was dropped.
    wait_until(&format!("{does:?} shows in the counters"), DEADLINE, || {
        exporter.metric("failed") > 0 && exporter.metric("dropped") > 0
    });
    assert_eq!((exporter.metric("exported"), exporter.collector.arrived()), (0, 0));

    exporter.collector.play(Collects::Ok);
    let mut number = 10_000;
    wait_until("spans arrive again", DEADLINE, || {
        number += 1;
        exporter.envoy.client("in").send(&traced(number, "later"));
        let trace_id = Traceparent::of_client(number).trace_id;
        std::thread::sleep(Duration::from_millis(200));
        exporter.collector.spans().iter().any(|s| s.trace_id() == trace_id)
    });
    exporter.envoy.assert_healthy();
}

#[test]
fn a_collector_that_refuses() {
    unwell("otlp-grpc", Collects::Refuse);
    unwell("otlp-http", Collects::Refuse);
}

#[test]
fn a_collector_that_fails() {
    unwell("otlp-grpc", Collects::Error);
    unwell("otlp-http", Collects::Error);
}

#[test]
fn a_collector_that_is_slow() {
    unwell("otlp-grpc", Collects::Slow(Duration::from_secs(30)));
    unwell("otlp-http", Collects::Slow(Duration::from_secs(30)));
}

/// All that was sampled is accounted for: exported, dropped or failed.
#[test]
fn every_span_is_accounted_for() {
    let exporter = Exporter::start("otlp-grpc", "");
    serves_all(&exporter, 1000);
    await_spans(&exporter.collector, 1000);
    wait_until("all are counted", DEADLINE, || exporter.metric("exported") == 1000);
    assert_eq!((exporter.metric("failed"), exporter.metric("dropped")), (0, 0));
    exporter.envoy.assert_healthy();
}

/// A cluster that the policy names and Envoy lacks costs the spans, and nothing else.
#[test]
fn a_cluster_that_is_not_there() {
    let sidecar = Sidecar::start(&exporting("nowhere", "shop", ""));
    let mut connection = H2Conn::connect(sidecar.envoy.address("out")).unwrap();
    let reply = grpc::call(&mut connection, "/shop.v1.Orders/Get", &[]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    for n in 0..50 {
        assert_eq!(sidecar.out().send(&traced(n, "id")).status, 200);
    }
    wait_until("they count as failed or dropped", DEADLINE, || {
        sidecar.metric("spans", "failed") + sidecar.metric("spans", "dropped") >= 50
    });
    sidecar.envoy.assert_healthy();
}
