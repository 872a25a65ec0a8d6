//! One request on its way, from its color to its log entry.

use std::cell::Cell;
use std::rc::Rc;

use super::cookie::CookieRules;
use super::guard::Group;
use super::rule::Rule;
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::ports::{Attributes, Clock, Nanos};

/// Envoy's response flags that tell of a failed upstream: refused or lost connections, resets,
/// timeouts, a broken protocol, nobody healthy, no room, retries used up.
const FAILED: u64 = 2 | 4 | 16 | 32 | 64 | 128 | (1 << 15) | (1 << 23);
/// The client went away: nobody's failure.
const CLIENT_GONE: u64 = (1 << 14) | (1 << 28);
/// gRPC codes that are the server's failure: UNKNOWN, `DEADLINE_EXCEEDED`, INTERNAL, UNAVAILABLE,
/// `DATA_LOSS`.
const GRPC_FAILED: [u64; 5] = [2, 4, 13, 14, 15];

/// What responses need of a policy, also of one that was replaced meanwhile.
#[derive(Debug)]
pub(super) struct Shared {
    pub echo: Option<String>,
    /// What caches must tell apart.
    pub vary: Option<String>,
    pub cookie: CookieRules,
}

/// What is kept of a request until it is logged.
pub struct Call {
    pub(super) shared: Rc<Shared>,
    pub(super) color: String,
    /// The key that the client gets.
    pub(super) minted: Option<String>,
    /// The client has a key that no rule asks for any more.
    pub(super) clears: bool,
    /// Whose guards watch this request, and in which group it is.
    pub(super) watched: Vec<(Rc<Rule>, Group)>,
    pub(super) started: Nanos,
    pub(super) is_grpc: bool,
    pub(super) answered_at: Cell<Option<Nanos>>,
    pub(super) status: Cell<Option<u64>>,
}

impl Call {
    /// Whether anything is left to do after the request.
    pub(super) fn matters(&self) -> bool {
        let Shared { echo, vary, .. } = &*self.shared;
        let says = echo.is_some() || vary.is_some() || self.minted.is_some() || self.clears;
        says || !self.watched.is_empty()
    }

    /// Whether the response headers say anything that matters.
    pub fn reads_response(&self) -> bool {
        !self.watched.is_empty()
    }

    /// The response headers, the upstream's or a local reply's.
    pub fn on_response(&self, response: &HeaderMap, ports: &mut impl Clock) -> Effects {
        if !self.watched.is_empty() {
            let status = response.get(b":status").and_then(|text| std::str::from_utf8(text).ok());
            self.status.set(status.and_then(|status| status.parse().ok()));
            self.answered_at.set(Some(ports.now()));
        }
        let mut edits = Vec::new();
        let Shared { echo, vary, cookie } = &*self.shared;
        if let Some(name) = echo {
            edits.push(HeaderEdit::Set(name.clone(), self.color.clone()));
        }
        if let Some(vary) = vary {
            edits.push(HeaderEdit::Add("vary".into(), vary.clone()));
        }
        if let Some(key) = &self.minted {
            edits.push(HeaderEdit::Add("set-cookie".into(), cookie.set(key)));
        } else if self.clears {
            edits.push(HeaderEdit::Add("set-cookie".into(), cookie.clear()));
        }
        edits.into()
    }

    /// The stream is over, whatever became of it.
    pub fn on_log(self, ports: &mut (impl Attributes + Clock)) {
        if self.watched.is_empty() {
            return;
        }
        // What never reached an upstream says nothing about one.
        let attempts = ports.integer(b"upstream\0request_attempt_count").unwrap_or(0);
        let flags = ports.integer(b"response\0flags").unwrap_or(0);
        if attempts == 0 || flags & CLIENT_GONE != 0 {
            return;
        }
        let status = self.status.get().or_else(|| ports.integer(b"response\0code"));
        let grpc = if self.is_grpc { ports.integer(b"response\0grpc_status") } else { None };
        let is_error = flags & FAILED != 0
            || status.is_none_or(|status| status >= 500)
            || grpc.is_some_and(|code| GRPC_FAILED.contains(&code));
        let answered = self.answered_at.get().unwrap_or_else(|| ports.now());
        let latency = answered.saturating_sub(self.started);
        for (rule, group) in &self.watched {
            if let Some(Ok(mut guard)) = rule.guard.as_ref().map(|guard| guard.try_borrow_mut()) {
                guard.record(*group, is_error, latency);
            }
        }
    }
}
