//! Debian packages: installed by root, named to everyone else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{must_succeed, on_path, output};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Package {
    Named(&'static str),
    /// `lld-NN` moves with the LLVM of Debian's rustc-web, so the number is looked up.
    NewestLld,
}

/// For a person who has no package lists yet: the shell looks the number up after the update.
const LLD_BY_SHELL: &str =
    "\"$(apt-cache search --names-only '^lld-[0-9]+$' | cut -d' ' -f1 | sort -V | tail -n1)\"";

/// Installs `packages` as root. Without root the error is the one command to run.
pub fn install(packages: &[Package]) -> Result<()> {
    if on_path("apt-get").is_none() {
        bail!(
            "missing: {}. There is no apt-get here: install what your system calls these, and run \
             this again. For the modules, `rustup target add wasm32-unknown-unknown` is enough; \
             for Envoy, set ENVOY to an Envoy 1.40 binary",
            shown(packages)
        );
    }
    if !is_root()? {
        bail!("{}", by_hand(packages, &known(packages)?));
    }
    let mut updated = false;
    let mut names = known(packages)?;
    if names.is_none() {
        update()?;
        updated = true;
        names = known(packages)?;
    }
    let Some(names) = names else {
        bail!(
            "Debian's package lists on this machine do not have all of: {}. They are in Debian 12 \
             (bookworm) with its security updates. `rustup target add wasm32-unknown-unknown` and \
             the ENVOY variable are the way without them",
            shown(packages)
        );
    };
    println!("installing from Debian: {}", names.join(" "));
    let first = must_succeed(&mut apt_get_install(&names));
    if first.is_err() && !updated {
        // Lists that are older than the mirror name files that are gone.
        update()?;
        return must_succeed(&mut apt_get_install(&names));
    }
    first
}

/// Downloads a package into `folder` without installing it, which takes no root, but lists that have it.
pub fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    if on_path("apt-get").is_none() {
        bail!("there is no apt-get here to get Debian's package {package} with");
    }
    let attempt = || {
        let mut command = Command::new("apt-get");
        // As root, apt would download as a user who may not write to the folder.
        command.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
        output(command.current_dir(folder))
    };
    if attempt().is_err() {
        if !is_root()? {
            bail!("Debian's package lists are missing or old. Run: sudo apt-get update");
        }
        update()?;
        attempt()?;
    }
    let files = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages = files.filter(|file| file.extension().is_some_and(|end| end == "deb"));
    packages.next().context("apt-get succeeded, but left no package")
}

fn apt_get_install(names: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=120", "install", "-y"])
        // rustc-web conflicts with Debian's rustc and rustup packages. Better to stop and say so
        // than to take someone's compiler away.
        .args(["--no-remove", "--no-install-recommends"])
        .args(names)
        // dpkg tells a page of progress; errors come on the other stream.
        .stdout(std::process::Stdio::null());
    command
}

fn update() -> Result<()> {
    println!("refreshing Debian's package lists");
    must_succeed(Command::new("apt-get").args(["-qq", "update"]))
}

/// The packages' names, when the package lists have each of them.
fn known(packages: &[Package]) -> Result<Option<Vec<String>>> {
    let mut names = Vec::new();
    for package in packages {
        let name = match package {
            Package::Named(name) => has_candidate(&policy(name)?).then(|| (*name).to_owned()),
            Package::NewestLld => newest_lld()?.map(|number| format!("lld-{number}")),
        };
        match name {
            Some(name) => names.push(name),
            None => return Ok(None),
        }
    }
    Ok(Some(names))
}

/// The number of the newest `lld-NN` in the package lists; `None` without lists or apt.
pub fn newest_lld() -> Result<Option<u32>> {
    if on_path("apt-cache").is_none() {
        return Ok(None);
    }
    let found = output(Command::new("apt-cache").args(["search", "--names-only", "^lld-[0-9]+$"]))?;
    Ok(newest_number(&found))
}

fn newest_number(search: &str) -> Option<u32> {
    let names = search.lines().filter_map(|line| line.split_whitespace().next());
    names.filter_map(|name| name.strip_prefix("lld-")?.parse().ok()).max()
}

fn policy(name: &str) -> Result<String> {
    output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", name]))
}

fn has_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate.is_some_and(|version| version != "(none)")
}

fn is_root() -> Result<bool> {
    let id = output(Command::new("id").arg("-u")).context("who runs this?")?;
    Ok(id.trim() == "0")
}

/// The one command for a user without root.
fn by_hand(packages: &[Package], known: &Option<Vec<String>>) -> String {
    let install = "apt-get install -y --no-install-recommends";
    let command = match known {
        Some(names) => format!("sudo {install} {}", names.join(" ")),
        None => format!("sudo apt-get update && sudo {install} {}", shown(packages)),
    };
    format!("some Debian packages are missing. Run this, then the same command again:\n  {command}")
}

/// The packages as words for a shell.
pub fn shown(packages: &[Package]) -> String {
    let words = packages.iter().map(|package| match package {
        Package::Named(name) => *name,
        Package::NewestLld => LLD_BY_SHELL,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_linker_is_the_one_with_the_highest_number() {
        let search = "lld-9 - LLVM-based linker\nlld-22 - LLVM-based linker\nlld-19 - linker\n";
        assert_eq!(newest_number(search), Some(22));
        assert_eq!(newest_number(""), None);
    }

    #[test]
    fn a_package_without_a_candidate_is_unknown() {
        assert!(has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n"));
        assert!(!has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn without_root_there_is_one_command_to_run() {
        let packages = [Package::Named("rustc-web"), Package::NewestLld];
        let known = Some(vec!["rustc-web".to_owned(), "lld-22".to_owned()]);
        let text = by_hand(&packages, &known);
        let command = "sudo apt-get install -y --no-install-recommends rustc-web lld-22";
        assert_eq!(text.lines().last().map(str::trim), Some(command));

        let text = by_hand(&packages, &None);
        assert!(text.contains("sudo apt-get update && sudo apt-get install -y"), "{text}");
        assert!(text.ends_with(LLD_BY_SHELL), "{text}");
    }
}
