//! Modules that do the same and are not the same: another version, as far as Envoy can tell.

use std::path::{Path, PathBuf};

/// A copy of a module with a section of its own, which no one reads, under a new name in this directory. Written
/// aside and renamed, as a delivery would do it.
pub fn of(module: &Path, number: u32, directory: &Path) -> PathBuf {
    let mut bytes = std::fs::read(module).expect("the module is built");
    let content = [&[4][..], b"weir", &number.to_le_bytes()].concat();
    let length = u8::try_from(content.len()).expect("a few bytes");
    // WebAssembly, 5.5.3: section 0 is custom; size, name, and anything.
    bytes.extend([&[0, length][..], &content].concat());
    let path = directory.join(format!("variant-{number}.wasm"));
    let aside = path.with_extension("part");
    std::fs::write(&aside, bytes).expect("the test's directory is writable");
    std::fs::rename(&aside, &path).expect("the same file system");
    path
}
