//! Envoy with a limit in front of an upstream that follows a script.

use serde_json::json;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Envoy, Filter, H1Conn, Listener, Route, Script, Scripted, paths, wait_until,
};

pub fn shop(rules: &str) -> String {
    format!("{{name: shop, rate_limit: {{rules: [{rules}]}}}}")
}

pub fn one_rule(fields: &str) -> String {
    shop(&format!("{{id: r, {fields}}}"))
}

/// A filter behind ours: answers `/local` itself, and gives `/soon` little time.
const LATER: &str = r#"function envoy_on_request(h)
    local path = h:headers():get(":path")
    if path == "/local" then
        h:respond({[":status"] = "403"}, "no")
    elseif path == "/soon" then
        h:headers():add("x-envoy-upstream-rq-timeout-ms", "100")
    end
end"#;

/// The listeners `h1` and `h2` lead to the upstream by the protocol of their name.
pub struct Rig {
    pub envoy: Envoy,
    pub upstream: Scripted,
}

impl Rig {
    pub fn start(workers: u32, policy: &str) -> Rig {
        Rig::with_module(workers, policy, "weir_rate_limit.wasm")
    }

    pub fn with_module(workers: u32, policy: &str, module: &str) -> Rig {
        let upstream = Scripted::start(Script::Ok);
        let mut builder = Envoy::builder()
            .workers(workers)
            .module(paths::built(module))
            .on_trap("FAIL_RELOAD")
            .cluster(Cluster::h1("h1", upstream.address))
            .cluster(Cluster::h2("h2", upstream.address))
            .policy(policy);
        for name in ["h1", "h2"] {
            let listener = Listener::inbound(name)
                // An answer that is cut is cut at once, not after a second.
                .hcm("delayed_close_timeout", json!("0s"))
                .hcm("upgrade_configs", json!([{"upgrade_type": "websocket"}]))
                .filter(Filter::weir())
                .filter(Filter::lua(LATER))
                .route(Route::direct("/direct", 200))
                .route(Route::prefix("/retried", name).retry("5xx", &[], 2))
                .route(Route::prefix("/", name));
            builder = builder.listener(listener);
        }
        Rig { envoy: builder.start(), upstream }
    }

    /// A request on a connection of its own, whose answer nobody waits for.
    pub fn send(&self, listener: &str, path: &str) -> H1Conn {
        let mut connection = self.envoy.h1(listener);
        connection
            .write(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n").as_bytes())
            .expect("Envoy reads");
        connection
    }

    /// So many requests that the upstream holds.
    pub fn hang(&self, count: usize) -> Vec<H1Conn> {
        self.upstream.play(Script::Hang);
        let before = self.upstream.flying();
        let held: Vec<_> = (0..count).map(|_| self.send("h1", "/held")).collect();
        self.await_flying(before + count);
        held
    }

    pub fn await_flying(&self, count: usize) {
        let what = format!("{count} requests are at the upstream");
        wait_until(&what, DEADLINE, || self.upstream.flying() == count);
    }

    /// The status of a request that Envoy answers itself if the limit lets it.
    pub fn probe(&self) -> u16 {
        self.envoy.client("h1").get("/direct").status
    }

    pub fn await_probe(&self, status: u16) {
        let what = format!("a request is answered with {status}");
        wait_until(&what, DEADLINE, || self.probe() == status);
    }

    /// The gauge of requests in flight.
    pub fn gauge(&self) -> u64 {
        self.envoy.metric_with(&["rule=.=r;", "weir_rate_limit_in_flight"])
    }

    pub fn await_gauge(&self, value: u64) {
        wait_until(&format!("{value} in flight"), DEADLINE, || self.gauge() == value);
    }
}
