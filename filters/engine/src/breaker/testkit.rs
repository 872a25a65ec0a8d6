//! A simulated proxy with a policy and some workers, for the tests of this folder.

use std::rc::Rc;

use weir_protos::{FieldError, Section, decode};

use super::cell::{Cell, State};
use super::{Breaker, Call, Decision, Worker};
use crate::core::headers::HeaderMap;
use crate::sim::{Process, SimPorts};

pub fn compile(yaml: &str) -> Result<Breaker, FieldError> {
    let policy = decode(serde_yaml_ng::Deserializer::from_str(yaml), Section::All)?;
    Breaker::compile(&policy, "test")
}

/// A policy of one rule with these fields, over all traffic; nothing is random.
pub fn one_rule(fields: &str) -> String {
    format!(
        "name: t\ncircuit_breaker:\n  rules:\n  - id: r\n    jitter_percent: 0\n    \
         while_open: {{retry_after_jitter_percent: 0}}\n    {}\n",
        fields.replace('\n', "\n    ")
    )
}

/// How a call ends, as Envoy shows it.
#[derive(Clone, Copy)]
pub struct Ending {
    /// 0: no response.
    pub status: u16,
    pub flags: u64,
    pub attempts: u64,
    pub grpc: Option<u64>,
    pub header: Option<(&'static str, &'static str)>,
}

impl Ending {
    pub const OK: Ending = Ending { status: 200, flags: 0, attempts: 1, grpc: None, header: None };
    pub const FAILED: Ending = Ending { status: 500, ..Ending::OK };
    /// The client went away.
    pub const GONE: Ending = Ending { status: 0, flags: 16_384, ..Ending::OK };
    /// A later filter refused.
    pub const REFUSED: Ending = Ending { status: 429, attempts: 0, ..Ending::OK };
    /// Reset mid-body.
    pub const RESET: Ending = Ending { flags: 8_388_608, ..Ending::OK };
}

/// One worker's VM.
pub struct Vm {
    pub breaker: Breaker,
    pub worker: Worker,
    pub ports: SimPorts,
}

impl Vm {
    pub fn start(process: &Process, yaml: &str, number: u64) -> Vm {
        let mut ports = process.ports(number);
        // As Envoy does for every listener; tests of directions change it.
        ports.set_attribute("xds.listener_direction", &2_u64.to_le_bytes());
        let (mut breaker, mut worker) = (compile(yaml).unwrap(), Worker::default());
        breaker.prepare(&mut worker, &mut ports);
        Vm { breaker, worker, ports }
    }

    /// A policy edit: a new root in the same VM.
    pub fn reload(&mut self, yaml: &str) {
        self.breaker = compile(yaml).unwrap();
        self.breaker.prepare(&mut self.worker, &mut self.ports);
    }

    pub fn send(&mut self, headers: &[(&str, &str)]) -> Decision {
        let headers = HeaderMap::from_pairs(headers);
        self.breaker.on_request(&mut self.worker, &headers, &mut self.ports)
    }

    pub fn get(&mut self) -> Decision {
        self.user("")
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

    pub fn grpc(&mut self) -> Decision {
        self.send(&[
            (":method", "POST"),
            (":path", "/shop.Orders/Get"),
            (":authority", "shop.example"),
            ("content-type", "application/grpc"),
        ])
    }

    /// The response headers come.
    pub fn answer(&mut self, call: &Rc<Call>, ending: Ending) {
        self.show(ending);
        let status = ending.status.to_string();
        let mut headers = vec![(":status", status.as_str())];
        headers.extend(ending.header);
        let headers = HeaderMap::from_pairs(&headers);
        call.on_response(&mut self.worker, &headers, &mut self.ports);
    }

    fn show(&mut self, ending: Ending) {
        let number = |value: u64| value.to_le_bytes();
        self.ports.set_attribute("response.code", &number(ending.status.into()));
        self.ports.set_attribute("response.flags", &number(ending.flags));
        self.ports.set_attribute("upstream.request_attempt_count", &number(ending.attempts));
        let is_answer = ending.status > 0 && ending.flags == 0 && ending.attempts > 0;
        let details = if is_answer { "via_upstream" } else { "" };
        self.ports.set_attribute("response.code_details", details.as_bytes());
        // Made up where the call is not gRPC.
        self.ports.set_attribute("response.grpc_status", &number(ending.grpc.unwrap_or(2)));
        if ending.status == 0 {
            self.ports.attributes.remove(&b"response\0code"[..]);
        }
    }

    /// The stream is logged.
    pub fn log(&mut self, call: &Rc<Call>, ending: Ending) {
        self.show(ending);
        call.on_log(&mut self.worker, &mut self.ports);
    }

    /// A call that was decided on ends.
    pub fn end(&mut self, decision: Decision, ending: Ending) {
        let Some(call) = decision.call else { return };
        if ending.status > 0 {
            self.answer(&call, ending);
        }
        self.log(&call, ending);
    }

    /// A call that begins and ends now. True where it was let through.
    pub fn call(&mut self, ending: Ending) -> bool {
        let decision = self.get();
        let passes = decision.passes();
        self.end(decision, ending);
        passes
    }

    pub fn tick(&mut self) {
        self.worker.tick(&mut self.ports);
        self.breaker.tick(&mut self.ports);
    }

    /// The first rule's breaker.
    pub fn cell(&mut self) -> Cell {
        self.breaker.cell(0, &mut self.ports)
    }

    pub fn state(&mut self) -> State {
        self.cell().state
    }

    /// What the metrics say after a tick.
    pub fn counted(&mut self, parts: &[&str]) -> u64 {
        self.tick();
        self.ports.counter(parts)
    }
}

impl Decision {
    pub fn passes(&self) -> bool {
        self.effects.reply.is_none() && self.effects.headers.is_empty()
    }

    pub fn is_probe(&self) -> bool {
        self.effects.state.as_ref().is_some_and(|state| state.starts_with("probe"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = &self.effects.reply.as_ref()?.headers;
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
