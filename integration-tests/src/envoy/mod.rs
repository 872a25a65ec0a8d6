//! A running Envoy and what can be asked of it.

mod access_log;
mod builder;
mod cluster;
mod ecds;
mod filter;
mod health;
mod listener;
mod process;
mod route;
mod stats;

pub use access_log::AccessEntry;
pub use builder::Builder;
pub use cluster::Cluster;
pub use ecds::{PolicyPut, RATE_LIMIT};
pub use filter::Filter;
pub use listener::Listener;
pub use route::Route;
pub use stats::metric_name;

use crate::http::{Client, H1Conn, H2Conn, Request, Response};
use crate::paths::TempDir;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One Envoy process with a directory of its own; killed when the value is dropped.
pub struct Envoy {
    process: process::Process,
    directory: TempDir,
    admin: SocketAddr,
    ports: BTreeMap<String, SocketAddr>,
    module: std::path::PathBuf,
    on_trap: &'static str,
}

impl Envoy {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self
            .ports
            .get(listener)
            .unwrap_or_else(|| panic!("no TCP listener {listener:?}; there are {:?}", self.ports))
    }

    /// An HTTP/1.1 client with a connection of its own.
    pub fn client(&self, listener: &str) -> Client {
        Client::new(self.address(listener))
    }

    /// A raw HTTP/1.1 connection.
    pub fn h1(&self, listener: &str) -> H1Conn {
        H1Conn::connect(self.address(listener)).expect("Envoy accepts connections")
    }

    /// A raw HTTP/2 connection.
    pub fn h2(&self, listener: &str) -> H2Conn {
        H2Conn::connect(self.address(listener)).expect("Envoy accepts connections")
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the admin interface.
    pub fn admin(&self, target: &str) -> Response {
        Client::new(self.admin).send(&Request::get(target))
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that Envoy wrote to its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn log_contains(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The directory with Envoy's configuration, policy, log and access log.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Bytes that Envoy's allocator has handed out.
    pub fn allocated_memory(&self) -> u64 {
        let memory = self.admin("/memory").json();
        let text = memory["allocated"].as_str().expect("/memory has `allocated`");
        text.parse().expect("a number of bytes")
    }

    /// Bytes of the process that are in memory: the modules' own memories are in it.
    pub fn resident_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("Envoy runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|n| n.parse().ok()).expect("VmRSS in kB");
        kib * 1024
    }
}
