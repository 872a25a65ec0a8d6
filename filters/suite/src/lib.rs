//! `weir_suite.wasm`: all four filters in one pass, in the order color, trace, limit, breaker.
//!
//! A request's headers are read once, each filter sees what those before it have written, and all of it is
//! carried out at the end. A response goes the other way round. What the four do is theirs; nothing is
//! decided in here.

mod pass;

use weir_circuit_breaker::CircuitBreaker;
use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_engine::core::ports::{Clock, Nanos};
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};
use weir_rate_limit::RateLimit;
use weir_trace_context::TraceContext;
use weir_traffic_color::TrafficColor;

use pass::Pass;

struct Suite {
    color: TrafficColor,
    trace: TraceContext,
    limit: RateLimit,
    breaker: CircuitBreaker,
    /// When those that are not in a hurry had their last tick.
    ticked: Nanos,
}

weir_host::module!(Suite, calls);

#[derive(Default)]
struct Workers {
    color: <TrafficColor as Filter>::Worker,
    trace: <TraceContext as Filter>::Worker,
    limit: <RateLimit as Filter>::Worker,
    breaker: <CircuitBreaker as Filter>::Worker,
}

struct Streams {
    color: Option<<TrafficColor as Filter>::Stream>,
    trace: Option<<TraceContext as Filter>::Stream>,
    limit: Option<<RateLimit as Filter>::Stream>,
    breaker: Option<<CircuitBreaker as Filter>::Stream>,
}

impl Filter for Suite {
    const SECTION: Section = Section::All;
    const NAME: &'static str = "suite";
    const KEEPS_STREAMS: bool = true;
    type Worker = Workers;
    type Stream = Streams;

    fn compile(policy: &Policy, plugin: &str, vm: u64) -> Result<Self, FieldError> {
        Ok(Suite {
            color: TrafficColor::compile(policy, plugin, vm)?,
            trace: TraceContext::compile(policy, plugin, vm)?,
            limit: RateLimit::compile(policy, plugin, vm)?,
            breaker: CircuitBreaker::compile(policy, plugin, vm)?,
            ticked: 0,
        })
    }

    fn prepare(&mut self, worker: &mut Workers, ports: &mut HostPorts) {
        self.color.prepare(&mut worker.color, ports);
        self.trace.prepare(&mut worker.trace, ports);
        self.limit.prepare(&mut worker.limit, ports);
        self.breaker.prepare(&mut worker.breaker, ports);
    }

    fn common(&self) -> &Common {
        self.limit.common()
    }

    fn mark(&self) -> Option<&str> {
        self.limit.mark()
    }

    fn on_request(
        &mut self,
        worker: &mut Workers,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Streams>) {
        let mut pass = Pass::of_request(headers, ports);
        let streams = Streams {
            color: pass.request(&mut self.color, &mut worker.color),
            trace: pass.request(&mut self.trace, &mut worker.trace),
            limit: pass.request(&mut self.limit, &mut worker.limit),
            breaker: pass.request(&mut self.breaker, &mut worker.breaker),
        };
        (pass.end(), Some(streams).filter(Streams::matter))
    }

    /// Color and trace were done with the request when the limiter made it wait.
    fn resume(
        &mut self,
        streams: Option<Streams>,
        worker: &mut Workers,
        headers: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> (Effects, Option<Streams>) {
        let Some(mut streams) = streams else { return (Effects::default(), None) };
        let mut pass = Pass::of_request(headers, ports);
        let plan = streams.limit.take();
        streams.limit = pass.resume(&mut self.limit, plan, &mut worker.limit);
        streams.breaker = pass.request(&mut self.breaker, &mut worker.breaker);
        (pass.end(), Some(streams).filter(Streams::matter))
    }

    fn carries(streams: &Streams) -> Vec<u8> {
        streams.limit.as_ref().map(RateLimit::carries).unwrap_or_default()
    }

    fn reads_response(streams: &Streams) -> bool {
        fn reads<F: Filter>(stream: Option<&F::Stream>) -> bool {
            stream.is_some_and(F::reads_response)
        }
        reads::<CircuitBreaker>(streams.breaker.as_ref())
            || reads::<RateLimit>(streams.limit.as_ref())
            || reads::<TraceContext>(streams.trace.as_ref())
            || reads::<TrafficColor>(streams.color.as_ref())
    }

    fn on_response(
        streams: &mut Streams,
        worker: &mut Workers,
        upstream: &mut HeaderMap,
        ports: &mut HostPorts,
    ) -> Effects {
        let mut pass = Pass::of_response(upstream, ports);
        pass.response::<CircuitBreaker>(&mut streams.breaker, &mut worker.breaker);
        pass.response::<RateLimit>(&mut streams.limit, &mut worker.limit);
        pass.response::<TraceContext>(&mut streams.trace, &mut worker.trace);
        pass.response::<TrafficColor>(&mut streams.color, &mut worker.color);
        pass.end()
    }

    fn on_call(worker: &mut Workers, token: u32, message: Option<&[u8]>, ports: &mut HostPorts) {
        TraceContext::on_call(&mut worker.trace, token, message, ports);
        RateLimit::on_call(&mut worker.limit, token, message, ports);
    }

    fn overdue(worker: &Workers, ports: &mut HostPorts) -> Option<u32> {
        RateLimit::overdue(&worker.limit, ports)
    }

    fn on_log(streams: Streams, worker: &mut Workers, ports: &mut HostPorts) {
        fn log<F: Filter>(
            stream: Option<F::Stream>,
            worker: &mut F::Worker,
            ports: &mut HostPorts,
        ) {
            if let Some(stream) = stream {
                F::on_log(stream, worker, ports);
            }
        }
        ports.remember();
        log::<TrafficColor>(streams.color, &mut worker.color, ports);
        log::<TraceContext>(streams.trace, &mut worker.trace, ports);
        log::<RateLimit>(streams.limit, &mut worker.limit, ports);
        log::<CircuitBreaker>(streams.breaker, &mut worker.breaker, ports);
        ports.forget();
    }

    fn tick_period(&self) -> u32 {
        let each = [
            self.color.tick_period(),
            self.trace.tick_period(),
            self.limit.tick_period(),
            self.breaker.tick_period(),
        ];
        each.into_iter().min().unwrap_or(100)
    }

    /// A breaker may be in a hurry; nobody else is.
    fn tick(&mut self, ports: &mut HostPorts) {
        self.breaker.tick(ports);
        let now = ports.now();
        if self.is_time(now) {
            self.ticked = now;
            self.color.tick(ports);
            self.trace.tick(ports);
            self.limit.tick(ports);
        }
    }

    fn tick_worker(worker: &mut Workers, ports: &mut HostPorts) {
        TrafficColor::tick_worker(&mut worker.color, ports);
        TraceContext::tick_worker(&mut worker.trace, ports);
        RateLimit::tick_worker(&mut worker.limit, ports);
        CircuitBreaker::tick_worker(&mut worker.breaker, ports);
    }
}

impl Suite {
    /// Whether the slowest of those that tick without hurry would have had a tick by now. A host's timer
    /// is late by a little, now and then, and a clock may step back.
    fn is_time(&self, now: Nanos) -> bool {
        const MS: Nanos = 1_000_000;
        let period = self.color.tick_period().min(self.trace.tick_period());
        let period = Nanos::from(period.min(self.limit.tick_period())).saturating_mul(MS);
        let since = now.checked_sub(self.ticked);
        since.is_none_or(|since| since >= period.saturating_sub(period / 8))
    }
}

impl Streams {
    fn matter(&self) -> bool {
        let Streams { color, trace, limit, breaker } = self;
        color.is_some() || trace.is_some() || limit.is_some() || breaker.is_some()
    }
}
