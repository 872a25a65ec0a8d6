//! Docker, for the test that brings up the compose file. The engine is the machine's affair: where none
//! answers, the tests say what they do in its place. Compose is ours to get.

use std::process::Command;
use std::time::Duration;

use super::apt::Package;
use crate::process::{output, quietly_within};

/// A socket that nobody serves answers at once; an engine that starts takes a while.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn has_engine() -> bool {
    let mut ask = Command::new("docker");
    ask.args(["version", "--format", "{{.Server.Version}}"]);
    quietly_within(&mut ask, PATIENCE).is_ok()
}

/// What starts compose here: docker's plugin, or a program of its own.
pub fn compose() -> Option<&'static str> {
    if output(Command::new("docker").args(["compose", "version"])).is_ok() {
        return Some("docker compose");
    }
    output(Command::new("docker-compose").arg("version")).is_ok().then_some("docker-compose")
}

pub fn packages() -> Vec<Package> {
    match compose() {
        Some(_) => Vec::new(),
        None => vec![Package::Named("docker-compose")],
    }
}
