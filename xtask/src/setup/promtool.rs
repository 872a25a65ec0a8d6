//! promtool, which checks Prometheus' rules, at `target/weir/promtool`: the one on PATH, or the one in
//! Debian's package `prometheus`. That is unpacked and not installed, for an installed one would start a
//! server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::paths::{artefacts, make_artefacts, shown};
use crate::process::{must_succeed, on_path, output};

const PACKAGE: &str = "prometheus";
const INSIDE: &str = "usr/bin/promtool";

pub fn artefact() -> PathBuf {
    artefacts().join("promtool")
}

/// Puts promtool in its place if that takes no download. `false`: the package is still to come.
pub fn find() -> Result<bool> {
    if runs(&artefact()) {
        return Ok(true);
    }
    let Some(found) = on_path("promtool").filter(|found| runs(found)) else { return Ok(false) };
    make_artefacts()?;
    // A link into a system that is no more, or what was taken from a package that no longer runs here.
    fs::remove_file(artefact()).ok();
    fs::copy(&found, artefact()).with_context(|| format!("cannot copy {}", found.display()))?;
    Ok(true)
}

/// Takes it out of Debian's package.
pub fn fetch() -> Result<()> {
    let folder = make_artefacts()?.join(format!("promtool-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| shown(&folder))?;
    println!("downloading Debian's package {PACKAGE}, for its promtool");
    let fetched = fetch_into(&folder);
    fs::remove_dir_all(&folder).ok();
    fetched
}

fn fetch_into(folder: &Path) -> Result<()> {
    let package = apt::download(PACKAGE, folder)
        .context("promtool is missing. Any one on PATH is taken: it comes with Prometheus")?;
    must_succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    // A rename, so that no one ever starts half a file.
    fs::rename(folder.join(INSIDE), artefact()).with_context(|| shown(&artefact()))
}

pub fn version() -> Result<String> {
    let said = output(Command::new(artefact()).arg("--version"))?;
    Ok(said.split(" (").next().unwrap_or_default().trim_end().to_owned())
}

fn runs(file: &Path) -> bool {
    output(Command::new(file).arg("--version")).is_ok()
}
