//! What the scenes play on: two upstreams, an Envoy in front of them, a policy file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_integration_tests::envoy::metric_name;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Route, Upstream, paths};

use crate::policy_file::PolicyFile;

pub const WORKERS: u32 = 2;
const LISTENER: &str = "front";
/// Ten times what a batch of counters waits for its flush.
const FLUSHED: Duration = Duration::from_secs(1);

pub struct Stage {
    /// Before Envoy: the watcher lets go of it first.
    pub file: PolicyFile,
    pub envoy: Arc<Envoy>,
    pub shop: Upstream,
    pub account: Upstream,
    /// The policy of the start.
    pub policy: String,
    /// All answers of the clients so far.
    pub passed: u64,
    pub refused: u64,
}

impl Stage {
    pub fn set() -> Self {
        let source = paths::root().join("envoy-configs/policies/demo.yaml");
        let policy = std::fs::read_to_string(&source)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", source.display()));
        let (shop, account) = (Upstream::start("shop"), Upstream::start("account"));
        let listener = Listener::inbound(LISTENER)
            .filter(Filter::weir())
            .route(Route::prefix("/account", "account"))
            .route(Route::prefix("/", "shop"));
        let envoy = Envoy::builder()
            .workers(WORKERS)
            .listener(listener)
            .cluster(Cluster::h1("shop", shop.address))
            .cluster(Cluster::h1("account", account.address))
            .policy(&policy)
            .start();
        let envoy = Arc::new(envoy);
        let file = PolicyFile::watch(envoy.clone(), &policy);
        Self { file, envoy, shop, account, policy, passed: 0, refused: 0 }
    }

    pub fn address(&self) -> SocketAddr {
        self.envoy.address(LISTENER)
    }

    /// Envoy's counter of our decisions. Waits for the workers' batches when it is not yet what the
    /// clients counted.
    pub fn decided(&self, rule: &str, outcome: &str, counted: u64) -> u64 {
        self.counter(&metric_name("demo", rule, outcome), counted)
    }

    /// How many policies of ours had this result.
    pub fn reloads(&self, result: &str, counted: u64) -> u64 {
        let labels = format!("policy=.=demo;.;result=.={result};.;");
        self.counter(&format!("wasmcustom.{labels}weir_rate_limit_reloads_total"), counted)
    }

    /// Envoy's own count of answers on the listener, by the first digit of their status.
    pub fn answered(&self, class: u32, counted: u64) -> u64 {
        self.counter(&format!("http.{LISTENER}.downstream_rq_{class}xx"), counted)
    }

    /// Requests that Envoy sent to an upstream.
    pub fn forwarded(&self, cluster: &str) -> u64 {
        self.envoy.counter(&format!("cluster.{cluster}.upstream_rq_total"))
    }

    pub fn connections_by_worker(&self) -> Vec<u64> {
        self.envoy.connections_by_worker(LISTENER)
    }

    fn counter(&self, name: &str, counted: u64) -> u64 {
        let start = Instant::now();
        loop {
            let now = self.envoy.counter(name);
            if now == counted || start.elapsed() > FLUSHED * 2 {
                return now;
            }
            std::thread::sleep(FLUSHED / 50);
        }
    }
}
