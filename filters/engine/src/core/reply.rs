//! Answers that the proxy gives by itself.

use super::headers::HeaderMap;
use super::request::Request;

/// A local reply. Every one says why, in a form for each reader: a reason code and rule for
/// machines, a sentence for people, a detail for the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalReply {
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`; Envoy turns blanks into `_`, so it has none.
    pub details: String,
    pub headers: Vec<(String, String)>,
    /// Envoy makes it the `grpc-message` of a gRPC call.
    pub body: Vec<u8>,
    /// Set for gRPC calls: left to itself Envoy would answer 14 to every 429.
    pub grpc_status: Option<i32>,
}

/// What goes into the body of a refusal: RFC 9457, "Problem Details for HTTP APIs".
pub struct Problem<'a> {
    pub kind: &'a str,
    pub title: &'a str,
    pub status: u16,
    pub detail: &'a str,
    pub reason: &'a str,
    /// Rules, as the `violated-policies` of draft-ietf-httpapi-ratelimit-headers-10 section 4.
    pub violated: &'a [&'a str],
    pub trace_id: Option<&'a str>,
}

impl Problem<'_> {
    /// None of the texts needs escaping but `detail`, which holds no quotes: they are our own
    /// sentences, rule ids and hexadecimal digits.
    pub fn to_json(&self) -> Vec<u8> {
        self.to_json_with(&[])
    }

    /// With more members, whose values need no escaping either.
    pub fn to_json_with(&self, more: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut json = format!(
            r#"{{"type":"{}","title":"{}","status":{},"detail":"{}","reason":"{}""#,
            self.kind, self.title, self.status, self.detail, self.reason
        );
        if !self.violated.is_empty() {
            json.push_str(r#","violated-policies":[""#);
            json.push_str(&self.violated.join(r#"",""#));
            json.push_str(r#""]"#);
        }
        for (name, value) in [("trace_id", self.trace_id)].iter().chain(more) {
            if let Some(value) = value {
                json.push_str(&format!(r#","{name}":"{value}""#));
            }
        }
        json.push_str("}\n");
        json.into_bytes()
    }
}

/// The trace id of a request that carries one valid `traceparent`: 32 lower-case hexadecimal
/// digits, not all zero (W3C Trace Context section 3.2.2.3).
pub fn trace_id<'r>(request: &Request<'r>) -> Option<&'r str> {
    let headers: &'r HeaderMap = request.headers;
    let mut lines = headers.all(b"traceparent");
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let line = line.trim_ascii();
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = line.get(3..35)?;
    let separated = line.get(2) == Some(&b'-') && line.get(35) == Some(&b'-');
    if !separated || !hex(line.get(..2)?) || !hex(id) || id.iter().all(|byte| *byte == b'0') {
        return None;
    }
    std::str::from_utf8(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_are_taken_only_when_valid() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let found = |lines: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| ("traceparent", *line)).collect();
            let headers = HeaderMap::from_pairs(&pairs);
            trace_id(&Request::new(&headers)).map(str::to_string)
        };
        let valid = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(found(&[&valid]).as_deref(), Some(id));
        assert_eq!(found(&[&valid, &valid]), None);
        assert_eq!(found(&[&valid.to_uppercase()]), None);
        assert_eq!(found(&[&valid.replace(id, &"0".repeat(32))]), None);
        assert_eq!(found(&["00-\"}evil"]), None);
        assert_eq!(found(&[]), None);
    }
}
