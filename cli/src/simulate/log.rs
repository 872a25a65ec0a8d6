//! Lines of an access log: Envoy's and Istio's default text, and JSON.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use weir_engine::breaker::flag;
use weir_engine::color::schedule;
use weir_engine::core::ports::Nanos;

const MS: Nanos = 1_000_000;

/// A request that a proxy has logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'l> {
    pub start: Nanos,
    pub method: Cow<'l, str>,
    pub path: Cow<'l, str>,
    pub authority: Cow<'l, str>,
    /// Other headers that the log holds.
    pub headers: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    pub source: Option<IpAddr>,
    /// Until the response headers, where the log says so, and until the end.
    pub answered: Option<Nanos>,
    pub took: Nanos,
    /// 0 where no response came.
    pub status: u16,
    /// Envoy's response flags, as bits.
    pub flags: u64,
    pub details: Cow<'l, str>,
    pub grpc_status: Option<u64>,
    /// Whether an upstream was asked.
    pub is_upstreams: bool,
}

/// When a request began: all that is read of a line to put the lines in order.
pub fn start(line: &[u8]) -> Option<Nanos> {
    let line = line.trim_ascii_start();
    match line.first()? {
        b'[' => time(line.get(1..)?.split(|byte| *byte == b']').next()?),
        b'{' => {
            let fields: Start<'_> = serde_json::from_slice(line).ok()?;
            time(fields.start_time.as_bytes())
        }
        _ => None,
    }
}

#[derive(serde::Deserialize)]
struct Start<'l> {
    #[serde(borrow, alias = "timestamp", alias = "time")]
    start_time: Cow<'l, str>,
}

fn time(text: &[u8]) -> Option<Nanos> {
    schedule::parse(text).and_then(|nanos| Nanos::try_from(nanos).ok())
}

/// `wanted` are the names of headers that the policy reads: fields of that name are taken for them.
pub fn read<'l>(line: &'l str, wanted: &[String]) -> Option<Record<'l>> {
    let line = line.trim();
    if line.starts_with('{') { json(line, wanted) } else { text(line) }
}

fn text(line: &str) -> Option<Record<'_>> {
    let mut words = Words(line);
    let start = time(words.bracketed()?.as_bytes())?;
    let mut request = words.next()?.split(' ');
    let (method, path) = (request.next()?, request.next()?);
    let status = words.next()?;
    let flags = words.next()?;
    let third = words.next()?;
    // Istio has three words more here, of which the first is no number.
    let is_istio = third.parse::<u64>().is_err();
    let details = if is_istio { third } else { "" };
    if is_istio {
        // How the connection ended, why its transport failed, bytes received.
        words.skip(3)?;
    }
    // Bytes sent.
    words.skip(1)?;
    let took = words.next()?;
    let answered = words.next()?;
    let (forwarded, agent) = (words.next()?, words.next()?);
    let (id, authority, upstream) = (words.next()?, words.next()?, words.next()?);
    let mut source = last_address(forwarded);
    if is_istio {
        // Cluster, local address to the upstream, the client's local address.
        words.skip(3)?;
        source = words.next().and_then(address).or(source);
    }
    let named = [("x-forwarded-for", forwarded), ("user-agent", agent), ("x-request-id", id)];
    let is_there = |(_, value): &(&str, &str)| *value != "-";
    Some(Record {
        start,
        method: method.into(),
        path: path.into(),
        authority: there(authority).into(),
        headers: named.into_iter().filter(is_there).map(|(n, v)| (n.into(), v.into())).collect(),
        source,
        answered: answered.parse::<u64>().ok().map(|ms| ms.saturating_mul(MS)),
        took: took.parse::<u64>().ok()?.saturating_mul(MS),
        status: status.parse().ok()?,
        flags: bits(flags),
        details: there(details).into(),
        grpc_status: None,
        is_upstreams: upstream != "-",
    })
}

fn there(text: &str) -> &str {
    if text == "-" { "" } else { text }
}

/// Words with blanks between them; quotes hold several together.
struct Words<'l>(&'l str);

impl<'l> Words<'l> {
    fn bracketed(&mut self) -> Option<&'l str> {
        let (inside, rest) = self.0.strip_prefix('[')?.split_once(']')?;
        self.0 = rest;
        Some(inside)
    }

    fn next(&mut self) -> Option<&'l str> {
        let text = self.0.trim_start_matches(' ');
        if text.is_empty() {
            return None;
        }
        let (word, rest) = match text.strip_prefix('"') {
            // A quote that a client sent is written as %22 or escaped; the blank behind ends the word.
            Some(quoted) => match quoted.split_once("\" ") {
                Some((word, rest)) => (word, rest),
                None => (quoted.strip_suffix('"')?, ""),
            },
            None => text.split_once(' ').unwrap_or((text, "")),
        };
        self.0 = rest;
        Some(word)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }
}

fn json<'l>(line: &'l str, wanted: &[String]) -> Option<Record<'l>> {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    let text = |names: &[&str]| -> Option<String> {
        let value = names.iter().find_map(|name| fields.get(*name))?;
        match value {
            Value::String(text) if text != "-" => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    };
    let number = |names: &[&str]| text(names).and_then(|text| text.parse::<u64>().ok());
    let start = time(text(&["start_time", "timestamp", "time"])?.as_bytes())?;
    let own = |names: &[&str]| text(names).map(Cow::<str>::Owned).unwrap_or_default();
    let mut headers: Vec<(Cow<'l, str>, Cow<'l, str>)> = Vec::new();
    for (header, names) in [
        ("x-forwarded-for", ["x_forwarded_for", "x-forwarded-for"]),
        ("user-agent", ["user_agent", "user-agent"]),
        ("x-request-id", ["request_id", "x-request-id"]),
    ] {
        headers.extend(text(&names).map(|value| (header.into(), value.into())));
    }
    for name in wanted {
        let under = name.replace('-', "_");
        let is_new = headers.iter().all(|(known, _)| known != name);
        if let (true, Some(value)) = (is_new, text(&[name, &under])) {
            headers.push((name.clone().into(), value.into()));
        }
    }
    let upstream = fields.get("upstream_host").map(|host| host.as_str());
    let forwarded = text(&["x_forwarded_for", "x-forwarded-for"]);
    let remote = text(&["downstream_remote_address"]);
    Some(Record {
        start,
        method: text(&["method", ":method"])?.into(),
        path: text(&["path", ":path"])?.into(),
        authority: own(&["authority", ":authority"]),
        headers,
        source: remote
            .as_deref()
            .and_then(address)
            .or_else(|| forwarded.as_deref().and_then(last_address)),
        answered: number(&["upstream_service_time"]).map(|ms| ms.saturating_mul(MS)),
        took: number(&["duration"]).unwrap_or(0).saturating_mul(MS),
        status: number(&["response_code"]).and_then(|code| u16::try_from(code).ok())?,
        flags: text(&["response_flags"]).map_or(0, |flags| bits(&flags)),
        details: own(&["response_code_details"]),
        grpc_status: number(&["grpc_status_number", "grpc_status"]),
        // Without the field nobody knows, and most requests are answered by an upstream.
        is_upstreams: upstream.is_none_or(|host| host.is_some_and(|host| host != "-")),
    })
}

fn bits(flags: &str) -> u64 {
    flags.split(',').filter_map(flag).fold(0, |bits, bit| bits | bit)
}

fn address(text: &str) -> Option<IpAddr> {
    let socket = text.parse::<SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse()).ok()
}

/// What the proxy itself has added.
fn last_address(forwarded: &str) -> Option<IpAddr> {
    address(forwarded.rsplit(',').next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVOY: &str = r#"[2026-11-24T12:00:00.123Z] "POST /orders?id=1 HTTP/1.1" 503 UF,URX 10 20 1500 - "10.0.0.9, 10.0.0.1" "curl/8 (x y)" "id-1" "shop.example" "-""#;
    const ISTIO: &str = r#"[2026-11-24T12:00:00.123Z] "GET /a HTTP/2" 200 - via_upstream - "-" 0 20 15 12 "-" "curl/8" "id-2" "shop.example" "10.1.0.1:80" inbound|80|| 127.0.0.6:5000 10.1.0.1:80 10.0.0.7:4000 outbound_.80_._.shop default"#;

    #[test]
    fn envoys_default() {
        let record = read(ENVOY, &[]).unwrap();
        assert_eq!((&*record.method, &*record.path), ("POST", "/orders?id=1"));
        assert_eq!(record.start, start(ENVOY.as_bytes()).unwrap());
        assert_eq!(record.start % 1_000_000_000, 123 * MS);
        assert_eq!((record.status, record.flags), (503, (1 << 5) | (1 << 15)));
        assert_eq!((record.took, record.answered), (1500 * MS, None));
        assert_eq!(record.source, "10.0.0.1".parse().ok());
        assert_eq!(record.authority, "shop.example");
        assert!(!record.is_upstreams);
        assert_eq!(record.headers[1], ("user-agent".into(), "curl/8 (x y)".into()));
    }

    #[test]
    fn istios_default() {
        let record = read(ISTIO, &[]).unwrap();
        assert_eq!((record.status, record.flags), (200, 0));
        assert_eq!((record.took, record.answered), (15 * MS, Some(12 * MS)));
        assert_eq!(record.source, "10.0.0.7".parse().ok());
        assert_eq!(record.details, "via_upstream");
        assert!(record.is_upstreams);
        assert_eq!(record.headers.len(), 2);
    }

    #[test]
    fn json_with_headers_that_the_policy_reads() {
        let line = r#"{"start_time":"2026-11-24T12:00:00Z","method":"GET","path":"/a","authority":"h",
            "response_code":200,"response_flags":"-","duration":7,"upstream_service_time":"5","x_user":"ann",
            "downstream_remote_address":"10.0.0.7:1","upstream_host":null,"grpc_status_number":14,"x_other":"b"}"#;
        let record = read(line, &["x-user".into()]).unwrap();
        assert_eq!(record.headers, [("x-user".into(), "ann".into())]);
        assert_eq!(record.start, start(line.as_bytes()).unwrap());
        assert_eq!((record.took, record.answered), (7 * MS, Some(5 * MS)));
        assert_eq!(record.grpc_status, Some(14));
        assert!(!record.is_upstreams);
    }

    #[test]
    fn what_is_no_log_line_is_none() {
        for line in
            ["", "hello", "[x] \"GET / HTTP/1.1\" 200", "{}", "{\"start_time\":1}", "[", "{"]
        {
            assert_eq!(read(line, &[]), None, "{line}");
        }
        // Cut anywhere, a line is read or not, and nothing panics.
        for end in 0..ISTIO.len() {
            let _ = (read(&ISTIO[..end], &[]), start(&ISTIO.as_bytes()[..end]));
        }
    }
}
