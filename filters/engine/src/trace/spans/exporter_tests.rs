//! Batches, the queue, and collectors that do not answer.

use std::rc::Rc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use weir_protos::v1::{Spans, spans};

use super::settings_tests::minimal;
use super::span::tests::span;
use super::*;
use crate::core::ports::{Calls, GrpcCall, HttpCall, Nanos};
use crate::sim::{Process, SimPorts};

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

struct Bench {
    process: Process,
    ports: SimPorts,
    exporter: Exporter,
    pushed: u64,
}

fn settings(source: &Spans) -> Rc<ExportSettings> {
    Rc::new(ExportSettings::compile(source, b"x-weir-color", "spans").unwrap())
}

/// Batches of 10 of a queue of 40.
fn small() -> Spans {
    Spans { max_queue: Some(40), max_batch: Some(10), ..minimal() }
}

impl Bench {
    fn new(source: &Spans) -> Bench {
        let process = Process::start();
        let ports = process.ports(1);
        Bench { process, ports, exporter: Exporter::new(settings(source)), pushed: 0 }
    }

    /// Spans are numbered from 1.
    fn push(&mut self, count: u64) {
        for _ in 0..count {
            self.pushed += 1;
            self.exporter.push(span(self.pushed), self.process.now());
        }
    }

    fn tick(&mut self) {
        self.exporter.tick(self.process.now(), &mut self.ports);
    }

    fn wait(&mut self, time: Nanos) {
        self.process.advance(time);
        self.tick();
    }

    /// The numbers of the spans of each call so far, as a collector reads them.
    fn sent(&self) -> Vec<Vec<u64>> {
        let numbers = |(cluster, message): &(String, Vec<u8>)| {
            assert_eq!(cluster, "collector");
            let request = ExportTraceServiceRequest::decode(&message[..]).unwrap();
            let spans = request.resource_spans[0].scope_spans[0].spans.iter();
            spans.map(|span| u64::from_be_bytes(span.span_id[..].try_into().unwrap())).collect()
        };
        self.ports.calls.iter().map(numbers).collect()
    }

    /// The collector answers the last call.
    fn answer(&mut self, is_ok: bool) {
        let token = u32::try_from(self.ports.calls.len()).unwrap();
        assert!(self.exporter.on_call(token, is_ok));
    }

    /// Exported, dropped, failed.
    fn counts(&mut self) -> (u64, u64, u64) {
        self.exporter.flush_metrics("shop", &mut self.ports);
        let count = |outcome: &str| {
            let outcome = format!("outcome=.={outcome};.;weir_trace_context_spans_total");
            self.ports.counter(&["policy=.=shop;.;", &outcome])
        };
        (count("exported"), count("dropped"), count("failed"))
    }
}

#[test]
fn a_batch_goes_when_it_is_full() {
    let mut bench = Bench::new(&small());
    bench.push(9);
    bench.tick();
    assert!(bench.sent().is_empty());
    bench.push(3);
    bench.tick();
    assert_eq!(bench.sent(), [(1..=10).collect::<Vec<_>>()]);
    bench.answer(true);
    assert_eq!(bench.counts(), (10, 0, 0));
    // What is left waits for others.
    bench.tick();
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn or_when_its_oldest_span_has_waited() {
    let mut bench = Bench::new(&small());
    bench.push(1);
    bench.wait(600 * MS);
    bench.push(1);
    bench.wait(399 * MS);
    assert!(bench.sent().is_empty());
    bench.wait(MS);
    assert_eq!(bench.sent(), [[1, 2]]);
    bench.answer(true);
    bench.wait(10 * S);
    assert_eq!(bench.sent().len(), 1, "nothing waits");
}

#[test]
fn one_call_is_in_flight() {
    let mut bench = Bench::new(&small());
    bench.push(35);
    for _ in 0..20 {
        bench.wait(100 * MS);
    }
    assert_eq!(bench.sent().len(), 1);
    for calls in 2..=4 {
        bench.answer(true);
        bench.tick();
        assert_eq!(bench.sent().len(), calls);
    }
    bench.answer(true);
    assert_eq!(bench.sent().concat(), (1..=35).collect::<Vec<_>>());
    assert_eq!(bench.counts(), (35, 0, 0));
}

#[test]
fn a_full_queue_drops_its_oldest() {
    let mut bench = Bench::new(&small());
    bench.push(45);
    assert_eq!(bench.counts(), (0, 5, 0));
    bench.tick();
    assert_eq!(bench.sent(), [(6..=15).collect::<Vec<_>>()]);
}

#[test]
fn a_collector_that_never_answers() {
    let mut bench = Bench::new(&small());
    // 60 seconds, 100 spans each.
    for _ in 0..600 {
        bench.push(10);
        bench.wait(100 * MS);
    }
    // A call counts as failed after its timeout of 5 s and one more, so there were 10.
    assert_eq!(bench.sent().len(), 10);
    let (exported, dropped, failed) = bench.counts();
    assert_eq!((exported, failed), (0, 90));
    assert_eq!(dropped + failed + 10 + 40, bench.pushed, "10 in flight, 40 waiting");
    // An answer to a call that was given up changes nothing.
    assert!(!bench.exporter.on_call(3, true));
    assert_eq!(bench.counts(), (exported, dropped, failed));
    // It comes back.
    bench.answer(true);
    for _ in 0..4 {
        bench.wait(100 * MS);
        bench.answer(true);
    }
    assert_eq!(bench.counts(), (50, dropped, 90));
}

#[test]
fn a_batch_that_fails_is_lost() {
    let mut bench = Bench::new(&small());
    bench.push(20);
    bench.tick();
    bench.answer(false);
    assert_eq!(bench.counts(), (0, 0, 10));
    bench.tick();
    bench.answer(true);
    assert_eq!(bench.sent()[1], (11..=20).collect::<Vec<_>>());
    assert_eq!(bench.counts(), (10, 0, 10));
}

#[test]
fn a_cluster_that_envoy_does_not_know() {
    let mut bench = Bench::new(&small());
    bench.ports.takes_calls = false;
    for _ in 0..100 {
        bench.push(10);
        bench.tick();
    }
    assert_eq!(bench.counts(), (0, 0, 1000));
    bench.ports.takes_calls = true;
    bench.push(10);
    bench.tick();
    bench.answer(true);
    assert_eq!(bench.counts(), (10, 0, 1000));
}

#[test]
fn strangers_calls_are_none_of_ours() {
    let mut bench = Bench::new(&small());
    assert!(!bench.exporter.on_call(1, true));
    bench.push(10);
    bench.tick();
    assert!(!bench.exporter.on_call(77, false));
    assert_eq!(bench.counts(), (0, 0, 0));
    bench.answer(true);
    assert!(!bench.exporter.on_call(1, true), "once");
    assert_eq!(bench.counts(), (10, 0, 0));
}

#[test]
fn an_edit_keeps_what_waits() {
    let mut bench = Bench::new(&small());
    bench.push(40);
    bench.tick();
    bench.exporter.adopt(settings(&Spans {
        max_queue: Some(20),
        max_batch: Some(20),
        ..minimal()
    }));
    assert_eq!(bench.counts(), (0, 10, 0), "30 waited");
    // The call in flight is still known.
    bench.answer(true);
    bench.tick();
    assert_eq!(bench.sent()[1], (21..=40).collect::<Vec<_>>());
}

#[test]
fn a_clock_that_steps() {
    let mut bench = Bench::new(&small());
    bench.process.advance(10_000 * S);
    bench.push(1);
    bench.process.set_time(bench.process.now() - 3600 * S);
    bench.tick();
    assert_eq!(bench.sent().len(), 1);
    bench.push(1);
    bench.process.set_time(bench.process.now() - 3600 * S);
    bench.tick();
    assert_eq!(bench.sent().len(), 2, "no call is waited for for an hour");
    assert_eq!(bench.counts(), (0, 0, 1));
}

/// The largest spans there are: no message is one that a collector would refuse.
#[test]
fn memory_and_messages_are_bounded() {
    let source = Spans { max_queue: Some(500), max_batch: Some(500), ..minimal() };
    let mut bench = Bench::new(&source);
    for number in 1..=700 {
        let mut large = span(number);
        large.describe(&Call { path: &[b'\xff'; 5000], method: &[b'x'; 5000], ..Call::default() });
        (0..100).for_each(|_| large.add("name", &[b'x'; 5000][..]));
        bench.exporter.push(large, bench.process.now());
    }
    let mut calls = 0;
    loop {
        bench.wait(S);
        if bench.ports.calls.len() == calls {
            break;
        }
        bench.answer(true);
        calls += 1;
    }
    assert!(calls > 3, "{calls}");
    assert!(bench.ports.calls.iter().all(|(_, message)| message.len() < 3 << 20));
    assert_eq!(bench.sent().concat(), (201..=700).collect::<Vec<_>>());
    assert_eq!(bench.counts(), (500, 200, 0));
}

type Headers = Vec<(String, String)>;

/// What was asked of Envoy.
#[derive(Default)]
struct Asked(Vec<(String, Headers, Nanos)>);

impl Calls for Asked {
    fn grpc(&mut self, call: &GrpcCall<'_>) -> Option<u32> {
        let path = format!("grpc /{}/{}", call.service, call.method);
        self.0.push((path, call.metadata.to_vec(), call.timeout));
        Some(1)
    }

    fn http(&mut self, call: &HttpCall<'_>) -> Option<u32> {
        self.0.push((format!("http {}", call.path), call.headers.to_vec(), call.timeout));
        Some(1)
    }
}

#[test]
fn grpc_and_http() {
    let http = spans::Protocol::Http.into();
    let headers = [("x-tenant".to_string(), "a".to_string())];
    let mut asked = Asked::default();
    for protocol in [0, http] {
        let source =
            Spans { protocol, headers: headers.clone().into(), max_batch: Some(1), ..minimal() };
        let mut exporter = Exporter::new(settings(&source));
        exporter.push(span(1), 0);
        exporter.tick(0, &mut asked);
    }
    let content = ("content-type".to_string(), "application/x-protobuf".to_string());
    let grpc = "grpc /opentelemetry.proto.collector.trace.v1.TraceService/Export".to_string();
    let expected = [
        (grpc, headers.to_vec(), 5 * S),
        ("http /v1/traces".to_string(), [&headers[..], &[content]].concat(), 5 * S),
    ];
    assert_eq!(asked.0, expected);
}
