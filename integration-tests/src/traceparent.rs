//! `traceparent` as the labs' clients send it and as hops have to write it.

use crate::http::Request;

/// A `traceparent` of version 00, to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: String,
    pub parent_id: String,
    pub flags: u8,
}

impl Traceparent {
    /// Panics on one that the W3C's Trace Context, 3.2.2, would not have.
    pub fn read(header: Option<String>) -> Self {
        let text = header.expect("a traceparent");
        let parts: Vec<_> = text.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts[..] else { panic!("{text:?}") };
        let is_hex = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|b| b != b'0');
        let is_valid =
            version == "00" && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2);
        assert!(is_valid, "{text:?}");
        Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            flags: u8::from_str_radix(flags, 16).expect("checked"),
        }
    }

    /// What client number `n` sends; no module would make it up.
    pub fn of_client(n: u64) -> Self {
        Self {
            trace_id: format!("c11e47{n:026x}"),
            parent_id: format!("c11e{:012x}", n + 1),
            flags: 1,
        }
    }

    pub fn is_of_a_client(&self) -> bool {
        self.trace_id.starts_with("c11e47")
    }

    pub fn write(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// A request of client number `n`, with a trace of its own and this id.
pub fn traced(n: u64, id: &str) -> Request {
    Request::get("/orders")
        .header("traceparent", Traceparent::of_client(n).write())
        .header("x-request-id", id)
}
