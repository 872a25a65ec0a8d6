//! `weir_circuit_breaker.wasm`: circuit breaking as an Envoy filter.

use std::rc::Rc;

use weir_engine::breaker::{Breaker, Call, Worker};
use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

pub struct CircuitBreaker(Breaker);

#[cfg(feature = "module")]
weir_host::module!(CircuitBreaker);

impl Filter for CircuitBreaker {
    const SECTION: Section = Section::CircuitBreaker;
    const NAME: &'static str = "circuit_breaker";
    const KEEPS_STREAMS: bool = true;
    type Worker = Worker;
    type Stream = Rc<Call>;

    fn compile(policy: &Policy, plugin: &str, _: u64) -> Result<Self, FieldError> {
        Breaker::compile(policy, plugin).map(CircuitBreaker)
    }

    fn prepare(&mut self, worker: &mut Worker, ports: &mut HostPorts) {
        self.0.prepare(worker, ports);
    }

    fn common(&self) -> &Common {
        self.0.common()
    }

    /// A call counts by how it ends, which a redirected one does each time.
    fn mark(&self) -> Option<&str> {
        None
    }

    fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Rc<Call>>) {
        let decision = self.0.on_request(worker, headers, ports);
        (decision.effects, decision.call)
    }

    fn reads_response(call: &Rc<Call>) -> bool {
        call.reads_response()
    }

    fn on_response(
        call: &mut Rc<Call>,
        worker: &mut Worker,
        upstream: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> Effects {
        call.on_response(worker, upstream, ports).into()
    }

    fn on_log(call: Rc<Call>, worker: &mut Worker, ports: &mut HostPorts) {
        call.on_log(worker, ports);
    }

    fn tick_period(&self) -> u32 {
        self.0.tick_milliseconds()
    }

    fn tick(&mut self, ports: &mut HostPorts) {
        self.0.tick(ports);
    }

    fn tick_worker(worker: &mut Worker, ports: &mut HostPorts) {
        worker.tick(ports);
    }
}
