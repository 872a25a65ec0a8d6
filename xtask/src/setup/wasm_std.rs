//! The standard library for `wasm32-unknown-unknown`: from the toolchain in use, or built from
//! the sources that Debian packages beside its own compiler.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt::{self, Package};
use crate::paths;
use crate::process::{self, cargo, forget, is_for_native_code, on_path, output, quietly_within};

pub const TARGET: &str = "wasm32-unknown-unknown";

/// rustup fetches some 25 MB. A machine that cannot reach its server mostly learns so at once;
/// behind a firewall that swallows packets, this is what the attempt costs, once.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

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
                let mut command = Command::new(DEBIAN_CARGO);
                command.current_dir(paths::root());
                command
            }
        };
        forget(&mut command, is_for_native_code);
        command.arg(subcommand).args(["--target", TARGET]);
        command.args(["--target-dir", paths::WASM_TARGET]);
        if let Self::Debian { linker, .. } = self {
            // The outer cargo points the loader at its own toolchain's libraries.
            forget(&mut command, |name| name == "LD_LIBRARY_PATH" || name == "RUSTUP_TOOLCHAIN");
            command
                .env("RUSTC", DEBIAN_RUSTC)
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
        return find_debian();
    }
    if in_use_has_target() {
        return Ok(Some(WasmToolchain::InUse { name: name_in_use()?, added: false }));
    }
    // A failed download is not tried again by each command, as long as the other route is there.
    if !afresh
        && refusal_stamp().exists()
        && let Some(debian) = find_debian()?
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
    find_debian()
}

fn refusal_stamp() -> PathBuf {
    paths::artefacts().join("rustup-refused.txt")
}

/// The packages of Debian's route that are not there yet.
pub fn packages() -> Result<Vec<Package>> {
    let mut missing = Vec::new();
    for (file, package) in
        [(DEBIAN_RUSTC, "rustc-web"), (DEBIAN_CARGO, "cargo-web"), (DEBIAN_SOURCES, "rust-web-src")]
    {
        if !Path::new(file).exists() {
            missing.push(Package::Named(package));
        }
    }
    if missing.is_empty() && debian_rustc()?.is_none() {
        // An older compiler under the same name: Debian's security updates bring a newer one.
        missing.extend(["rustc-web", "cargo-web", "rust-web-src"].map(Package::Named));
    }
    if debian_linker()?.is_none() {
        missing.push(Package::NewestLld);
    }
    Ok(missing)
}

/// Debian's route, if all of it is installed.
pub fn find_debian() -> Result<Option<WasmToolchain>> {
    if !Path::new(DEBIAN_CARGO).exists() || !Path::new(DEBIAN_SOURCES).exists() {
        return Ok(None);
    }
    let (Some(version), Some(linker)) = (debian_rustc()?, debian_linker()?) else {
        return Ok(None);
    };
    Ok(Some(WasmToolchain::Debian { version, linker }))
}

/// The version of Debian's rustc, if it is new enough for this workspace.
fn debian_rustc() -> Result<Option<String>> {
    if !Path::new(DEBIAN_RUSTC).exists() {
        return Ok(None);
    }
    let said = verbose_version()?;
    let version = field(&said, "release").context("rustc -vV names no release")?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    Ok((numbers(version) >= numbers(needed)).then(|| version.to_owned()))
}

fn verbose_version() -> Result<String> {
    let mut rustc = Command::new(DEBIAN_RUSTC);
    forget(&mut rustc, |name| name == "LD_LIBRARY_PATH");
    output(rustc.arg("-vV"))
}

/// The newest `wasm-ld-NN`. One older than rustc's LLVM may not read its objects, so it counts
/// only while Debian has no newer one to offer.
fn debian_linker() -> Result<Option<PathBuf>> {
    let installed = std::fs::read_dir("/usr/bin")?
        .filter_map(|entry| {
            entry.ok()?.file_name().to_str()?.strip_prefix("wasm-ld-")?.parse().ok()
        })
        .max();
    let Some(installed) = installed else {
        return Ok(None);
    };
    if Path::new(DEBIAN_RUSTC).exists() {
        let said = verbose_version()?;
        let llvm = field(&said, "LLVM version").map(numbers).unwrap_or_default();
        let is_old = llvm.first().is_some_and(|major| installed < *major);
        if is_old && apt::newest_lld()?.is_some_and(|newest| newest > installed) {
            return Ok(None);
        }
    }
    Ok(Some(PathBuf::from(format!("/usr/bin/wasm-ld-{installed}"))))
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
