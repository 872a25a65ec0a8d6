//! A Prometheus that runs the configuration that we ship against an Envoy of a test.

use crate::shipped;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use weir_integration_tests::paths::{self, TempDir};
use weir_integration_tests::wait::{DEADLINE, wait_for};
use weir_integration_tests::{Client, Request};

/// Killed with the value.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    /// Its configuration and its data.
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes `target` each second.
    pub fn start(target: SocketAddr) -> Prometheus {
        let directory = TempDir::new();
        std::fs::create_dir(directory.join("rules")).expect("writable");
        for file in ["rules/recording.yaml", "rules/alerts.yaml"] {
            std::fs::copy(shipped::path("prometheus").join(file), directory.join(file))
                .expect("writable");
        }
        let configuration = shipped::text("prometheus/prometheus.yaml")
            .replace("envoy:9902", &target.to_string())
            .replace("_interval: 5s", "_interval: 1s");
        let file = directory.join("prometheus.yaml");
        std::fs::write(&file, configuration).expect("writable");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        let child = Command::new(paths::built("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Prometheus { child, address, _directory: directory };
        wait_for("Prometheus opens its port", DEADLINE, || {
            std::net::TcpStream::connect(address).ok()
        });
        await_target(address);
        prometheus
    }

    /// What a query finds now.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = get(self.address, &format!("/api/v1/query?query={encoded}"));
        found["data"]["result"]
            .as_array()
            .unwrap_or_else(|| panic!("{expression}: {found}"))
            .clone()
    }

    /// Every rule with its last error, if it has one.
    pub fn rules(&self) -> Vec<Value> {
        let found = get(self.address, "/api/v1/rules");
        let groups = found["data"]["groups"].as_array().expect("groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the one target has been scraped.
pub fn await_target(prometheus: SocketAddr) {
    wait_for("Prometheus scrapes Envoy", DEADLINE, || {
        let found = get(prometheus, "/api/v1/targets?state=active");
        (found["data"]["activeTargets"][0]["health"] == "up").then_some(())
    });
}

fn get(address: SocketAddr, target: &str) -> Value {
    let answer = Client::new(address).send(&Request::get(target));
    assert_ne!(answer.status, 404, "{target}");
    // Until it is ready it says so in plain text.
    serde_json::from_str(&answer.text()).unwrap_or_default()
}
