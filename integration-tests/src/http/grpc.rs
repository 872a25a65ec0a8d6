//! Unary gRPC calls, with what a gRPC library hides: whether the reply was trailers-only.

use super::{H2Conn, H2Reply};

/// The reply to a unary call.
#[derive(Debug)]
pub struct GrpcReply {
    /// `grpc-status`.
    pub status: Option<u32>,
    /// `grpc-message`, percent-decoded.
    pub message: String,
    /// One HEADERS frame with END_STREAM and nothing else.
    pub trailers_only: bool,
    pub http: H2Reply,
}

impl GrpcReply {
    pub fn header(&self, name: &str) -> Option<String> {
        self.http.header(name)
    }
}

/// Calls `/<service>/<method>` with an empty message.
pub fn call(connection: &mut H2Conn, path: &str, extra: &[(&str, &str)]) -> GrpcReply {
    call_as(connection, path, "application/grpc", extra)
}

/// The same under another content type.
pub fn call_as(
    connection: &mut H2Conn,
    path: &str,
    content_type: &str,
    extra: &[(&str, &str)],
) -> GrpcReply {
    let mut headers: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"shop.test"),
        (b"content-type", content_type.as_bytes()),
        (b"te", b"trailers"),
    ];
    headers.extend(extra.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    // Length-prefixed message: not compressed, no bytes.
    let http = connection.request(&headers, Some(&[0; 5]));
    GrpcReply {
        status: http.header("grpc-status").and_then(|s| s.parse().ok()),
        message: percent_decode(&http.header("grpc-message").unwrap_or_default()),
        trailers_only: http.headers_only && http.data.is_empty() && http.blocks.len() == 1,
        http,
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
