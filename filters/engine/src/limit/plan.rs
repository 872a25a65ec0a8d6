//! What is left to do for a request once it has been let through: when its response comes, and when its
//! stream ends.

use std::rc::Rc;

use super::bucket::Bill;
use super::calendar::Moment;
use super::carried;
use super::cost::ResponseCost;
use super::flight::Flight;
use super::worker::Worker;
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::ports::{Clock, Nanos, SharedStore};
use crate::core::request::Request;

/// What is to be done with a request, and with its response.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    pub effects: Effects,
    /// What the response headers will need, where they need anything.
    pub response: Option<ResponsePlan>,
}

impl Decision {
    /// Nothing to decide, but for what the response will say of costs.
    pub(super) fn owing(bills: Vec<PendingBill>) -> Decision {
        let has_bills = !bills.is_empty();
        let response = has_bills.then(|| ResponsePlan { bills, ..ResponsePlan::default() });
        Decision { response, ..Decision::default() }
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct ResponsePlan {
    pub headers: Vec<(String, String)>,
    pub quota: Option<Quota>,
    /// What the response will say of the cost.
    pub bills: Vec<PendingBill>,
    /// What is in flight until the stream ends.
    pub flights: Vec<HeldFlight>,
    /// The request is not decided yet.
    pub waiting: Option<Waiting>,
}

/// A request that waits for an engine.
#[derive(Debug, PartialEq)]
pub struct Waiting {
    pub token: u32,
    /// The rule that asked.
    pub rule: usize,
    /// It does not ask again after that.
    pub until: Nanos,
    /// Rules whose engine has granted what the request costs.
    pub granted: Vec<usize>,
}

#[derive(Debug, PartialEq)]
pub struct HeldFlight {
    pub flight: Flight,
    /// It ends as well when the stream becomes a tunnel.
    pub ends_with_upgrade: Option<Upgrade>,
}

/// What the request asks to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    Upgrade,
    Connect,
}

#[derive(Debug, PartialEq)]
pub struct PendingBill {
    pub bill: Bill,
    pub cost: Rc<ResponseCost>,
    /// The bucket is the worker's own.
    pub is_local: bool,
}

/// Quota headers for a response that goes through.
#[derive(Debug, PartialEq)]
pub struct Quota {
    pub policy: String,
    pub limit: String,
    /// The fewest tokens left under any of the rules.
    pub remaining: u64,
    pub draft_03: Vec<(String, String)>,
}

impl Upgrade {
    /// `None` for an ordinary request.
    pub fn of(request: &Request<'_>) -> Option<Upgrade> {
        if request.method == b"CONNECT" {
            return Some(Upgrade::Connect);
        }
        request.headers.get(b"upgrade").map(|_| Upgrade::Upgrade)
    }
}

impl ResponsePlan {
    /// Whether the plan depends on what the upstream sent.
    pub fn reads_response(&self) -> bool {
        let may_upgrade = |held: &HeldFlight| held.ends_with_upgrade.is_some();
        self.quota.is_some() || !self.bills.is_empty() || self.flights.iter().any(may_upgrade)
    }

    /// What is still to be charged, for the stream that an internal redirect makes of this one.
    pub fn carried(&self) -> Vec<u8> {
        carried::write(&self.bills)
    }

    /// Ends what is in flight, when the stream is over.
    pub fn end(self, worker: &mut Worker, ports: &mut (impl SharedStore + Clock)) {
        for held in &self.flights {
            worker.flights.end(&held.flight, ports.now(), ports);
        }
    }

    fn end_upgraded(
        &mut self,
        worker: &mut Worker,
        upstream: &HeaderMap,
        ports: &mut (impl SharedStore + Clock),
    ) {
        let status = upstream.get(b":status").unwrap_or_default();
        let is_tunnel = |upgrade| match upgrade {
            Upgrade::Upgrade => status == b"101",
            Upgrade::Connect => status.first() == Some(&b'2'),
        };
        let upgraded = |held: &mut HeldFlight| held.ends_with_upgrade.is_some_and(is_tunnel);
        for held in self.flights.extract_if(.., upgraded) {
            worker.flights.end(&held.flight, ports.now(), ports);
        }
    }

    /// Charges what the response says that it cost, and gives its edits.
    pub fn respond(
        &mut self,
        worker: &mut Worker,
        upstream: &HeaderMap,
        ports: &mut (impl SharedStore + Clock),
    ) -> Vec<HeaderEdit> {
        if self.flights.iter().any(|held| held.ends_with_upgrade.is_some()) {
            self.end_upgraded(worker, upstream, ports);
        }
        if !self.bills.is_empty() {
            let moment = Moment { steady: ports.now(), wall: ports.wall() };
            for PendingBill { bill, cost, is_local } in std::mem::take(&mut self.bills) {
                let Some(cost) = cost.of(&bill, upstream) else { continue };
                if is_local {
                    bill.settle(cost, moment, &mut worker.local);
                } else if !bill.settle(cost, moment, ports) {
                    worker.settle_later(bill, cost);
                }
            }
        }
        self.edits(upstream)
    }

    /// The edits, given what the upstream sent. Quota headers of the upstream's stay where they are
    /// the stricter ones: an intermediary should not loosen them
    /// (draft-ietf-httpapi-ratelimit-headers-10, section 6.3).
    pub(super) fn edits(&mut self, upstream: &HeaderMap) -> Vec<HeaderEdit> {
        let headers = std::mem::take(&mut self.headers).into_iter();
        let mut edits: Vec<HeaderEdit> =
            headers.map(|(name, value)| HeaderEdit::Set(name, value)).collect();
        let Some(quota) = self.quota.take() else { return edits };
        let stricter = |name: &[u8], read: fn(&[u8]) -> Option<u64>| {
            upstream.all(name).filter_map(read).any(|remaining| remaining <= quota.remaining)
        };
        if !stricter(b"ratelimit", fewest_remaining) {
            edits.push(HeaderEdit::Set("ratelimit-policy".into(), quota.policy));
            edits.push(HeaderEdit::Set("ratelimit".into(), quota.limit));
        }
        if !stricter(b"x-ratelimit-remaining", number) {
            edits.extend(
                quota.draft_03.into_iter().map(|(name, value)| HeaderEdit::Set(name, value)),
            );
        }
        edits
    }
}

/// The least `r` of the items of a `RateLimit` field.
fn fewest_remaining(field: &[u8]) -> Option<u64> {
    let parameters = field.split(|byte| matches!(byte, b',' | b';'));
    parameters.filter_map(|part| number(part.trim_ascii().strip_prefix(b"r=")?)).min()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}
