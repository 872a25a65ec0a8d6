//! The section `restore` at work: what the inbound side records, and what the outbound side recalls.

use std::borrow::Cow;

use weir_protos::FieldError;
use weir_protos::v1::restore_key::{Scope as Given, Source as KeySource};
use weir_protos::v1::{Restore as Source, RestoreKey};

use super::baggage::check_key;
use super::context::{Carried, SpanId, TraceId};
use super::formats::baggage::Baggage;
use super::formats::request_id::{stable, uuid};
use super::formats::tracestate::TraceState;
use super::metrics::{Counts, Restores};
use super::section::Passed;
use super::worker::Worker;
use crate::core::effects::HeaderEdit;
use crate::core::headers::{HeaderMap, is_safe_value};
use crate::core::key::Secret;
use crate::core::matcher::checked_header;
use crate::core::policy::Common;
use crate::core::ports::{Clock, Nanos, Ports, SharedStore};
use crate::core::request::{Direction, Request};
use crate::core::restore::{self, Found, Outcome, Record, Records, fingerprint, is_usable};

/// Each costs a look at shared data.
const MAX_KEYS: usize = 4;

/// A longer value is no color of anybody's.
const MAX_COLOR: usize = 64;

#[derive(Debug)]
pub struct Restoring {
    keys: Vec<Key>,
    mints: bool,
    color_header: Box<[u8]>,
    records: Records,
}

#[derive(Debug)]
struct Key {
    /// None: the trace id.
    header: Option<Box<[u8]>>,
    is_session: bool,
    baggage: Vec<String>,
}

/// What the proxy remembers of the request that this one is made for.
#[derive(Debug, Default)]
pub struct Recalled {
    record: Option<Record>,
    /// Where the record holds one that the request lacks.
    color: Option<(String, String)>,
}

impl Restoring {
    /// `None` where nothing is to be restored.
    pub fn compile(
        source: &Source,
        common: &Common,
        path: &str,
    ) -> Result<Option<Restoring>, FieldError> {
        if *source == Source::default() {
            return Ok(None);
        }
        if source.keys.is_empty() || source.keys.len() > MAX_KEYS {
            let path = format!("{path}.keys");
            return Err(FieldError::value(path, source.keys.len(), "keys: must be 1 to 4"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (place, key) in source.keys.iter().enumerate() {
            let path = format!("{path}.keys[{place}]");
            let key_compiled = Key::compile(key, &path)?;
            if keys.iter().any(|earlier| earlier.header == key_compiled.header) {
                let (field, value) = match &key_compiled.header {
                    Some(name) => ("header", format!("{:?}", String::from_utf8_lossy(name))),
                    None => ("trace_id", "true".into()),
                };
                let path = format!("{path}.{field}");
                return Err(FieldError::value(path, value, "is given twice; keep one"));
            }
            keys.push(key_compiled);
        }
        if source.mint && keys.first().is_none_or(|key| key.header.is_none() || key.is_session) {
            let remedy = "makes an id for the first key, which must be a header of scope REQUEST";
            return Err(FieldError::value(format!("{path}.mint"), "true", remedy));
        }
        Ok(Some(Restoring {
            keys,
            mints: source.mint,
            color_header: common.color_header.clone(),
            records: Records::compile(source, &common.identity.policy, path)?,
        }))
    }

    pub fn prepare(&self, ports: &mut (impl SharedStore + Clock)) {
        let now = ports.now();
        self.records.prepare(now, ports);
    }

    pub fn tick(&self, counts: &Counts, store: &mut impl SharedStore) {
        self.records.refresh(store);
        let evicted = self.records.take_evictions();
        if evicted > 0 {
            counts.restore(Restores::Evicted, evicted);
        }
    }

    /// What is known of the request that the application is working on, on its way out.
    pub fn recall(
        &self,
        own: &Carried,
        request: &mut Request<'_>,
        worker: &mut Worker,
        counts: &Counts,
        ports: &mut impl Ports,
    ) -> Recalled {
        let headers = request.headers;
        let is_asked = self.keys.iter().any(|key| key.id(headers, own.trace_id).is_some());
        if !is_asked || request.direction(ports) != Direction::Outbound {
            return Recalled::default();
        }
        let Some(secret) = worker.secret.get(ports) else { return Recalled::default() };
        let now = ports.now();
        for key in &self.keys {
            let Some(id) = key.id(headers, own.trace_id) else { continue };
            match self.records.look(key.fingerprint(&secret, &id), now, ports) {
                Found::Record(record) => {
                    let theirs = record.trace.and_then(|trace| TraceId::new(trace.trace_id));
                    // The application is in another trace than the request with that id was.
                    if own.trace_id.is_some() && theirs.is_some() && own.trace_id != theirs {
                        return Recalled::default();
                    }
                    if own.trace_id.is_none() {
                        counts.restore(Restores::Restored, 1);
                    }
                    return self.recalled(record, headers);
                }
                Found::Ambiguous => {
                    counts.restore(Restores::Ambiguous, 1);
                    return Recalled::default();
                }
                Found::Missing if own.trace_id.is_none() => counts.restore(Restores::Missing, 1),
                Found::Missing => {}
            }
        }
        Recalled::default()
    }

    fn recalled(&self, record: Record, headers: &HeaderMap) -> Recalled {
        let color = text(record.color.as_ref());
        let color = color.filter(|_| headers.get(&self.color_header).is_none());
        let name = || String::from_utf8_lossy(&self.color_header).into_owned();
        let color = color.map(|color| (name(), color.to_string()));
        Recalled { record: Some(record), color }
    }

    /// Remembers what goes on to the application. Gives the edit that hands it an id to forward,
    /// where one was made.
    pub(super) fn record(
        &self,
        passed: &Passed<'_, '_>,
        request: &mut Request<'_>,
        worker: &mut Worker,
        counts: &Counts,
        ports: &mut impl Ports,
    ) -> Option<HeaderEdit> {
        if request.direction(ports) != Direction::Inbound {
            return None;
        }
        let secret = worker.secret.get(ports)?;
        let headers = request.headers;
        let now = ports.now();
        let mut minted = None;
        for (place, key) in self.keys.iter().enumerate() {
            let trace_id = Some(passed.context.trace_id);
            let came = key.id(headers, trace_id);
            // An id that an untrusted client chose could be somebody else's.
            let is_ours = passed.is_trusted || (key.header.is_none() && passed.is_new());
            let id = match (came.filter(|_| is_ours), &key.header) {
                (Some(id), _) => id,
                (None, Some(name)) if place == 0 && self.mints => {
                    let id = uuid(u128::from(ports.random()) << 64 | u128::from(ports.random()));
                    let name = String::from_utf8_lossy(name).into_owned();
                    minted = Some(HeaderEdit::Set(name, id.clone()));
                    Cow::Owned(id.into_bytes())
                }
                _ => {
                    if !is_ours {
                        counts.restore(Restores::Untrusted, 1);
                    }
                    continue;
                }
            };
            let record = self.of(key, passed, headers);
            let scope =
                if key.is_session { restore::Scope::Session } else { restore::Scope::Request };
            let fingerprint = key.fingerprint(&secret, &id);
            match self.records.record(fingerprint, &record, scope, now, ports) {
                Outcome::Recorded => counts.restore(Restores::Recorded, 1),
                Outcome::Ambiguous => counts.restore(Restores::Ambiguous, 1),
                Outcome::Lost(_) => counts.restore(Restores::NotRecorded, 1),
            }
        }
        minted
    }

    fn of(&self, key: &Key, passed: &Passed<'_, '_>, headers: &HeaderMap) -> Record {
        let is_color =
            |color: &&[u8]| passed.is_trusted && color.len() <= MAX_COLOR && is_safe_value(color);
        // An empty text says that the request came without.
        let color = headers.get(&self.color_header).filter(is_color).unwrap_or_default();
        let color = Some(color.to_vec());
        if key.is_session {
            let mut baggage = Baggage::parse(passed.baggage.map(str::as_bytes).into_iter());
            baggage.retain(|member| key.baggage.iter().any(|name| name.as_bytes() == member));
            let baggage = Some(baggage.write().into_bytes());
            return Record { color, baggage, ..Record::default() };
        }
        let context = passed.context;
        let line =
            |name: &[u8]| headers.get(name).filter(|line| is_safe_value(line)).map(<[u8]>::to_vec);
        Record {
            trace: Some(restore::Trace {
                trace_id: context.trace_id.get(),
                span_id: context.span_id.get(),
                sampled: Some(context.sampled),
                is_random: context.is_random,
                is_debug: context.is_debug,
            }),
            deadline: passed.deadline,
            color,
            tracestate: Some(passed.tracestate().unwrap_or_default().into_bytes()),
            sw8: line(b"sw8"),
            sw8_correlation: line(b"sw8-correlation"),
            baggage: Some(passed.baggage.unwrap_or_default().into()),
        }
    }
}

impl Key {
    fn compile(source: &RestoreKey, path: &str) -> Result<Key, FieldError> {
        let is_session = source.scope() == Given::Session;
        let header = match &source.source {
            None => return Err(FieldError::at(path, "must have one of: header, trace_id")),
            Some(KeySource::Header(name)) => Some(checked_header(name, &format!("{path}.header"))?),
            Some(KeySource::TraceId(true)) => None,
            Some(KeySource::TraceId(false)) => {
                let remedy = "must be true, or leave the key out";
                return Err(FieldError::value(format!("{path}.trace_id"), "false", remedy));
            }
        };
        if is_session && header.is_none() {
            let remedy = "needs a header: a trace is a request's";
            return Err(FieldError::value(format!("{path}.scope"), "SESSION", remedy));
        }
        if !is_session && !source.baggage.is_empty() {
            let remedy = "goes with scope SESSION; a request's baggage is restored as a whole";
            return Err(FieldError::at(format!("{path}.baggage"), remedy));
        }
        for (place, key) in source.baggage.iter().enumerate() {
            check_key(key, &format!("{path}.baggage[{place}]"))?;
        }
        Ok(Key { header, is_session, baggage: source.baggage.clone() })
    }

    /// The id that the request carries, where it is one: on two lines it is none.
    fn id<'r>(&self, headers: &'r HeaderMap, trace_id: Option<TraceId>) -> Option<Cow<'r, [u8]>> {
        let Some(name) = &self.header else {
            return trace_id.map(|id| Cow::Owned(id.to_string().into_bytes()));
        };
        let id = headers.get_one(name)?;
        is_usable(id).then(|| stable(id))
    }

    fn fingerprint(&self, secret: &Secret, id: &[u8]) -> u64 {
        fingerprint(secret, self.header.as_deref().unwrap_or(b":trace-id"), id)
    }
}

impl Recalled {
    pub fn trace(&self) -> Option<Carried> {
        let trace = self.record.as_ref()?.trace?;
        Some(Carried {
            trace_id: Some(TraceId::new(trace.trace_id)?),
            span_id: SpanId::new(trace.span_id),
            sampled: trace.sampled,
            is_random: trace.is_random,
            is_debug: trace.is_debug,
        })
    }

    pub fn state(&self) -> Option<TraceState<'_>> {
        let text = self.record.as_ref()?.tracestate.as_ref()?;
        TraceState::parse(std::iter::once(text.as_slice()))
    }

    pub fn baggage(&self) -> Option<&str> {
        text(self.record.as_ref()?.baggage.as_ref())
    }

    pub fn deadline(&self) -> Option<Nanos> {
        self.record.as_ref()?.deadline
    }

    /// What goes along as it is.
    pub fn carry(&self, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        edits.extend(self.color.clone().map(|(name, color)| HeaderEdit::Set(name, color)));
        let Some(record) = &self.record else { return };
        for (name, value) in [("sw8", &record.sw8), ("sw8-correlation", &record.sw8_correlation)] {
            if let (Some(value), None) = (text(value.as_ref()), headers.get(name.as_bytes())) {
                edits.push(HeaderEdit::Set(name.to_string(), value.to_string()));
            }
        }
    }
}

/// Of a record, which anybody in the process could have written: what may stand in a header.
fn text(bytes: Option<&Vec<u8>>) -> Option<&str> {
    bytes.filter(|bytes| is_safe_value(bytes)).and_then(|bytes| std::str::from_utf8(bytes).ok())
}
