//! What one VM keeps over policy edits: the process secret, and spans on their way.

use std::rc::Rc;

use super::hop::SpanRules;
use super::spans::{Exporter, Span};
use crate::core::ports::{Calls, Clock, Metrics, Nanos, SharedStore};
use crate::core::secret::SecretCopy;

#[derive(Debug, Default)]
pub struct Worker {
    pub(super) secret: SecretCopy,
    /// Candidates of the request in hand.
    pub(super) found: Vec<u32>,
    /// One for each policy that exports spans; there are few.
    outlets: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    owner: Rc<str>,
    policy: Rc<str>,
    exporter: Exporter,
    /// The policy exports no more; what is on its way still goes.
    is_closing: bool,
}

impl Worker {
    /// Takes over what a policy says of its spans; `None` where it has none any more.
    pub(super) fn export(&mut self, owner: &str, rules: Option<&SpanRules>) {
        let known = self.outlets.iter_mut().find(|outlet| *outlet.owner == *owner);
        match (known, rules) {
            (Some(outlet), Some(rules)) => {
                outlet.exporter.adopt(Rc::clone(rules.settings()));
                outlet.is_closing = false;
            }
            (Some(outlet), None) => outlet.is_closing = true,
            (None, Some(rules)) => self.outlets.push(Outlet {
                owner: Rc::clone(&rules.owner),
                policy: Rc::clone(&rules.policy),
                exporter: Exporter::new(Rc::clone(rules.settings())),
                is_closing: false,
            }),
            (None, None) => {}
        }
    }

    pub(super) fn push(&mut self, owner: &Rc<str>, span: Span, now: Nanos) {
        if let Some(outlet) = self.outlets.iter_mut().find(|outlet| outlet.owner == *owner) {
            outlet.exporter.push(span, now);
        }
    }

    /// What became of a call that a tick made.
    pub fn on_call(&mut self, token: u32, is_ok: bool) {
        self.outlets.iter_mut().any(|outlet| outlet.exporter.on_call(token, is_ok));
    }

    /// Slow work.
    pub fn tick(&mut self, ports: &mut (impl SharedStore + Clock + Calls + Metrics)) {
        self.secret.refresh(ports);
        if self.outlets.is_empty() {
            return;
        }
        let now = ports.now();
        for Outlet { policy, exporter, .. } in &mut self.outlets {
            exporter.tick(now, ports);
            exporter.flush_metrics(policy, ports);
        }
        self.outlets.retain(|outlet| !outlet.is_closing || !outlet.exporter.is_idle());
    }
}
