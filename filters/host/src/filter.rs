//! What a module is to the host layer.

use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

use crate::ports::HostPorts;

/// One filter under one policy, in one worker.
pub trait Filter: Sized + 'static {
    /// The section of the policy that the module runs.
    const SECTION: Section;
    /// In metrics, logs and filter state, e.g. `rate_limit`.
    const NAME: &'static str;
    /// Whether streams are kept after their response headers, for [`Filter::on_log`].
    const KEEPS_STREAMS: bool = false;
    /// What a worker keeps over policy edits.
    type Worker: Default;
    /// What a stream needs to remember between request and response.
    type Stream;

    /// Pure: an edit is tried out in a VM of its own before any worker sees it.
    fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Self, FieldError>;
    /// Runs before the first request, on the main thread first.
    fn prepare(&mut self, worker: &mut Self::Worker, ports: &mut HostPorts);
    fn common(&self) -> &Common;
    /// The attribute that marks a charged request for its life, if the filter charges any.
    fn mark(&self) -> Option<&str>;

    /// Only what runs several filters edits the headers: for those that come after.
    fn on_request(
        &mut self,
        worker: &mut Self::Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Self::Stream>);

    /// A request that waited for a call, see [`Effects::waits_for`], with what was kept of it.
    fn resume(
        &mut self,
        _: Option<Self::Stream>,
        worker: &mut Self::Worker,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Self::Stream>) {
        self.on_request(worker, headers, ports)
    }

    /// What goes along with the mark when the stream ends without a response.
    fn carries(_: &Self::Stream) -> Vec<u8> {
        Vec::new()
    }

    /// Whether the edits depend on what the upstream sent; reading that costs a host call.
    fn reads_response(stream: &Self::Stream) -> bool;
    fn on_response(
        stream: &mut Self::Stream,
        worker: &mut Self::Worker,
        upstream: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> Effects;
    /// A call of [`weir_engine::core::ports::Calls`] has ended, with a message where the other side took it;
    /// that of an HTTP call is not read.
    fn on_call(_: &mut Self::Worker, _token: u32, _message: Option<&[u8]>, _: &mut HostPorts) {}
    /// A call that requests wait for and of which the host has said nothing for too long.
    fn overdue(_: &Self::Worker, _: &mut HostPorts) -> Option<u32> {
        None
    }
    /// The stream is over, whatever became of it. Runs once for each stream that is still kept.
    fn on_log(_: Self::Stream, _: &mut Self::Worker, _: &mut HostPorts) {}

    /// In milliseconds. Ten ticks a second do for what is not urgent, and an idle Envoy spends a
    /// thousandth of a core on them.
    fn tick_period(&self) -> u32 {
        100
    }
    /// Every tick.
    fn tick(&mut self, ports: &mut HostPorts);
    fn tick_worker(worker: &mut Self::Worker, ports: &mut HostPorts);
}
