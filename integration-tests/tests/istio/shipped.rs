//! The command's output as manifests, and the files under `envoy-configs/istio`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use weir_cli::{Cli, Verdict};
use weir_integration_tests::paths;

pub fn folder() -> PathBuf {
    paths::root().join("envoy-configs/istio")
}

/// Runs the command, which has to succeed; gives what it prints.
pub fn weir(args: &[&str]) -> String {
    let mut out = Vec::new();
    let cli = Cli::read(std::iter::once("weir").chain(args.iter().copied()));
    let verdict = cli.and_then(|cli| weir_cli::run(&cli, &mut out));
    let out = String::from_utf8(out).expect("UTF-8");
    assert_eq!(verdict.unwrap_or_else(|e| panic!("{args:?}: {e:#}")), Verdict::Good, "{out}");
    out
}

/// The documents of a text, by their text: `weir render` parts them with a line.
pub fn documents(text: &str) -> Vec<Value> {
    text.split("---\n").map(|text| serde_yaml_ng::from_str(text).expect("YAML")).collect()
}

/// What kubectl makes of a folder.
pub fn built(folder: &Path) -> Vec<Value> {
    let mut kubectl = Command::new(paths::tool("kubectl"));
    let made = kubectl.arg("kustomize").arg(folder).output().expect("kubectl starts");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.is_empty(), "{}: {said}", folder.display());
    documents(std::str::from_utf8(&made.stdout).expect("UTF-8"))
}

/// One manifest of several.
pub fn named<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = manifests.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}
