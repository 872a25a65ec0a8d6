//! The section `restore` of a policy: under which ids requests are known again, and both ways there.

use std::borrow::Cow;

use weir_protos::FieldError;
use weir_protos::v1::restore_key::{Scope as Given, Source};
use weir_protos::v1::{Restore, RestoreKey};

use super::note::Note;
use super::record::Record;
use super::store::{Found, Outcome, Records, Scope, fingerprint, is_usable};
use crate::core::answer::checked_name;
use crate::core::headers::{HeaderMap, header_name};
use crate::core::ports::{Nanos, Ports, SharedStore};
use crate::core::reply;
use crate::core::request::{Direction, Request};
use crate::core::secret::SecretCopy;
use crate::core::uuid::{stable, uuid};

/// Each costs a look at shared data.
const MAX_KEYS: usize = 4;

/// What a proxy remembers of requests.
#[derive(Debug)]
pub struct Memory {
    keys: Vec<Key>,
    mints: bool,
    records: Records,
}

/// An id under which a request is known again.
#[derive(Debug)]
pub struct Key {
    /// None: the trace id.
    header: Option<Box<[u8]>>,
    pub is_session: bool,
    /// Of a session: the members that are restored.
    pub baggage: Vec<String>,
}

/// What is known of the request that this one is made for.
#[derive(Debug, PartialEq)]
pub enum Recall {
    /// It carries no id, or goes the other way.
    Unasked,
    Missing,
    Ambiguous,
    Record(Record),
}

/// Whose request it is.
#[derive(Debug)]
pub struct Comer<'a> {
    pub trace_id: Option<u128>,
    /// An id that an untrusted client chose could be somebody else's.
    pub is_trusted: bool,
    /// The trace began here, whoever asked.
    pub is_new_trace: bool,
    pub is_edge: bool,
    /// The header and id of a session that began here.
    pub new_session: Option<(&'a str, &'a str)>,
    /// What the hop's filters know of the ids.
    pub note: &'a mut Option<Note>,
}

impl Memory {
    /// `None` where nothing is to be restored. `policy` is the name under which filters find each
    /// other's records.
    #[cold]
    pub fn compile(
        source: &Restore,
        policy: &str,
        path: &str,
    ) -> Result<Option<Memory>, FieldError> {
        if *source == Restore::default() {
            return Ok(None);
        }
        if source.keys.is_empty() || source.keys.len() > MAX_KEYS {
            let path = format!("{path}.keys");
            return Err(FieldError::value(path, source.keys.len(), "keys: must be 1 to 4"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (place, source) in source.keys.iter().enumerate() {
            let path = format!("{path}.keys[{place}]");
            let key = Key::compile(source, &path)?;
            if keys.iter().any(|earlier| earlier.header == key.header) {
                let (field, value) = match &key.header {
                    Some(name) => ("header", format!("{:?}", String::from_utf8_lossy(name))),
                    None => ("trace_id", "true".into()),
                };
                let path = format!("{path}.{field}");
                return Err(FieldError::value(path, value, "is given twice; keep one"));
            }
            keys.push(key);
        }
        if source.mint && keys.first().is_none_or(|key| key.header.is_none() || key.is_session) {
            let remedy = "makes an id for the first key, which must be a header of scope REQUEST";
            return Err(FieldError::value(format!("{path}.mint"), "true", remedy));
        }
        let records = Records::compile(source, policy, path)?;
        Ok(Some(Memory { keys, mints: source.mint, records }))
    }

    /// Makes the store. To be called while a policy is configured: on the main thread first.
    pub fn prepare(&self, now: Nanos, store: &mut impl SharedStore) {
        self.records.prepare(now, store);
    }

    /// To be called by the tick. Gives the number of records that had to make room.
    pub fn tick(&self, store: &mut impl SharedStore) -> u64 {
        self.records.refresh(store);
        self.records.take_evictions()
    }

    /// What is known of the request that the application is working on, on its way out.
    pub fn recall(
        &self,
        trace_id: Option<u128>,
        request: &mut Request<'_>,
        secret: &mut SecretCopy,
        ports: &mut impl Ports,
    ) -> Recall {
        let headers = request.headers;
        let is_asked = self.keys.iter().any(|key| key.id(headers, trace_id).is_some());
        if !is_asked || request.direction(ports) != Direction::Outbound {
            return Recall::Unasked;
        }
        let Some(secret) = secret.get(ports) else { return Recall::Unasked };
        let now = ports.now();
        for key in &self.keys {
            let Some(id) = key.id(headers, trace_id) else { continue };
            match self.records.look(fingerprint(&secret, key.source(), &id), now, ports) {
                Found::Record(record) => {
                    let theirs = record.trace.map(|trace| trace.trace_id);
                    // The application is in another trace than the request with that id was.
                    let is_other =
                        trace_id.zip(theirs).is_some_and(|(own, theirs)| !is_same(own, theirs));
                    return if is_other { Recall::Unasked } else { Recall::Record(record) };
                }
                Found::Ambiguous => return Recall::Ambiguous,
                Found::Missing => {}
            }
        }
        Recall::Missing
    }

    /// Remembers a request on its way in: `make` says what, `tell` hears what became of it, or that
    /// an id was not ours to record. Gives the header and id that the application is to forward,
    /// where one was made.
    pub fn record(
        &self,
        comer: Comer<'_>,
        request: &mut Request<'_>,
        secret: &mut SecretCopy,
        ports: &mut impl Ports,
        make: impl Fn(&Key) -> Record,
        mut tell: impl FnMut(Option<Outcome>),
    ) -> Option<(String, String)> {
        if request.direction(ports) != Direction::Inbound {
            return None;
        }
        let secret = secret.get(ports)?;
        let headers = request.headers;
        let now = ports.now();
        let mut minted = None;
        // Inside the mesh others have recorded under the very ids, but for those that are new to them.
        let is_other_trace = comer.trace_id != trace_id(request);
        if comer.is_edge || is_other_trace || comer.new_session.is_some() {
            comer.note.get_or_insert_with(|| Note::left(ports));
        }
        let note = comer.note.get_or_insert_default();
        for (place, key) in self.keys.iter().enumerate() {
            let own = key.of_new(comer.new_session, comer.trace_id.filter(|_| comer.is_new_trace));
            let came = own.clone().or_else(|| key.id(headers, comer.trace_id));
            let is_noted =
                |id: &Cow<'_, [u8]>| note.ids.contains(&fingerprint(&secret, key.source(), id));
            let mut is_made_here = own.is_some() || came.as_ref().is_some_and(is_noted);
            let is_believed = is_made_here || comer.is_trusted;
            let id = match (came.filter(|_| is_believed), &key.header) {
                (Some(id), _) => id,
                (None, Some(name)) if place == 0 && self.mints => {
                    let id = uuid((u128::from(ports.random()) << 64) | u128::from(ports.random()));
                    let name = String::from_utf8_lossy(name).into_owned();
                    minted = Some((name, id.clone()));
                    is_made_here = true;
                    Cow::Owned(id.into_bytes())
                }
                _ => {
                    if !comer.is_trusted {
                        tell(None);
                    }
                    note.leave(key.source(), make(key));
                    continue;
                }
            };
            let scope = if key.is_session { Scope::Session } else { Scope::Request };
            let fingerprint = fingerprint(&secret, key.source(), &id);
            let mut record = make(key);
            if comer.is_edge {
                // The next filter may not believe the id, and give another.
                note.leave(key.source(), record.clone());
            }
            // What somebody else left goes under an id that is nobody's but ours.
            if is_made_here || !comer.is_edge {
                record = note.open_for(key.source()).cloned().unwrap_or(record);
            }
            if is_made_here && !note.ids.contains(&fingerprint) {
                note.ids.push(fingerprint);
            }
            tell(Some(self.records.record(fingerprint, &record, scope, now, ports)));
        }
        minted
    }
}

impl Key {
    #[cold]
    fn compile(source: &RestoreKey, path: &str) -> Result<Key, FieldError> {
        let is_session = source.scope() == Given::Session;
        let header = match &source.source {
            None => return Err(FieldError::at(path, "must have one of: header, trace_id")),
            Some(Source::Header(name)) => {
                Some(checked_name(name, &format!("{path}.header"))?.into_bytes().into())
            }
            Some(Source::TraceId(true)) => None,
            Some(Source::TraceId(false)) => {
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
            baggage_key(key, &format!("{path}.baggage[{place}]"))?;
        }
        Ok(Key { header, is_session, baggage: source.baggage.clone() })
    }

    /// The id that the request carries, where it is one: on two lines it is none.
    fn id<'r>(&self, headers: &'r HeaderMap, trace_id: Option<u128>) -> Option<Cow<'r, [u8]>> {
        let Some(name) = &self.header else {
            return trace_id.map(of_trace);
        };
        let id = headers.get_one(name)?;
        is_usable(id).then(|| stable(id))
    }

    /// The id of a trace or session that began here.
    fn of_new<'r>(
        &self,
        session: Option<(&str, &'r str)>,
        trace_id: Option<u128>,
    ) -> Option<Cow<'r, [u8]>> {
        let Some(name) = &self.header else { return trace_id.map(of_trace) };
        let (header, id) = session?;
        (header.as_bytes() == &**name).then(|| stable(id.as_bytes()))
    }

    /// What tells ids of one source from those of another: a header's name, or what is none.
    fn source(&self) -> &[u8] {
        self.header.as_deref().unwrap_or(b":trace-id")
    }
}

fn trace_id(request: &Request<'_>) -> Option<u128> {
    u128::from_str_radix(reply::trace_id(request)?, 16).ok()
}

fn of_trace(id: u128) -> Cow<'static, [u8]> {
    Cow::Owned(format!("{id:032x}").into_bytes())
}

/// Whether an application is in this trace: some formats carry the lower half of an id alone.
fn is_same(own: u128, theirs: u128) -> bool {
    const LOWER: u128 = u64::MAX as u128;
    own == theirs || (own & !LOWER == 0 && own == theirs & LOWER)
}

/// The key of a baggage member: the grammar of header names, a token of RFC 9110 section 5.6.2.
#[cold]
pub fn baggage_key(key: &str, path: &str) -> Result<(), FieldError> {
    if header_name(key).is_none() {
        let remedy = "must be the key of a baggage member: letters, digits and `-_.` and the like";
        return Err(FieldError::value(path, format_args!("{key:?}"), remedy));
    }
    Ok(())
}
