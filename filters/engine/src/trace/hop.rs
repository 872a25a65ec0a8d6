//! The section `spans` at work: this hop's span, from the request to the log.

use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::Spans as Source;

use super::context::{SpanContext, SpanId};
use super::scoring::Scoring;
use super::spans::{self, ExportSettings, Grpc, Kind, Span};
use super::worker::Worker;
use crate::core::policy::Common;
use crate::core::ports::{Attributes, Clock};
use crate::core::request::{Direction, Request};

/// Response flags of Envoy's: the client went, or reset its stream.
const CLIENT_GONE: u64 = (1 << 14) | (1 << 28);
/// The upstream reset, closed, or broke the protocol, maybe after its headers.
const UPSTREAM_RESET: u64 = (1 << 4) | (1 << 6) | (1 << 23);

/// What other filters of weir's say of the request, and the attributes that say it on.
const DECISIONS: [(&[u8], &str); 2] =
    [(b"weir.rate_limit", "weir.rate_limit"), (b"weir.circuit_breaker", "weir.circuit_breaker")];

#[derive(Debug)]
pub struct SpanRules {
    settings: Rc<ExportSettings>,
    /// Whose spans these are: the queue outlives an edit of the policy.
    pub(super) owner: Rc<str>,
    pub(super) policy: Rc<str>,
}

/// A span in the making. Made for sampled requests alone: it copies what of the request is gone when
/// the stream is logged.
#[derive(Debug)]
pub struct Hop {
    owner: Rc<str>,
    span: Span,
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Vec<u8>,
    scheme: Vec<u8>,
    grpc: Option<(Vec<u8>, Vec<u8>)>,
    open: Option<Open>,
}

/// The score of a trace that was not sampled, which the status may raise.
#[derive(Debug)]
pub(super) struct Open {
    pub scoring: Rc<Scoring>,
    pub score: i32,
    pub randomness: u64,
}

/// Where a hop stands in its trace.
pub(super) struct Place<'a> {
    pub context: SpanContext,
    pub parent: Option<SpanId>,
    pub tracestate: Option<String>,
    /// What became of the context that came, in a word.
    pub fate: &'a str,
}

impl SpanRules {
    #[cold]
    pub fn compile(source: &Source, common: &Common, path: &str) -> Result<SpanRules, FieldError> {
        Ok(SpanRules {
            settings: Rc::new(ExportSettings::compile(source, &common.color_header, path)?),
            owner: common.identity.state_prefix.as_str().into(),
            policy: common.identity.policy.as_str().into(),
        })
    }

    pub fn settings(&self) -> &Rc<ExportSettings> {
        &self.settings
    }

    pub(super) fn begin<'r>(
        &'r self,
        request: &mut Request<'r>,
        place: Place<'_>,
        open: Option<Open>,
        ports: &mut (impl Attributes + Clock),
    ) -> Hop {
        let kind = self.settings.kind.unwrap_or_else(|| match request.direction(ports) {
            Direction::Outbound => Kind::Client,
            Direction::Inbound | Direction::Unspecified => Kind::Server,
        });
        let start = ports.wall();
        let mut span = Span::new(place.context, place.parent, kind, start, start);
        if let Some(tracestate) = &place.tracestate {
            span.set_tracestate(tracestate.as_bytes());
        }
        span.add("weir.context", place.fate);
        self.settings.add_attributes(&mut span, request, ports);
        let headers = request.headers;
        let copy = |name: &[u8]| headers.get(name).unwrap_or_default().to_vec();
        let grpc = request.grpc_method();
        Hop {
            owner: Rc::clone(&self.owner),
            span,
            method: request.method.to_vec(),
            path: request.path.to_vec(),
            authority: copy(b":authority"),
            scheme: copy(b":scheme"),
            grpc: grpc.map(|(service, method)| (service.to_vec(), method.to_vec())),
            open,
        }
    }
}

impl Hop {
    /// The stream is over.
    pub(super) fn end(
        mut self,
        status: Option<u16>,
        worker: &mut Worker,
        ports: &mut (impl Attributes + Clock),
    ) {
        let code = || u16::try_from(ports.integer(b"response\0code")?).ok();
        let status = status.or_else(code);
        if let Some(open) = &self.open {
            let is_kept = |status| open.scoring.is_kept(open.score, status, open.randomness);
            if !status.is_some_and(is_kept) {
                return;
            }
            // The trace was not sampled, this span is: by what came of it.
            self.span.context.sampled = true;
        }
        self.span.end = ports.wall().max(self.span.start);
        let flags = ports.integer(b"response\0flags").unwrap_or(0);
        let failure = match flags {
            flags if flags & CLIENT_GONE != 0 => Some("cancelled"),
            flags if flags & UPSTREAM_RESET != 0 => Some("upstream_reset"),
            _ => None,
        };
        let grpc_status = self.grpc.as_ref().and_then(|_| {
            let status = ports.integer(b"response\0grpc_status")?;
            i32::try_from(status).ok()
        });
        let grpc = self.grpc.as_ref();
        self.span.describe(&spans::Call {
            method: &self.method,
            path: &self.path,
            authority: &self.authority,
            scheme: &self.scheme,
            protocol: b"",
            status,
            grpc: grpc.map(|(service, method)| Grpc { service, method, status: grpc_status }),
            failure,
        });
        let attempts = ports.integer(b"upstream\0request_attempt_count").unwrap_or(0);
        if attempts > 1 {
            let resent = i64::try_from(attempts.saturating_sub(1)).unwrap_or(i64::MAX);
            self.span.add("http.request.resend_count", resent);
        }
        for (path, name) in DECISIONS {
            if let Some(said) = ports.attribute(path) {
                self.span.add(name, &said[..]);
            }
        }
        let now = ports.now();
        worker.push(&self.owner, self.span, now);
    }
}
