//! Engines that keep limits: servers of `envoy.service.ratelimit.v3` over gRPC, which answer as Limitador
//! does, over its own crate, or as envoyproxy/ratelimit does, over a real Redis. A test tells one, while it
//! runs, to be slow, to fail, to talk nonsense or to be gone.

mod keeper;
pub mod messages;
mod redis;

use crate::serving::{self, Serving};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keeper::Keeper;
pub use keeper::Keeps;
use messages::{RateLimitRequest, RateLimitResponse};
use prost::Message;
pub use redis::Redis;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What a call gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    Rightly,
    /// Rightly, after a while.
    Slowly(Duration),
    /// OK, whatever was asked, and far more left than was.
    TooMuch,
    /// These bytes in place of a message.
    Nonsense(Vec<u8>),
    /// UNAVAILABLE, as Limitador does without its storage.
    Error,
    /// Connections are refused, and open ones closed.
    Gone,
}

/// A call as it was decided.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    pub at: Instant,
    pub hits: u32,
    pub is_over: bool,
}

/// A running engine; it ends with the value.
pub struct Rls {
    pub address: SocketAddr,
    answers: watch::Sender<Answers>,
    shared: Arc<Shared>,
    _serving: Serving,
}

struct Shared {
    keeper: Keeper,
    answers: watch::Receiver<Answers>,
    log: Mutex<Vec<(String, Decided)>>,
}

impl Rls {
    /// Every descriptor has this limit in each window of so many seconds.
    pub fn start(keeps: Keeps, limit: u32, seconds: u32) -> Rls {
        let (answers, following) = watch::channel(Answers::Rightly);
        let (listener, address) = serving::bind();
        let keeper = Keeper::new(keeps, limit, seconds);
        let log = Mutex::default();
        let shared = Arc::new(Shared { keeper, answers: following.clone(), log });
        let serves = shared.clone();
        let serving = Serving::start(move || async move {
            let is_gone = |answers: &Answers| *answers == Answers::Gone;
            serving::accept(listener, following, is_gone, |socket| {
                let shared = serves.clone();
                async move {
                    let service = service_fn(move |request| call(shared.clone(), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that breaks off is the client's to notice.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                }
            })
            .await;
        });
        Rls { address, answers, shared, _serving: serving }
    }

    /// From now on calls get this.
    pub fn play(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// Calls that were decided, with the values of their descriptors.
    pub fn log(&self) -> Vec<(String, Decided)> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn calls(&self) -> u64 {
        self.log().len() as u64
    }

    /// Hits of all calls that were granted, for descriptors that hold this value.
    pub fn granted(&self, value: &str) -> u64 {
        let log = self.log();
        let granted = log.iter().filter(|(known, it)| known.contains(value) && !it.is_over);
        granted.map(|(_, it)| u64::from(it.hits)).sum()
    }
}

impl Shared {
    async fn decide(&self, request: &RateLimitRequest) -> Option<RateLimitResponse> {
        let at = Instant::now();
        let response = match &*self.answers.borrow() {
            Answers::TooMuch => Some(keeper::too_much()),
            _ => None,
        };
        let response = match response {
            Some(response) => response,
            None => self.keeper.decide(request).await?,
        };
        let is_over = response.overall_code == messages::OVER_LIMIT;
        let decided = Decided { at, hits: request.hits_addend, is_over };
        let entries = request.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
        let name = entries.map(|entry| format!("{}={}", entry.key, entry.value));
        let name = name.collect::<Vec<_>>().join(",");
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((name, decided));
        Some(response)
    }
}

type Body = StreamBody<frames::Frames>;

async fn call(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Infallible> {
    let is_ours = request.uri().path() == PATH;
    let Ok(body) = request.into_body().collect().await else { return Ok(reply(None, "13")) };
    let body = body.to_bytes();
    // gRPC's frame: a flag, a length of four bytes, the message.
    let request = body.get(5..).and_then(|message| RateLimitRequest::decode(message).ok());
    let Some(request) = request.filter(|_| is_ours) else { return Ok(reply(None, "12")) };
    let answers = shared.answers.borrow().clone();
    if let Answers::Slowly(time) = answers {
        tokio::time::sleep(time).await;
    }
    Ok(match answers {
        Answers::Error => reply(None, "14"),
        Answers::Nonsense(bytes) => reply(Some(bytes), "0"),
        _ => match shared.decide(&request).await {
            Some(response) => reply(Some(response.encode_to_vec()), "0"),
            None => reply(None, "14"),
        },
    })
}

fn reply(message: Option<Vec<u8>>, status: &'static str) -> hyper::Response<Body> {
    let mut all = Vec::new();
    if let Some(message) = message {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let framed = [&[0], &length.to_be_bytes()[..], &message].concat();
        all.push(Ok(Frame::data(Bytes::from(framed))));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", hyper::header::HeaderValue::from_static(status));
    all.push(Ok(Frame::trailers(trailers)));
    let mut response = hyper::Response::new(StreamBody::new(frames::Frames::new(all)));
    let kind = hyper::header::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// A body that is all there.
mod frames {
    use super::{Bytes, Frame, Infallible};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    type Item = Result<Frame<Bytes>, Infallible>;

    pub struct Frames(std::vec::IntoIter<Item>);

    impl Frames {
        pub fn new(frames: Vec<Item>) -> Frames {
            Frames(frames.into_iter())
        }
    }

    impl futures_core::Stream for Frames {
        type Item = Item;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Item>> {
            Poll::Ready(self.0.next())
        }
    }
}
