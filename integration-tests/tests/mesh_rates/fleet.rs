//! Proxies that share a limit, and load on all of them.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use weir_integration_tests::load::LoadReport;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Load, Request, Rls, Route};

/// Two loads at once would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

pub type Running = std::thread::JoinHandle<LoadReport>;

pub struct Fleet {
    pub proxies: Vec<Envoy>,
}

impl Fleet {
    /// Two workers each.
    pub fn start(proxies: usize, rls: &Rls, policy: &str) -> Fleet {
        let start = |_| {
            let listener = Listener::inbound("in").filter(Filter::weir());
            Envoy::builder()
                .workers(2)
                .listener(listener.route(Route::direct("/", 200)))
                .cluster(Cluster::h2("engine", rls.address))
                .policy(policy)
                .start()
        };
        Fleet { proxies: (0..proxies).map(start).collect() }
    }

    /// Offers each proxy so many requests a second of a user.
    pub fn load(&self, rate: u32, lasts: Duration, user: &'static str) -> Vec<Running> {
        let start = |envoy: &Envoy| {
            let request = Request::get("/").header("x-user", user);
            let load = Load::new(envoy.address("in"), request);
            load.connections(8).rate(rate).lasts(lasts).start()
        };
        self.proxies.iter().map(start).collect()
    }

    /// Over all proxies.
    pub fn count(&self, parts: &[&str]) -> u64 {
        self.proxies.iter().map(|envoy| envoy.metric_with(parts)).sum()
    }

    pub fn assert_healthy(&self) {
        self.proxies.iter().for_each(Envoy::assert_healthy);
    }
}

pub fn shop(mesh: &str, limit: u32, seconds: u32) -> String {
    format!(
        "{{name: shop, rate_limit: {{mesh: {{cluster: engine, domain: shop, {mesh}}}, rules: [\
         {{id: r, scope: MESH, key: [{{header: x-user}}], max_tokens: {limit}, \
         tokens_per_fill: {limit}, fill_interval: {seconds}s}}]}}}}"
    )
}
