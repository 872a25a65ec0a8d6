//! Set-ups that most tests share.

use serde_json::json;
use std::time::Duration;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Client, Cluster, Envoy, Filter, Listener, Request, Route, Script, Scripted, Upstream, paths,
    wait_until,
};

/// A policy `shop` with one rule `r` over all traffic, with nothing at random.
pub fn one_rule(fields: &str) -> String {
    shop(&format!("{{id: r, jitter_percent: 0, {fields}}}"))
}

/// A policy `shop` with these rules, in flow style.
pub fn shop(rules: &str) -> String {
    format!("{{name: shop, circuit_breaker: {{rules: [{rules}]}}}}")
}

/// Envoy with the breaker in front of an upstream that follows a script: `h1` and `h2` lead there
/// by the protocol of their name. Requests with `x-to: spare` go to another upstream.
pub struct Rig {
    pub envoy: Envoy,
    pub upstream: Scripted,
    pub spare: Upstream,
}

impl Rig {
    pub fn start(workers: u32, policy: &str) -> Rig {
        Rig::with_filters(workers, policy, || vec![Filter::weir()])
    }

    pub fn with_filters(workers: u32, policy: &str, filters: impl Fn() -> Vec<Filter>) -> Rig {
        let upstream = Scripted::start(Script::Ok);
        let spare = Upstream::start("spare");
        let mut builder = Envoy::builder()
            .workers(workers)
            .module(paths::module("circuit_breaker"))
            .cluster(Cluster::h1("h1", upstream.address))
            .cluster(Cluster::h2("h2", upstream.address))
            .cluster(Cluster::h1("spare", spare.address))
            .policy(policy);
        for name in ["h1", "h2"] {
            let log = builder.directory().join(format!("breaker-{name}.log"));
            let mut listener = Listener::outbound(name)
                .hcm("access_log", access_log(&log))
                .hcm("upgrade_configs", json!([{"upgrade_type": "websocket"}]))
                .route(Route::prefix("/", "spare").when_header("x-to", "spare"))
                .route(Route::prefix("/retried", name).retry("5xx", &[], 2))
                .route(Route::direct("/direct", 503))
                .route(Route::prefix("/", name));
            for filter in filters() {
                listener = listener.filter(filter);
            }
            builder = builder.listener(listener);
        }
        Rig { envoy: builder.start(), upstream, spare }
    }

    /// Clients whose connections are spread over all workers.
    pub fn clients(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.envoy.client("h1")).collect()
    }

    /// Calls one client after the other until one gets the breaker's refusal; gives how many got
    /// through before.
    pub fn until_open(&self, clients: &mut [Client]) -> usize {
        let turns = clients.len();
        let mut open = (0..500).map(|n| is_open(&mut clients[n % turns], "/"));
        open.position(|is_open| is_open).expect("the breaker opens")
    }

    /// Sends so many requests, each on a connection of its own and none waiting for another; gives
    /// how each ended.
    pub fn at_once(&self, count: usize) -> Vec<u16> {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let mut client = self.envoy.client("h1");
                std::thread::spawn(move || client.get("/").status)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    /// A counter of the breaker whose name holds all of these parts, summed.
    pub fn metric(&self, parts: &[&str]) -> u64 {
        let metrics = self.envoy.weir_metrics();
        let named = metrics.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        named.map(|(_, value)| value).sum()
    }

    pub fn await_metric(&self, parts: &[&str], value: u64) {
        wait_until(&format!("{parts:?} = {value}"), DEADLINE, || self.metric(parts) == value);
    }

    /// What the access log of `h1` says of the first request to this path.
    pub fn await_access(&self, path: &str) -> String {
        let file = self.envoy.directory().join("breaker-h1.log");
        let mut found = None;
        wait_until(&format!("an access log entry for {path}"), DEADLINE, || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            found =
                text.lines().find(|line| line.starts_with(&format!("{path} "))).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }
}

fn access_log(file: &std::path::Path) -> serde_json::Value {
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% \
                  %FILTER_STATE(wasm.weir.circuit_breaker:PLAIN)%\n";
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

/// Whether the breaker answers.
pub fn is_open(client: &mut Client, path: &str) -> bool {
    let answer = client.send(&Request::get(path));
    answer.header("x-weir-reason").as_deref() == Some("circuit_open")
}

/// Longer than a worker's copy of a breaker may be old, and a tick.
pub const SYNC: Duration = Duration::from_millis(120);

pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
