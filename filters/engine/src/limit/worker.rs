//! What one VM keeps over policy edits.

use std::collections::HashMap;

use super::bucket::{Bill, return_lease};
use super::calendar::Moment;
use super::flight::Flights;
use super::lease::LeaseTable;
use super::mesh::Desk;
use crate::core::key::Secret;
use crate::core::ports::{BLIND, Cas, Clock, Rng, SetError, SharedStore};
use crate::core::secret::SecretCopy;

/// How many idle leases go back per tick: each costs two host calls.
const RETURNS: usize = 64;

/// More charges than that wait only where nothing can be written at all.
const UNSETTLED: usize = 256;

/// The state of one worker: its leases, its own buckets (`scope: WORKER`), what it has in flight, the
/// process secret.
#[derive(Debug, Default)]
pub struct Worker {
    pub(super) leases: LeaseTable,
    pub(super) local: LocalStore,
    pub(super) flights: Flights,
    pub(super) desk: Desk,
    /// Charges for which other workers left no room, and what they are for.
    unsettled: Vec<(Bill, u64)>,
    secret: SecretCopy,
}

impl Worker {
    pub(super) fn prepare(&mut self, ports: &mut (impl SharedStore + Rng)) {
        self.secret.prepare(ports);
    }

    pub(super) fn secret(&mut self, ports: &mut (impl SharedStore + Rng)) -> Option<Secret> {
        self.secret.get(ports)
    }

    /// Leaves a charge for the next tick.
    pub(super) fn settle_later(&mut self, bill: Bill, cost: u64) {
        if self.unsettled.len() < UNSETTLED {
            self.unsettled.push((bill, cost));
        }
    }

    /// Envoy tells what became of a call: the message that came, if one did. False where the call is none
    /// of the limiter's.
    pub fn on_call(
        &mut self,
        token: u32,
        message: Option<&[u8]>,
        ports: &mut (impl SharedStore + Clock),
    ) -> bool {
        let now = ports.now();
        self.desk.on_call(token, message, now, ports)
    }

    /// A call that somebody waits for, and of which nothing was heard for too long.
    pub fn overdue(&self, clock: &mut impl Clock) -> Option<u32> {
        self.desk.overdue(clock)
    }

    /// Gives idle leases back, settles what could not be charged, tells that this worker lives, and adopts the secret should it ever have been made twice.
    pub fn tick(&mut self, ports: &mut (impl SharedStore + Clock)) {
        let now = ports.now();
        for lease in self.leases.idle(now, RETURNS) {
            return_lease(&lease, now, ports);
        }
        if !self.unsettled.is_empty() {
            let moment = Moment { steady: now, wall: ports.wall() };
            self.unsettled.retain(|(bill, cost)| !bill.settle(*cost, moment, ports));
        }
        self.flights.tick(now, ports);
        if self.secret.refresh(ports) {
            self.leases.clear();
        }
    }
}

/// A store of one worker's own, for buckets that are not shared. It grows no further than the
/// rules' tables, whose sets are numbered.
#[derive(Debug, Default)]
pub struct LocalStore {
    values: HashMap<Vec<u8>, (Vec<u8>, Cas)>,
    version: Cas,
}

impl SharedStore for LocalStore {
    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Cas)> {
        self.values.get(key).cloned()
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError> {
        // Skips BLIND, which is no version.
        self.version = self.version.checked_add(1).unwrap_or(1);
        match self.values.get_mut(key) {
            Some((_, current)) if cas != BLIND && *current != cas => Err(SetError::Mismatch),
            Some((bytes, current)) => {
                bytes.clear();
                bytes.extend_from_slice(value);
                *current = self.version;
                Ok(())
            }
            None => {
                self.values.insert(key.to_vec(), (value.to_vec(), self.version));
                Ok(())
            }
        }
    }
}
