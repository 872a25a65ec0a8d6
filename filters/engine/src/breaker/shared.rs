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
    let key = set_key(&rule.state, place(fingerprint, rule.sets));
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
        let moved = if set.knows(fingerprint) { None } else { moved(rule, fingerprint, store) };
        let has_moved = moved.is_some();
        let mut cell = moved.unwrap_or_else(|| set.take(fingerprint));
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
                if has_moved {
                    leave(rule, fingerprint, store);
                }
                return Some((change.result, cell));
            }
            Err(SetError::Mismatch) => rule.counts.contention(),
            Err(SetError::Failed) => return None,
        }
    }
    None
}

fn place(fingerprint: Fingerprint, sets: u32) -> u32 {
    let place = fingerprint.checked_rem(sets.into()).unwrap_or(0);
    u32::try_from(place).unwrap_or(0)
}

/// The key of the set where a table of another size had the breaker.
fn key_before(rule: &Rule, fingerprint: Fingerprint) -> Option<Vec<u8>> {
    rule.sets_before.get().map(|sets| set_key(&rule.state, place(fingerprint, sets)))
}

/// A breaker that is new to its set, as it was in the table before.
fn moved(rule: &Rule, fingerprint: Fingerprint, store: &mut impl SharedStore) -> Option<Cell> {
    let (bytes, _) = store.get(&key_before(rule, fingerprint)?)?;
    let mut set = Set::read(&bytes).filter(|set| set.knows(fingerprint))?;
    set.reshape(rule.settings.shape);
    Some(set.take(fingerprint))
}

/// A breaker that has moved is not to be found at its old place after another edit: it would be out
/// of date. Tried once; the old place may be written by others.
fn leave(rule: &Rule, fingerprint: Fingerprint, store: &mut impl SharedStore) {
    let Some(key) = key_before(rule, fingerprint) else { return };
    let Some((bytes, cas)) = store.get(&key) else { return };
    let Some(mut set) = Set::read(&bytes) else { return };
    set.take(fingerprint);
    let mut bytes = Vec::new();
    set.write(&mut bytes);
    let _ = store.set(&key, &bytes, cas);
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

/// The breaker of a key as it stands.
#[cfg(any(test, feature = "sim"))]
pub fn look(rule: &Rule, fingerprint: Fingerprint, store: &mut impl SharedStore) -> Cell {
    let shape = rule.settings.shape;
    let bytes = store.get(&set_key(&rule.state, place(fingerprint, rule.sets)));
    let set = bytes.and_then(|(bytes, _)| Set::read(&bytes));
    let mut set = set.unwrap_or_else(|| Set::new(shape));
    set.reshape(shape);
    if set.knows(fingerprint) {
        return set.take(fingerprint);
    }
    moved(rule, fingerprint, store).unwrap_or_else(|| set.take(fingerprint))
}

/// A rule's only breaker as it stands.
pub fn cell(rule: &Rule, fingerprint: Fingerprint, store: &mut impl SharedStore) -> Cell {
    let bytes = store.get(&set_key(&rule.state, 0));
    let set = bytes.and_then(|(bytes, _)| Set::read(&bytes));
    set.unwrap_or_else(|| Set::new(rule.settings.shape)).take(fingerprint)
}
