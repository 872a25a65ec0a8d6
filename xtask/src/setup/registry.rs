//! A container registry in `target/weir/`, for the tests that push images: the `docker-registry` on PATH, or the
//! one in Debian's package. That is unpacked and not installed, for an installed one starts a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::paths::{artefacts, make_artefacts, shown};
use crate::process::{must_succeed, on_path, output};

const PROGRAM: &str = "docker-registry";

fn artefact() -> PathBuf {
    artefacts().join(PROGRAM)
}

/// Puts it in its place if that takes no download. `false`: the package is still to come.
pub fn find() -> Result<bool> {
    if version_of(&artefact()).is_some() {
        return Ok(true);
    }
    let found = on_path(PROGRAM).filter(|found| version_of(found).is_some());
    let Some(found) = found else { return Ok(false) };
    make_artefacts()?;
    fs::remove_file(artefact()).ok();
    fs::copy(&found, artefact()).with_context(|| format!("cannot copy {}", found.display()))?;
    Ok(true)
}

/// Takes it out of Debian's package.
pub fn fetch() -> Result<()> {
    let folder = make_artefacts()?.join(format!("registry-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| shown(&folder))?;
    println!("downloading Debian's package {PROGRAM}, and taking its program out");
    let fetched = fetch_into(&folder).context(
        "docker-registry is missing. One of version 2.8 or newer on PATH is taken as well",
    );
    fs::remove_dir_all(&folder).ok();
    fetched
}

fn fetch_into(folder: &Path) -> Result<()> {
    let package = apt::download(PROGRAM, folder)?;
    must_succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    // A rename, so that no one ever starts half a file.
    fs::rename(folder.join("usr/bin").join(PROGRAM), artefact()).with_context(|| shown(&artefact()))
}

pub fn version() -> Result<String> {
    let version = version_of(&artefact()).context("target/weir/docker-registry does not run")?;
    Ok(format!("target/weir/docker-registry: {version}"))
}

fn version_of(program: &Path) -> Option<String> {
    let said = output(Command::new(program).arg("--version")).ok()?;
    said.split_whitespace().last().map(str::to_owned)
}
