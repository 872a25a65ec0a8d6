//! The size of a rule's table over edits of `max_keys`.
//!
//! A key's set follows from the number of sets, so another number puts the key elsewhere. An edit
//! must not close a breaker: the number before is remembered in shared data, and a key that is new
//! to its set is looked for there. One table back, no further.

use super::rule::Rule;
use crate::core::bytes::Reader;
use crate::core::ports::{BLIND, SharedStore};

/// Notes the size of a rule's table. To be called while a policy is configured: on the main thread
/// first, so that nobody races.
pub fn note(rule: &Rule, store: &mut impl SharedStore) {
    let key = [&rule.state, &b"table"[..]].concat();
    let found = store.get(&key).and_then(|(bytes, _)| read(&bytes));
    let (sets, mut before) = found.unwrap_or((rule.sets, 0));
    if sets != rule.sets {
        before = sets;
    }
    if found != Some((rule.sets, before)) {
        let bytes = [rule.sets, before].map(u32::to_le_bytes).concat();
        // Without the note an edit of `max_keys` closes breakers, which is no reason to refuse it.
        let _ = store.set(&key, &bytes, BLIND);
    }
    rule.sets_before.set((before > 0).then_some(before));
}

fn read(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut reader = Reader(bytes);
    let sizes = (reader.u32()?, reader.u32()?);
    reader.0.is_empty().then_some(sizes)
}
