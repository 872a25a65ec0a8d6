//! What one VM keeps over policy edits.

use super::session::Stamps;
use crate::core::ports::SharedStore;
use crate::core::secret::SecretCopy;

#[derive(Debug, Default)]
pub struct Worker {
    pub(super) secret: SecretCopy,
    pub(super) stamps: Stamps,
    /// Candidates of the request in hand.
    pub(super) found: Vec<u32>,
    /// Of the lanes.
    pub(super) found_lanes: Vec<u32>,
}

impl Worker {
    /// Slow work.
    pub fn tick(&mut self, store: &mut impl SharedStore) {
        self.secret.refresh(store);
    }
}
