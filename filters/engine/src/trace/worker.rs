//! What one VM keeps over policy edits: the process secret, and spans on their way.

use crate::core::ports::{Calls, Clock, Metrics, Rng, SharedStore};
use crate::core::secret::SecretCopy;

#[derive(Debug, Default)]
pub struct Worker {
    pub(super) secret: SecretCopy,
    /// Candidates of the request in hand.
    pub(super) found: Vec<u32>,
}

impl Worker {
    /// What became of a call that a tick made.
    pub fn on_call(&mut self, _token: u32, _is_ok: bool) {}

    /// Slow work.
    pub fn tick(&mut self, ports: &mut (impl SharedStore + Rng + Clock + Calls + Metrics)) {
        self.secret.refresh(ports);
    }
}
