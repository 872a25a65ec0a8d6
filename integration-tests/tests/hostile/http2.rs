//! HTTP/2: header blocks that no client library would write.

use crate::setup::{Findings, LISTENERS, assert_unharmed, start};
use weir_integration_tests::random::Random;
use weir_integration_tests::{Envoy, H2Conn};

/// How a stream ended: with a status, by a reset, or with its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Status(u16),
    Reset(u32),
    Gone,
}

type Line = (Vec<u8>, Vec<u8>);

struct Talk {
    envoy: Envoy,
    kept: [Option<H2Conn>; 3],
    findings: Findings,
}

impl Talk {
    fn new() -> Self {
        Self { envoy: start(), kept: [None, None, None], findings: Findings::default() }
    }

    fn try_lines(&mut self, case: &str, lines: &[Line]) {
        self.try_with(case, lines, Outcome::Status(429));
    }

    fn try_call(&mut self, case: &str, lines: &[Line]) {
        self.try_with(case, lines, Outcome::Status(200));
    }

    fn try_with(&mut self, case: &str, lines: &[Line], refused: Outcome) {
        let lines: Vec<(&[u8], &[u8])> = lines.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        let mut answers = [Outcome::Gone; 3];
        for (n, listener) in LISTENERS.iter().enumerate() {
            let mut connection = self.kept[n].take().unwrap_or_else(|| self.envoy.h2(listener));
            let reply = connection.request(&lines, None);
            answers[n] = match (reply.status(), reply.reset) {
                (Some(status), _) => Outcome::Status(status),
                (None, Some(code)) => Outcome::Reset(code),
                (None, None) => Outcome::Gone,
            };
            if reply.gone.is_none() {
                self.kept[n] = Some(connection);
            }
        }
        self.findings.compare(case, &answers, refused, Outcome::Status(200));
    }

    fn end(self) {
        assert_unharmed(&self.envoy);
        self.findings.assert_none();
    }
}

fn line(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Line {
    (name.as_ref().to_vec(), value.as_ref().to_vec())
}

fn get(path: impl AsRef<[u8]>, more: &[Line]) -> Vec<Line> {
    let mut lines = vec![
        line(":method", "GET"),
        line(":scheme", "http"),
        line(":path", path),
        line(":authority", "shop.test"),
    ];
    lines.extend_from_slice(more);
    lines
}

#[test]
fn every_byte_in_every_place() {
    let mut talk = Talk::new();
    for byte in 0..=u8::MAX {
        let put =
            |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        let with = |name: &str, value: Vec<u8>| get("/a/b?q=1", &[line(name, value)]);
        let pseudo = |name: &str, value: Vec<u8>| {
            let mut lines = get("/a", &[]);
            for (known, old) in &mut lines {
                if known == name.as_bytes() {
                    old.clone_from(&value);
                }
            }
            lines
        };
        for (place, lines) in [
            ("header value", with("x-key", put("a", "c"))),
            ("whole header value", with("x-key", vec![byte])),
            ("header name", get("/", &[line(put("x-k", "y"), "v")])),
            ("whole header name", get("/", &[line([byte], "v")])),
            (":path", pseudo(":path", put("/a", "?q=1"))),
            ("query", pseudo(":path", put("/?q=", "c"))),
            (":authority", pseudo(":authority", put("shop", ".test"))),
            (":method", pseudo(":method", put("GE", "T"))),
            (":scheme", pseudo(":scheme", put("htt", "p"))),
            ("cookie", with("cookie", put("s=", "; t=1"))),
            ("baggage", with("baggage", put("t=", ",u=1"))),
            ("color", with("x-lane", put("b", "lue"))),
            ("content type", with("content-type", put("text/x", ""))),
            (
                "traceparent",
                with(
                    "traceparent",
                    put("00-4bf92f3577b34da6a3ce929d0e0e473", "-00f067aa0ba902b7-01"),
                ),
            ),
        ] {
            talk.try_lines(&format!("{byte:#04x} in the {place}"), &lines);
        }
    }
    talk.end();
}

#[test]
fn absences_duplicates_and_sizes() {
    let mut talk = Talk::new();
    let all = get("/a", &[]);
    for missing in 0..all.len() {
        let mut lines = all.clone();
        let (name, _) = lines.remove(missing);
        talk.try_lines(&format!("without {}", String::from_utf8_lossy(&name)), &lines);
    }
    for empty in 0..all.len() {
        let mut lines = all.clone();
        lines[empty].1.clear();
        let name = String::from_utf8_lossy(&lines[empty].0).into_owned();
        talk.try_lines(&format!("empty {name}"), &lines);
        talk.try_lines(&format!("{name} twice"), &get("/a", &[all[empty].clone()]));
    }
    talk.try_lines("no line at all", &[]);
    talk.try_lines("only a header", &[line("x-key", "v")]);
    talk.try_lines("unknown pseudo header", &get("/", &[line(":weird", "v")]));
    talk.try_lines("host and :authority", &get("/", &[line("host", "other.test")]));
    let mut host_only = get("/", &[line("host", "other.test")]);
    host_only.remove(3);
    talk.try_lines("host instead of :authority", &host_only);
    talk.try_lines("upper case name", &get("/", &[line("X-Key", "v")]));
    talk.try_lines("empty name", &get("/", &[line("", "v")]));
    talk.try_lines("connection header", &get("/", &[line("connection", "close")]));
    talk.try_lines("odd te", &get("/", &[line("te", "gzip")]));

    let lines = |name: &str, count: usize| -> Vec<Line> {
        (0..count).map(|n| line(name, format!("v{n}"))).collect()
    };
    for name in ["x-key", "cookie", "baggage", "traceparent", "x-lane", "content-type"] {
        talk.try_lines(&format!("100 lines of {name}"), &get("/", &lines(name, 100)));
    }
    talk.try_lines("2000 lines", &get("/", &lines("x-key", 2000)));
    talk.try_lines("6000 lines", &get("/", &lines("x-key", 6000)));
    let long = "x".repeat(60 * 1024);
    for name in ["x-key", "cookie", "baggage", "traceparent", "x-lane"] {
        talk.try_lines(&format!("60 KB {name}"), &get("/", &[line(name, &long)]));
    }
    talk.try_lines("60 KB name", &get("/", &[line(&long, "v")]));
    talk.try_lines("60 KB path", &get(format!("/{long}"), &[]));
    talk.try_lines("200 KB header", &get("/", &[line("x-key", "x".repeat(200 * 1024))]));
    talk.end();
}

#[test]
fn random_header_blocks() {
    let mut talk = Talk::new();
    let mut random = Random::new(0x6832);
    for n in 0..1500 {
        let names =
            ["x-key", "cookie", "baggage", "x-lane", "traceparent", "content-type", "x-never"];
        let more: Vec<_> = (0..random.below(8))
            .map(|_| line(names[random.below(names.len())], random.token(60)))
            .collect();
        let path = [b"/".to_vec(), random.token(40)].concat();
        let lines = get(path, &more);
        talk.try_lines(&format!("random block {n}: {lines:?}"), &lines);
    }
    talk.end();
}

/// gRPC replies have a shape of their own: the status is 200 whatever happened.
#[test]
fn every_byte_in_a_grpc_call() {
    let mut talk = Talk::new();
    for byte in 0..=u8::MAX {
        let put =
            |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        for path in [
            put("/shop.v1.Orders/G", "t"),
            put("/shop.v1.Orders", "Get"),
            put("/", ""),
            put("/shop.v1.Orders/Get", "/more"),
        ] {
            let mut call =
                get(&path, &[line("content-type", "application/grpc"), line("te", "trailers")]);
            call[0].1 = b"POST".to_vec();
            talk.try_call(&format!("{byte:#04x}: {:?}", String::from_utf8_lossy(&path)), &call);
        }
    }
    talk.end();
}
