//! `weir_trace_context.wasm`: trace context, deadlines, sampling and spans as an Envoy filter.

use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_engine::trace::{Call, Tracer, Worker};
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

pub struct TraceContext(Tracer);

#[cfg(feature = "module")]
weir_host::module!(TraceContext, calls);

impl Filter for TraceContext {
    const SECTION: Section = Section::TraceContext;
    const NAME: &'static str = "trace_context";
    const KEEPS_STREAMS: bool = true;
    type Worker = Worker;
    type Stream = Call;

    fn compile(policy: &Policy, plugin: &str, _: u64) -> Result<Self, FieldError> {
        Tracer::compile(policy, plugin).map(TraceContext)
    }

    fn prepare(&mut self, worker: &mut Worker, ports: &mut HostPorts) {
        self.0.prepare(worker, ports);
    }

    fn common(&self) -> &Common {
        self.0.common()
    }

    /// Nothing is charged: a request that is redirected has another hop before it.
    fn mark(&self) -> Option<&str> {
        None
    }

    fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Call>) {
        let decision = self.0.on_request(worker, headers, ports);
        (decision.effects, decision.call)
    }

    fn reads_response(call: &Call) -> bool {
        call.reads_response()
    }

    fn on_response(
        call: &mut Call,
        _: &mut Worker,
        response: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> Effects {
        call.on_response(response, ports)
    }

    fn on_call(worker: &mut Worker, token: u32, message: Option<&[u8]>, _: &mut HostPorts) {
        worker.on_call(token, message.is_some());
    }

    fn on_log(call: Call, worker: &mut Worker, ports: &mut HostPorts) {
        call.on_log(worker, ports);
    }

    fn tick(&mut self, ports: &mut HostPorts) {
        self.0.tick(ports);
    }

    fn tick_worker(worker: &mut Worker, ports: &mut HostPorts) {
        worker.tick(ports);
    }
}
