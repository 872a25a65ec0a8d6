//! The standard library for `wasm32-unknown-unknown`: from the toolchain in use, or built from
//! the sources that Debian packages beside its own compiler.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::paths;
use crate::process::{self, cargo, forget, is_for_native_code, on_path, output, quietly_within};

pub const TARGET: &str = "wasm32-unknown-unknown";

/// rustup fetches some 25 MB. A machine that cannot reach its server mostly learns so at once;
/// behind a firewall that swallows packets, this is what the attempt costs, once.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// A way to build the modules.
pub enum WasmToolchain {
    /// The toolchain that runs everything else has the target, or just got it.
    InUse { name: String, added: bool },
    /// Debian's rustc-web builds the library along with the module.
    Debian { version: String, linker: PathBuf },
}

impl WasmToolchain {
    /// A `cargo <subcommand>` for the modules' target.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::InUse { .. } => cargo(),
            Self::Debian { .. } => {
                let mut command = Command::new(debian::CARGO);
                command.current_dir(paths::root());
                command
            }
        };
        forget(&mut command, is_for_native_code);
        command.arg(subcommand).args(["--target", TARGET]);
        command.args(["--target-dir", paths::WASM_TARGET]);
        command.arg("--config").arg(format!("target.{TARGET}.rustflags={:?}", short_paths()));
        if let Self::Debian { linker, .. } = self {
            // The outer cargo points the loader at its own toolchain's libraries.
            forget(&mut command, |name| name == "LD_LIBRARY_PATH" || name == "RUSTUP_TOOLCHAIN");
            command
                .env("RUSTC", debian::RUSTC)
                // `build-std` is unstable; the library's own sources need the same permission.
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["-Z", "build-std=std,panic_abort", "--config"])
                .arg(format!("target.{TARGET}.linker={:?}", linker.display().to_string()));
        }
        command
    }

    /// Debian's packages bring no clippy for wasm32.
    pub fn has_clippy(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

/// A module names places of its sources, in messages that nobody ever sees. Where these lie on this machine
/// is nobody's business, and equal sources give equal modules wherever they lie.
fn short_paths() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registries = home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    let registries = registries.into_iter().flatten().flatten().map(|entry| entry.path());
    let all = registries.chain([paths::root().to_path_buf()]);
    all.map(|path| format!("--remap-path-prefix={}=", path.display())).collect()
}

impl fmt::Display for WasmToolchain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { name, added: false } => write!(out, "already in {name}"),
            Self::InUse { name, added: true } => write!(out, "added to {name} by rustup"),
            Self::Debian { version, linker } => write!(
                out,
                "built from Debian's rust-web-src by its rustc {version}, linked by {}",
                linker.display()
            ),
        }
    }
}

/// Finds the library without installing a package. `None`: Debian's packages are still to come.
pub fn find(afresh: bool) -> Result<Option<WasmToolchain>> {
    let only = std::env::var("WEIR_WASM_STD").ok();
    match only.as_deref() {
        None | Some("" | "rustup" | "debian") => {}
        Some(other) => bail!("WEIR_WASM_STD is {other:?}; it can be rustup or debian"),
    }
    if only.as_deref() == Some("debian") {
        return debian::find();
    }
    if in_use_has_target() {
        return Ok(Some(WasmToolchain::InUse { name: name_in_use()?, added: false }));
    }
    // A failed download is not tried again by each command, as long as the other route is there.
    if !afresh
        && refusal_stamp().exists()
        && let Some(debian) = debian::find()?
    {
        return Ok(Some(debian));
    }
    match add_by_rustup() {
        Ok(()) => {
            return Ok(Some(WasmToolchain::InUse { name: name_in_use()?, added: true }));
        }
        Err(error) if only.is_some_and(|route| route == "rustup") => {
            return Err(error.context("WEIR_WASM_STD=rustup leaves no other route"));
        }
        Err(error) => {
            println!("rustup cannot give the wasm32 standard library ({error}); trying Debian's");
            paths::make_artefacts()?;
            std::fs::write(refusal_stamp(), format!("{error}\n"))
                .with_context(|| paths::shown(&refusal_stamp()))?;
        }
    }
    debian::find()
}

fn refusal_stamp() -> PathBuf {
    paths::artefacts().join("rustup-refused.txt")
}

fn in_use_has_target() -> bool {
    let folder = output(rustc().args(["--print", "target-libdir", "--target", TARGET]));
    let files = folder.ok().and_then(|folder| std::fs::read_dir(folder.trim()).ok());
    files.into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name.to_str().is_some_and(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
    })
}

/// The compiler that a plain `cargo build` of a module would take.
fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(paths::root());
    forget(&mut command, is_for_native_code);
    command
}

fn name_in_use() -> Result<String> {
    let sysroot = output(rustc().args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    let by_rustup = sysroot.parent().is_some_and(|parent| parent.ends_with("toolchains"));
    match sysroot.file_name() {
        Some(name) if by_rustup => Ok(format!("rustup's {}", name.to_string_lossy())),
        _ => Ok(format!("the toolchain in {}", sysroot.display())),
    }
}

fn add_by_rustup() -> Result<()> {
    if on_path("rustup").is_none() {
        bail!("there is no rustup");
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(paths::root()).args(["target", "add", TARGET]);
    process::forget(&mut rustup, process::is_from_outer_cargo);
    quietly_within(&mut rustup, RUSTUP_LIMIT)?;
    if !in_use_has_target() {
        bail!("rustup has the target, the compiler in use does not");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_cargo_is_told_everything_that_the_route_needs() {
        let debian = WasmToolchain::Debian {
            version: "1.96.0".into(),
            linker: "/usr/bin/wasm-ld-22".into(),
        };
        let line = process::shown(&debian.cargo("build"));
        for part in [
            "RUSTC=/usr/bin/rustc",
            "RUSTC_BOOTSTRAP=1",
            "/usr/bin/cargo build --target wasm32-unknown-unknown",
            "build-std=std,panic_abort",
            "target.wasm32-unknown-unknown.linker=\"/usr/bin/wasm-ld-22\"",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}
