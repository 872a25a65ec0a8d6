//! Debian's own Rust, packaged for its browsers and so kept new: compiler, cargo, and the sources of
//! the standard library, from which a build for wasm32 makes what it needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{self, Package};
use super::wasm_std::WasmToolchain;
use crate::process::{forget, output};

pub const RUSTC: &str = "/usr/bin/rustc";
pub const CARGO: &str = "/usr/bin/cargo";
const SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// The packages of Debian's route that are not there yet.
pub fn packages() -> Result<Vec<Package>> {
    let mut missing = Vec::new();
    for (file, package) in [(RUSTC, "rustc-web"), (CARGO, "cargo-web"), (SOURCES, "rust-web-src")] {
        if !Path::new(file).exists() {
            missing.push(Package::Named(package));
        }
    }
    if missing.is_empty() && rustc()?.is_none() {
        // An older compiler under the same name: Debian's security updates bring a newer one.
        missing.extend(["rustc-web", "cargo-web", "rust-web-src"].map(Package::Named));
    }
    if linker()?.is_none() {
        missing.push(Package::NewestLld);
    }
    Ok(missing)
}

/// Debian's route, if all of it is installed.
pub fn find() -> Result<Option<WasmToolchain>> {
    if !Path::new(CARGO).exists() || !Path::new(SOURCES).exists() {
        return Ok(None);
    }
    let (Some(version), Some(linker)) = (rustc()?, linker()?) else {
        return Ok(None);
    };
    Ok(Some(WasmToolchain::Debian { version, linker }))
}

/// The version of Debian's rustc, if it is new enough for this workspace.
fn rustc() -> Result<Option<String>> {
    if !Path::new(RUSTC).exists() {
        return Ok(None);
    }
    let said = verbose_version()?;
    let version = field(&said, "release").context("rustc -vV names no release")?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    Ok((numbers(version) >= numbers(needed)).then(|| version.to_owned()))
}

fn verbose_version() -> Result<String> {
    let mut rustc = Command::new(RUSTC);
    forget(&mut rustc, |name| name == "LD_LIBRARY_PATH");
    output(rustc.arg("-vV"))
}

/// The newest `wasm-ld-NN`. One older than rustc's LLVM may not read its objects, so it counts
/// only while Debian has no newer one to offer.
fn linker() -> Result<Option<PathBuf>> {
    let installed = std::fs::read_dir("/usr/bin")?
        .filter_map(|entry| {
            entry.ok()?.file_name().to_str()?.strip_prefix("wasm-ld-")?.parse().ok()
        })
        .max();
    let Some(installed) = installed else {
        return Ok(None);
    };
    if Path::new(RUSTC).exists() {
        let said = verbose_version()?;
        let llvm = field(&said, "LLVM version").map(numbers).unwrap_or_default();
        let is_old = llvm.first().is_some_and(|major| installed < *major);
        if is_old && apt::newest_lld()?.is_some_and(|newest| newest > installed) {
            return Ok(None);
        }
    }
    Ok(Some(PathBuf::from(format!("/usr/bin/wasm-ld-{installed}"))))
}

/// `name: value` in `rustc -vV`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// `1.96.0` as numbers, to compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.96.0") > numbers("1.90"));
        assert!(numbers("1.85.0") < numbers("1.90"));
        assert!(numbers("1.100.0-nightly") > numbers("1.90"));
    }

    #[test]
    fn fields_of_rustc_are_read() {
        let said = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(field(said, "release"), Some("1.96.0"));
        assert_eq!(field(said, "LLVM version").map(numbers), Some(vec![22, 1, 8]));
        assert_eq!(field(said, "host"), None);
    }
}
