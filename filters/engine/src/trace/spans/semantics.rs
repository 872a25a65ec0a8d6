//! What a span says of its call, by the semantic conventions of OpenTelemetry: those for HTTP spans
//! (stable) and for gRPC.

use super::span::{Kind, MAX_TEXT, Span, cut};
use crate::core::request::normal_authority;

/// Methods of RFC 9110 and RFC 5789. Whatever else a client sends is one name, not many.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Names of gRPC's status codes, by number.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The codes that are a server's fault: UNKNOWN, `DEADLINE_EXCEEDED`, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, `DATA_LOSS`.
const GRPC_SERVER_ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// Attributes that a policy cannot give: they are here already, or filters' decisions.
pub fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "http.request.method",
        "http.request.method_original",
        "http.response.status_code",
        "url.path",
        "url.scheme",
        "server.address",
        "server.port",
        "network.protocol.version",
        "rpc.system",
        "rpc.service",
        "rpc.method",
        "rpc.grpc.status_code",
        "error.type",
    ];
    NAMES.contains(&name) || name.starts_with("weir.")
}

/// A call as headers and attributes tell of it. What is empty or `None` is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    pub method: &'a [u8],
    /// With its query, which may hold secrets and is left out.
    pub path: &'a [u8],
    pub authority: &'a [u8],
    pub scheme: &'a [u8],
    /// As Envoy writes it, e.g. `HTTP/2`.
    pub protocol: &'a [u8],
    pub status: Option<u16>,
    pub grpc: Option<Grpc<'a>>,
    /// Why there was no whole answer: a word of few.
    pub failure: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Grpc<'a> {
    pub service: &'a [u8],
    pub method: &'a [u8],
    pub status: Option<i32>,
}

impl Span {
    /// Names the span and adds what the conventions ask for.
    pub fn describe(&mut self, call: &Call<'_>) {
        match &call.grpc {
            Some(grpc) => self.describe_grpc(grpc),
            None => self.describe_http(call),
        }
        self.describe_server(call.authority);
        let version = call.protocol.strip_prefix(b"HTTP/").unwrap_or_default();
        self.add_text("network.protocol.version", version);
        // A gRPC call that got no further than HTTP says so by its status.
        let status = call.status.filter(|_| call.grpc.is_none_or(|grpc| grpc.status.is_none()));
        if let Some(status) = status {
            self.add("http.response.status_code", i64::from(status));
        }
        self.describe_error(call, status);
    }

    fn describe_http(&mut self, call: &Call<'_>) {
        let known = METHODS.iter().find(|known| known.as_bytes() == call.method);
        self.name = known.unwrap_or(&"HTTP").to_string();
        self.add("http.request.method", *known.unwrap_or(&"_OTHER"));
        if known.is_none() {
            self.add_text("http.request.method_original", call.method);
        }
        self.add_text("url.path", call.path.split(|byte| *byte == b'?').next().unwrap_or_default());
        self.add_text("url.scheme", call.scheme);
    }

    fn describe_grpc(&mut self, grpc: &Grpc<'_>) {
        self.name = cut(&[grpc.service, b"/", grpc.method].concat());
        self.add("rpc.system", "grpc");
        self.add_text("rpc.service", grpc.service);
        self.add_text("rpc.method", grpc.method);
        if let Some(status) = grpc.status {
            self.add("rpc.grpc.status_code", i64::from(status));
        }
    }

    fn describe_server(&mut self, authority: &[u8]) {
        let host = normal_authority(authority);
        let bare = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
        self.add_text("server.address", bare.unwrap_or(&host));
        let port = authority.rsplit(|byte| *byte == b':').next().unwrap_or_default();
        // A host name has one colon at the most; an IPv6 literal's others are within brackets.
        let before = authority.len().saturating_sub(port.len()).saturating_sub(1);
        let before = authority.get(..before).unwrap_or_default();
        let is_port = !before.is_empty() && (!before.contains(&b':') || before.ends_with(b"]"));
        let port = std::str::from_utf8(port).ok().filter(|_| is_port);
        if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
            self.add("server.port", i64::from(port));
        }
    }

    fn describe_error(&mut self, call: &Call<'_>, http_status: Option<u16>) {
        let is_client = self.kind == Kind::Client;
        let grpc_status = call.grpc.and_then(|grpc| grpc.status);
        let kind = match (call.failure, grpc_status, http_status) {
            (Some(failure), _, _) => Some(failure.to_string()),
            (None, Some(status), _) => {
                let is_error = status != 0 && (is_client || GRPC_SERVER_ERRORS.contains(&status));
                let name = usize::try_from(status).ok().and_then(|code| GRPC_CODES.get(code));
                is_error.then(|| name.map_or_else(|| status.to_string(), |name| name.to_string()))
            }
            (None, None, Some(status)) => {
                let least = if is_client { 400 } else { 500 };
                (status >= least).then(|| status.to_string())
            }
            (None, None, None) => None,
        };
        if let Some(kind) = kind {
            self.is_error = true;
            self.add("error.type", kind.as_str());
        }
    }

    fn add_text(&mut self, name: &'static str, text: &[u8]) {
        if !text.is_empty() {
            // No more of it is copied than is kept.
            self.add(name, text.get(..MAX_TEXT.saturating_add(4)).unwrap_or(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::Value;
    use super::super::span::tests::span;
    use super::*;

    const GET: Call<'_> = Call {
        method: b"GET",
        path: b"/orders/7?token=secret",
        authority: b"Shop.Example:8443",
        scheme: b"https",
        protocol: b"HTTP/2",
        status: Some(200),
        grpc: None,
        failure: None,
    };

    const LIST: Grpc<'_> = Grpc { service: b"shop.v1.Orders", method: b"List", status: Some(0) };

    fn described(kind: Kind, call: &Call<'_>) -> Span {
        let mut span = span(1);
        span.kind = kind;
        span.describe(call);
        span
    }

    fn pairs(span: &Span) -> Vec<(&str, Value)> {
        span.attributes.iter().map(|(name, value)| (&**name, value.clone())).collect()
    }

    #[test]
    fn an_http_call() {
        let span = described(Kind::Server, &GET);
        assert_eq!((span.name.as_str(), span.is_error), ("GET", false));
        let expected = [
            ("http.request.method", "GET".into()),
            ("url.path", "/orders/7".into()),
            ("url.scheme", "https".into()),
            ("server.address", "shop.example".into()),
            ("server.port", 8443.into()),
            ("network.protocol.version", "2".into()),
            ("http.response.status_code", 200.into()),
        ];
        assert_eq!(pairs(&span), expected);
    }

    #[test]
    fn a_grpc_call() {
        let call = Call { method: b"POST", grpc: Some(LIST), ..GET };
        let span = described(Kind::Server, &call);
        assert_eq!((span.name.as_str(), span.is_error), ("shop.v1.Orders/List", false));
        let expected = [
            ("rpc.system", "grpc".into()),
            ("rpc.service", "shop.v1.Orders".into()),
            ("rpc.method", "List".into()),
            ("rpc.grpc.status_code", 0.into()),
            ("server.address", "shop.example".into()),
            ("server.port", 8443.into()),
            ("network.protocol.version", "2".into()),
        ];
        assert_eq!(pairs(&span), expected);
    }

    /// "Spans MUST have span status left unset if HTTP status code was in the 1xx, 2xx or 3xx
    /// ranges", "for HTTP status codes in the 4xx range span status MUST be left unset in case of
    /// SpanKind.SERVER", HTTP spans, Status; gRPC likewise has a table for SERVER.
    #[test]
    fn errors() {
        let http = |status| Call { status: Some(status), ..GET };
        let grpc = |status| Call { grpc: Some(Grpc { status: Some(status), ..LIST }), ..GET };
        let failed = Call { failure: Some("timeout"), status: None, ..GET };
        let unanswered =
            Call { grpc: Some(Grpc { status: None, ..LIST }), status: Some(503), ..GET };
        let cases = [
            (http(302), None, None),
            (http(404), None, Some("404")),
            (http(500), Some("500"), Some("500")),
            (Call { status: None, ..GET }, None, None),
            (failed, Some("timeout"), Some("timeout")),
            (grpc(5), None, Some("NOT_FOUND")),
            (grpc(14), Some("UNAVAILABLE"), Some("UNAVAILABLE")),
            (grpc(-3), None, Some("-3")),
            (grpc(99), None, Some("99")),
            (unanswered, Some("503"), Some("503")),
        ];
        for (call, server, client) in cases {
            for (kind, expected) in [(Kind::Server, server), (Kind::Client, client)] {
                let span = described(kind, &call);
                let expected = expected.map(Value::from);
                assert_eq!(span.attribute("error.type"), expected.as_ref(), "{call:?}");
                assert_eq!(span.is_error, expected.is_some());
            }
        }
    }

    #[test]
    fn a_client_makes_no_new_names_of_spans() {
        let span = described(Kind::Server, &Call { method: b"FROB-17", ..GET });
        assert_eq!(span.name, "HTTP");
        assert_eq!(span.attribute("http.request.method"), Some(&"_OTHER".into()));
        assert_eq!(span.attribute("http.request.method_original"), Some(&"FROB-17".into()));
    }

    #[test]
    fn addresses_and_ports() {
        for (authority, address, port) in [
            (&b"shop"[..], Some("shop"), None),
            (b"[2001:db8::1]:80", Some("2001:db8::1"), Some(80)),
            (b"[2001:db8::1]", Some("2001:db8::1"), None),
            (b"10.0.0.1:99999", Some("10.0.0.1"), None),
            (b":80", None, None),
            (b"", None, None),
        ] {
            let span = described(Kind::Server, &Call { authority, ..GET });
            assert_eq!(span.attribute("server.address"), address.map(Value::from).as_ref());
            assert_eq!(span.attribute("server.port"), port.map(Value::Int).as_ref());
        }
    }

    #[test]
    fn what_is_not_known_is_not_said_and_what_is_ours_is_known() {
        let other = Call { method: b"FROB", status: Some(500), ..GET };
        for call in [Call::default(), GET, other, Call { grpc: Some(LIST), ..GET }] {
            let span = described(Kind::Client, &call);
            for (name, value) in pairs(&span) {
                assert!(is_ours(name), "{name}");
                assert_ne!(value, Value::from(""));
            }
        }
    }

    #[test]
    fn hostile_bytes() {
        let path = [b'\xf0'; 70_000];
        let grpc = Some(Grpc { service: &path, method: &path, status: Some(i32::MIN) });
        for grpc in [None, grpc] {
            let call = Call { method: &path, path: &path, authority: &path, grpc, ..GET };
            let span = described(Kind::Client, &call);
            let texts = pairs(&span).into_iter().filter_map(|(_, value)| match value {
                Value::Text(text) => Some(text.len()),
                _ => None,
            });
            assert!(texts.chain([span.name.len()]).all(|length| length <= MAX_TEXT));
        }
    }
}
