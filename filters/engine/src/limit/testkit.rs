//! A simulated proxy with a policy and some workers, for the tests of this folder.

use weir_protos::{FieldError, Section, decode};

use super::{Decision, Limiter, Worker};
use crate::core::headers::HeaderMap;
use crate::sim::{Process, SimPorts};

pub fn compile(yaml: &str, vm: u64) -> Result<Limiter, FieldError> {
    let policy = decode(serde_yaml_ng::Deserializer::from_str(yaml), Section::All)?;
    Limiter::compile(&policy, "test", vm)
}

/// One worker's VM.
pub struct Vm {
    pub limiter: Limiter,
    pub worker: Worker,
    pub ports: SimPorts,
}

impl Vm {
    pub fn start(process: &Process, yaml: &str, number: u64) -> Vm {
        let mut ports = process.ports(number);
        // As Envoy does for every listener; tests of directions change it.
        ports.set_attribute("xds.listener_direction", &1_u64.to_le_bytes());
        let (mut limiter, mut worker) = (compile(yaml, number).unwrap(), Worker::default());
        limiter.prepare(&mut worker, &mut ports);
        Vm { limiter, worker, ports }
    }

    pub fn send(&mut self, headers: &[(&str, &str)]) -> Decision {
        let headers = HeaderMap::from_pairs(headers);
        self.limiter.on_request(&mut self.worker, &headers, &mut self.ports)
    }

    pub fn get(&mut self, path: &str) -> Decision {
        self.send(&[(":method", "GET"), (":path", path), (":authority", "shop.example")])
    }

    /// A request of one user.
    pub fn user(&mut self, user: &str) -> Decision {
        self.send(&[
            (":method", "GET"),
            (":path", "/"),
            (":authority", "shop.example"),
            ("x-user", user),
        ])
    }

    pub fn tick(&mut self) {
        self.worker.tick(&mut self.ports);
        self.limiter.tick(&mut self.ports);
    }

    /// A policy edit: a new root in the same VM.
    pub fn reload(&mut self, yaml: &str, number: u64) {
        self.limiter = compile(yaml, number).unwrap();
        self.limiter.prepare(&mut self.worker, &mut self.ports);
    }

    /// What the metrics say after a tick.
    pub fn counted(&mut self, parts: &[&str]) -> u64 {
        self.tick();
        self.ports.counter(parts)
    }
}

impl Decision {
    pub fn passes(&self) -> bool {
        self.effects.reply.is_none()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = &self.effects.reply.as_ref()?.headers;
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A policy of one rule with this body.
pub fn one_rule(fields: &str) -> String {
    format!("name: t\nrate_limit:\n  rules:\n  - id: r\n    {}\n", fields.replace('\n', "\n    "))
}
