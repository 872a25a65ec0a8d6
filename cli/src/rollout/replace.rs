//! One file in the place of another, with its owner and mode.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, bail};

/// Written aside and renamed: Envoy notices nothing else, and never reads half a file. What somebody else wrote
/// since `before` was read stays.
pub fn replace(path: &Path, before: &[u8], after: &[u8]) -> anyhow::Result<()> {
    let shown = path.display();
    if fs::read(path).with_context(|| format!("cannot read {shown}"))? != before {
        bail!("{shown} was changed meanwhile, so it was left as it is");
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.weir", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .with_context(|| format!("cannot write {} beside {shown}", aside.display()))?;
    let renamed = file.write_all(after).and_then(|()| {
        let (old, new) = (fs::metadata(path)?, file.metadata()?);
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            chown(&aside, Some(old.uid()), Some(old.gid()))?;
        }
        // After the owner: a change of that takes bits away.
        file.set_permissions(old.permissions())?;
        fs::rename(&aside, path)
    });
    renamed
        .inspect_err(|_| drop(fs::remove_file(&aside)))
        .with_context(|| format!("cannot replace {shown} and keep its owner and mode"))
}
