//! A small application: on each request it may think, calls the next service through its own
//! proxy, and answers with what it saw and what the next one answered.
//!
//! HTTP/1.1 on both sides. What it forwards of a request's headers is what tests are about:
//! applications forget to. The answer is JSON, read as an [`Account`].

use crate::http::Response;
use crate::scripted::draw;
use crate::serving::{self, Serving};
use crate::upstream::{self, Seen};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// When the client of the whole chain gives up: microseconds since 1970. No proxy reads it;
/// applications that forward it tell with [`App::overtime`] what they did for nobody.
pub const CLIENT_DEADLINE: &str = "x-lab-client-deadline";

/// Requests that an application keeps; later ones are only counted.
pub const KEPT: usize = 20_000;

/// What an application does with a request. A test may change it while it runs.
#[derive(Clone, Debug)]
pub struct Manner {
    pub forward: Forward,
    /// Before the calls.
    pub think: Think,
    /// Where the calls go: the outbound listener of the own proxy. None: it answers by itself.
    pub next: Option<SocketAddr>,
    pub calls: Calls,
    /// Of the answer. A call that ended with 500 or more goes before it.
    pub status: u16,
    /// Whether [`App::seen`] is filled.
    pub records: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            forward: Forward::Everything,
            think: Think::None,
            next: None,
            calls: Calls::InTurn(1),
            status: 200,
            records: true,
        }
    }
}

/// Which headers of a request its calls carry.
#[derive(Clone, Copy, Debug)]
pub enum Forward {
    /// All that are not about the connection or the body.
    Everything,
    Only(&'static [&'static str]),
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub enum Think {
    None,
    Fixed(Duration),
    /// From nothing up to so long, drawn by the seed and the request's number.
    Random {
        seed: u64,
        most: Duration,
    },
    /// The same, but so many percent of the requests take from `long.0` to `long.1`.
    Mixed {
        seed: u64,
        most: Duration,
        percent: u64,
        long: (Duration, Duration),
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Calls {
    /// So many, each after the answer to the one before.
    InTurn(usize),
    /// So many at once.
    AtOnce(usize),
}

/// What an application saw of a request, and what became of its calls.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    pub app: String,
    pub path: String,
    /// Lines by name.
    pub headers: BTreeMap<String, Vec<String>>,
    pub next: Vec<Called>,
}

/// The answer to a call.
#[derive(Clone, Debug, Deserialize)]
pub struct Called {
    /// 0: there was none.
    pub status: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    /// Of the application that answered, or of none: then a proxy did, with [`Self::text`].
    pub account: Option<Account>,
    pub text: Option<String>,
}

impl Account {
    /// Reads an application's answer. Panics when another answered.
    pub fn of(response: &Response) -> Self {
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|e| panic!("no application's answer ({e}): {response:?}"))
    }

    /// The lines of that name, joined with a comma.
    pub fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.join(","))
    }

    /// A header as it came to the hop, where the chain taps it.
    pub fn tapped(&self, name: &str) -> Option<String> {
        self.header(&format!("x-lab-{}-{name}", self.app))
    }

    /// This application, the one that its first call reached, and so on.
    pub fn trail(&self) -> Vec<&Account> {
        std::iter::successors(Some(self), |account| account.next.first()?.account.as_ref())
            .collect()
    }
}

impl Called {
    /// The first line of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.first()?.as_str())
    }
}

/// Work that was done after the client had given up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overtime {
    pub requests: u64,
    /// Summed over the requests: from the deadline, or the arrival if that was later, until the
    /// answer was made or the connection was closed.
    pub time: Duration,
}

/// A running application; it ends with the value.
pub struct App {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _serving: Serving,
}

type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

struct Shared {
    name: String,
    manner: Mutex<Arc<Manner>>,
    arrived: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    overtime: Mutex<Overtime>,
}

impl App {
    /// Starts on a free port of the loopback interface.
    pub fn start(name: &str, manner: Manner) -> Self {
        let (listener, address) = serving::bind();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            manner: Mutex::new(Arc::new(manner)),
            arrived: AtomicUsize::new(0),
            seen: Mutex::default(),
            overtime: Mutex::default(),
        });
        let app = shared.clone();
        let serving = Serving::start(move || async move {
            let client = client();
            // Never refuses.
            let (_keep, always) = watch::channel(());
            let converse = move |socket| converse(socket, app.clone(), client.clone());
            serving::accept(listener, always, |()| false, converse).await;
        });
        Self { name: name.to_owned(), address, shared, _serving: serving }
    }

    /// From now on requests are handled so.
    pub fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(Arc::make_mut(&mut lock(&self.shared.manner)));
    }

    /// Requests that arrived so far.
    pub fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::SeqCst)
    }

    /// What was done past [`CLIENT_DEADLINE`] so far.
    pub fn overtime(&self) -> Overtime {
        *lock(&self.shared.overtime)
    }

    /// The first [`KEPT`] of those that arrived while it recorded.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps its connections.
fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

async fn converse(socket: TcpStream, app: Arc<Shared>, client: Client) {
    let service = service_fn(move |request| answer(app.clone(), client.clone(), request));
    // A connection that the test or Envoy cuts is no event of the application.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// The form of [`Account`] that is written: answers of others are put in as they are.
#[derive(Serialize)]
struct Told<'a> {
    app: &'a str,
    path: &'a str,
    headers: BTreeMap<&'a str, Vec<&'a str>>,
    next: &'a [ToldCall],
}

#[derive(Serialize)]
struct ToldCall {
    status: u16,
    headers: BTreeMap<String, Vec<String>>,
    account: Option<Box<RawValue>>,
    text: Option<String>,
}

async fn answer(
    app: Arc<Shared>,
    client: Client,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let manner = lock(&app.manner).clone();
    let number = app.arrived.fetch_add(1, Ordering::SeqCst);
    let seen = upstream::record(&request);
    if manner.records {
        let mut kept = lock(&app.seen);
        if kept.len() < KEPT {
            kept.push(seen.clone());
        }
    }
    // Lives until the answer is made, or until hyper drops this because the connection is closed.
    let _work = seen.header(CLIENT_DEADLINE).and_then(|text| Work::until(text, app.clone()));
    let (parts, body) = request.into_parts();
    // An answer before the end of an upload would cut the connection.
    let _ = body.collect().await;
    think(manner.think, number).await;
    let calls = match manner.next {
        Some(next) => call(&manner, next, &client, &seen.path, &parts.headers).await,
        None => Vec::new(),
    };
    let mut headers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, value) in &seen.headers {
        headers.entry(name.as_str()).or_default().push(value.as_str());
    }
    let told = Told { app: &app.name, path: &seen.path, headers, next: &calls };
    let body = serde_json::to_vec(&told).expect("strings and numbers");
    let mut response = hyper::Response::new(Full::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    let worst = calls.iter().map(|c| if c.status == 0 { 502 } else { c.status }).max();
    let failed = worst.filter(|status| *status >= 500);
    let status = hyper::StatusCode::from_u16(failed.unwrap_or(manner.status));
    *response.status_mut() = status.expect("the test gives a status");
    Ok(response)
}

/// A request that is being worked on for a client that will give up.
struct Work {
    app: Arc<Shared>,
    /// The deadline, or the arrival if that was later.
    from: SystemTime,
}

impl Work {
    fn until(deadline: &str, app: Arc<Shared>) -> Option<Self> {
        let deadline = UNIX_EPOCH + Duration::from_micros(deadline.parse().ok()?);
        Some(Self { app, from: deadline.max(SystemTime::now()) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Ok(time) = SystemTime::now().duration_since(self.from)
            && time >= NOTHING
        {
            let mut overtime = lock(&self.app.overtime);
            overtime.requests += 1;
            overtime.time += time;
        }
    }
}

/// A handler that ends so soon after the deadline, or after it came too late, did no work.
const NOTHING: Duration = Duration::from_millis(5);

async fn think(think: Think, number: usize) {
    match think {
        Think::None => {}
        Think::Fixed(time) => tokio::time::sleep(time).await,
        Think::Random { seed, most } => {
            let share = draw(seed, number) as f64 / u64::MAX as f64;
            tokio::time::sleep(most.mul_f64(share)).await;
        }
        Think::Mixed { seed, most, percent, long } => {
            let share = draw(seed, number) as f64 / u64::MAX as f64;
            let is_long = draw(seed ^ 1, number) % 100 < percent;
            let (from, to) = if is_long { long } else { (Duration::ZERO, most) };
            tokio::time::sleep(from + (to - from).mul_f64(share)).await;
        }
    }
}

async fn call(
    manner: &Manner,
    next: SocketAddr,
    client: &Client,
    path: &str,
    headers: &HeaderMap,
) -> Vec<ToldCall> {
    let one = || {
        let mut call = hyper::Request::new(Empty::new());
        *call.uri_mut() = format!("http://{next}{path}").parse().expect("it came as a path");
        *call.headers_mut() = forwarded(manner.forward, headers);
        call.headers_mut().insert("host", HeaderValue::from_static("shop.test"));
        let client = client.clone();
        async move { told(client.request(call).await).await }
    };
    let mut calls = Vec::new();
    match manner.calls {
        Calls::InTurn(count) => {
            for _ in 0..count {
                calls.push(one().await);
            }
        }
        Calls::AtOnce(count) => {
            let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(one())).collect();
            for task in tasks {
                calls.push(task.await.expect("a call does not panic"));
            }
        }
    }
    calls
}

/// RFC 9110, 7.6.1, and what describes a body that is not forwarded.
const OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn forwarded(forward: Forward, headers: &HeaderMap) -> HeaderMap {
    let goes = |name: &HeaderName| match forward {
        Forward::Everything => !OF_THE_CONNECTION.contains(&name.as_str()),
        Forward::Only(names) => names.contains(&name.as_str()),
        Forward::Nothing => false,
    };
    let lines = headers.iter().filter(|(name, _)| goes(name));
    lines.map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn told(answer: Result<hyper::Response<Incoming>, legacy::Error>) -> ToldCall {
    let none = |text: String| ToldCall {
        status: 0,
        headers: BTreeMap::new(),
        account: None,
        text: Some(text),
    };
    let (parts, body) = match answer {
        Ok(response) => response.into_parts(),
        Err(e) => return none(format!("{e:?}")),
    };
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return none(e.to_string()),
    };
    let mut headers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    // Any server of the lab that answers JSON with `app` in it is an application.
    let text = String::from_utf8_lossy(&body).into_owned();
    let is_account = text.starts_with(r#"{"app":"#);
    let account = is_account.then(|| RawValue::from_string(text.clone()).ok()).flatten();
    let text = account.is_none().then_some(text);
    ToldCall { status: parts.status.as_u16(), headers, account, text }
}
