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

/// The finished module of a filter, e.g. `module("rate_limit")`.
pub fn module(filter: &str) -> PathBuf {
    built(&format!("weir_{filter}.wasm"))
}

/// A file under `target/weir`.
pub fn built(name: &str) -> PathBuf {
    let path = root().join("target/weir").join(name);
    assert!(path.is_file(), "{} is missing; run: cargo xtask build", path.display());
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
