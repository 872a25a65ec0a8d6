//! What one worker keeps of breakers: a copy of each, and what it has counted itself.
//!
//! A copy is at most `sync_interval` old when a request is decided by it. Until its counts are
//! handed over, the worker sees them in its own copy, so one that trips stops at once.

use std::rc::Rc;

use super::cell::{Admission, Cell, State};
use super::rule::Rule;
use super::shared::{Change, change};
use super::window::{Run, Sums, Window};
use crate::core::key::Fingerprint;
use crate::core::ports::{Nanos, Rng, SharedStore};

/// Breakers that a worker keeps at a time. What has to make room hands its counts over first.
const SETS: usize = 512;
const WAYS: usize = 4;

#[derive(Debug)]
pub struct Entry {
    fingerprint: Fingerprint,
    rule: Rc<Rule>,
    /// The shared breaker as it was when last looked at, and what was counted here since.
    view: Cell,
    synced_at: Nanos,
    used_at: Nanos,
    /// Counted since, of the generation of `view`.
    calls: Window,
    run: Run,
}

/// A call that was let through.
#[derive(Debug)]
pub struct Ticket {
    pub rule: Rc<Rule>,
    pub fingerprint: Fingerprint,
    pub generation: u32,
    /// Of a probe.
    pub permit: Option<u64>,
}

pub enum Arrival {
    Admitted(Ticket),
    /// `ticket`: for a call that is let through all the same and counts, in ADAPTIVE mode.
    Refused {
        wait: Nanos,
        reason: &'static str,
        ticket: Option<Ticket>,
    },
}

impl Entry {
    fn new(rule: &Rc<Rule>, fingerprint: Fingerprint) -> Entry {
        let window = Window::new(rule.settings.shape);
        Entry {
            fingerprint,
            rule: Rc::clone(rule),
            view: Cell::new(0, window.clone()),
            synced_at: 0,
            used_at: 0,
            calls: window,
            run: Run::default(),
        }
    }

    fn is_dirty(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether the copy is too old to decide by. A clock that stepped back makes it so, too.
    fn is_stale(&self, now: Nanos) -> bool {
        now.checked_sub(self.synced_at).is_none_or(|age| age >= self.rule.sync)
    }

    fn forget_counts(&mut self) {
        self.calls.clear();
        self.run = Run::default();
    }

    /// Takes over a policy edit.
    fn adopt(&mut self, rule: &Rc<Rule>) {
        if !Rc::ptr_eq(&self.rule, rule) {
            self.rule = Rc::clone(rule);
            // What is decided under the new rule is decided by its settings.
            self.synced_at = 0;
            if self.calls.shape != rule.settings.shape {
                self.calls = Window::new(rule.settings.shape);
                self.run = Run::default();
            }
        }
    }

    /// Hands over what was counted and fetches what the others did.
    fn sync(&mut self, now: Nanos, ports: &mut (impl SharedStore + Rng)) {
        let random = ports.random();
        let (rule, calls, run) = (&self.rule, &self.calls, &self.run);
        let generation = self.view.generation;
        let found = change(rule, self.fingerprint, now, ports, |cell, log| {
            // The counts of an older generation change nothing.
            let writes =
                !calls.is_empty() && cell.state == State::Closed && cell.generation == generation;
            if writes {
                cell.absorb(calls, run, &rule.settings, now, random, log);
            }
            Change { result: (), writes }
        });
        self.synced_at = now;
        // Counts that could not be handed over are kept for the next time.
        if let Some(((), cell)) = found {
            self.view = cell;
            self.forget_counts();
        }
    }

    /// Counts a call; hands over at once when that trips the breaker.
    fn count(
        &mut self,
        call: Sums,
        failed: Option<bool>,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) {
        self.view.window.record(call, now);
        self.calls.record(call, now);
        if let Some(failed) = failed {
            self.run.record(failed);
            let mut alone = Run::default();
            alone.record(failed);
            self.view.consecutive = alone.after(self.view.consecutive).1;
        }
        let longest = self.view.consecutive;
        if self.view.should_trip(longest, &self.rule.settings, now).is_some() {
            self.sync(now, ports);
        }
    }
}

#[derive(Debug, Default)]
pub struct Table {
    sets: Vec<Vec<Entry>>,
}

impl Table {
    /// The worker's copy, made if need be and brought up to date if it is too old.
    fn entry(
        &mut self,
        rule: &Rc<Rule>,
        fingerprint: Fingerprint,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) -> Option<&mut Entry> {
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Vec::new);
        }
        // The low bits choose the shared set; these are others.
        let set = self.sets.get_mut((fingerprint >> 48) as usize % SETS)?;
        let place = set
            .iter()
            .position(|entry| entry.fingerprint == fingerprint && entry.rule.state == rule.state);
        let place = match place {
            Some(place) => place,
            None => {
                if set.len() >= WAYS {
                    let ages = set.iter().enumerate();
                    let oldest =
                        ages.min_by_key(|(_, entry)| entry.used_at).map(|(place, _)| place);
                    let mut gone = oldest.map(|place| set.swap_remove(place));
                    gone.iter_mut()
                        .filter(|gone| gone.is_dirty())
                        .for_each(|gone| gone.sync(now, ports));
                }
                set.push(Entry::new(rule, fingerprint));
                set.len().saturating_sub(1)
            }
        };
        let entry = set.get_mut(place)?;
        entry.adopt(rule);
        entry.used_at = now;
        if entry.synced_at == 0 || entry.is_stale(now) {
            entry.sync(now, ports);
        }
        Some(entry)
    }

    /// A call arrives at a breaker.
    pub fn arrive(
        &mut self,
        rule: &Rc<Rule>,
        fingerprint: Fingerprint,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) -> Option<Arrival> {
        let entry = self.entry(rule, fingerprint, now, ports)?;
        let ticket = |cell: &Cell, permit| {
            let generation = cell.generation;
            Arrival::Admitted(Ticket { rule: Rc::clone(rule), fingerprint, generation, permit })
        };
        if let Some(throttle) = &rule.settings.throttle {
            let sums = entry.view.window.sums(now);
            let is_refused = throttle.refuses(sums, rule.settings.minimum_calls, ports.random());
            entry.count(Sums { total: 1, failed: 0, slow: 0 }, None, now, ports);
            let generation = entry.view.generation;
            let ticket = Ticket { rule: Rc::clone(rule), fingerprint, generation, permit: None };
            return Some(match is_refused {
                true => Arrival::Refused { wait: 0, reason: "throttled", ticket: Some(ticket) },
                false => Arrival::Admitted(ticket),
            });
        }
        match entry.view.state {
            State::Closed => return Some(ticket(&entry.view, None)),
            State::Open if now < entry.view.until && entry.view.since <= now => {
                let wait = entry.view.until.saturating_sub(now);
                let reason = entry.view.reason.word();
                return Some(Arrival::Refused { wait, reason, ticket: None });
            }
            // Never by a copy: who probes is decided by all workers together.
            State::Open | State::HalfOpen => {}
        }
        let (random, id) = (ports.random(), ports.random());
        let found = change(rule, fingerprint, now, ports, |cell, log| {
            cell.settle(&rule.settings, now, random, log);
            let result = cell.admit(id, &rule.settings, now, log);
            Change { result, writes: result == Admission::Probe }
        });
        let Some((admission, cell)) = found else {
            return Some(Arrival::Refused { wait: 0, reason: "contention", ticket: None });
        };
        let arrival = match admission {
            Admission::Pass => ticket(&cell, None),
            Admission::Probe => ticket(&cell, Some(id)),
            Admission::Refuse { wait } => {
                let reason =
                    if cell.state == State::HalfOpen { "half_open" } else { cell.reason.word() };
                Arrival::Refused { wait, reason, ticket: None }
            }
        };
        entry.forget_counts();
        entry.view = cell;
        entry.synced_at = now;
        Some(arrival)
    }

    /// Counts the end of a call that was let through while the breaker was closed; `rule` is the one
    /// in force now.
    pub fn count(
        &mut self,
        ticket: &Ticket,
        rule: &Rc<Rule>,
        call: Sums,
        failed: Option<bool>,
        now: Nanos,
        ports: &mut (impl SharedStore + Rng),
    ) {
        let Some(entry) = self.entry(rule, ticket.fingerprint, now, ports) else { return };
        let is_current =
            entry.view.generation == ticket.generation && entry.view.state == State::Closed;
        if is_current {
            entry.count(call, failed, now, ports);
        }
    }

    /// Hands over the counts of at most `most` breakers that were not handed over for an interval.
    pub fn hand_over(&mut self, most: usize, now: Nanos, ports: &mut (impl SharedStore + Rng)) {
        let due =
            self.sets.iter_mut().flatten().filter(|entry| entry.is_dirty() && entry.is_stale(now));
        due.take(most).for_each(|entry| entry.sync(now, ports));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sets.clear();
    }
}
