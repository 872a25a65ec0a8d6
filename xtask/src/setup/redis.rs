//! Redis in `target/weir/`, for the tests of limits that many proxies share: that on PATH, or that in
//! Debian's tools for it. Its checker of dumps is the server by another name, and the package of tools starts
//! no service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Package;
use crate::paths::{artefacts, make_artefacts};
use crate::process::{on_path, output};

const SERVER: &str = "redis-server";
const CHECKER: &str = "redis-check-rdb";

fn artefact() -> PathBuf {
    artefacts().join(SERVER)
}

/// The package that is missing, if there is no Redis on this machine.
pub fn package() -> Option<Package> {
    let is_there =
        runs(&artefact()) || [SERVER, CHECKER].into_iter().any(|name| on_path(name).is_some());
    (!is_there).then_some(Package::Named("redis-tools"))
}

/// Puts it in its place.
pub fn place() -> Result<()> {
    if runs(&artefact()) {
        return Ok(());
    }
    let Some(found) = on_path(SERVER).or_else(|| on_path(CHECKER)) else {
        bail!("redis-tools is installed, but {CHECKER} is not on PATH: add /usr/bin");
    };
    make_artefacts()?;
    fs::remove_file(artefact()).ok();
    fs::copy(&found, artefact()).with_context(|| format!("cannot copy {}", found.display()))?;
    if !runs(&artefact()) {
        bail!("{} does not run as {SERVER}; install a Redis of 6 or newer", found.display());
    }
    Ok(())
}

pub fn version() -> Result<String> {
    let said = output(Command::new(artefact()).arg("--version"))?;
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
    Ok(format!("target/weir/{SERVER} {version}"))
}

/// The checker would take the option for the name of a dump.
fn runs(file: &Path) -> bool {
    output(Command::new(file).arg("--version")).is_ok_and(|said| said.contains("Redis server"))
}
