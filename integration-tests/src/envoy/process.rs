//! The process: started with everything in one directory, killed by its own id.

use crate::paths;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lines of the log that a failed test shows.
const TAIL: usize = 40;

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(
        directory: &Path,
        workers: u32,
        bootstrap: &Path,
        admin_path: &Path,
        variables: &[(String, String)],
    ) -> Self {
        let log = directory.join("envoy.log");
        let file = File::create(&log).expect("the test's directory is writable");
        let child = Command::new(paths::envoy())
            .arg("--config-path")
            .arg(bootstrap)
            .arg("--admin-address-path")
            .arg(admin_path)
            .args(["--concurrency", &workers.to_string()])
            .args(["--disable-hot-restart", "--log-level", "info"])
            // Listeners' and routes' start-up lines drown what a failed test is about.
            .args(["--component-log-level", "main:warning,upstream:warning"])
            // An access log line is read right after its request.
            .args(["--file-flush-interval-msec", "20"])
            // File-based ECDS refuses to work without a node.
            .args(["--service-node", "weir-test", "--service-cluster", "weir-test"])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start Envoy: {e}; run: cargo xtask build"));
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// `Some` with the exit status once the process ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().expect("our own child");
        status.map(|s| s.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let state = ended.map_or("running".to_owned(), |s| format!("ended: {s}"));
            eprintln!("Envoy was {state}; the end of its log:\n{}", self.tail());
        }
    }
}
