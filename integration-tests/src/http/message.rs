//! Requests and responses as bytes: nothing is checked, so that hostile ones can be written.

use serde_json::Value;

/// A request. Names and values go out exactly as they are.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request without any header; `host` comes with [`Request::get`].
    pub fn bare(method: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.as_ref().to_vec(),
            target: target.as_ref().to_vec(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn new(method: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::bare(method, target).header("host", "shop.test")
    }

    pub fn get(target: impl AsRef<[u8]>) -> Self {
        Self::new("GET", target)
    }

    /// Adds a line; a name given twice makes two lines.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let line = (name.as_ref().to_vec(), value.as_ref().to_vec());
        self.headers.push(line);
        self
    }

    /// Sets `host` anew.
    pub fn host(mut self, host: impl AsRef<[u8]>) -> Self {
        self.headers.retain(|(name, _)| name != b"host");
        self.header("host", host)
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// HTTP/1.1 on the wire.
    pub fn to_h1(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        for part in [self.method.as_slice(), b" ", &self.target, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
        for (name, value) in &self.headers {
            for part in [name.as_slice(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        if let Some(body) = &self.body {
            out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out
    }
}

/// A response as the client got it; header names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first line of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        self.lines(name).into_iter().next()
    }

    /// All lines of that name.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| String::from_utf8_lossy(v).into_owned())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics with the body when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("the body is not JSON: {e}: {:?}", self.text()))
    }

    /// What the echo upstream received under this header name, lines joined with a comma.
    pub fn echoed(&self, name: &str) -> Option<String> {
        let seen = self.json();
        let lines = seen["headers"][name].as_array()?;
        let lines: Vec<_> = lines.iter().filter_map(Value::as_str).collect();
        Some(lines.join(","))
    }
}
