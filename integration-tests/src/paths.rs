//! Where the built things lie, and a directory of its own for each run of Envoy.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_path_buf()
}

/// Envoy's binary. Panics when it is not there: a test that skips proves nothing.
pub fn envoy() -> PathBuf {
    built("envoy")
}

/// Set to `suite`, the suite runs wherever a test asks for a filter's module: what holds for the four
/// has to hold for it.
const STAND_IN: &str = "WEIR_TEST_MODULE";

/// The finished module of a filter, e.g. `module("rate_limit")`, or what stands in for it.
pub fn module(filter: &str) -> PathBuf {
    single(if is_suite() { "suite" } else { filter })
}

/// The finished module of a filter, whatever stands in for it.
pub fn single(filter: &str) -> PathBuf {
    built(&format!("weir_{filter}.wasm"))
}

/// Whether the suite stands in for the filters' modules.
pub fn is_suite() -> bool {
    match std::env::var(STAND_IN) {
        Ok(name) if name == "suite" => true,
        Ok(name) => panic!("{STAND_IN} is {name:?}; it must be `suite`, or unset"),
        Err(_) => false,
    }
}

/// A file under `target/weir`.
pub fn built(name: &str) -> PathBuf {
    let path = root().join("target/weir").join(name);
    assert!(path.is_file(), "{} is missing; run: cargo xtask build", path.display());
    path
}

/// A program that set-up puts beside the modules. Panics when it is not there.
pub fn tool(name: &str) -> PathBuf {
    let path = root().join("target/weir").join(name);
    assert!(path.is_file(), "{} is missing; run: cargo xtask setup", path.display());
    path
}

/// A fresh directory under the system's temporary directory; removed by [`TempDir::drop`] unless
/// the test failed, so that the logs of a failed test can be read.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // What a failed run of an earlier process with the same id left behind is not ours.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("weir-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("cannot create {}: {e}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the files of this run stay in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
