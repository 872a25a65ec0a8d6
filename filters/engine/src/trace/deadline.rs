//! The section `deadline`: the time that a request has left, read, reduced and passed on.

use weir_protos::FieldError;
use weir_protos::v1::Deadline as Source;

use super::formats::grpc_timeout;
use super::metrics::{Counts, Deadlines};
use super::propagation::{remove, replace};
use crate::core::answer::checked_name;
use crate::core::checks::duration;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::core::ports::{Attributes, Clock, Nanos};
use crate::core::request::{Direction, Request};

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;
const DAY: Nanos = 86_400 * S;

/// Envoy's own default for the timeout of a route.
const DEFAULT_ROUTE_TIMEOUT: Nanos = 15 * S;

/// A request that seems to have waited longer than this before it came here met a clock that
/// stepped; its deadline is then counted from now on.
const MOST_ELAPSED: Nanos = 60 * S;

/// See [`DeadlineRules::apply`].
const LAST: Nanos = 10 * MS;

const ROUTE_TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";

#[derive(Debug)]
pub struct DeadlineRules {
    header: String,
    default: Option<Nanos>,
    max: Nanos,
    margin: Nanos,
    route_timeout: Nanos,
}

/// What a request has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// No deadline.
    Unbounded,
    /// Until this time of the monotonic clock; `is_ours` where Envoy was told to enforce it.
    Until { at: Nanos, is_ours: bool },
    /// Nothing: it is not worth asking anybody.
    Spent,
}

/// What the request is, as far as a deadline is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// With a valid `grpc-timeout`.
    Grpc(Nanos),
    /// Without an end in sight.
    Stream,
}

impl DeadlineRules {
    #[cold]
    pub fn compile(source: &Source, path: &str) -> Result<DeadlineRules, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let header = match source.header.as_str() {
            "" => "x-weir-deadline-ms".to_string(),
            name => {
                let name = checked_name(name, &at("header"))?;
                if name == "grpc-timeout" || name.starts_with("x-envoy-") {
                    let remedy = "must be a header of its own: this one has a meaning already";
                    return Err(FieldError::value(at("header"), format_args!("{name:?}"), remedy));
                }
                name
            }
        };
        let route_timeout =
            duration(source.route_timeout.as_ref(), MS..=DAY, &at("route_timeout"))?
                .unwrap_or(DEFAULT_ROUTE_TIMEOUT);
        Ok(DeadlineRules {
            header,
            default: duration(source.default.as_ref(), MS..=DAY, &at("default"))?,
            max: duration(source.max.as_ref(), MS..=DAY, &at("max"))?.unwrap_or(route_timeout),
            margin: duration(source.hop_margin.as_ref(), 0..=60 * S, &at("hop_margin"))?
                .unwrap_or(0),
            route_timeout,
        })
    }

    /// `recorded` is what the proxy knows of the request that the application is working on.
    pub fn apply<'r>(
        &'r self,
        request: &mut Request<'r>,
        is_trusted: bool,
        recorded: Option<Nanos>,
        counts: &Counts,
        ports: &mut (impl Attributes + Clock),
        edits: &mut Vec<HeaderEdit>,
    ) -> Left {
        let headers: &HeaderMap = request.headers;
        let kind = kind(request);
        let came = self.came(kind, headers, counts, edits);
        let default = self.default.filter(|_| came.is_none() && recorded.is_none());
        let Some(mut left) =
            came.or(default.filter(|_| kind != Kind::Stream)).or(recorded.map(|_| Nanos::MAX))
        else {
            return Left::Unbounded;
        };
        let now = ports.now();
        if came.is_some() && !is_trusted && left > self.max {
            left = self.max;
            counts.deadline(Deadlines::Capped);
        }
        if came.is_some() || default.is_some() {
            left = left.saturating_sub(elapsed(ports));
        }
        if let Some(recorded) = recorded {
            left = left.min(recorded.saturating_sub(now));
        }
        // The way in to the application and the way out to the next are one hop.
        if self.margin > 0 && request.direction(ports) != Direction::Inbound {
            left = left.saturating_sub(self.margin);
        }
        // To the next whole one: a hop that takes microseconds costs none. Of the last few each counts,
        // so that a request that goes round in circles comes to an end.
        let milliseconds = if left < LAST { left / MS } else { left.div_ceil(MS) };
        if kind == Kind::Stream {
            // It ends when it ends; what it passes on says the truth.
            if came.is_some() {
                replace(&self.header, milliseconds.max(1).to_string(), headers, edits);
                return Left::Until { at: now.saturating_add(left), is_ours: false };
            }
            return Left::Unbounded;
        }
        if milliseconds == 0 {
            counts.deadline(Deadlines::Spent);
            return Left::Spent;
        }
        counts.deadline(if default.is_some() { Deadlines::Default } else { Deadlines::Carried });
        replace(&self.header, milliseconds.to_string(), headers, edits);
        if matches!(kind, Kind::Grpc(_)) {
            replace("grpc-timeout", grpc_timeout::write(left), headers, edits);
        }
        let is_ours = self.tell_envoy(milliseconds, headers, edits);
        Left::Until { at: now.saturating_add(left), is_ours }
    }

    /// What the request says itself. What makes no sense is removed, and counted.
    fn came(
        &self,
        kind: Kind,
        headers: &HeaderMap,
        counts: &Counts,
        edits: &mut Vec<HeaderEdit>,
    ) -> Option<Nanos> {
        let mut broken = |name: &str| {
            counts.deadline(Deadlines::Broken);
            remove(name, headers, edits);
        };
        let mut own = None;
        let mut lines = headers.all(self.header.as_bytes());
        if let Some(line) = lines.next() {
            let value = grpc_timeout::milliseconds(line).filter(|ms| *ms > 0);
            match value.filter(|_| lines.next().is_none()) {
                Some(milliseconds) => own = Some(milliseconds.saturating_mul(MS)),
                None => broken(&self.header),
            }
        }
        match (own, kind) {
            (own, Kind::Grpc(time)) => Some(own.unwrap_or(time).min(time)),
            (own, Kind::Stream) if headers.get(b"grpc-timeout").is_some() => {
                broken("grpc-timeout");
                own
            }
            (own, _) => own,
        }
    }

    /// Writes Envoy's timeout where the deadline comes first. The header could lengthen a route's
    /// own timeout, and 0 would remove it.
    fn tell_envoy(
        &self,
        milliseconds: u64,
        headers: &HeaderMap,
        edits: &mut Vec<HeaderEdit>,
    ) -> bool {
        let there = headers.get(ROUTE_TIMEOUT.as_bytes()).and_then(grpc_timeout::milliseconds);
        let is_earlier = milliseconds < self.route_timeout / MS
            && there.is_none_or(|there| there == 0 || milliseconds < there);
        if is_earlier {
            replace(ROUTE_TIMEOUT, milliseconds.to_string(), headers, edits);
        }
        is_earlier
    }
}

/// Upgrades, CONNECT, event streams, and gRPC calls that set no time themselves have no end in
/// sight.
fn kind(request: &mut Request<'_>) -> Kind {
    let headers = request.headers;
    if request.is_grpc() {
        let mut lines = headers.all(b"grpc-timeout");
        let time = lines.next().and_then(grpc_timeout::parse).filter(|time| *time > 0);
        return time.filter(|_| lines.next().is_none()).map_or(Kind::Stream, Kind::Grpc);
    }
    let mut accepted = headers.all(b"accept").flat_map(|line| line.split(|byte| *byte == b','));
    let is_events = accepted.any(|kind| {
        let (kind, events) = (kind.trim_ascii_start(), b"text/event-stream");
        kind.get(..events.len()).is_some_and(|start| start.eq_ignore_ascii_case(events))
    });
    let is_tunnel = request.method == b"CONNECT" || headers.get(b"upgrade").is_some();
    if is_events || is_tunnel { Kind::Stream } else { Kind::Plain }
}

/// How long ago Envoy got the request: other filters may have held it. By the wall clock, since
/// that is what Envoy stamps requests with; monotonic from then on.
fn elapsed(ports: &mut (impl Attributes + Clock)) -> Nanos {
    let Some(began) = ports.integer(b"request\0time") else { return 0 };
    let elapsed = ports.wall().saturating_sub(began);
    if elapsed > MOST_ELAPSED { 0 } else { elapsed }
}
