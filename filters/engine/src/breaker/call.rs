//! One request on its way, from what its breakers said to its verdict.

use std::cell::{Cell as Slot, RefCell};
use std::rc::Rc;

use super::cell::ProbeEnd;
use super::table::Ticket;
use super::verdict::{Facts, Verdict};
use super::window::Sums;
use super::worker::Worker;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::core::ports::{Attributes, Clock, Nanos, Ports, Rng, SharedStore};

/// What is kept of a request until it is logged.
#[derive(Debug, Default)]
pub struct Call {
    started: Nanos,
    /// Breakers that wait for the verdict.
    tickets: RefCell<Vec<Ticket>>,
    is_grpc: bool,
    /// CONNECT, or a request for an upgrade.
    is_tunnel: bool,
    /// When the response headers came, where that matters.
    answered_at: Slot<Option<Nanos>>,
    status: Slot<Option<u16>>,
    pub(super) watched: Slot<Option<(Nanos, u64)>>,
    /// For the response of a fallback.
    marker: Option<(String, String)>,
}

impl Call {
    pub(super) fn new(
        started: Nanos,
        tickets: Vec<Ticket>,
        headers: &HeaderMap,
        is_grpc: bool,
        marker: Option<(String, String)>,
    ) -> Call {
        let is_tunnel =
            headers.get(b":method") == Some(b"CONNECT") || headers.get(b"upgrade").is_some();
        let tickets = RefCell::new(tickets);
        Call { started, tickets, is_grpc, is_tunnel, marker, ..Call::default() }
    }

    /// The generation and permit of the first rule's ticket.
    #[cfg(test)]
    pub fn ticket(&self) -> Option<(u32, Option<u64>)> {
        self.tickets.borrow().first().map(|ticket| (ticket.generation, ticket.permit))
    }

    fn waits(&self) -> bool {
        self.tickets.try_borrow().is_ok_and(|tickets| !tickets.is_empty())
    }

    /// Whether it matters when the response headers came: reading the clock is a host call.
    fn asks_for_time(&self) -> bool {
        let has_slow = |ticket: &Ticket| ticket.rule.settings.slow_after.is_some();
        self.is_grpc || self.tickets.try_borrow().is_ok_and(|tickets| tickets.iter().any(has_slow))
    }

    /// Whether the response headers say anything that matters.
    pub fn reads_response(&self) -> bool {
        self.waits()
    }

    /// The response headers, the upstream's or a local reply's.
    pub fn on_response(
        self: &Rc<Call>,
        worker: &mut Worker,
        response: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Vec<HeaderEdit> {
        let edits = self.marker.clone().map(|(name, value)| HeaderEdit::Set(name, value));
        if self.waits() {
            let status = response.get(b":status").and_then(number);
            let status = status.and_then(|status| u16::try_from(status).ok());
            self.status.set(status);
            if self.asks_for_time() {
                self.answered_at.set(Some(ports.now()));
            }
            if let Some(status) = status {
                self.open_by_header(status, response, ports);
                self.look_at_stream(status, response, worker, ports);
            }
        }
        edits.into_iter().collect()
    }

    /// Streams without an end in sight get their verdict now, or when they have lasted.
    fn look_at_stream(
        self: &Rc<Call>,
        status: u16,
        response: &HeaderMap,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) {
        let kind = response.get(b"content-type").unwrap_or_default();
        let is_events =
            kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"));
        let is_answered = status == 101 || (200..300).contains(&status);
        if self.is_grpc {
            if is_answered && response.get(b"grpc-status").is_none() {
                let after = self.tickets.try_borrow().ok().and_then(|tickets| {
                    tickets.iter().map(|ticket| ticket.rule.stream_after).min()
                });
                if let (Some(now), Some(after)) = (self.answered_at.get(), after) {
                    worker.watch(self, now.saturating_add(after));
                }
            }
        } else if is_answered && (is_events || self.is_tunnel) {
            let now = ports.now();
            self.decide(now, worker, ports);
        }
    }

    fn open_by_header(&self, status: u16, response: &HeaderMap, ports: &mut impl Ports) {
        let Ok(tickets) = self.tickets.try_borrow() else { return };
        for ticket in tickets.iter() {
            let header = ticket.rule.header.as_ref();
            let Some(length) = header.and_then(|header| header.asks(status, response)) else {
                continue;
            };
            // A local reply may look the same.
            if ports.integer(b"upstream\0request_attempt_count").unwrap_or(0) > 0 {
                let now = ports.now();
                ticket.open_for(length, now, ports);
            }
        }
    }

    /// A stream that was answered still lasts.
    pub(super) fn lasts(
        self: &Rc<Call>,
        now: Nanos,
        worker: &mut Worker,
        ports: &mut (impl SharedStore + Rng),
    ) {
        let Ok(mut tickets) = self.tickets.try_borrow_mut() else { return };
        let answered = self.answered_at.get().unwrap_or(now);
        let due = |ticket: &Ticket| answered.saturating_add(ticket.rule.stream_after);
        let end = |ticket: &Ticket| if ticket.rule.counts_to_the_end { now } else { answered };
        let mut settled: Vec<Ticket> =
            tickets.extract_if(.., |ticket| due(ticket) <= now).collect();
        for ticket in settled.drain(..) {
            let took = end(&ticket).saturating_sub(self.started);
            ticket.settle(Verdict::Success, took, now, worker, ports);
        }
        if let Some(next) = tickets.iter().map(due).min() {
            worker.watch(self, next);
        }
    }

    /// The stream is over, whatever became of it.
    pub fn on_log(&self, worker: &mut Worker, ports: &mut impl Ports) {
        worker.unwatch(self);
        if self.waits() {
            let now = ports.now();
            self.decide(now, worker, ports);
        }
    }

    /// Gives the verdict, once.
    fn decide(
        &self,
        now: Nanos,
        worker: &mut Worker,
        ports: &mut (impl Attributes + SharedStore + Rng + Clock),
    ) {
        let Ok(mut tickets) = self.tickets.try_borrow_mut() else { return };
        let tickets = std::mem::take(&mut *tickets);
        let status = match self.status.get() {
            None => ports.integer(b"response\0code").and_then(|code| u16::try_from(code).ok()),
            known => known,
        };
        let details = ports.attribute(b"response\0code_details").unwrap_or_default();
        let mut facts = Facts { attempts: 1, flags: 0, status, grpc: None, details: &details };
        // The upstream's answer, whole: there is no flag to look for, which would cost two host
        // calls on almost every request. What was reset later on has other details.
        let is_plain = details == b"via_upstream" && status.is_some_and(|status| status < 400);
        if !is_plain {
            facts.attempts = ports.integer(b"upstream\0request_attempt_count").unwrap_or(0);
            facts.flags = ports.integer(b"response\0flags").unwrap_or(0);
        }
        if self.is_grpc && facts.attempts > 0 {
            facts.grpc = ports.integer(b"response\0grpc_status");
        }
        let answered = self.answered_at.get().unwrap_or(now);
        for ticket in tickets {
            let end = if ticket.rule.counts_to_the_end { now } else { answered };
            let verdict = ticket.rule.classes.verdict(&facts);
            ticket.settle(verdict, end.saturating_sub(self.started), now, worker, ports);
        }
    }
}

impl Ticket {
    /// Counts what became of the call at this breaker.
    pub(super) fn settle(
        &self,
        verdict: Verdict,
        took: Nanos,
        now: Nanos,
        worker: &mut Worker,
        ports: &mut (impl SharedStore + Rng),
    ) {
        let is_slow = self.rule.settings.slow_after.is_some_and(|bound| took > bound);
        if verdict == Verdict::Failure {
            self.rule.counts.failure();
        }
        if let Some(id) = self.permit {
            let end = match verdict {
                Verdict::Neither => ProbeEnd::Neither,
                Verdict::Success if !is_slow => ProbeEnd::Success,
                _ => ProbeEnd::Failure,
            };
            return worker.conclude(id, end, now, ports);
        }
        let Some(rule) = worker.in_force(&self.rule) else { return };
        let (call, failed) = if rule.settings.is_adaptive() {
            match verdict {
                Verdict::Success => (Sums { total: 0, failed: 1, slow: 0 }, None),
                Verdict::Neither => (Sums { total: 0, failed: 0, slow: 1 }, None),
                Verdict::Failure | Verdict::Overload => return,
            }
        } else {
            match verdict {
                Verdict::Neither | Verdict::Overload => return,
                verdict => {
                    let failed = verdict == Verdict::Failure;
                    (Sums::call(failed, is_slow), Some(failed))
                }
            }
        };
        worker.table.count(self, &rule, call, failed, now, ports);
    }

    fn open_for(&self, length: Nanos, now: Nanos, ports: &mut impl SharedStore) {
        use super::shared::{Change, change};
        change(&self.rule, self.fingerprint, now, ports, |cell, log| {
            let writes = cell.open_for(length, self.generation, now, log);
            Change { result: (), writes }
        });
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
