//! HTTP/1.1: every byte in every place, duplicates, sizes, absences.

use crate::setup::{Findings, LISTENERS, agree, assert_unharmed, start};
use std::time::Duration;
use weir_integration_tests::{Envoy, H1Conn, Request};

/// An answer's status; `None` when the connection ended or stayed silent instead.
type Outcome = Option<u16>;

/// Some broken requests look unfinished to the codec, which then waits for the rest.
const PATIENCE: Duration = Duration::from_millis(50);

/// When the listeners seem to differ, one of them may have been slow.
const MORE_PATIENCE: Duration = Duration::from_secs(2);

struct Talk {
    envoy: Envoy,
    kept: [Option<H1Conn>; 3],
    findings: Findings,
}

impl Talk {
    fn new() -> Self {
        Self { envoy: start(), kept: [None, None, None], findings: Findings::default() }
    }

    /// Sends the same bytes to all three listeners.
    fn try_bytes(&mut self, case: &str, bytes: &[u8]) {
        let mut answers = self.ask_all(bytes, PATIENCE);
        if !agree(&answers, Some(429), Some(200)) {
            self.kept = [None, None, None];
            answers = self.ask_all(bytes, MORE_PATIENCE);
        }
        self.findings.compare(case, &answers, Some(429), Some(200));
    }

    fn ask_all(&mut self, bytes: &[u8], patience: Duration) -> [Outcome; 3] {
        let mut answers = [None; 3];
        for (n, listener) in LISTENERS.iter().enumerate() {
            answers[n] = self.ask(n, listener, bytes, patience);
        }
        answers
    }

    fn ask(&mut self, n: usize, listener: &str, bytes: &[u8], patience: Duration) -> Outcome {
        let fresh = || {
            let connection = self.envoy.h1(listener);
            connection.patience(patience).expect("a timeout can be set");
            connection
        };
        let mut connection = self.kept[n].take().unwrap_or_else(fresh);
        // Writing fails when Envoy has answered and closed half way; the answer is read all the same.
        let _ = connection.write(bytes);
        let answer = connection.read(false).ok()?;
        let closes = answer.header("connection").as_deref() == Some("close");
        if answer.status < 500 && answer.status != 400 && !closes {
            self.kept[n] = Some(connection);
        }
        Some(answer.status)
    }

    fn end(self) {
        assert_unharmed(&self.envoy);
        self.findings.assert_none();
    }
}

/// A request with one byte in one place; the place is named for the findings.
fn places(byte: u8) -> Vec<(&'static str, Request)> {
    let put = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
    let with = |name: &str, value: Vec<u8>| Request::get("/a/b?q=1").header(name, value);
    vec![
        ("header value", with("x-key", put("a", "c"))),
        ("whole header value", with("x-key", vec![byte])),
        ("header name", Request::get("/").header(put("x-k", "y"), "v")),
        ("path", Request::get(put("/a/", "/b?q=1"))),
        ("end of the path", Request::get(put("/a", ""))),
        ("query", Request::get(put("/?q=", "c"))),
        ("query name", Request::get(put("/?", "=c"))),
        ("cookie", with("cookie", put("s=", "; t=1"))),
        ("baggage", with("baggage", put("t=", ",u=1"))),
        ("host", Request::get("/").host(put("shop", ".test"))),
        ("color", with("x-lane", put("b", "lue"))),
        (
            "traceparent",
            with("traceparent", put("00-4bf92f3577b34da6a3ce929d0e0e473", "-00f067aa0ba902b7-01")),
        ),
        ("user agent", with("user-agent", put("kube-probe/", "1"))),
        ("method", Request::new(put("GE", "T"), "/")),
        ("authorization", with("authorization", put("Bearer ", ".a.b"))),
        ("forwarded for", with("x-forwarded-for", put("10.0.0.", "1"))),
    ]
}

#[test]
fn every_byte_in_every_place() {
    let mut talk = Talk::new();
    for byte in 0..=u8::MAX {
        for (place, request) in places(byte) {
            talk.try_bytes(&format!("{byte:#04x} in the {place}"), &request.to_h1());
        }
    }
    talk.end();
}

#[test]
fn duplicates_and_sizes() {
    let mut talk = Talk::new();
    let lines = |name: &str, count: usize| {
        (0..count).fold(Request::get("/a"), |r, n| r.header(name, format!("v{n}")))
    };
    for name in ["x-key", "cookie", "baggage", "traceparent", "x-lane", "host", "x-forwarded-for"] {
        talk.try_bytes(&format!("100 lines of {name}"), &lines(name, 100).to_h1());
    }
    talk.try_bytes("1100 lines", &lines("x-key", 1100).to_h1());
    talk.try_bytes("6000 lines", &lines("x-key", 6000).to_h1());
    let names = (0..1500).fold(Request::get("/"), |r, n| r.header(format!("x-{n}"), ""));
    talk.try_bytes("1500 names", &names.to_h1());

    let long = "x".repeat(60 * 1024);
    talk.try_bytes("60 KB header", &Request::get("/").header("x-key", &long).to_h1());
    talk.try_bytes("60 KB name", &Request::get("/").header(&long, "x").to_h1());
    talk.try_bytes(
        "60 KB cookie",
        &Request::get("/").header("cookie", format!("s={long}")).to_h1(),
    );
    talk.try_bytes(
        "60 KB baggage",
        &Request::get("/").header("baggage", format!("t={long}")).to_h1(),
    );
    talk.try_bytes("60 KB path", &Request::get(format!("/{long}")).to_h1());
    talk.try_bytes("60 KB query", &Request::get(format!("/?q={long}")).to_h1());
    talk.try_bytes("60 KB host", &Request::get("/").host(&long).to_h1());
    talk.try_bytes("60 KB method", &Request::new(&long, "/").to_h1());
    talk.try_bytes(
        "200 KB header",
        &Request::get("/").header("x-key", "x".repeat(200 * 1024)).to_h1(),
    );

    let many = |unit: &str| unit.repeat(50 * 1024 / unit.len());
    talk.try_bytes("slashes", &Request::get(format!("/{}", many("/"))).to_h1());
    talk.try_bytes("segments", &Request::get(format!("/{}", many("a/"))).to_h1());
    talk.try_bytes("parameters", &Request::get(format!("/?{}", many("q&"))).to_h1());
    talk.try_bytes("cookies", &Request::get("/").header("cookie", many("s;")).to_h1());
    talk.try_bytes("members", &Request::get("/").header("baggage", many("t,")).to_h1());
    talk.try_bytes(
        "a regular expression's worst",
        &Request::get("/never").header("x-never", many("ab")).to_h1(),
    );
    talk.end();
}

#[test]
fn absences_and_odd_forms() {
    let mut talk = Talk::new();
    for (case, bytes) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n\r\n"),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"),
        ("absolute target", "GET http://a.test/x?y HTTP/1.1\r\nhost: b.test\r\n\r\n"),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n"),
        ("no slash", "GET x HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("empty target", "GET  HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("query alone", "GET ?q=1 HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("fragment", "GET /a#b HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("broken escape", "GET /%zz%2 HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("dots", "GET /../../etc HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("empty values", "GET / HTTP/1.1\r\nhost: a.test\r\nx-key:\r\ncookie:\r\nbaggage:\r\n\r\n"),
        ("folded line", "GET / HTTP/1.1\r\nhost: a.test\r\nx-key: a\r\n b\r\n\r\n"),
        ("no name", "GET / HTTP/1.1\r\nhost: a.test\r\n: v\r\n\r\n"),
        ("pseudo header", "GET / HTTP/1.1\r\nhost: a.test\r\n:path: /x\r\n\r\n"),
        ("only dots in host", "GET / HTTP/1.1\r\nhost: ...\r\n\r\n"),
        ("port alone", "GET / HTTP/1.1\r\nhost: :80\r\n\r\n"),
        ("v6 host", "GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
        ("broken v6 host", "GET / HTTP/1.1\r\nhost: [::1\r\n\r\n"),
        (
            "grpc over HTTP/1",
            "POST /a/b HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/grpcx\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "upgrade",
            "GET / HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        ),
        (
            "both lengths",
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "huge length",
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ),
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    ] {
        talk.try_bytes(case, bytes.as_bytes());
        // What one request left behind must not decide the next one's fate.
        talk.kept = [None, None, None];
    }
    talk.end();
}

/// Random header blocks from a fixed seed: what no one thought of.
#[test]
fn random_requests() {
    let mut talk = Talk::new();
    let mut random = weir_integration_tests::random::Random::new(0x7765_6972);
    for n in 0..1500 {
        let mut request = Request::get([b"/".to_vec(), random.token(40)].concat());
        for _ in 0..random.below(8) {
            let names = [
                "x-key",
                "cookie",
                "baggage",
                "x-lane",
                "traceparent",
                "content-type",
                "user-agent",
            ];
            let name = names[random.below(names.len())];
            request = request.header(name, random.token(60));
        }
        talk.try_bytes(&format!("random request {n}: {request:?}"), &request.to_h1());
    }
    talk.end();
}
