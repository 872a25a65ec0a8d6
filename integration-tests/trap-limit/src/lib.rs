//! The rate limiter, but for a trap: a request with the header `x-test-trap` takes its worker's VM down, as a
//! fault of ours would. What a VM leaves behind when it dies is what the tests look at.

use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_engine::limit::{Limiter, ResponsePlan, Worker};
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

struct TrapLimit(Limiter);

weir_host::module!(TrapLimit);

impl Filter for TrapLimit {
    const SECTION: Section = Section::RateLimit;
    const NAME: &'static str = "rate_limit";
    // What is in flight is so until the stream ends.
    const KEEPS_STREAMS: bool = true;
    type Worker = Worker;
    type Stream = ResponsePlan;

    fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Self, FieldError> {
        Limiter::compile(policy, plugin, vm).map(TrapLimit)
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
        if headers.get(b"x-test-trap").is_some() {
            std::process::abort();
        }
        let decision = self.0.on_request(worker, headers, ports);
        (decision.effects, decision.response)
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
