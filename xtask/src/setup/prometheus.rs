//! Prometheus and its promtool in `target/weir/`, for the tests of the rules and the dashboard: those on PATH, or
//! those in Debian's package. That is unpacked and not installed, for an installed one starts a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::paths::{artefacts, make_artefacts, shown};
use crate::process::{must_succeed, on_path, output};

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["promtool", "prometheus"];

fn artefact(program: &str) -> PathBuf {
    artefacts().join(program)
}

/// Puts the programs in their place if that takes no download. `false`: the package is still to come.
pub fn find() -> Result<bool> {
    if PROGRAMS.iter().all(|program| runs(&artefact(program))) {
        return Ok(true);
    }
    let found = PROGRAMS.map(|program| on_path(program).filter(|found| runs(found)));
    let [Some(promtool), Some(prometheus)] = found else { return Ok(false) };
    make_artefacts()?;
    for (program, found) in PROGRAMS.into_iter().zip([promtool, prometheus]) {
        // What was taken from a package that does not run here.
        fs::remove_file(artefact(program)).ok();
        let copied = fs::copy(&found, artefact(program));
        copied.with_context(|| format!("cannot copy {}", found.display()))?;
    }
    Ok(true)
}

/// Takes them out of Debian's package.
pub fn fetch() -> Result<()> {
    let folder = make_artefacts()?.join(format!("prometheus-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| shown(&folder))?;
    println!("downloading Debian's package {PACKAGE}, and taking its programs out");
    let fetched = fetch_into(&folder);
    fs::remove_dir_all(&folder).ok();
    fetched
}

fn fetch_into(folder: &Path) -> Result<()> {
    let package = apt::download(PACKAGE, folder).context(
        "prometheus and promtool are missing. Those of any Prometheus from 2.42 on are taken from PATH",
    )?;
    must_succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    for program in PROGRAMS {
        // A rename, so that no one ever starts half a file.
        let extracted = folder.join("usr/bin").join(program);
        fs::rename(extracted, artefact(program)).with_context(|| shown(&artefact(program)))?;
    }
    Ok(())
}

pub fn version() -> Result<String> {
    let said = output(Command::new(artefact("prometheus")).arg("--version"))?;
    let version = said.split(" (").next().unwrap_or_default().trim_end();
    Ok(format!("target/weir/prometheus and promtool: {version}"))
}

fn runs(file: &Path) -> bool {
    output(Command::new(file).arg("--version")).is_ok()
}
