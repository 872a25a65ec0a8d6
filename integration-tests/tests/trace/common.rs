//! Set-ups that most tests share.

pub use weir_integration_tests::traceparent::{Traceparent, traced};

use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Client, Cluster, Envoy, Filter, Listener, Request, Response, Route, Upstream, chain, paths,
    wait_until,
};

/// A policy `lab` with these sections besides, in flow style: `trace_context: {…}, restore: {…}`.
pub fn lab(sections: &str) -> String {
    format!("{{name: lab, {sections}}}")
}

/// What an application forwards in most tests.
pub const ONLY_THE_ID: &[&str] = &["x-request-id"];

/// A chain of services with the module on both listeners of each hop.
pub fn chain(hops: usize, policy: &str) -> chain::Builder {
    chain::Chain::builder().hops(hops).module(paths::module("trace_context")).policy(policy)
}

/// One Envoy with `in` and `out`, as a service has it, both of which lead to an echo: in place of
/// an application, the test itself comes in and goes out.
pub struct Sidecar {
    pub envoy: Envoy,
    pub upstream: Upstream,
}

impl Sidecar {
    pub fn start(policy: &str) -> Self {
        Self::with(policy, |listener| listener)
    }

    /// Routes and filters that `dress` adds come before those of the sidecar.
    pub fn with(policy: &str, dress: impl Fn(Listener) -> Listener) -> Self {
        let upstream = Upstream::start("echo");
        let listener = |listener: Listener| {
            dress(listener)
                .without_access_log()
                .filter(Filter::weir())
                .route(Route::direct("/direct", 200))
                .route(Route::prefix("/", "echo"))
        };
        let envoy = Envoy::builder()
            .module(paths::module("trace_context"))
            .cluster(Cluster::followed("echo", upstream.address))
            .listener(listener(Listener::inbound("in")))
            .listener(listener(Listener::outbound("out")))
            .policy(policy)
            .start();
        Self { envoy, upstream }
    }

    /// Comes in; gives what the application would have got.
    pub fn comes_in(&self, request: &Request) -> Response {
        self.envoy.client("in").send(request)
    }

    /// Goes out; gives what the next service would have got.
    pub fn goes_out(&self, request: &Request) -> Response {
        self.envoy.client("out").send(request)
    }

    pub fn out(&self) -> Client {
        self.envoy.client("out")
    }

    /// A counter of the module: `metric("restores", "ambiguous")`.
    pub fn metric(&self, what: &str, outcome: &str) -> u64 {
        let (name, outcome) = (format!("context_{what}_total"), format!("outcome=.={outcome};"));
        self.envoy.metric_with(&["policy=.=lab;", &outcome, &name])
    }

    pub fn await_metric(&self, what: &str, outcome: &str, value: u64) {
        wait_until(&format!("{what} {outcome} = {value}"), DEADLINE, || {
            self.metric(what, outcome) == value
        });
    }
}
