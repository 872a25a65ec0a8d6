//! The engine's ports over the host's calls.

use std::collections::HashMap;

use proxy_wasm::types::MetricType;
use weir_engine::core::effects::HeaderEdit;
use weir_engine::core::ports::{
    Attributes, Calls, Cas, Clock, GrpcCall, HttpCall, Metrics, Nanos, Rng, SetError, SharedStore,
};

use crate::abi;

/// Random bytes fetched at a time: one call of 1 KiB costs hardly more than one of 8 bytes.
const POOL: usize = 1024;

/// The host as one VM sees it.
#[derive(Debug, Default)]
pub struct HostPorts {
    /// Ids of metrics by name. Each definition makes a new entry in the host, so a name is defined
    /// once in the life of a VM. Names come from policies, of which there are few in that time.
    metrics: HashMap<String, u32>,
    random: Vec<u8>,
    memory: Option<Remembered>,
    /// The stream in hand, and its root.
    stream: Option<Stream>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    context: u32,
    root: u32,
}

/// What the host said during one callback: several filters ask the same.
#[derive(Debug, Default)]
struct Remembered {
    attributes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What filters have written into the request's headers, which Envoy is yet to see.
    edits: Vec<HeaderEdit>,
    now: Option<Nanos>,
    wall: Option<Nanos>,
}

impl HostPorts {
    fn metric(&mut self, kind: MetricType, name: &str) -> Option<u32> {
        if let Some(id) = self.metrics.get(name) {
            return Some(*id);
        }
        let id = abi::define_metric(kind, name)?;
        self.metrics.insert(name.to_string(), id);
        Some(id)
    }
}

impl HostPorts {
    /// Calls are made for `root` from here on, while everything else is of this stream.
    pub(crate) fn enter(&mut self, context: u32, root: u32) {
        self.stream = Some(Stream { context, root });
    }

    /// The root context is in hand.
    pub(crate) fn leave(&mut self) {
        self.stream = None;
    }

    /// A call outlives the stream that it is made for.
    fn for_root(&self, call: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let Some(stream) = self.stream else { return call() };
        if !abi::act_for(stream.root) {
            return None;
        }
        let token = call();
        abi::act_for(stream.context);
        token
    }

    /// From here on, until [`HostPorts::forget`], one question is asked once, and time stands still.
    pub fn remember(&mut self) {
        self.memory = Some(Remembered::default());
    }

    pub fn forget(&mut self) {
        self.memory = None;
    }

    /// While it remembers: the request's headers as far as they were written since, to be shown by
    /// Envoy's own attributes of the request.
    pub fn edits(&mut self) -> Option<&mut Vec<HeaderEdit>> {
        self.memory.as_mut().map(|memory| &mut memory.edits)
    }

    /// While it remembers: this attribute has this value, or none.
    pub fn pretend(&mut self, path: &[u8], value: Option<Vec<u8>>) {
        if let Some(memory) = &mut self.memory {
            memory.attributes.retain(|(known, _)| known != path);
            memory.attributes.push((path.to_vec(), value));
        }
    }

    /// What the access log and later filters should know of a request.
    pub fn set_state(&mut self, filter: &str, state: &str) {
        let path = format!("weir.{filter}");
        abi::set_property(&path, state.as_bytes());
        self.pretend(path.as_bytes(), Some(state.as_bytes().to_vec()));
    }
}

impl Clock for HostPorts {
    fn now(&mut self) -> Nanos {
        match &mut self.memory {
            Some(memory) => *memory.now.get_or_insert_with(abi::monotonic),
            None => abi::monotonic(),
        }
    }

    fn wall(&mut self) -> Nanos {
        match &mut self.memory {
            Some(memory) => *memory.wall.get_or_insert_with(abi::wall),
            None => abi::wall(),
        }
    }
}

impl SharedStore for HostPorts {
    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Cas)> {
        abi::shared_data(key)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError> {
        abi::set_shared_data(key, value, cas)
    }
}

impl Attributes for HostPorts {
    fn attribute(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        let Some(memory) = &mut self.memory else { return abi::property(path) };
        // What filters write may change it between two that ask.
        if let Some(name) = written_header(path) {
            return after(&memory.edits, name, abi::property(path));
        }
        if let Some((_, value)) = memory.attributes.iter().find(|(known, _)| known == path) {
            return value.clone();
        }
        let value = abi::property(path);
        memory.attributes.push((path.to_vec(), value.clone()));
        value
    }
}

/// The header of the request that an attribute shows.
fn written_header(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"request\0")?;
    if rest == b"id" { Some(b"x-request-id") } else { rest.strip_prefix(b"headers\0") }
}

/// What a header's value is after edits.
fn after(edits: &[HeaderEdit], header: &[u8], before: Option<Vec<u8>>) -> Option<Vec<u8>> {
    // Envoy takes a name in any case.
    let is_it = |name: &String| name.as_bytes().eq_ignore_ascii_case(header);
    edits.iter().fold(before, |value, edit| match edit {
        HeaderEdit::Set(name, value) if is_it(name) => Some(value.clone().into()),
        HeaderEdit::Remove(name) if is_it(name) => None,
        HeaderEdit::Add(name, added) if is_it(name) => value.or_else(|| Some(added.clone().into())),
        _ => value,
    })
}

impl Calls for HostPorts {
    fn grpc(&mut self, call: &GrpcCall<'_>) -> Option<u32> {
        self.for_root(|| abi::grpc_call(call))
    }

    fn http(&mut self, call: &HttpCall<'_>) -> Option<u32> {
        self.for_root(|| abi::http_call(call))
    }
}

impl Rng for HostPorts {
    fn random(&mut self) -> u64 {
        if self.random.len() < 8 {
            self.random.resize(POOL, 0);
            abi::fill_random(&mut self.random);
        }
        let rest = self.random.len().saturating_sub(8);
        let number = self.random.get(rest..).and_then(|bytes| bytes.try_into().ok());
        self.random.truncate(rest);
        number.map_or(0, u64::from_le_bytes)
    }
}

impl Metrics for HostPorts {
    fn count(&mut self, name: &str, by: u64) {
        if let Some(id) = self.metric(MetricType::Counter, name) {
            abi::increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX));
        }
    }

    fn gauge(&mut self, name: &str, value: u64) {
        if let Some(id) = self.metric(MetricType::Gauge, name) {
            abi::record_metric(id, value);
        }
    }

    fn shift(&mut self, name: &str, by: i64) {
        if let Some(id) = self.metric(MetricType::Gauge, name) {
            abi::increment_metric(id, by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outside of Envoy an attribute has no value but the one that was written.
    #[test]
    fn an_attribute_shows_what_was_written_since() {
        let mut ports = HostPorts::default();
        ports.remember();
        assert_eq!(ports.attribute(b"request\0headers\0x-weir-color"), None);
        let edit = HeaderEdit::Set("x-weir-color".into(), "gray".into());
        ports.edits().unwrap().push(edit);
        for name in ["x-weir-color", "X-Weir-Color"] {
            let path = format!("request\0headers\0{name}");
            assert_eq!(ports.attribute(path.as_bytes()), Some(b"gray".to_vec()), "{name}");
        }
        ports.edits().unwrap().push(HeaderEdit::Remove("x-weir-color".into()));
        assert_eq!(ports.attribute(b"request\0headers\0x-weir-color"), None);
        ports.edits().unwrap().push(HeaderEdit::Set("x-request-id".into(), "7".into()));
        assert_eq!(ports.attribute(b"request\0id"), Some(b"7".to_vec()));
    }
}
