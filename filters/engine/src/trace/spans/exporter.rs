//! Spans of one worker on their way to the collector.
//!
//! A span is never worth a request: it waits in a bounded queue, the tick sends it, and whatever
//! goes wrong costs spans alone. One call at most is in flight, so that a collector that does not
//! answer has one call of this worker open, not hundreds.

use std::collections::VecDeque;
use std::rc::Rc;

use prost::Message as _;

use super::otlp::{METHOD, SERVICE, Span as Encoded, export};
use super::settings::{ExportSettings, Protocol};
use super::span::Span;
use crate::core::ports::{Calls, GrpcCall, HttpCall, Metrics, Nanos, labels};

/// Half of what gRPC servers take by default, collectors too: 4 MB.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// Envoy tells of a timeout on its own. Past this it will not: the call belongs to a VM or cluster
/// that is gone.
const GRACE: Nanos = 1_000_000_000;

#[derive(Debug)]
struct InFlight {
    token: u32,
    spans: u64,
    sent_at: Nanos,
    /// How long after `sent_at` it counts as failed.
    patience: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    exported: u64,
    /// The oldest of a full queue.
    dropped: u64,
    /// Of batches that were refused, failed, or had no answer. They are not sent again.
    failed: u64,
}

#[derive(Debug)]
pub struct Exporter {
    settings: Rc<ExportSettings>,
    /// With the time since when each waits.
    queue: VecDeque<(Nanos, Span)>,
    in_flight: Option<InFlight>,
    counts: Counts,
}

impl Exporter {
    pub fn new(settings: Rc<ExportSettings>) -> Exporter {
        let queue = VecDeque::new();
        Exporter { settings, queue, in_flight: None, counts: Counts::default() }
    }

    /// Takes over a policy edit. What waits goes by the new settings.
    pub fn adopt(&mut self, settings: Rc<ExportSettings>) {
        self.settings = settings;
        while self.queue.len() > self.settings.max_queue {
            self.drop_oldest();
        }
    }

    /// A span that has ended.
    pub fn push(&mut self, span: Span, now: Nanos) {
        if self.queue.len() >= self.settings.max_queue {
            self.drop_oldest();
        }
        self.queue.push_back((now, span));
    }

    /// Whether nothing waits, is on its way, or is to be counted.
    pub fn is_idle(&self) -> bool {
        let Counts { exported, dropped, failed } = self.counts;
        self.queue.is_empty() && self.in_flight.is_none() && exported | dropped | failed == 0
    }

    /// Sends a batch where one is due. To be called by the tick.
    pub fn tick(&mut self, now: Nanos, calls: &mut impl Calls) {
        // A clock that stepped back leaves no way to tell how long something has waited.
        let is_over =
            |since: Nanos, wait: Nanos| now.checked_sub(since).is_none_or(|waited| waited >= wait);
        if let Some(call) = &self.in_flight {
            if !is_over(call.sent_at, call.patience) {
                return;
            }
            self.counts.failed = self.counts.failed.saturating_add(call.spans);
            self.in_flight = None;
        }
        let is_full = self.queue.len() >= self.settings.max_batch;
        let is_due = |(since, _): &(Nanos, Span)| is_over(*since, self.settings.interval);
        if is_full || self.queue.front().is_some_and(is_due) {
            self.send(now, calls);
        }
    }

    /// Envoy tells what became of a call. False where it is none of ours, or one that was given up.
    pub fn on_call(&mut self, token: u32, is_ok: bool) -> bool {
        let Some(call) = self.in_flight.take_if(|call| call.token == token) else { return false };
        let count = if is_ok { &mut self.counts.exported } else { &mut self.counts.failed };
        *count = count.saturating_add(call.spans);
        true
    }

    /// Hands over what has been counted.
    pub fn flush_metrics(&mut self, policy: &str, metrics: &mut impl Metrics) {
        let Counts { exported, dropped, failed } = std::mem::take(&mut self.counts);
        for (outcome, count) in [("exported", exported), ("dropped", dropped), ("failed", failed)] {
            if count > 0 {
                let labels = labels(&[("policy", policy), ("outcome", outcome)]);
                metrics.count(&format!("{labels}weir_trace_context_spans_total"), count);
            }
        }
    }

    fn drop_oldest(&mut self) {
        if self.queue.pop_front().is_some() {
            self.counts.dropped = self.counts.dropped.saturating_add(1);
        }
    }

    fn send(&mut self, now: Nanos, calls: &mut impl Calls) {
        let batch = self.take_batch();
        let spans = batch.len() as u64;
        let settings = &self.settings;
        let message = export(settings.resource.clone(), batch).encode_to_vec();
        let (cluster, timeout) = (settings.cluster.as_str(), settings.timeout);
        let token = match settings.protocol {
            Protocol::Grpc => calls.grpc(&GrpcCall {
                cluster,
                service: SERVICE,
                method: METHOD,
                metadata: &settings.headers,
                message: &message,
                timeout,
            }),
            Protocol::Http => calls.http(&HttpCall {
                cluster,
                path: &settings.path,
                headers: &settings.headers,
                body: &message,
                timeout,
            }),
        };
        match token {
            Some(token) => {
                let patience = timeout.saturating_add(GRACE);
                self.in_flight = Some(InFlight { token, spans, sent_at: now, patience });
            }
            None => self.counts.failed = self.counts.failed.saturating_add(spans),
        }
    }

    fn take_batch(&mut self) -> Vec<Encoded> {
        let mut batch = Vec::with_capacity(self.queue.len().min(self.settings.max_batch));
        let mut bytes = 0_usize;
        while batch.len() < self.settings.max_batch && bytes < MAX_BATCH_BYTES {
            let Some((_, span)) = self.queue.pop_front() else { break };
            let span = Encoded::from(span);
            bytes = bytes.saturating_add(span.encoded_len());
            batch.push(span);
        }
        batch
    }
}
