//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository's root: the parent of this crate.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Finished artefacts: modules and Envoy. The tests, the demo and the documents name this folder,
/// so it stays here even where `CARGO_TARGET_DIR` moves cargo's own files.
pub fn artefacts() -> PathBuf {
    root().join("target/weir")
}

/// Makes sure that the folder is there and this user may write to it.
pub fn make_artefacts() -> Result<PathBuf> {
    let folder = artefacts();
    std::fs::create_dir_all(&folder).with_context(|| {
        format!("cannot make {}: is the checkout another user's?", folder.display())
    })?;
    Ok(folder)
}

/// Cargo's folder for the modules. One of its own: the native build and this one neither wait for
/// each other's lock nor invalidate each other's work. Relative to the root, where cargo runs, so
/// that a command shown to a person is one to type.
pub const WASM_TARGET: &str = "target/wasm";

/// `path` as a person in the repository's root would write it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
