//! Records in shared data: one is made, or looked up.

use std::cell::Cell;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;
use weir_protos::FieldError;
use weir_protos::v1::Restore;

use super::record::Record;
use super::set::{Set, State, WAYS, Way};
use super::size::{self, Size};
use crate::core::checks::duration;
use crate::core::key::{Fingerprint, Secret, set_key};
use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

const S: Nanos = 1_000_000_000;

/// Longer than nearly all requests take, with all that they call.
const DEFAULT_TTL: Nanos = 60 * S;

/// 270 requests a second for a ttl, at most 17 MB where every record is as long as can be.
const DEFAULT_MAX_RECORDS: u32 = 16_384;

/// Two workers rarely write one set at once; past this many tries the record is given up.
const TRIES: u32 = 8;

/// UUIDs have 36 bytes. What is longer than this is no id.
const MAX_ID: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One id, one request.
    Request,
    /// Requests of a session have one id at the same time.
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Recorded,
    /// Another request that still lives has the id: neither's context is restored.
    Ambiguous,
    Lost(Lost),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Others wrote first, at each try.
    Contention,
    /// The store refused.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Record(Record),
    /// Requests of different traces have the id.
    Ambiguous,
    Missing,
}

/// The records of the policies of one name.
#[derive(Debug)]
pub struct Records {
    prefix: Box<[u8]>,
    ttl: Nanos,
    sets: u32,
    /// In force in the process.
    size: Cell<Size>,
    evictions: Cell<u64>,
}

/// Whether something may be an id. Whatever else stands there is not recorded.
pub fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len())
}

/// An id under the secret of the process. Equal ids from different sources differ; a source is the
/// name of a header, or a constant that is none.
pub fn fingerprint(secret: &Secret, source: &[u8], id: &[u8]) -> Fingerprint {
    let mut hasher = SipHasher13::new_with_key(secret);
    for part in [source, id] {
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish()
}

/// What is known of an id, or becomes so.
#[derive(Clone)]
struct Known {
    at: Nanos,
    state: State,
    record: Record,
}

impl Known {
    /// The same id, known twice.
    fn join(self, newer: Known) -> Known {
        let is_other_trace = || match (self.record.trace, newer.record.trace) {
            (Some(one), Some(other)) => one.trace_id != other.trace_id,
            _ => false,
        };
        // One filter decides on a request's color.
        let is_other_color = || match (&self.record.color, &newer.record.color) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        };
        let is_ambiguous = match (self.state, newer.state) {
            (_, State::Ambiguous) | (State::Ambiguous, State::Request) => true,
            (State::Request, State::Request) => is_other_trace() || is_other_color(),
            _ => false,
        };
        if is_ambiguous {
            return Known { state: State::Ambiguous, record: Record::default(), ..newer };
        }
        if self.state != newer.state {
            // The scope of the key has been edited.
            return newer;
        }
        let mut record = self.record;
        record.merge(newer.record);
        Known { record, ..newer }
    }
}

impl Records {
    /// `policy` is the name under which filters find each other's records.
    #[cold]
    pub fn compile(source: &Restore, policy: &str, path: &str) -> Result<Records, FieldError> {
        let ttl = duration(source.ttl.as_ref(), S..=600 * S, &format!("{path}.ttl"))?;
        let max_records = source.max_records.unwrap_or(DEFAULT_MAX_RECORDS);
        if !(1024..=1_048_576).contains(&max_records) {
            let remedy = "must be from 1024 to 1048576";
            return Err(FieldError::value(format!("{path}.max_records"), max_records, remedy));
        }
        Ok(Records::new(policy, ttl.unwrap_or(DEFAULT_TTL), max_records))
    }

    pub(super) fn new(policy: &str, ttl: Nanos, max_records: u32) -> Records {
        let sets = max_records.div_ceil(u32::try_from(WAYS).unwrap_or(1)).next_power_of_two();
        Records {
            prefix: format!("weir/1/restore/{policy}/").into_bytes().into(),
            ttl,
            sets,
            size: Cell::new(Size::of(sets, ttl)),
            evictions: Cell::new(0),
        }
    }

    /// Makes the store. To be called while a policy is configured: on the main thread first.
    pub fn prepare(&self, now: Nanos, store: &mut impl SharedStore) {
        self.size.set(size::prepare(&self.prefix, self.sets, self.ttl, now, store));
    }

    /// Takes over what another policy made of the size. To be called by the tick.
    pub fn refresh(&self, store: &mut impl SharedStore) {
        if let Some((size, _)) = size::noted(&self.prefix, store) {
            self.size.set(size);
        }
    }

    /// Records that had to make room before their time, since the last call.
    pub fn take_evictions(&self) -> u64 {
        self.evictions.take()
    }

    /// Records what a request carried. What is known of the id already is joined with it.
    pub fn record(
        &self,
        fingerprint: Fingerprint,
        record: &Record,
        scope: Scope,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> Outcome {
        let state = match scope {
            Scope::Request => State::Request,
            Scope::Session => State::Session,
        };
        let mut known = Known { at: now, state, record: record.clone() };
        let mut outcome = Outcome::Lost(Lost::Failed);
        for key in self.keys(fingerprint, now) {
            // What the older place knows goes into the one that lasts.
            outcome = match self.record_at(&key, fingerprint, &known, now, store) {
                Err(lost) => Outcome::Lost(lost),
                Ok(joined) => {
                    known = joined;
                    match known.state {
                        State::Ambiguous => Outcome::Ambiguous,
                        State::Request | State::Session => Outcome::Recorded,
                    }
                }
            };
        }
        outcome
    }

    /// What was recorded under an id.
    pub fn look(
        &self,
        fingerprint: Fingerprint,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> Found {
        let mut found: Option<Known> = None;
        for key in self.keys(fingerprint, now) {
            let bytes = store.get(&key).map(|(bytes, _)| bytes);
            let set = bytes.as_deref().and_then(Set::read);
            let known = set.and_then(|set| self.known(&set, fingerprint, now));
            found = match (found, known) {
                (Some(one), Some(other)) if one.at <= other.at => Some(one.join(other)),
                (Some(one), Some(other)) => Some(other.join(one)),
                (one, other) => one.or(other),
            };
        }
        match found {
            None => Found::Missing,
            Some(Known { state: State::Ambiguous, .. }) => Found::Ambiguous,
            Some(Known { record, .. }) => Found::Record(record.without_empty()),
        }
    }

    /// Where the id may stand: last its place in the size in force, which is the one that lasts.
    /// Often it is the same in both sizes.
    fn keys(&self, fingerprint: Fingerprint, now: Nanos) -> impl Iterator<Item = Vec<u8>> {
        let mut before = None;
        let places = self.size.get().in_force(now).filter_map(move |sets| {
            let place = u32::try_from(fingerprint.checked_rem(sets.into())?).ok()?;
            (before.replace(place) != Some(place)).then_some(place)
        });
        places.map(|place| set_key(&self.prefix, place))
    }

    fn known(&self, set: &Set<'_>, fingerprint: Fingerprint, now: Nanos) -> Option<Known> {
        let way = set.find(fingerprint).filter(|way| way.is_live(now, self.ttl))?;
        let record = match way.state {
            // Whatever else is written there.
            State::Ambiguous => Record::default(),
            State::Request | State::Session => way.record()?,
        };
        Some(Known { at: way.recorded_at, state: way.state, record })
    }

    fn record_at(
        &self,
        key: &[u8],
        fingerprint: Fingerprint,
        new: &Known,
        now: Nanos,
        store: &mut impl SharedStore,
    ) -> Result<Known, Lost> {
        let mut bytes = Vec::new();
        for _ in 0..TRIES {
            let Some((found, cas)) = store.get(key) else {
                // A set on a missing key succeeds whatever the version says, so it is made empty
                // and read again. `prepare` has made them all; this is for a store that refused it.
                Set::default().write(&mut bytes);
                if store.set(key, &bytes, BLIND) == Err(SetError::Failed) {
                    return Err(Lost::Failed);
                }
                continue;
            };
            let mut set = Set::read(&found).unwrap_or_default();
            let known = match self.known(&set, fingerprint, now) {
                Some(known) => known.join(new.clone()),
                None => new.clone(),
            };
            let way = Way::new(fingerprint, known.at, known.state, &known.record);
            let evicts = set.put(way, now, self.ttl);
            set.write(&mut bytes);
            match store.set(key, &bytes, cas) {
                Ok(()) => {
                    let evictions = self.evictions.get().saturating_add(evicts.into());
                    self.evictions.set(evictions);
                    return Ok(known);
                }
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => return Err(Lost::Failed),
            }
        }
        Err(Lost::Contention)
    }
}
