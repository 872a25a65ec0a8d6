//! The commands of docs/istio.md, as they stand there.

mod kit;

use std::path::Path;
use std::process::Command;

use kit::Folder;
use kit::registry::Registry;
use serde_json::Value;

/// The blocks of a language, one after the other.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(fence.as_str()).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_guide_to_istio_works_as_far_as_a_cluster_is_not_needed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let module = root.join("target/weir/weir_rate_limit.wasm");
    assert!(module.is_file(), "{} is missing; run: cargo xtask build", module.display());
    let guide = std::fs::read_to_string(root.join("docs/istio.md")).unwrap();
    let (folder, registry) = (Folder::new(), Registry::open());
    let guide = guide.replace("registry.example", &registry.host);
    std::os::unix::fs::symlink(root.join("target"), folder.path().join("target")).unwrap();
    folder.file("shop.yaml", &blocks(&guide, "yaml")[0]);
    let commands = blocks(&guide, "sh").concat();
    let lines: Vec<String> = commands
        .lines()
        .filter(|line| !line.starts_with("kubectl") && !line.starts_with("cargo"))
        .map(|line| format!("{line}\n"))
        .collect();
    let weir = Path::new(env!("CARGO_BIN_EXE_weir")).parent().unwrap();
    let path = format!("{}:{}", weir.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &lines.concat()]).env("PATH", path);
    let ran =
        shell.env("DOCKER_CONFIG", folder.path()).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
    assert!(ran.status.success(), "{said}\n{}", lines.concat());
    assert_eq!(lines.iter().filter(|line| line.contains("weir ")).count(), 5, "{lines:?}");

    let manifest = std::fs::read_to_string(folder.path().join("shop-istio.yaml")).unwrap();
    let manifest: Value = serde_yaml_ng::from_str(&manifest).unwrap();
    let (pushed, _) = registry.pull("weir/rate-limit", "0.1.0");
    let sha256 = manifest["spec"]["sha256"].as_str().unwrap();
    assert_eq!(pushed["digest"], format!("sha256:{sha256}"));
    assert_eq!(manifest["spec"]["pluginConfig"]["name"], "shop");
}
