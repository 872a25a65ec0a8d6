//! The modules: which there are, and how each comes to `target/weir/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::paths::{WASM_TARGET, make_artefacts, root, shown};
use crate::postlink;
use crate::process::must_succeed;
use crate::setup::{TARGET, WasmToolchain};

/// A wasm leaf of the workspace. Nothing depends on it, and it is built by a call of its own,
/// since cargo unifies features within one call.
pub struct Module {
    pub package: &'static str,
    /// The file's name without `.wasm`, both as cargo's and as the finished one's.
    artefact: &'static str,
    kind: Kind,
}

impl Module {
    fn ships(&self) -> bool {
        matches!(self.kind, Kind::Filter | Kind::Suite)
    }
}

/// How much code is copied to where it is called. What a request runs is generic over the host, so it is
/// compiled with the module itself, for size; at this the suite is 23 KB smaller than at the default, and
/// a request does 3 % less.
const INLINE: &str = "-Cllvm-args=-inline-threshold=30";

#[derive(PartialEq)]
enum Kind {
    /// Ships: post-link pass and size bound.
    Filter,
    /// All filters in one.
    Suite,
    /// The benchmark's yardstick keeps all exports of the SDK: they are what it measures.
    Noop,
    /// Times the engine inside Envoy, for the benchmark: made as a filter is.
    Loop,
    /// A filter with a fault on purpose, for tests.
    Faulty,
}

pub const MODULES: [Module; 8] = [
    Module { package: "weir-rate-limit", artefact: "weir_rate_limit", kind: Kind::Filter },
    Module {
        package: "weir-circuit-breaker",
        artefact: "weir_circuit_breaker",
        kind: Kind::Filter,
    },
    Module { package: "weir-trace-context", artefact: "weir_trace_context", kind: Kind::Filter },
    Module { package: "weir-traffic-color", artefact: "weir_traffic_color", kind: Kind::Filter },
    Module { package: "weir-suite", artefact: "weir_suite", kind: Kind::Suite },
    Module { package: "weir-color-loop", artefact: "color_loop", kind: Kind::Loop },
    Module { package: "weir-trap-limit", artefact: "trap_limit", kind: Kind::Faulty },
    Module { package: "weir-noop-sdk", artefact: "noop_sdk", kind: Kind::Noop },
];

/// For a native `cargo` call over the workspace: the leaves are for wasm32, and two of them in one
/// program would clash.
pub fn without_modules() -> Vec<&'static str> {
    let leaves = MODULES.iter().flat_map(|module| ["--exclude", module.package]);
    ["--workspace"].into_iter().chain(leaves).collect()
}

pub fn run(toolchain: &WasmToolchain, with_noop: bool) -> Result<()> {
    for module in MODULES.iter().filter(|module| with_noop || module.ships()) {
        let started = Instant::now();
        let (file, bytes) =
            build(toolchain, module).with_context(|| format!("building {}", module.package))?;
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        println!(
            "{}: {} bytes, SHA-256 {hash} ({:.1} s)",
            shown(&file),
            bytes.len(),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn build(toolchain: &WasmToolchain, module: &Module) -> Result<(PathBuf, Vec<u8>)> {
    let mut cargo = toolchain.cargo("rustc");
    // The filters are libraries for the suite's sake; declared as both they would get no LTO.
    cargo.args(["--profile", "wasm", "-p", module.package, "--lib", "--crate-type", "cdylib"]);
    if module.kind == Kind::Noop {
        // Ours trade speed for size where it does not count; a yardstick that did so would flatter
        // them. This is what a filter on the SDK gets from a plain release build.
        cargo.args(["--config", "profile.wasm.opt-level=3"]);
    } else {
        cargo.arg("--config").arg(format!("target.{TARGET}.rustflags=[{INLINE:?}]"));
    }
    must_succeed(&mut cargo)?;
    let linked = root()
        .join(WASM_TARGET)
        .join("wasm32-unknown-unknown/wasm")
        .join(module.package.replace('-', "_"))
        .with_extension("wasm");
    let linked = fs::read(&linked).with_context(|| shown(&linked))?;
    if module.kind == Kind::Suite {
        let counting = make_artefacts()?.join("suite_counting.wasm");
        write_if_new(&counting, &postlink::counting(&linked)?)?;
    }
    let finished = match module.kind {
        Kind::Filter | Kind::Loop | Kind::Faulty => postlink::run(&linked, postlink::SIZE_LIMIT)?,
        Kind::Suite => postlink::run(&linked, postlink::SUITE_SIZE_LIMIT)?,
        Kind::Noop => linked,
    };
    let file = make_artefacts()?.join(module.artefact).with_extension("wasm");
    write_if_new(&file, &finished)?;
    Ok((file, finished))
}

/// Leaves an equal file alone: an Envoy that watches it, or a test that compares times, sees a
/// change only where there is one. A rename, so that no one ever reads half a module.
fn write_if_new(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let part = file.with_extension(format!("part-{}", std::process::id()));
    fs::write(&part, bytes).with_context(|| shown(&part))?;
    fs::rename(&part, file).with_context(|| shown(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_file_is_left_alone_and_a_new_one_replaces_it() {
        let folder = std::env::temp_dir().join(format!("weir-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("module.wasm");
        write_if_new(&file, b"one").unwrap();
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        write_if_new(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
        write_if_new(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_module_is_a_package_of_the_workspace() {
        let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        for module in &MODULES {
            let folder = match module.kind {
                Kind::Filter | Kind::Suite => module.package.replacen("weir-", "filters/", 1),
                Kind::Noop => "integration-tests/noop-sdk".to_owned(),
                Kind::Loop => "integration-tests/color-loop".to_owned(),
                Kind::Faulty => "integration-tests/trap-limit".to_owned(),
            };
            assert!(workspace.contains(&format!("\"{folder}\"")), "{folder}");
        }
    }
}
