//! `weir_rate_limit.wasm`: token-bucket rate limiting as an Envoy filter.

use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_engine::limit::{Limiter, ResponsePlan, Worker};
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

pub struct RateLimit(Limiter);

#[cfg(feature = "module")]
weir_host::module!(RateLimit, calls);

impl Filter for RateLimit {
    const SECTION: Section = Section::RateLimit;
    const NAME: &'static str = "rate_limit";
    // What is in flight is so until the stream ends.
    const KEEPS_STREAMS: bool = true;
    type Worker = Worker;
    type Stream = ResponsePlan;

    fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Self, FieldError> {
        Limiter::compile(policy, plugin, vm).map(RateLimit)
    }

    fn prepare(&mut self, worker: &mut Worker, ports: &mut HostPorts) {
        self.0.prepare(worker, ports);
    }

    fn common(&self) -> &Common {
        self.0.common()
    }

    fn mark(&self) -> Option<&str> {
        Some(self.0.mark())
    }

    fn on_request(
        &mut self,
        worker: &mut Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<ResponsePlan>) {
        let decision = self.0.on_request(worker, headers, ports);
        (decision.effects, decision.response)
    }

    fn resume(
        &mut self,
        plan: Option<ResponsePlan>,
        worker: &mut Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<ResponsePlan>) {
        let waiting = plan.and_then(|plan| plan.waiting);
        let decision = self.0.resume(waiting, worker, headers, ports);
        (decision.effects, decision.response)
    }

    fn on_call(worker: &mut Worker, token: u32, message: Option<&[u8]>, ports: &mut HostPorts) {
        worker.on_call(token, message, ports);
    }

    fn overdue(worker: &Worker, ports: &mut HostPorts) -> Option<u32> {
        worker.overdue(ports)
    }

    fn carries(plan: &ResponsePlan) -> Vec<u8> {
        plan.carried()
    }

    fn reads_response(plan: &ResponsePlan) -> bool {
        plan.reads_response()
    }

    fn on_response(
        plan: &mut ResponsePlan,
        worker: &mut Worker,
        upstream: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> Effects {
        plan.respond(worker, upstream, ports).into()
    }

    fn on_log(plan: ResponsePlan, worker: &mut Worker, ports: &mut HostPorts) {
        plan.end(worker, ports);
    }

    fn tick(&mut self, ports: &mut HostPorts) {
        self.0.tick(ports);
    }

    fn tick_worker(worker: &mut Worker, ports: &mut HostPorts) {
        worker.tick(ports);
    }
}
