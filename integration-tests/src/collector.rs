//! A collector of spans: OTLP over gRPC on one port, over HTTP (binary protobuf) on another, with
//! OpenTelemetry's own messages and service. A test tells it, while it runs, to be slow, to fail
//! or to be gone.

use crate::serving::{self, Serving};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::codegen::Service;

/// Spans that are kept by default; later ones are only counted.
const KEPT: usize = 200_000;
/// Where OTLP over HTTP goes by default (OTLP 1.9, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";

/// What an export gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Collects {
    Ok,
    /// [`Collects::Ok`] after a while.
    Slow(Duration),
    /// Connections are refused, and open ones closed.
    Refuse,
    /// UNAVAILABLE, or 503.
    Error,
}

/// By which way an export came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Over {
    Grpc,
    Http,
}

/// A span that arrived, and what came with it.
#[derive(Clone, Debug)]
pub struct Received {
    pub span: Span,
    pub over: Over,
    /// Attributes of the resource, as text.
    pub resource: BTreeMap<String, String>,
    /// Name of the instrumentation scope.
    pub scope: String,
    /// Headers of the export: over gRPC, its metadata.
    pub headers: Arc<Vec<(String, String)>>,
}

impl Received {
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// None: the span is a root.
    pub fn parent_id(&self) -> Option<String> {
        (!self.span.parent_span_id.is_empty()).then(|| hex(&self.span.parent_span_id))
    }

    /// Attributes of the span, as text.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        texts(&self.span.attributes)
    }

    pub fn attribute(&self, name: &str) -> Option<String> {
        self.attributes().remove(name)
    }

    /// The first header of that name of the export.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.iter().find(|(n, _)| n == name)?.1.as_str())
    }
}

/// A running collector; it ends with the value.
pub struct Collector {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    does: watch::Sender<Collects>,
    store: Arc<Store>,
    _serving: Serving,
}

#[derive(Default)]
struct Store {
    room: usize,
    exports: AtomicUsize,
    arrived: AtomicUsize,
    spans: Mutex<Vec<Received>>,
    complaints: Mutex<Vec<String>>,
}

impl Collector {
    /// Starts on free ports of the loopback interface.
    pub fn start() -> Self {
        Self::keeping(KEPT)
    }

    /// Counts spans and keeps none, for a benchmark.
    pub fn counting() -> Self {
        Self::keeping(0)
    }

    fn keeping(room: usize) -> Self {
        let (does, following) = watch::channel(Collects::Ok);
        let ((on_grpc, grpc), (on_http, http)) = (serving::bind(), serving::bind());
        let store = Arc::new(Store { room, ..Store::default() });
        let shared = store.clone();
        let serving = Serving::start(move || async move {
            let refuses = |does: &Collects| *does == Collects::Refuse;
            let talk = |over| {
                let (store, does) = (shared.clone(), following.clone());
                move |socket| converse(socket, over, store.clone(), does.clone())
            };
            tokio::join!(
                serving::accept(on_grpc, following.clone(), refuses, talk(Over::Grpc)),
                serving::accept(on_http, following.clone(), refuses, talk(Over::Http)),
            );
        });
        Self { grpc, http, does, store, _serving: serving }
    }

    /// From now on exports get this.
    pub fn play(&self, does: Collects) {
        self.does.send_replace(does);
    }

    /// The spans that were taken so far, in the order of their arrival.
    pub fn spans(&self) -> Vec<Received> {
        lock(&self.store.spans).clone()
    }

    /// How many spans were taken, kept or not.
    pub fn arrived(&self) -> usize {
        self.store.arrived.load(Ordering::SeqCst)
    }

    /// How many exports came, whatever they got.
    pub fn exports(&self) -> usize {
        self.store.exports.load(Ordering::SeqCst)
    }

    /// What came and was no export.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.store.complaints).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(
    socket: TcpStream,
    over: Over,
    store: Arc<Store>,
    does: watch::Receiver<Collects>,
) {
    let io = TokioIo::new(socket);
    let server = auto::Builder::new(TokioExecutor::new());
    // A connection that the test or Envoy cuts is no event of the collector.
    let _ = match over {
        Over::Grpc => {
            let grpc = TraceServiceServer::new(Grpc { store, does });
            let service = service_fn(move |request| grpc.clone().call(request));
            server.http2_only().serve_connection(io, service).await
        }
        Over::Http => {
            let service = service_fn(move |request| post(store.clone(), does.clone(), request));
            server.serve_connection(io, service).await
        }
    };
}

/// False: the export fails.
async fn takes(store: &Store, does: watch::Receiver<Collects>) -> bool {
    store.exports.fetch_add(1, Ordering::SeqCst);
    let does = *does.borrow();
    match does {
        Collects::Ok => true,
        Collects::Slow(time) => {
            tokio::time::sleep(time).await;
            true
        }
        Collects::Refuse | Collects::Error => false,
    }
}

struct Grpc {
    store: Arc<Store>,
    does: watch::Receiver<Collects>,
}

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        if !takes(&self.store, self.does.clone()).await {
            return Err(tonic::Status::unavailable("the collector was told to fail"));
        }
        let (metadata, _, export) = request.into_parts();
        self.store.take(export, &metadata.into_headers(), Over::Grpc);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn post(
    store: Arc<Store>,
    does: watch::Receiver<Collects>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_export = parts.method == "POST" && parts.uri.path() == PATH && kind == Some(PROTOBUF);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return Ok(store.complain(format!("a body that ends early: {e}"))),
    };
    if !is_export {
        return Ok(store.complain(format!("{} {} {kind:?}", parts.method, parts.uri)));
    }
    let mut response = hyper::Response::new(Full::default());
    if !takes(&store, does).await {
        *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(export) => store.take(export, &parts.headers, Over::Http),
        Err(e) => return Ok(store.complain(format!("not an export: {e}"))),
    }
    // An empty message has no bytes.
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(PROTOBUF));
    Ok(response)
}

impl Store {
    fn take(&self, export: ExportTraceServiceRequest, headers: &HeaderMap, over: Over) {
        let line = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = Arc::new(headers.iter().map(line).collect::<Vec<_>>());
        for of_resource in export.resource_spans {
            let resource = texts(&of_resource.resource.unwrap_or_default().attributes);
            for of_scope in of_resource.scope_spans {
                let scope = of_scope.scope.unwrap_or_default().name;
                self.arrived.fetch_add(of_scope.spans.len(), Ordering::SeqCst);
                let mut kept = lock(&self.spans);
                let room = self.room.saturating_sub(kept.len());
                kept.extend(of_scope.spans.into_iter().take(room).map(|span| Received {
                    span,
                    over,
                    resource: resource.clone(),
                    scope: scope.clone(),
                    headers: headers.clone(),
                }));
            }
        }
    }

    fn complain(&self, complaint: String) -> hyper::Response<Full<Bytes>> {
        let mut response = hyper::Response::new(Full::from(complaint.clone()));
        *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
        lock(&self.complaints).push(complaint);
        response
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(is)) => is.to_string(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::ArrayValue(array)) => {
            array.values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
