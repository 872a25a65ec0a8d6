//! What a policy may say of spans, and what it is told where it errs.

use std::collections::BTreeMap;

use weir_protos::v1::key_part::{OnMissing, Source as Part};
use weir_protos::v1::{KeyPart, Spans, spans};
use weir_protos::{Duration, FieldError};

use super::settings::Protocol;
use super::span::tests::span;
use super::*;
use crate::core::headers::HeaderMap;
use crate::core::request::Request;
use crate::sim::Process;

pub fn minimal() -> Spans {
    Spans { cluster: "collector".into(), service_name: "shop".into(), ..Spans::default() }
}

fn compile(source: &Spans) -> Result<ExportSettings, FieldError> {
    ExportSettings::compile(source, b"x-weir-color", "policy.trace_context.spans")
}

fn header(name: &str) -> KeyPart {
    KeyPart { source: Some(Part::Header(name.into())), ..KeyPart::default() }
}

fn map<V: Clone>(count: usize, value: &V) -> BTreeMap<String, V> {
    (0..count).map(|n| (format!("k{n}"), value.clone())).collect()
}

#[test]
fn defaults() {
    let settings = compile(&minimal()).unwrap();
    assert_eq!((settings.protocol, settings.kind), (Protocol::Grpc, None));
    assert_eq!((settings.max_queue, settings.max_batch), (2048, 256));
    assert_eq!((settings.timeout, settings.interval), (5_000_000_000, 1_000_000_000));
    assert!(settings.headers.is_empty());
    let small = compile(&Spans { max_queue: Some(16), ..minimal() }).unwrap();
    assert_eq!((small.max_queue, small.max_batch), (16, 16));
    let http = Spans { protocol: spans::Protocol::Http.into(), ..minimal() };
    let http = compile(&http).unwrap();
    assert_eq!(http.path, "/v1/traces");
    assert_eq!(http.headers, [("content-type".into(), "application/x-protobuf".into())]);
}

#[test]
fn the_bounds_themselves_are_taken() {
    let time = |seconds, nanos| Some(Duration { seconds, nanos });
    let cases = [
        Spans { timeout: time(0, 100_000_000), interval: time(60, 0), ..minimal() },
        Spans { timeout: time(60, 0), interval: time(0, 100_000_000), ..minimal() },
        Spans { max_queue: Some(65_536), max_batch: Some(4096), ..minimal() },
        Spans { max_queue: Some(16), max_batch: Some(1), ..minimal() },
        Spans { resource: map(32, &"v".to_string()), ..minimal() },
        Spans { attributes: map(16, &header("x")), ..minimal() },
        Spans { headers: map(16, &"v".to_string()), ..minimal() },
    ];
    for case in cases {
        assert!(compile(&case).is_ok(), "{case:?}");
    }
}

#[test]
fn mistakes_are_named() {
    let time = |seconds, nanos| Some(Duration { seconds, nanos });
    let named = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
    let attribute = |name: &str, part| BTreeMap::from([(name.to_string(), part)]);
    let rejecting = KeyPart { on_missing: OnMissing::Reject.into(), ..header("x") };
    let http = spans::Protocol::Http.into();
    let cases = [
        (Spans { cluster: String::new(), ..minimal() }, "cluster: is missing"),
        (Spans { cluster: "a\nb".into(), ..minimal() }, r#"cluster: "a\nb" must be"#),
        (Spans { service_name: String::new(), ..minimal() }, "service_name: is missing"),
        (Spans { service_name: "x".repeat(257), ..minimal() }, "service_name: \"xxx"),
        (Spans { timeout: time(0, 99_000_000), ..minimal() }, r#"timeout: "0.099s" must be from"#),
        (Spans { interval: time(61, 0), ..minimal() }, r#"interval: "61s" must be from "0.1s""#),
        (Spans { max_queue: Some(15), ..minimal() }, "max_queue: 15 must be from 16 to 65536"),
        (Spans { max_batch: Some(4097), ..minimal() }, "max_batch: 4097 must be from 1 to 4096"),
        (
            Spans { max_queue: Some(100), max_batch: Some(101), ..minimal() },
            "max_batch: 101 must be at most max_queue, which is 100",
        ),
        (Spans { path: "/x".into(), ..minimal() }, r#"path: "/x" goes with protocol HTTP alone"#),
        (Spans { path: "x".into(), protocol: http, ..minimal() }, r#"path: "x" must start with /"#),
        (Spans { path: "/a b".into(), protocol: http, ..minimal() }, r#"path: "/a b" must start"#),
        (Spans { headers: named("Host", "x"), ..minimal() }, "headers.Host: \"Host\" must be"),
        (Spans { headers: map(17, &"v".to_string()), ..minimal() }, "headers: 17 headers: must"),
        (Spans { resource: map(33, &"v".to_string()), ..minimal() }, "resource: 33 attributes"),
        (
            Spans { resource: named("service.name", "x"), ..minimal() },
            "resource.service.name: must be given as service_name",
        ),
        (
            Spans { resource: named("zone", &"x".repeat(257)), ..minimal() },
            "resource.zone: 257 bytes: must be at most 256",
        ),
        (Spans { attributes: map(17, &header("x")), ..minimal() }, "attributes: 17 attributes"),
        (
            Spans { attributes: attribute("url.path", header("x")), ..minimal() },
            "attributes.url.path: is set by weir itself",
        ),
        (
            Spans { attributes: attribute("weir.color", header("x")), ..minimal() },
            "attributes.weir.color: is set by weir itself",
        ),
        (
            Spans { attributes: attribute("a", rejecting), ..minimal() },
            "attributes.a.on_missing: has no meaning here",
        ),
        (
            Spans { attributes: attribute("a", KeyPart::default()), ..minimal() },
            "attributes.a: must have one of: header",
        ),
    ];
    for (source, message) in cases {
        let refused = compile(&source).unwrap_err().to_string();
        let expected = format!("policy.trace_context.spans.{message}");
        assert!(refused.starts_with(&expected), "{refused}\nwanted: {expected}");
    }
}

#[test]
fn attributes_come_from_the_request() {
    let attributes = BTreeMap::from([
        ("app.tenant".to_string(), header("x-tenant")),
        ("app.user".to_string(), header("x-user")),
    ]);
    let settings = compile(&Spans { attributes, ..minimal() }).unwrap();
    let headers = HeaderMap::from_pairs(&[("x-tenant", &b"blue\xff"[..])]);
    let mut span = span(1);
    let mut ports = Process::start().ports(1);
    settings.add_attributes(&mut span, &mut Request::new(&headers), &mut ports);
    assert_eq!(span.attribute("app.tenant"), Some(&"blue\u{fffd}".into()));
    assert_eq!(span.attribute("app.user"), None);
}
