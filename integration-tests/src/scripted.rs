//! An upstream whose behaviour a test switches while it runs.
//!
//! HTTP/1.1 and HTTP/2 (prior knowledge) on one port. It counts what arrives and what is in flight.

use crate::serving::{self, Serving};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

/// What a request gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// 200 with a body, or for gRPC a message and status 0 in the trailers.
    Ok,
    /// This status, with header lines.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// [`Script::Ok`] after a while.
    Slow(Duration),
    /// No answer.
    Hang,
    /// The stream is reset, or over HTTP/1.1 the connection closed, before any header.
    ResetBeforeHeaders,
    /// The same after the headers and some of the body.
    ResetMidBody,
    /// Connections are refused, and open ones closed.
    Refuse,
    /// A gRPC status in the headers, which end the stream.
    GrpcTrailersOnly(u8),
    /// A gRPC status in the trailers, after a message.
    GrpcTrailers(u8),
    /// Headers of an event stream or, for gRPC, of a call, some data, and no end.
    Endless,
    /// 101, for a request that asks for an upgrade.
    Upgrade,
    /// 503 for so many percent of the requests, drawn by a seed and the request's number, and for
    /// what is past the capacity, which also has to wait for its 503.
    Flaky { seed: u64, percent: u64, capacity: usize, busy: Duration },
}

/// A running upstream; it ends with the value.
pub struct Scripted {
    pub address: SocketAddr,
    script: watch::Sender<Script>,
    counts: Arc<Counts>,
    _serving: Serving,
}

#[derive(Default)]
struct Counts {
    seen: AtomicUsize,
    flying: Mutex<(usize, usize)>,
}

impl Counts {
    fn flying(&self, change: isize) -> (usize, usize) {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.0 = flying.0.saturating_add_signed(change);
        flying.1 = flying.1.max(flying.0);
        *flying
    }
}

impl Scripted {
    /// Starts on a free port of the loopback interface.
    pub fn start(script: Script) -> Self {
        let (script, following) = watch::channel(script);
        let (listener, address) = serving::bind();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let serving = Serving::start(move || {
            let refuses = |script: &Script| *script == Script::Refuse;
            let scripts = following.clone();
            serving::accept(listener, following, refuses, move |socket| {
                converse(socket, scripts.clone(), shared.clone())
            })
        });
        Self { address, script, counts, _serving: serving }
    }

    /// From now on requests get this.
    pub fn play(&self, script: Script) {
        self.script.send_replace(script);
    }

    /// Requests that arrived so far.
    pub fn seen(&self) -> usize {
        self.counts.seen.load(Ordering::SeqCst)
    }

    /// Requests without a complete answer now.
    pub fn flying(&self) -> usize {
        self.counts.flying(0).0
    }
}

async fn converse(
    socket: tokio::net::TcpStream,
    script: watch::Receiver<Script>,
    counts: Arc<Counts>,
) {
    let service =
        service_fn(move |request| answer(script.borrow().clone(), counts.clone(), request));
    // A connection that the test, Envoy or the script cuts is no event.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(socket), service)
        .await;
}

async fn answer(
    script: Script,
    counts: Arc<Counts>,
    request: hyper::Request<Incoming>,
) -> io::Result<hyper::Response<Body>> {
    let number = counts.seen.fetch_add(1, Ordering::SeqCst);
    let in_flight = counts.flying(1).0;
    let flying = Flying(counts);
    let content_type = request.headers().get("content-type").cloned();
    let is_grpc = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let kind = if is_grpc { "application/grpc" } else { "text/plain" };
    let grpc_status = |code: u8| {
        let mut lines = HeaderMap::new();
        lines.insert("grpc-status", HeaderValue::from(u16::from(code)));
        lines
    };
    let message = if is_grpc { Bytes::from_static(&[0; 5]) } else { Bytes::from_static(b"ok\n") };
    let mut frames = VecDeque::from([Frame::data(message.clone())]);
    let (mut status, mut end) = (200, End::Normal);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    match script {
        Script::Ok | Script::Slow(_) => {
            if let Script::Slow(time) = script {
                tokio::time::sleep(time).await;
            }
            if is_grpc {
                frames.push_back(Frame::trailers(grpc_status(0)));
            }
        }
        Script::Status(code, lines) => {
            status = code;
            for (name, value) in lines {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        Script::Flaky { seed, percent, capacity, busy } => {
            let is_over = in_flight > capacity;
            tokio::time::sleep(if is_over { busy } else { busy / 10 }).await;
            if is_over || draw(seed, number) % 100 < percent {
                status = 503;
            }
        }
        Script::Hang => std::future::pending().await,
        Script::ResetBeforeHeaders | Script::Refuse => return Err(cut()),
        Script::ResetMidBody => end = End::Cut,
        Script::GrpcTrailersOnly(code) => {
            frames.clear();
            headers.extend(grpc_status(code));
        }
        Script::GrpcTrailers(code) => frames.push_back(Frame::trailers(grpc_status(code))),
        Script::Endless => {
            end = End::Never;
            if !is_grpc {
                headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
            }
        }
        Script::Upgrade => {
            status = 101;
            frames.clear();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            tokio::spawn(async move {
                // Held open for as long as the client wants.
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    std::future::pending::<()>().await;
                    drop(upgraded);
                }
            });
        }
    }
    let mut response = hyper::Response::new(Body { frames, end, _flying: flying });
    *response.status_mut() = hyper::StatusCode::from_u16(status).map_err(io::Error::other)?;
    *response.headers_mut() = headers;
    Ok(response)
}

/// SplitMix64.
pub(crate) fn draw(seed: u64, number: usize) -> u64 {
    let mut mixed = seed.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn cut() -> io::Error {
    io::Error::other("cut by the script")
}

/// A request without a complete answer.
struct Flying(Arc<Counts>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.flying(-1);
    }
}

enum End {
    Normal,
    Cut,
    CutNow,
    Never,
}

struct Body {
    frames: VecDeque<Frame<Bytes>>,
    end: End,
    _flying: Flying,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.end {
            End::Normal => Poll::Ready(None),
            End::Never => Poll::Pending,
            // Once the frames before are on their way.
            End::Cut => {
                let waker = context.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    waker.wake();
                });
                self.end = End::CutNow;
                Poll::Pending
            }
            End::CutNow => Poll::Ready(Some(Err(cut()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && matches!(self.end, End::Normal)
    }
}
