//! Every byte that the codec lets through, anywhere in any of these headers, and sizes and numbers of
//! lines: no trap, no lost request, and for the rest the same answer as without the filter.

use crate::rig::{Rig, SPAN, TRACE, parent};
use serde_json::{Map, Value};
use std::time::Duration;
use weir_integration_tests::{Filter, H1Conn, H2Conn, Request};

/// What the filter reads and may write.
const CARRIERS: [&str; 20] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-request-id",
    "baggage",
    "x-weir-deadline-ms",
    "grpc-timeout",
    "sw8",
    "x-session",
    "x-envoy-upstream-rq-timeout-ms",
];

/// Written for others, or by Envoy itself.
const WRITTEN: [&str; 3] =
    ["x-b3-parentspanid", "x-envoy-expected-rq-timeout-ms", "x-datadog-origin"];

const POLICY: &str = "{name: shop, \
    restore: {keys: [{header: x-request-id}, {header: x-session, scope: SESSION, baggage: [a]}, {trace_id: true}], mint: true}, \
    trace_context: {\
    propagation: {extract: [W3C, B3_SINGLE, B3_MULTI, JAEGER, XRAY, DATADOG, REQUEST_ID], \
    inject: [W3C, B3_SINGLE, B3_MULTI, JAEGER, XRAY, DATADOG]}, \
    baggage: {set: [{key: user, value: {header: x-user}}]}, \
    sampling: {rules: [{id: r, percent: 50, floor_per_second: 1, ceiling_per_second: 1000, match: {baggage: {a: {present: true}}}}]}, \
    deadline: {default: 10s}, \
    response: {trace_id_header: x-trace-id, error_context: true, envelope: true}}}";

fn rig() -> Rig {
    Rig::with(
        1,
        POLICY,
        |_| vec![Filter::weir()],
        |listener| {
            let many = serde_json::json!({"max_headers_count": 5000});
            // Envoy waits so long before it closes a connection on a broken header block.
            let soon = serde_json::json!("0.001s");
            listener.hcm("common_http_protocol_options", many).hcm("delayed_close_timeout", soon)
        },
    )
}

/// The listeners that are compared: the first has no filter.
const LISTENERS: [&str; 3] = ["plain", "in", "out"];

#[derive(Debug, PartialEq)]
enum Outcome {
    /// The status, and what the upstream saw besides the carriers.
    Answer(u16, Option<Map<String, Value>>),
    /// No answer: the codec closed, or waits for more.
    None,
}

struct Talk {
    rig: Rig,
    kept: [Option<H1Conn>; 3],
    wrong: Vec<String>,
    tried: usize,
}

impl Talk {
    fn new() -> Talk {
        Talk { rig: rig(), kept: [None, None, None], wrong: Vec::new(), tried: 0 }
    }

    fn try_request(&mut self, case: &str, request: &Request) {
        self.tried += 1;
        let bytes = request.to_h1();
        let mut outcomes = self.ask_all(&bytes, Duration::from_millis(100));
        if outcomes.iter().any(|outcome| *outcome != outcomes[0]) {
            // One of them may have been slow.
            self.kept = [None, None, None];
            outcomes = self.ask_all(&bytes, Duration::from_secs(3));
        }
        if outcomes.iter().any(|outcome| *outcome != outcomes[0]) {
            self.wrong.push(format!("{case}: {outcomes:?}"));
        }
    }

    fn ask_all(&mut self, bytes: &[u8], patience: Duration) -> Vec<Outcome> {
        (0..3).map(|n| self.ask(n, bytes, patience)).collect()
    }

    fn ask(&mut self, n: usize, bytes: &[u8], patience: Duration) -> Outcome {
        let rig = &self.rig;
        let mut connection = self.kept[n].take().unwrap_or_else(|| rig.envoy.h1(LISTENERS[n]));
        connection.patience(patience).expect("a timeout can be set");
        let _ = connection.write(bytes);
        let Ok(answer) = connection.read(false) else { return Outcome::None };
        let closes = answer.header("connection").as_deref() == Some("close");
        if answer.status == 200 && !closes {
            self.kept[n] = Some(connection);
        }
        let seen = (answer.status == 200).then(|| {
            let mut headers = answer.json()["headers"].as_object().cloned().unwrap_or_default();
            headers.retain(|name, _| {
                !CARRIERS.contains(&name.as_str()) && !WRITTEN.contains(&name.as_str())
            });
            headers
        });
        Outcome::Answer(answer.status, seen)
    }

    fn end(self) {
        let shown: Vec<_> = self.wrong.iter().take(20).cloned().collect();
        assert!(shown.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.tried, shown.join("\n"));
        for listener in &LISTENERS[1..] {
            assert_eq!(self.rig.get(listener, &[]).status, 200);
        }
        self.rig.envoy.assert_healthy();
    }
}

fn whole(name: &str) -> String {
    match name {
        "traceparent" => parent("01"),
        "tracestate" => "foo=1,ot=th:8;rv:11111111111111,bar=2".into(),
        "b3" => format!("{TRACE}-{SPAN}-1"),
        "uber-trace-id" => format!("{TRACE}:{SPAN}:0:1"),
        "x-amzn-trace-id" => {
            format!("Root=1-{}-{};Parent={SPAN};Sampled=1", &TRACE[..8], &TRACE[8..])
        }
        "x-datadog-tags" => "_dd.p.tid=4bf92f3577b34da6,a=b".into(),
        "x-b3-traceid" => TRACE.into(),
        "x-b3-spanid" => SPAN.into(),
        "baggage" => "a=1;p=2,b=%20x".into(),
        "grpc-timeout" => "10S".into(),
        "x-request-id" => "4bf92f35-77b3-4da6-a3ce-929d0e0e4736".into(),
        _ => "12345".into(),
    }
}

#[test]
fn every_byte_in_every_carrier() {
    let mut talk = Talk::new();
    for name in CARRIERS {
        let value = whole(name).into_bytes();
        for byte in 0..=u8::MAX {
            // In front, somewhere in the middle, at the end, and alone.
            let middle = usize::from(byte) % value.len();
            for (place, at) in [("front", 0), ("middle", middle), ("end", value.len())] {
                let mut bytes = value.clone();
                bytes.insert(at, byte);
                let request = Request::get("/").header(name, &bytes);
                talk.try_request(&format!("{byte:#04x} at the {place} of {name}"), &request);
            }
            // A deadline of a few milliseconds is one, and rightly spent.
            if name != "x-weir-deadline-ms" || !byte.is_ascii_digit() {
                talk.try_request(
                    &format!("{byte:#04x} alone in {name}"),
                    &Request::get("/").header(name, [byte]),
                );
            }
        }
    }
    talk.end();
}

#[test]
fn sizes_and_numbers() {
    let mut talk = Talk::new();
    for name in CARRIERS {
        let long = "x".repeat(50 * 1024);
        talk.try_request(&format!("50 KB of {name}"), &Request::get("/").header(name, &long));
        for unit in [",", "=", ";", "a=b,", "a=,", "-", ":", "0", "k=v;p,", "%", "\u{ff}"] {
            let many = unit.repeat(50 * 1024 / unit.len());
            talk.try_request(
                &format!("{unit:?} over 50 KB of {name}"),
                &Request::get("/").header(name, many),
            );
        }
        let value = whole(name);
        let lines = (0..100).fold(Request::get("/"), |request, _| request.header(name, &value));
        talk.try_request(&format!("100 lines of {name}"), &lines);
        let lines = (0..100)
            .fold(Request::get("/"), |request, n| request.header(name, format!("{value}{n}")));
        talk.try_request(&format!("100 different lines of {name}"), &lines);
        talk.try_request(&format!("an empty {name}"), &Request::get("/").header(name, ""));
    }
    let all =
        CARRIERS.iter().fold(Request::get("/"), |request, name| request.header(name, whole(name)));
    talk.try_request("all at once", &all);
    talk.end();
}

/// Header blocks over HTTP/2, where no text form stands between the bytes and Envoy's codec.
#[test]
fn raw_frames() {
    let rig = rig();
    let mut wrong = Vec::new();
    let ask = |connection: &mut Option<H2Conn>, listener: &str, name: &str, value: &[u8]| {
        let mut open = connection.take().unwrap_or_else(|| rig.envoy.h2(listener));
        let lines: [(&[u8], &[u8]); 6] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"shop.test"),
            (name.as_bytes(), value),
            (name.as_bytes(), value),
        ];
        let reply = open.request(&lines, None);
        let outcome = (reply.status(), reply.reset);
        if reply.gone.is_none() {
            *connection = Some(open);
        }
        outcome
    };
    let mut kept: [Option<H2Conn>; 3] = [None, None, None];
    for name in CARRIERS {
        for byte in 0..=u8::MAX {
            let mut value = whole(name).into_bytes();
            let at = usize::from(byte) % value.len();
            value[at] = byte;
            let answers: Vec<_> = LISTENERS
                .iter()
                .zip(&mut kept)
                .map(|(listener, kept)| ask(kept, listener, name, &value))
                .collect();
            if answers.iter().any(|answer| *answer != answers[0]) {
                wrong.push(format!("{byte:#04x} in {name}: {answers:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} findings, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    rig.envoy.assert_healthy();
}

/// What is echoed or restored cannot split a response or a request.
#[test]
fn nothing_is_written_that_would_split_a_message() {
    let rig = rig();
    for value in ["a\r\nx-evil: 1", "a\nx-evil: 1", "a%0d%0ax-evil: 1", "a\u{85}x-evil: 1"] {
        for name in ["baggage", "tracestate", "x-request-id", "x-user", "sw8"] {
            let mut connection = rig.envoy.h1("in");
            let _ = connection.write(&Request::get("/").header(name, value).to_h1());
            let Ok(answer) = connection.read(false) else { continue };
            assert!(answer.header("x-evil").is_none(), "{name}");
            if answer.status == 200 && !value.contains('\n') {
                assert_eq!(answer.echoed("x-evil"), None, "{name}: {value:?}");
            }
        }
    }
    rig.envoy.assert_healthy();
}
