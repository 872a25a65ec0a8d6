//! A simulated proxy with a policy, for the tests of this folder.

use weir_protos::{FieldError, Section, decode};

use super::{Decision, Tracer, Worker};
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::sim::{Process, SimPorts};

pub fn compile(yaml: &str) -> Result<Tracer, FieldError> {
    let policy = decode(serde_yaml_ng::Deserializer::from_str(yaml), Section::All)?;
    Tracer::compile(&policy, "test")
}

/// A policy with these fields in its section `trace_context`, in flow style.
pub fn section(fields: &str) -> String {
    format!("{{name: t, trace_context: {{{fields}}}}}")
}

/// One worker's VM.
pub struct Vm {
    pub tracer: Tracer,
    pub worker: Worker,
    pub ports: SimPorts,
}

/// What a request brought, and what was decided.
pub struct Sent {
    came: Vec<(String, Vec<u8>)>,
    pub decision: Decision,
}

impl Vm {
    pub fn start(process: &Process, yaml: &str, number: u64) -> Vm {
        let mut ports = process.ports(number);
        let tracer = compile(yaml).unwrap();
        let mut worker = Worker::default();
        tracer.prepare(&mut worker, &mut ports);
        Vm { tracer, worker, ports }
    }

    /// On a listener of this direction: 1 is inbound, 2 is outbound.
    pub fn facing(mut self, direction: u64) -> Vm {
        self.ports.set_attribute("xds.listener_direction", &direction.to_le_bytes());
        self
    }

    pub fn send<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)]) -> Sent {
        let usual = [(":method", "GET"), (":path", "/"), (":authority", "shop.example")];
        let mut came: Vec<(String, Vec<u8>)> = usual
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        for (name, value) in headers {
            if name.starts_with(':') {
                came.retain(|(known, _)| known != name);
            }
            came.push((name.to_string(), value.as_ref().to_vec()));
        }
        let map = HeaderMap::from_pairs(&came);
        let decision = self.tracer.on_request(&mut self.worker, &map, &mut self.ports);
        Sent { came, decision }
    }

    pub fn tick(&mut self) {
        self.worker.tick(&mut self.ports);
        self.tracer.tick(&mut self.ports);
    }

    /// What the metrics say after a tick.
    pub fn counted(&mut self, parts: &[&str]) -> u64 {
        self.tick();
        self.ports.counter(parts)
    }
}

impl Sent {
    /// The lines of that name as they go on, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines: Vec<Vec<u8>> = self
            .came
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .collect();
        for edit in &self.decision.effects.headers {
            match edit {
                HeaderEdit::Set(known, value) if known == name => {
                    lines = vec![value.clone().into()]
                }
                HeaderEdit::Add(known, value) if known == name => lines.push(value.clone().into()),
                HeaderEdit::Remove(known) if known == name => lines.clear(),
                _ => {}
            }
        }
        (!lines.is_empty()).then(|| String::from_utf8_lossy(&lines.join(&b',')).into_owned())
    }

    /// Trace id, parent id and flags of the `traceparent` that goes on.
    pub fn traceparent(&self) -> (String, String, String) {
        let text = self.header("traceparent").expect("a traceparent goes on");
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!((parts.len(), parts[0]), (4, "00"), "{text}");
        (parts[1].into(), parts[2].into(), parts[3].into())
    }

    pub fn trace_id(&self) -> String {
        self.traceparent().0
    }
}
