//! The section `restore` at work for traces: what a record holds, and what is made of it.

use weir_protos::FieldError;
use weir_protos::v1::Restore as Source;

use super::context::{Carried, SpanId, TraceId};
use super::formats::tracestate::TraceState;
use super::metrics::{Counts, Restores};
use super::section::Passed;
use super::worker::Worker;
use crate::core::baggage::Baggage;
use crate::core::effects::HeaderEdit;
use crate::core::headers::{HeaderMap, is_safe_value};
use crate::core::policy::Common;
use crate::core::ports::{Clock, Nanos, Ports, SharedStore};
use crate::core::request::Request;
use crate::core::restore::{Comer, Key, Memory, Note, Outcome, Recall, Record, Trace};

/// A longer value is no color of anybody's.
const MAX_COLOR: usize = 64;

#[derive(Debug)]
pub struct Restoring {
    memory: Memory,
    color_header: Box<[u8]>,
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
    #[cold]
    pub fn compile(
        source: &Source,
        common: &Common,
        path: &str,
    ) -> Result<Option<Restoring>, FieldError> {
        let memory = Memory::compile(source, &common.identity.policy, path)?;
        let color_header = common.color_header.clone();
        Ok(memory.map(|memory| Restoring { memory, color_header }))
    }

    pub fn prepare(&self, ports: &mut (impl SharedStore + Clock)) {
        let now = ports.now();
        self.memory.prepare(now, ports);
    }

    pub fn tick(&self, counts: &Counts, store: &mut impl SharedStore) {
        let evicted = self.memory.tick(store);
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
        let trace_id = own.trace_id.map(TraceId::get);
        let recall = self.memory.recall(trace_id, request, &mut worker.secret, ports);
        let counted = match &recall {
            Recall::Record(_) if trace_id.is_none() => Some(Restores::Restored),
            Recall::Missing if trace_id.is_none() => Some(Restores::Missing),
            Recall::Ambiguous => Some(Restores::Ambiguous),
            _ => None,
        };
        counted.into_iter().for_each(|outcome| counts.restore(outcome, 1));
        let Recall::Record(record) = recall else { return Recalled::default() };
        let headers = request.headers;
        let color = text(record.any_color());
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
        note: &mut Option<Note>,
        request: &mut Request<'_>,
        worker: &mut Worker,
        counts: &Counts,
        ports: &mut impl Ports,
    ) -> Option<HeaderEdit> {
        let comer = Comer {
            trace_id: Some(passed.context.trace_id.get()),
            is_trusted: passed.is_trusted,
            is_new_trace: passed.is_new(),
            is_edge: passed.is_edge,
            new_session: None,
            note,
        };
        let headers = request.headers;
        let make = |key: &Key| self.of(key, passed, headers);
        let tell = |outcome| {
            let outcome = match outcome {
                None => Restores::Untrusted,
                Some(Outcome::Recorded) => Restores::Recorded,
                Some(Outcome::Ambiguous) => Restores::Ambiguous,
                Some(Outcome::Lost(_)) => Restores::NotRecorded,
            };
            counts.restore(outcome, 1);
        };
        let minted = self.memory.record(comer, request, &mut worker.secret, ports, make, tell);
        minted.map(|(name, id)| HeaderEdit::Set(name, id))
    }

    fn of(&self, key: &Key, passed: &Passed<'_, '_>, headers: &HeaderMap) -> Record {
        let is_color =
            |color: &&[u8]| passed.is_trusted && color.len() <= MAX_COLOR && is_safe_value(color);
        let color = headers.get(&self.color_header).filter(is_color).map(<[u8]>::to_vec);
        if key.is_session {
            let mut baggage = Baggage::parse(passed.baggage.map(str::as_bytes).into_iter());
            baggage.retain(|member| key.baggage.iter().any(|name| name.as_bytes() == member));
            let baggage = Some(baggage.write().into_bytes());
            // An empty text says that the newest request came without; of a stranger's color the color
            // filter alone knows.
            let seen_color = passed.is_trusted.then(|| color.unwrap_or_default());
            return Record { seen_color, baggage, ..Record::default() };
        }
        let context = passed.context;
        // What was stripped on the way in is not put back on the way out.
        let goes_on = |name: &[u8]| {
            let is_removal = |edit: &HeaderEdit| match edit {
                HeaderEdit::Remove(removed) => removed.as_bytes() == name,
                HeaderEdit::Set(..) | HeaderEdit::Add(..) => false,
            };
            !passed.edits.iter().any(is_removal)
        };
        let line = |name: &[u8]| {
            let line = headers.get(name).filter(|line| is_safe_value(line) && goes_on(name));
            line.map(<[u8]>::to_vec)
        };
        Record {
            trace: Some(Trace {
                trace_id: context.trace_id.get(),
                span_id: context.span_id.get(),
                sampled: Some(context.sampled),
                is_random: context.is_random,
                is_debug: context.is_debug,
            }),
            deadline: passed.deadline,
            color: None,
            seen_color: color,
            tracestate: Some(passed.tracestate().unwrap_or_default().into_bytes()),
            sw8: line(b"sw8"),
            sw8_correlation: line(b"sw8-correlation"),
            baggage: Some(passed.baggage.unwrap_or_default().into()),
        }
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
