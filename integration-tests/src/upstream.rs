//! An upstream that says what it saw and answers as the request asks it to.
//!
//! HTTP/1.1 and HTTP/2 (prior knowledge) on one port. The answer is JSON: `upstream`, `method`,
//! `path`, `version`, `headers` (a list of lines by name). Request headers steer it:
//! `x-test-status`, `x-test-delay-ms`, `x-test-answer-header: name=value` (repeatable). A path
//! `/redirect/x` is answered with 302 to `/x`. gRPC calls get an empty message and status 0.

use crate::serving::{self, Serving};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Lines in order; bytes above ASCII as Latin-1.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter();
        Some(lines.find(|(n, _)| n == name)?.1.as_str())
    }
}

/// A running upstream; it ends with the value.
pub struct Upstream {
    pub name: String,
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _serving: Serving,
}

impl Upstream {
    /// Starts on a free port of the loopback interface.
    pub fn start(name: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (listener, address) = serving::bind();
        let (shared, label) = (seen.clone(), name.to_owned());
        let serving = Serving::start(move || async move {
            // Never refuses.
            let (_keep, always) = watch::channel(());
            let converse = move |socket| converse(socket, label.clone(), shared.clone());
            serving::accept(listener, always, |()| false, converse).await;
        });
        Self { name: name.to_owned(), address, seen, _serving: serving }
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// How many requests arrived whose path starts so.
    pub fn count(&self, path_prefix: &str) -> usize {
        let seen = lock(&self.seen);
        seen.iter().filter(|s| s.path.starts_with(path_prefix)).count()
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(|e| e.into_inner())
}

async fn converse(socket: TcpStream, name: String, seen: Arc<Mutex<Vec<Seen>>>) {
    let service = service_fn(move |request| answer(name.clone(), seen.clone(), request));
    // A connection that the test or Envoy cuts is no event of the upstream.
    let mut server = auto::Builder::new(TokioExecutor::new());
    // More than a client sends, less than what a hostile one tries.
    server.http1().max_headers(6000);
    let _ = server.serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(
    name: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Infallible> {
    let record = record(&request);
    lock(&seen).push(record.clone());
    if let Some(delay) = record.header("x-test-delay-ms") {
        let delay = delay.parse().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let content_type = record.header("content-type").unwrap_or_default();
    if content_type.starts_with("application/grpc") && !content_type.contains("web") {
        return Ok(grpc_ok(content_type));
    }
    let echo = json!({
        "upstream": name,
        "method": record.method,
        "path": record.path,
        "version": format!("{:?}", request.version()),
        "headers": by_name(&record.headers),
    });
    let mut response = hyper::Response::new(Body::text(echo.to_string()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (_, line) in record.headers.iter().filter(|(n, _)| n == "x-test-answer-header") {
        if let Some((n, v)) = line.split_once('=') {
            let name: HeaderName = n.parse().expect("a header name");
            headers.append(name, v.parse().expect("a header value"));
        }
    }
    if let Some(target) = record.path.strip_prefix("/redirect/") {
        let location = format!("http://shop.test/{target}");
        headers.insert("location", location.parse().expect("a header value"));
        *response.status_mut() = hyper::StatusCode::FOUND;
    }
    if let Some(status) = record.header("x-test-status") {
        *response.status_mut() = status.parse().expect("x-test-status: a status");
    }
    Ok(response)
}

pub(crate) fn record(request: &hyper::Request<Incoming>) -> Seen {
    let latin1 = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect::<String>();
    let mut headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str().to_owned(), latin1(v.as_bytes())))
        .collect();
    // HTTP/2 has no `host` line; the echo calls both by one name.
    if let Some(authority) = request.uri().authority() {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    let path = request.uri().path_and_query();
    Seen {
        method: request.method().to_string(),
        path: path.map(|p| p.to_string()).unwrap_or_default(),
        headers,
    }
}

fn by_name(headers: &[(String, String)]) -> Value {
    let mut map = serde_json::Map::new();
    for (name, value) in headers {
        let lines = map.entry(name.clone()).or_insert_with(|| json!([]));
        lines.as_array_mut().expect("made as a list").push(json!(value));
    }
    Value::Object(map)
}

fn grpc_ok(content_type: &str) -> hyper::Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = vec![Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let mut response = hyper::Response::new(Body::frames(frames));
    let content_type = content_type.parse().expect("it came as a header value");
    response.headers_mut().insert("content-type", content_type);
    response
}

/// A body whose frames are all there from the start.
struct Body(VecDeque<Frame<Bytes>>);

impl Body {
    fn text(text: String) -> Self {
        Self(VecDeque::from([Frame::data(Bytes::from(text))]))
    }

    fn frames(frames: impl Into<VecDeque<Frame<Bytes>>>) -> Self {
        Self(frames.into())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.0.iter().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|d| d.len() as u64).sum())
    }
}
