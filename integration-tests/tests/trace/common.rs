//! Set-ups that most tests share.

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

/// A `traceparent` of version 00, to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: String,
    pub parent_id: String,
    pub flags: u8,
}

impl Traceparent {
    /// Panics on one that the W3C's Trace Context, 3.2.2, would not have.
    pub fn read(header: Option<String>) -> Self {
        let text = header.expect("a traceparent");
        let parts: Vec<_> = text.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts[..] else { panic!("{text:?}") };
        let is_hex = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|b| b != b'0');
        let is_valid =
            version == "00" && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2);
        assert!(is_valid, "{text:?}");
        Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            flags: u8::from_str_radix(flags, 16).expect("checked"),
        }
    }

    /// What client number `n` sends; no module would make it up.
    pub fn of_client(n: u64) -> Self {
        Self {
            trace_id: format!("c11e47{n:026x}"),
            parent_id: format!("c11e{:012x}", n + 1),
            flags: 1,
        }
    }

    pub fn is_of_a_client(&self) -> bool {
        self.trace_id.starts_with("c11e47")
    }

    pub fn write(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// A request of client number `n`, with a trace of its own and this id.
pub fn traced(n: u64, id: &str) -> Request {
    Request::get("/orders")
        .header("traceparent", Traceparent::of_client(n).write())
        .header("x-request-id", id)
}
