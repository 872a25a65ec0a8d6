//! One worker's dealings with the engine: what it has asked, and who waits for it.

use std::rc::Rc;

use super::lease::{Fetch, GRACE, Have, Lease, Need};
use super::line::Line;
use super::settings::Settings;
use super::slots::Set;
use super::wire::{self, Answer, Entry};
use crate::core::key::{Fingerprint, set_key};
use crate::core::ports::{BLIND, Calls, Cas, Clock, GrpcCall, Nanos, SetError, SharedStore};

/// As for buckets: past this the policy decides.
const TRIES: u32 = 8;

/// Calls under way in one worker: a request more goes without. Each holds a request, or some.
const MOST_CALLS: usize = 1024;

/// Where the leases of a rule lie, and what they are of.
#[derive(Debug)]
pub struct Query<'q> {
    pub settings: &'q Rc<Settings>,
    /// The start of the keys of the rule's sets.
    pub rule: &'q Rc<[u8]>,
    pub sets: u32,
    pub fingerprint: Fingerprint,
    /// What the request costs.
    pub hits: u32,
    /// As the policy knows it.
    pub limit: u64,
    pub now: Nanos,
    /// The request has waited already, and waits until then at most.
    pub waits_until: Option<Nanos>,
}

/// What a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Hits {
        left: u32,
    },
    Refused {
        wait: Nanos,
    },
    /// For the answer to this call.
    Wait {
        token: u32,
    },
    /// There is nobody to ask.
    Silent,
    /// Shared data could not be had.
    Failed,
}

/// What those who wait for a call are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Granted,
    Refused,
    Failed,
}

#[derive(Debug)]
struct Call {
    token: u32,
    settings: Rc<Settings>,
    rule: Rc<[u8]>,
    set: u32,
    fingerprint: Fingerprint,
    fetch: Fetch,
    /// Hits of those who wait.
    promised: u32,
    is_probe: bool,
    /// It had less time than the policy gives: its failure says nothing of the engine.
    is_hurried: bool,
    limit: u64,
    given_up_at: Nanos,
}

#[derive(Debug, Default)]
pub struct Desk {
    calls: Vec<Call>,
    /// The last answer, for those who waited for it.
    answered: Option<(u32, Answered)>,
    contention: u64,
    evictions: u64,
}

impl Desk {
    pub fn ask<P: SharedStore + Calls>(
        &mut self,
        query: &Query<'_>,
        entries: &mut dyn FnMut(&mut P) -> Vec<Entry>,
        ports: &mut P,
    ) -> Say {
        let Query { settings, now, fingerprint, hits, .. } = *query;
        let need = Need {
            hits,
            most: settings.most(query.limit),
            settings,
            now,
            is_again: query.waits_until.is_some(),
        };
        let set = u32::try_from(fingerprint.checked_rem(query.sets.into()).unwrap_or(0));
        let set = set.unwrap_or(0);
        let key = set_key(query.rule, set);
        let mut line = None;
        for _ in 0..TRIES {
            let Some((mut leases, cas)) = load(&key, ports) else { return Say::Failed };
            let before = leases.find(fingerprint, settings);
            let mut lease = before;
            if lease.left() < hits
                && query.waits_until.is_none_or(|until| now < until)
                && let Some(call) = self.joined(query)
                && !lease.is_refused(hits, now)
            {
                call.promised = call.promised.saturating_add(hits);
                return Say::Wait { token: call.token };
            }
            let mut may_fetch = || {
                query.waits_until.is_none_or(|until| now < until)
                    && *line.get_or_insert_with(|| Line::look(settings, now, ports)) != Line::Silent
            };
            let have = lease.take(need, &mut may_fetch);
            let Some(have) = have else { return Say::Silent };
            let is_probe = line == Some(Line::Probe);
            if is_probe {
                lease.lets_others_by(&before);
            }
            if lease != before {
                let evicts = leases.put(lease, now);
                match ports.set(&key, &leases.write(), cas) {
                    Ok(()) => self.evictions = self.evictions.saturating_add(evicts.into()),
                    Err(SetError::Mismatch) => {
                        self.contention = self.contention.saturating_add(1);
                        continue;
                    }
                    Err(SetError::Failed) => return Say::Failed,
                }
            }
            return match have {
                Have::Refused { wait } => Say::Refused { wait },
                Have::Hits { left, fetch } => {
                    if let Some(fetch) = fetch {
                        self.call(query, set, fetch, 0, is_probe, entries, ports);
                    }
                    Say::Hits { left }
                }
                Have::Nothing(fetch) => {
                    // Whoever finds out whether the engine is back does not wait for it.
                    let promised = if is_probe { 0 } else { hits };
                    let token = self.call(query, set, fetch, promised, is_probe, entries, ports);
                    token.filter(|_| promised > 0).map_or(Say::Silent, |token| Say::Wait { token })
                }
            };
        }
        Say::Failed
    }

    /// A call for the same key under the same policy that will have hits to spare. Nobody waits for one that
    /// finds out whether the engine is back.
    fn joined(&mut self, query: &Query<'_>) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| {
            let spare = call.fetch.hits.saturating_sub(call.promised);
            let is_same = call.fingerprint == query.fingerprint
                && call.rule == *query.rule
                && Rc::ptr_eq(&call.settings, query.settings);
            is_same && !call.is_probe && spare >= query.hits && query.now < call.given_up_at
        })
    }

    #[allow(clippy::too_many_arguments)] // All of a call.
    fn call<P: SharedStore + Calls>(
        &mut self,
        query: &Query<'_>,
        set: u32,
        fetch: Fetch,
        promised: u32,
        is_probe: bool,
        entries: &mut dyn FnMut(&mut P) -> Vec<Entry>,
        ports: &mut P,
    ) -> Option<u32> {
        let Query { settings, now, .. } = *query;
        if self.calls.len() >= MOST_CALLS {
            return None;
        }
        let until = query.waits_until.unwrap_or(Nanos::MAX);
        let timeout = settings.timeout.min(until.saturating_sub(now));
        let message = wire::request(&settings.domain, &entries(ports), fetch.hits);
        let token = ports.grpc(&GrpcCall {
            cluster: &settings.cluster,
            service: wire::SERVICE,
            method: wire::METHOD,
            metadata: &[],
            message: &message,
            timeout,
        });
        let call = Call {
            token: token.unwrap_or(0),
            settings: Rc::clone(settings),
            rule: Rc::clone(query.rule),
            set,
            fingerprint: query.fingerprint,
            fetch,
            promised,
            is_probe,
            is_hurried: timeout < settings.timeout,
            limit: query.limit,
            given_up_at: now.saturating_add(settings.timeout).saturating_add(GRACE),
        };
        if token.is_some() {
            self.calls.push(call);
        } else {
            settings.count(|counts| &mut counts.failed);
            call.fail(now, ports);
        }
        token
    }

    /// Envoy tells what became of a call. False where it is none of ours.
    pub fn on_call(
        &mut self,
        token: u32,
        message: Option<&[u8]>,
        now: Nanos,
        ports: &mut impl SharedStore,
    ) -> bool {
        let Some(place) = self.calls.iter().position(|call| call.token == token) else {
            return false;
        };
        let call = self.calls.swap_remove(place);
        let answer = message.map(wire::answer);
        // Envoy tells of every call that fails, but for those of a policy that has gone.
        let is_forgotten = message.is_none() && now >= call.given_up_at;
        call.settings.count(|counts| match answer {
            None => &mut counts.failed,
            Some(None) => &mut counts.nonsense,
            Some(Some(Answer { is_over: true, .. })) => &mut counts.over_limit,
            Some(Some(_)) => &mut counts.granted,
        });
        let answered = match answer.flatten() {
            None if is_forgotten || call.is_hurried => {
                call.release(now, ports);
                Answered::Failed
            }
            None => {
                call.fail(now, ports);
                Answered::Failed
            }
            Some(answer) => {
                Line::back(&call.settings, ports);
                call.settle(&answer, now, ports);
                if answer.is_over { Answered::Refused } else { Answered::Granted }
            }
        };
        self.answered = Some((token, answered));
        true
    }

    /// For a request that waited for this call.
    pub fn answer_to(&self, token: u32) -> Answered {
        let known = self.answered.filter(|(known, _)| *known == token);
        known.map_or(Answered::Failed, |(_, answered)| answered)
    }

    /// Writes that others got in the way of, and leases forgotten, since this was asked last.
    pub fn take_effort(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.contention), std::mem::take(&mut self.evictions))
    }

    /// A call of which Envoy has said nothing for too long.
    pub fn overdue(&self, clock: &mut impl Clock) -> Option<u32> {
        if self.calls.is_empty() {
            return None;
        }
        let now = clock.now();
        self.calls.iter().find(|call| now >= call.given_up_at).map(|call| call.token)
    }
}

impl Query<'_> {
    /// Hits that a request took and did not use.
    pub fn give_back(&self, ports: &mut impl SharedStore) {
        let set = self.fingerprint.checked_rem(self.sets.into()).unwrap_or(0);
        let key = set_key(self.rule, u32::try_from(set).unwrap_or(0));
        update(&key, self.settings, self.fingerprint, self.now, ports, &mut |lease| {
            lease.give_back(self.hits, self.now);
        });
    }
}

impl Call {
    fn settle(&self, answer: &Answer, now: Nanos, ports: &mut impl SharedStore) {
        let (settings, fetch) = (&*self.settings, self.fetch);
        let most = settings.most(self.limit);
        let need = Need { hits: 1, most, settings, now, is_again: false };
        self.update(now, ports, &mut |lease| match answer.is_over {
            true => lease.refuse(fetch, answer, need),
            false => lease.grant(fetch, self.promised, answer, need),
        });
    }

    fn fail(&self, now: Nanos, ports: &mut impl SharedStore) {
        Line::fail(&self.settings, self.is_probe, now, ports);
        self.release(now, ports);
    }

    fn release(&self, now: Nanos, ports: &mut impl SharedStore) {
        self.update(now, ports, &mut |lease| lease.release(self.fetch));
    }

    fn update(&self, now: Nanos, ports: &mut impl SharedStore, change: &mut dyn FnMut(&mut Lease)) {
        let key = set_key(&self.rule, self.set);
        update(&key, &self.settings, self.fingerprint, now, ports, change);
    }
}

/// Changes a lease. What cannot be written is lost, and was not granted.
fn update(
    key: &[u8],
    settings: &Settings,
    fingerprint: Fingerprint,
    now: Nanos,
    store: &mut dyn SharedStore,
    change: &mut dyn FnMut(&mut Lease),
) {
    for _ in 0..TRIES {
        let Some((mut leases, cas)) = load(key, store) else { return };
        let before = leases.find(fingerprint, settings);
        let mut lease = before;
        change(&mut lease);
        if lease == before {
            return;
        }
        leases.put(lease, now);
        if store.set(key, &leases.write(), cas) != Err(SetError::Mismatch) {
            return;
        }
    }
}

/// A set and its version. A missing one is written empty and read again: a set on a missing key succeeds
/// whatever the version says, and a lease written so would be spent by two.
fn load(key: &[u8], store: &mut dyn SharedStore) -> Option<(Set, Cas)> {
    for _ in 0..2 {
        if let Some((bytes, cas)) = store.get(key) {
            return Some((Set::read(&bytes).unwrap_or_default(), cas));
        }
        store.set(key, &Set::default().write(), BLIND).ok()?;
    }
    None
}
