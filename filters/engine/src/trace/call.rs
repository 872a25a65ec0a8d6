//! One request on its way, from its context to its log entry.

use std::cell::Cell;
use std::rc::Rc;

use super::context::SpanContext;
use super::hop::Hop;
use super::metrics::Counts;
use super::response::{Answered, ResponseRules};
use super::worker::Worker;
use crate::core::effects::Effects;
use crate::core::headers::HeaderMap;
use crate::core::ports::{Attributes, Clock};

/// What responses need of a policy, also of one that was replaced meanwhile.
#[derive(Debug)]
pub(super) struct Shared {
    pub response: ResponseRules,
    pub counts: Counts,
}

/// What is kept of a request until it is logged.
#[derive(Debug)]
pub struct Call {
    pub(super) shared: Rc<Shared>,
    pub(super) context: Option<SpanContext>,
    pub(super) is_grpc: bool,
    pub(super) is_timed: bool,
    pub(super) links: bool,
    pub(super) status: Cell<Option<u16>>,
    pub(super) hop: Option<Hop>,
}

impl Call {
    fn answered(&self) -> Answered<'_> {
        Answered {
            context: self.context.as_ref(),
            is_grpc: self.is_grpc,
            is_timed: self.is_timed,
            links: self.links,
        }
    }

    /// Whether anything is left to do after the request.
    pub(super) fn matters(&self) -> bool {
        self.hop.is_some() || self.shared.response.acts(self.answered())
    }

    /// Whether the response headers say anything that matters.
    pub fn reads_response(&self) -> bool {
        self.shared.response.reads(self.answered())
    }

    /// The response headers, the upstream's or a local reply's.
    pub fn on_response(&self, response: &HeaderMap, ports: &mut impl Attributes) -> Effects {
        let status = response.get(b":status").and_then(|text| std::str::from_utf8(text).ok());
        self.status.set(status.and_then(|status| status.parse().ok()));
        self.shared.response.on_response(self.answered(), response, ports)
    }

    /// The stream is over, whatever became of it.
    pub fn on_log(self, worker: &mut Worker, ports: &mut (impl Attributes + Clock)) {
        if let Some(hop) = self.hop {
            hop.end(self.status.get(), worker, ports);
        }
    }
}
