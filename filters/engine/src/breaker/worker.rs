//! What one VM keeps over policy edits: its copies of breakers, the probes it has in flight, and the
//! streams that last.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::call::Call;
use super::cell::{PERMIT_LEASE, ProbeEnd};
use super::rule::Rule;
use super::shared::{Change, change};
use super::table::{Table, Ticket};
use crate::core::ports::{Clock, Nanos, Rng, SharedStore};
use crate::core::secret::SecretCopy;

/// Breakers whose counts go to shared data per tick: two host calls each.
const HAND_OVERS: usize = 256;

/// Permits renewed, and probe ends handed in again, per tick.
const PERMITS: usize = 128;

/// Often enough that a permit in use never runs out, even when some ticks are late.
const RENEW: Nanos = PERMIT_LEASE / 5;

/// Ends of probes that could not be written wait here; past so many, a permit runs out instead.
const MAX_OWED: usize = 1024;

/// Looking for a secret that was made twice costs a host call.
const SECRET_EVERY: u32 = 20;

#[derive(Debug, Default)]
pub struct Worker {
    pub(super) table: Table,
    pub(super) secret: SecretCopy,
    /// The rules of the newest policies, by where their state lies. A stream that ends counts by
    /// these, also when it began under an older one.
    in_force: BTreeMap<Rc<[u8]>, Rc<Rule>>,
    probes: BTreeMap<u64, Held>,
    owed: Vec<(u64, Held, ProbeEnd)>,
    /// gRPC streams that were answered and last, by when they count as a success.
    streams: BTreeMap<(Nanos, u64), Rc<Call>>,
    next_stream: u64,
    ticks: u32,
}

/// A probe of this worker's in flight.
#[derive(Debug)]
struct Held {
    rule: Rc<Rule>,
    fingerprint: u64,
    generation: u32,
    renewed_at: Nanos,
}

impl Worker {
    pub(super) fn enforce(&mut self, prefix: &[u8], rules: &[Rc<Rule>]) {
        self.in_force.retain(|state, _| !state.starts_with(prefix));
        self.in_force.extend(rules.iter().map(|rule| (Rc::clone(&rule.state), Rc::clone(rule))));
    }

    /// The rule by which the end of a call counts now; none when the policy has it no more.
    pub(super) fn in_force(&self, rule: &Rule) -> Option<Rc<Rule>> {
        self.in_force.get(&rule.state).map(Rc::clone)
    }

    pub(super) fn hold(&mut self, ticket: &Ticket, now: Nanos) {
        if let Some(id) = ticket.permit {
            let held = Held {
                rule: Rc::clone(&ticket.rule),
                fingerprint: ticket.fingerprint,
                generation: ticket.generation,
                renewed_at: now,
            };
            self.probes.insert(id, held);
        }
    }

    /// A probe ended. Its permit counts or goes back, if need be at a later tick.
    pub(super) fn conclude(
        &mut self,
        id: u64,
        end: ProbeEnd,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) {
        let Some(mut held) = self.probes.remove(&id) else { return };
        // Decided by the numbers that are in force when it ends.
        if let Some(rule) = self.in_force(&held.rule) {
            held.rule = rule;
        }
        if !held.conclude(id, end, now, ports) && self.owed.len() < MAX_OWED {
            self.owed.push((id, held, end));
        }
    }

    /// A gRPC stream was answered; it counts as a success when it still lasts at `due`.
    pub(super) fn watch(&mut self, call: &Rc<Call>, due: Nanos) {
        self.next_stream = self.next_stream.wrapping_add(1);
        let place = (due, self.next_stream);
        call.watched.set(Some(place));
        self.streams.insert(place, Rc::clone(call));
    }

    pub(super) fn unwatch(&mut self, call: &Call) {
        if let Some(place) = call.watched.take() {
            self.streams.remove(&place);
        }
    }

    /// Slow work, every `sync_interval`.
    pub fn tick(&mut self, ports: &mut (impl SharedStore + Rng + Clock)) {
        let now = ports.now();
        while let Some(first) = self.streams.first_entry()
            && first.key().0 <= now
        {
            let call = first.remove();
            call.watched.set(None);
            call.lasts(now, self, ports);
        }
        self.table.hand_over(HAND_OVERS, now, ports);
        let waiting = self.owed.len().min(PERMITS);
        for (id, held, end) in self.owed.drain(..waiting).collect::<Vec<_>>() {
            if !held.conclude(id, end, now, ports) {
                self.owed.push((id, held, end));
            }
        }
        let due = |held: &Held| now.saturating_sub(held.renewed_at) >= RENEW;
        let mut probes = self.probes.iter_mut();
        for _ in 0..PERMITS {
            let Some((id, held)) = probes.find(|(_, held)| due(held)) else { break };
            held.renew(*id, now, ports);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(SECRET_EVERY) && self.secret.refresh(ports) {
            self.table.clear();
        }
    }
}

impl Held {
    /// False when it has to be tried again.
    fn conclude(
        &self,
        id: u64,
        end: ProbeEnd,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) -> bool {
        let random = ports.random();
        let settings = &self.rule.settings;
        let done = change(&self.rule, self.fingerprint, now, ports, |cell, log| {
            let probe = (id, self.generation);
            let writes = cell.conclude(probe, end, settings, now, random, log);
            Change { result: (), writes }
        });
        done.is_some()
    }

    fn renew(&mut self, id: u64, now: Nanos, ports: &mut (impl SharedStore + Rng)) {
        let random = ports.random();
        let settings = &self.rule.settings;
        let done = change(&self.rule, self.fingerprint, now, ports, |cell, log| {
            cell.settle(settings, now, random, log);
            let writes = cell.renew((id, self.generation), now);
            Change { result: (), writes }
        });
        if done.is_some() {
            self.renewed_at = now;
        }
    }
}
