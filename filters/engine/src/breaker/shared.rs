//! Changes of a breaker in shared data, under compare-and-set.

use super::cell::{Cell, Transitions};
use super::rule::Rule;
use super::slots::Set;
use crate::core::key::{Fingerprint, set_key};
use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

/// Real traffic on one key needs 1.02 tries; past this the change waits for the next tick.
const TRIES: u32 = 8;

/// What a change found and did. It is called anew with the current state when another worker was
/// first, so it must depend on nothing else.
pub struct Change<T> {
    pub result: T,
    /// Whether the cell is to be written. Changes of state always are.
    pub writes: bool,
}

/// Looks at a breaker and changes it. `None` when the store is contended or refuses.
pub fn change<T>(
    rule: &Rule,
    fingerprint: Fingerprint,
    now: Nanos,
    store: &mut impl SharedStore,
    mut with: impl FnMut(&mut Cell, &mut Transitions) -> Change<T>,
) -> Option<(T, Cell)> {
    let place = u32::try_from(fingerprint % u64::from(rule.sets.max(1))).unwrap_or(0);
    let key = set_key(&rule.state, place);
    let shape = rule.settings.shape;
    let (mut transitions, mut bytes) = (Transitions::new(), Vec::new());
    for _ in 0..TRIES {
        let found = store.get(&key);
        let is_new = found.is_none();
        let (mut set, cas) = match found {
            Some((bytes, cas)) => (Set::read(&bytes).unwrap_or_else(|| Set::new(shape)), cas),
            None => (Set::new(shape), BLIND),
        };
        set.reshape(shape);
        let mut cell = set.take(fingerprint);
        transitions.clear();
        let change = with(&mut cell, &mut transitions);
        if !change.writes && transitions.is_empty() {
            return Some((change.result, cell));
        }
        if is_new {
            // A set on a missing key succeeds whatever the version says: it is made empty and read
            // again. A worker that stops between the look and this write undoes what others counted
            // meanwhile, once in the life of the set.
            Set::new(shape).write(&mut bytes);
            store.set(&key, &bytes, BLIND).ok()?;
            continue;
        }
        let forgotten = set.put(fingerprint, cell.clone(), now);
        set.write(&mut bytes);
        match store.set(&key, &bytes, cas) {
            Ok(()) => {
                rule.counts.transitions(&transitions);
                forgotten.into_iter().for_each(|state| rule.counts.eviction(state));
                return Some((change.result, cell));
            }
            Err(SetError::Mismatch) => rule.counts.contention(),
            Err(SetError::Failed) => return None,
        }
    }
    None
}

/// Makes the set of a rule that has one alone, before any worker can race to make it.
pub fn prepare(rule: &Rule, store: &mut impl SharedStore) {
    let key = set_key(&rule.state, 0);
    if store.get(&key).is_none() {
        let mut bytes = Vec::new();
        Set::new(rule.settings.shape).write(&mut bytes);
        let _ = store.set(&key, &bytes, BLIND);
    }
}

/// A rule's only breaker as it stands.
pub fn cell(rule: &Rule, fingerprint: Fingerprint, store: &mut impl SharedStore) -> Cell {
    let bytes = store.get(&set_key(&rule.state, 0));
    let set = bytes.and_then(|(bytes, _)| Set::read(&bytes));
    set.unwrap_or_else(|| Set::new(rule.settings.shape)).take(fingerprint)
}
